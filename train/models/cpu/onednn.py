"""oneDNN's convolutions, called through XLA's foreign function interface; onednn.cc computes them.

For float32 on the CPU backend. Optional: it needs the extra "onednn" and a C++ compiler at its first use. oneDNN's
single-threaded kernels run on XLA's own threads, so results depend on the number of threads and on nothing else.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from train.models.cpu import native
from train.models.cpu.geometry import Geometry, Lowering

# In the order of onednn.cc's enum.
PRODUCTS = ("forward", "input_gradient", "kernel_gradient")
VARIABLE = "LOOKAHEAD_ONEDNN"  # 0: do without

log = logging.getLogger(__name__)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The library, its functions registered with XLA; None where it is not available, which is said once."""
    if os.environ.get(VARIABLE) == "0":
        return None
    try:
        library = native.load()
    except native.Unavailable as error:
        level = logging.INFO if isinstance(error, native.NotInstalled) else logging.WARNING
        log.log(level, "oneDNN's convolutions are not in use, XLA's and our own are: %s", error)
        return None
    library.lookahead_implementation.restype = ctypes.c_char_p
    library.lookahead_onednn_version.restype = ctypes.c_char_p
    for product in PRODUCTS:
        handler = jax.ffi.pycapsule(getattr(library, f"lookahead_{product}"))
        jax.ffi.register_ffi_target(f"lookahead_{product}", handler, platform="cpu")
    return library


def version() -> str | None:
    """The name and version of the library; None where it is not available."""
    library = _library()
    return None if library is None else f"oneDNN {library.lookahead_onednn_version().decode()}"


@functools.cache
def implementation(product: str, geometry: Geometry) -> str:
    """oneDNN's name for its way to compute a product on this processor; empty where there is none."""
    library = _library()
    if library is None:
        return ""
    sizes = np.array([*_shapes(geometry), *geometry.strides, *np.ravel(geometry.padding)], np.int64)
    pointer = sizes.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
    return library.lookahead_implementation(PRODUCTS.index(product), pointer).decode()


def is_fast(geometry: Geometry) -> bool:
    """Whether oneDNN has the kernels for AVX-512 that were measured, for all three products."""
    return all("avx512" in implementation(product, geometry) for product in PRODUCTS)


def _shapes(geometry: Geometry) -> tuple[int, ...]:
    return (*geometry.input_shape, *geometry.kernel_shape, *geometry.output_shape)


def _call(product: str, shape: tuple[int, ...], a: Array, b: Array, geometry: Geometry) -> Array:
    _library()  # registered
    # Under vmap one call after another: XLA would turn a batch of kernels into a grouped convolution, which is slower.
    call: Any = jax.ffi.ffi_call(
        f"lookahead_{product}", jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential"
    )
    numbers = {"strides": geometry.strides, "padding": np.ravel(geometry.padding)}
    return call(a, b, **{name: np.asarray(value, np.int64) for name, value in numbers.items()})


def _forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _call("forward", geometry.output_shape, x, kernel, geometry)


def _kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    return _call("kernel_gradient", geometry.kernel_shape, x, dy, geometry)


def _input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
    return _call("input_gradient", geometry.input_shape, dy, kernel, geometry)


LOWERING = Lowering(_forward, _kernel_gradient, _input_gradient)
