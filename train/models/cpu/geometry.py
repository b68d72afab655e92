"""The static side of a convolution, and what a way to compute one consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

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


def geometry_of(
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Geometry:
    """The geometry of a call; padding may be "SAME" or "VALID"."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(input_shape[1:3], kernel_shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    return Geometry(tuple(input_shape), tuple(kernel_shape), tuple(strides), pads)  # pyright: ignore[reportArgumentType]


class Lowering(NamedTuple):
    """One way to compute the three products of a convolution."""

    forward: Callable[[Array, Array, Geometry], Array]  # x, kernel -> y
    kernel_gradient: Callable[[Array, Array, Geometry], Array]  # x, dy -> dkernel
    input_gradient: Callable[[Array, Array, Geometry], Array]  # dy, kernel -> dx
