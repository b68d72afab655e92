"""Convolutions lowered by shape: ``flax.linen.Conv(conv_general_dilated=conv_general_dilated)``.

On the CPU backend XLA's own convolutions are slow on some shapes, by up to fifty times on maps of 2x2 and 1x1
(measured below). :func:`conv_general_dilated` is a drop-in for ``jax.lax.conv_general_dilated`` that computes each
of the three products of a convolution, the output and its two gradients, by the lowering that :data:`TABLE` names
for its shape. Other backends, and forms that the table does not speak of (dilation, groups, another layout), are
left to XLA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """The static side of a 2-D convolution, NHWC and HWIO."""

    input_shape: tuple[int, int, int, int]
    kernel_shape: tuple[int, int, int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    @property
    def output_size(self) -> tuple[int, int]:
        height, width = (
            (self.input_shape[1 + axis] + sum(self.padding[axis]) - self.kernel_shape[axis]) // self.strides[axis] + 1
            for axis in (0, 1)
        )
        return height, width

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.input_shape[0], *self.output_size, self.kernel_shape[3])


class Lowering(NamedTuple):
    """One way to compute the three products of a convolution."""

    forward: Callable[[Array, Array, Geometry], Array]  # x, kernel -> y
    kernel_gradient: Callable[[Array, Array, Geometry], Array]  # x, dy -> dkernel
    input_gradient: Callable[[Array, Array, Geometry], Array]  # dy, kernel -> dx


# XLA's own ------------------------------------------------------------------------------------------------------


def _xla_forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return lax.conv_general_dilated(x, kernel, geometry.strides, geometry.padding, dimension_numbers=DIMENSION_NUMBERS)


def _xla_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    kernel = jax.ShapeDtypeStruct(geometry.kernel_shape, x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: _xla_forward(x, kernel, geometry), kernel)(dy)
    return gradient


def _xla_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
    x = jax.ShapeDtypeStruct(geometry.input_shape, dy.dtype)
    (gradient,) = jax.linear_transpose(lambda x: _xla_forward(x, kernel, geometry), x)(dy)
    return gradient


# im2col: the patches side by side, then one matmul --------------------------------------------------------------


def _patches(x: Array, geometry: Geometry) -> Array:
    """``[B, H, W, C]`` to ``[B, OH, OW, KH * KW * C]``."""
    batch, _, _, channels = x.shape
    (out_height, out_width), (stride_h, stride_w) = geometry.output_size, geometry.strides
    kernel_height, kernel_width = geometry.kernel_shape[:2]
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    shifted = [
        lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + (out_height - 1) * stride_h + 1, j + (out_width - 1) * stride_w + 1, channels),
            (1, stride_h, stride_w, 1),
        )
        for i in range(kernel_height)
        for j in range(kernel_width)
    ]
    return jnp.concatenate(shifted, axis=-1)


def _im2col_forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    patches = _patches(x, geometry)
    return lax.dot_general(patches, kernel.reshape(-1, kernel.shape[3]), (((3,), (0,)), ((), ())))


def _im2col_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    patches = _patches(x, geometry)
    gradient = lax.dot_general(patches, dy, (((0, 1, 2), (0, 1, 2)), ((), ())))
    return gradient.reshape(geometry.kernel_shape)


def _im2col_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
    x = jax.ShapeDtypeStruct(geometry.input_shape, dy.dtype)
    patches = lax.dot_general(dy, kernel.reshape(-1, kernel.shape[3]), (((3,), (1,)), ((), ())))
    (gradient,) = jax.linear_transpose(lambda x: _patches(x, geometry), x)(patches)
    return gradient


# rows: half of the kernel's taps on either side of the matmul ----------------------------------------------------
#
# The kernel's gradient is, for each tap (i, j), x shifted by (i, j) against dy. Shifting x down by i and dy left by
# j does the same, and makes it one matmul of KH * C by KW * N columns: neither operand grows by more than three, and
# no side is as narrow as im2col's N. For kernels that move by single columns.


def _rows_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    batch, _, width, channels = geometry.input_shape
    (out_height, out_width), stride = geometry.output_size, geometry.strides[0]
    kernel_height, kernel_width, _, features = geometry.kernel_shape
    rows, (left, _) = geometry.padding
    x = jnp.pad(x, ((0, 0), rows, (0, 0), (0, 0)))
    shifted_x = jnp.concatenate(
        [
            lax.slice(x, (0, i, 0, 0), (batch, i + (out_height - 1) * stride + 1, width, channels), (1, stride, 1, 1))
            for i in range(kernel_height)
        ],
        axis=-1,
    )
    # Column o of dy meets column o + j - left of x: pad dy so that this is column o of the j-th slice.
    zero = jnp.zeros((), dy.dtype)
    shifted_dy = jnp.concatenate(
        [
            lax.pad(dy, zero, ((0, 0, 0), (0, 0, 0), (j - left, width - out_width - (j - left), 0), (0, 0, 0)))
            for j in range(kernel_width)
        ],
        axis=-1,
    )
    gradient = lax.dot_general(shifted_x, shifted_dy, (((0, 1, 2), (0, 1, 2)), ((), ())))
    gradient = gradient.reshape(kernel_height, channels, kernel_width, features)
    return jnp.swapaxes(gradient, 1, 2)


# dense: a small map as one vector, the convolution as one matrix of its taps --------------------------------------
#
# With the map flattened, a convolution is a matrix [H * W * C, OH * OW * N] whose block (input position p, output
# position o) is the tap p - o * stride + padding of the kernel, or zero where that lies outside. On a 2x2 map under
# a padded 3x3 kernel none of the 16 blocks is zero, on a 1x1 map the only block is the centre tap: the matmul does
# the useful multiplications only, 4/9 and 1/9 of what im2col and XLA do.


def _tap(axis: int, position: int, output: int, geometry: Geometry) -> int | None:
    tap = position - output * geometry.strides[axis] + geometry.padding[axis][0]
    return tap if 0 <= tap < geometry.kernel_shape[axis] else None


def _blocks(geometry: Geometry) -> list[list[tuple[int, int] | None]]:
    """The tap of every (input position, output position), None where they do not touch."""
    height, width = geometry.input_shape[1:3]
    out_height, out_width = geometry.output_size

    def block(i: int, j: int, out_i: int, out_j: int) -> tuple[int, int] | None:
        row, column = _tap(0, i, out_i, geometry), _tap(1, j, out_j, geometry)
        return None if row is None or column is None else (row, column)

    return [
        [block(i, j, out_i, out_j) for out_i in range(out_height) for out_j in range(out_width)]
        for i in range(height)
        for j in range(width)
    ]


def _dense_kernel(kernel: Array, geometry: Geometry) -> Array:
    zero = jnp.zeros(kernel.shape[2:], kernel.dtype)
    rows = [jnp.concatenate([zero if tap is None else kernel[tap] for tap in row], axis=1) for row in _blocks(geometry)]
    return jnp.concatenate(rows, axis=0)


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], -1)


def _dense_forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return (_flat(x) @ _dense_kernel(kernel, geometry)).reshape(-1, *geometry.output_shape[1:])


def _dense_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    gradient = lax.dot_general(_flat(x), _flat(dy), (((0,), (0,)), ((), ())))
    blocks = _blocks(geometry)
    channels, features = geometry.kernel_shape[2:]
    gradient = gradient.reshape(len(blocks), channels, len(blocks[0]), features)
    taps: dict[tuple[int, int], Array] = {}
    for position, row in enumerate(blocks):
        for output, tap in enumerate(row):
            if tap is not None:
                block = gradient[position, :, output]
                taps[tap] = taps[tap] + block if tap in taps else block
    zero = jnp.zeros((channels, features), gradient.dtype)
    kernel_height, kernel_width = geometry.kernel_shape[:2]
    stacked = [taps.get((i, j), zero) for i in range(kernel_height) for j in range(kernel_width)]
    return jnp.stack(stacked).reshape(geometry.kernel_shape)


def _dense_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
    dx = lax.dot_general(_flat(dy), _dense_kernel(kernel, geometry), (((1,), (1,)), ((), ())))
    return dx.reshape(-1, *geometry.input_shape[1:])


LOWERINGS: dict[str, Lowering] = {
    "xla": Lowering(_xla_forward, _xla_kernel_gradient, _xla_input_gradient),
    "im2col": Lowering(_im2col_forward, _im2col_kernel_gradient, _im2col_input_gradient),
    "rows": Lowering(_im2col_forward, _rows_kernel_gradient, _im2col_input_gradient),
    "dense": Lowering(_dense_forward, _dense_kernel_gradient, _dense_input_gradient),
}


# The choice -----------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """Names of :data:`LOWERINGS` for the three products."""

    forward: str = "xla"
    kernel_gradient: str = "xla"
    input_gradient: str = "xla"


class Rule(NamedTuple):
    """The shapes that a choice is for."""

    reason: str
    applies: Callable[[Geometry], bool]
    choice: Choice


def _kernel(geometry: Geometry) -> int:
    return max(geometry.kernel_shape[:2])


def _map(geometry: Geometry) -> int:
    return max(geometry.input_shape[1:3])


TABLE: tuple[Rule, ...] = (
    Rule(
        "1x1 kernel: a slice and a matmul",
        lambda g: _kernel(g) == 1 and max(g.strides) > 1,
        Choice("im2col", "im2col", "im2col"),
    ),
    Rule(
        "map of at most 2x2 under a padded 3x3 kernel",
        lambda g: _kernel(g) == 3 and _map(g) <= 2,
        Choice("dense", "dense", "dense"),
    ),
    Rule(
        "strided 3x3 kernel on at most 4x4",
        lambda g: _kernel(g) == 3 and _map(g) <= 4 and max(g.strides) > 1,
        Choice("im2col", "im2col", "im2col"),
    ),
    Rule(
        "strided 3x3 kernel on at most 8x8",
        lambda g: _kernel(g) == 3 and _map(g) <= 8 and max(g.strides) > 1,
        Choice("xla", "xla", "im2col"),
    ),
)


def choose(geometry: Geometry) -> Choice:
    """The first rule of :data:`TABLE` that applies, else XLA's own throughout."""
    return next((rule.choice for rule in TABLE if rule.applies(geometry)), Choice())


def _lowered(product: str, geometry: Geometry, a: Array, b: Array) -> Array:
    name = getattr(choose(geometry), product)
    own = partial(getattr(LOWERINGS["xla"], product), geometry=geometry)
    if name == "xla":
        return own(a, b)
    chosen = partial(getattr(LOWERINGS[name], product), geometry=geometry)
    return lax.platform_dependent(a, b, cpu=chosen, default=own)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _lowered("forward", geometry, x, kernel)


def _convolve_fwd(x: Array, kernel: Array, geometry: Geometry):
    return _lowered("forward", geometry, x, kernel), (x, kernel)


def _convolve_bwd(geometry: Geometry, residuals: tuple[Array, Array], dy: Array):
    x, kernel = residuals
    return (
        _lowered("input_gradient", geometry, dy, kernel),
        _lowered("kernel_gradient", geometry, x, dy),
    )


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    **options: Any,
) -> Array:
    """``jax.lax.conv_general_dilated``, lowered on the CPU as :data:`TABLE` says.

    Equal to XLA's to rounding (1e-5 in float32). Where a rule applies it is a ``custom_vjp``: differentiable once,
    in reverse mode.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        lhs.ndim == 4
        and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, DIMENSION_NUMBERS)
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(v is None or (k == "feature_group_count" and v == 1) for k, v in options.items())
        and lhs.dtype == rhs.dtype
    )
    if plain:
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        pads = tuple((int(low), int(high)) for low, high in padding)
        geometry = Geometry(lhs.shape, rhs.shape, tuple(window_strides), pads)  # pyright: ignore[reportArgumentType]
        if choose(geometry) != Choice():
            return _convolve(lhs, rhs, geometry)
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, **options
    )
