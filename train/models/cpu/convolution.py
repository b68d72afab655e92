"""Convolutions lowered by shape: `flax.linen.Conv(conv_general_dilated=conv_general_dilated)`.

On the CPU backend XLA's own convolutions are slow for some shapes, up to fifty times slower on maps of 2x2 and 1x1.
`conv_general_dilated` is a drop-in for `jax.lax.conv_general_dilated` that computes each of the three products of a
convolution, the output and its two gradients, with the lowering that `TABLE` gives for its shape. Other backends, and
forms that the table does not cover (dilation, groups, other layouts), are left to XLA.

The table comes from `python -m benchmarks.convolutions`, and from whole steps wherever a single product and the step
disagreed. Where oneDNN is installed (`train.models.cpu.onednn`), `conv_general_dilated_onednn` takes its kernels for
the shapes in `ONEDNN_TABLE`: it also needs no buffers for patches and transforms, so it is chosen where it is as fast.
The figures are in results/performance_notes.md ("Convolutions by shape").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from train.models.cpu.geometry import DIMENSION_NUMBERS, Geometry, geometry_of
from train.models.cpu.lowerings import LOWERINGS, applicable

# The choice -----------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """Names of `LOWERINGS` for the three products."""

    forward: str = "xla"
    kernel_gradient: str = "xla"
    input_gradient: str = "xla"


class Rule(NamedTuple):
    """A choice and the convolutions that it applies to: square kernels of this size, maps and channels in a range."""

    kernel_size: int
    strides: tuple[int, ...]
    map_sizes: tuple[int, int]  # smallest and largest side of the input
    choice: Choice
    channels: tuple[int, int] = (1, 1 << 30)  # fewest and most, of the input

    def applies(self, geometry: Geometry) -> bool:
        sides, channels = geometry.input_shape[1:3], geometry.input_shape[3]
        return (
            geometry.kernel_shape[:2] == (self.kernel_size, self.kernel_size)
            and geometry.strides[0] == geometry.strides[1]
            and geometry.strides[0] in self.strides
            and self.map_sizes[0] <= min(sides)
            and max(sides) <= self.map_sizes[1]
            and self.channels[0] <= channels <= self.channels[1]
            and all(applicable(name, geometry) for name in self.choice)
        )


# The first rule that applies decides; without one, XLA's own is used.
TABLE: tuple[Rule, ...] = (
    Rule(7, (2,), (16, 64), Choice(), channels=(1, 4)),
    Rule(7, (2,), (5, 512), Choice("im2col", "im2col", "xla")),
    Rule(1, (2,), (1, 64), Choice("im2col", "im2col", "im2col")),
    Rule(3, (1, 2), (1, 2), Choice("dense", "dense", "dense")),
    Rule(3, (2,), (3, 4), Choice("im2col", "im2col", "im2col")),
    Rule(3, (2,), (5, 8), Choice("xla", "im2col", "im2col")),
    Rule(3, (2,), (9, 64), Choice("im2col", "im2col", "xla"), channels=(32, 1 << 30)),
    Rule(3, (1,), (3, 4), Choice("xla", "winograd", "xla"), channels=(128, 255)),
    Rule(3, (1,), (3, 8), Choice("winograd", "winograd", "winograd"), channels=(128, 1 << 30)),
    Rule(3, (1,), (9, 16), Choice("winograd", "winograd", "winograd"), channels=(128, 1 << 30)),
    Rule(3, (1,), (5, 32), Choice("winograd", "rows", "winograd"), channels=(32, 1 << 30)),
    Rule(3, (1,), (17, 64), Choice("xla", "im2col", "im2col"), channels=(1, 4)),
)


# Where oneDNN is in use (`conv_general_dilated_onednn`), these rules come before those of `TABLE`.
ALL_ONEDNN = Choice("onednn", "onednn", "onednn")
ONEDNN_TABLE: tuple[Rule, ...] = (
    Rule(7, (2,), (16, 512), Choice("onednn", "onednn", "xla"), channels=(1, 4)),
    Rule(7, (2,), (16, 64), ALL_ONEDNN, channels=(32, 1 << 30)),
    Rule(5, (2,), (16, 128), ALL_ONEDNN, channels=(32, 1 << 30)),
    Rule(3, (1,), (17, 64), Choice("onednn", "onednn", "im2col"), channels=(1, 4)),
    Rule(3, (1, 2), (9, 64), ALL_ONEDNN, channels=(32, 1 << 30)),
    Rule(3, (1, 2), (5, 8), ALL_ONEDNN, channels=(32, 127)),
    Rule(3, (2,), (5, 8), Choice("onednn", "im2col", "im2col"), channels=(128, 1 << 30)),
    Rule(3, (1,), (3, 4), ALL_ONEDNN, channels=(32, 255)),
    Rule(1, (2,), (2, 64), Choice("im2col", "onednn", "im2col"), channels=(32, 1 << 30)),
)


def choose(geometry: Geometry, *, onednn: bool = False) -> Choice:
    """The choice of the first rule that applies; XLA's own for all three if none does.

    Args:
      geometry: of the convolution.
      onednn: whether `ONEDNN_TABLE` comes before `TABLE`.
    """
    rules = (*ONEDNN_TABLE, *TABLE) if onednn else TABLE
    return next((rule.choice for rule in rules if rule.applies(geometry)), Choice())


class _Convolution(NamedTuple):
    """A convolution and how to compute it; static."""

    geometry: Geometry
    choice: Choice

    def product(self, name: str, a: Array, b: Array) -> Array:
        """One of the three products, by the chosen lowering on the CPU and by XLA's own elsewhere."""
        chosen, own = (getattr(LOWERINGS[way], name) for way in (getattr(self.choice, name), "xla"))
        own = partial(own, geometry=self.geometry)
        if getattr(self.choice, name) == "xla":
            return own(a, b)
        return lax.platform_dependent(a, b, cpu=partial(chosen, geometry=self.geometry), default=own)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, convolution: _Convolution) -> Array:
    return convolution.product("forward", x, kernel)


def _convolve_fwd(x: Array, kernel: Array, convolution: _Convolution):
    return convolution.product("forward", x, kernel), (x, kernel)


def _convolve_bwd(convolution: _Convolution, residuals: tuple[Array, Array], dy: Array):
    x, kernel = residuals
    return convolution.product("input_gradient", dy, kernel), convolution.product("kernel_gradient", x, dy)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    *,
    onednn: bool = False,
    **options: Any,
) -> Array:
    """`jax.lax.conv_general_dilated`, lowered on the CPU according to `TABLE`.

    Equal to XLA's up to rounding (1e-5 in float32). If a rule applies, it is a `custom_vjp`: differentiable once,
    in reverse mode. `conv_general_dilated_onednn` has `onednn` set: float32 by `ONEDNN_TABLE` first.
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
        geometry = geometry_of(lhs.shape, rhs.shape, window_strides, padding)
        choice = choose(geometry, onednn=onednn and lhs.dtype == jnp.float32)
        if choice != Choice():
            return _convolve(lhs, rhs, _Convolution(geometry, choice))
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, **options
    )


conv_general_dilated_onednn = partial(conv_general_dilated, onednn=True)
