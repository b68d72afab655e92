"""Convolutions lowered by shape: ``flax.linen.Conv(conv_general_dilated=conv_general_dilated)``.

On the CPU backend XLA's own convolutions are slow on some shapes, by up to fifty times on maps of 2x2 and 1x1
(measured below). :func:`conv_general_dilated` is a drop-in for ``jax.lax.conv_general_dilated`` that computes each
of the three products of a convolution, the output and its two gradients, by the lowering that :data:`TABLE` names
for its shape. Other backends, and forms that the table does not speak of (dilation, groups, another layout), are left
to XLA.

Measured with jax 0.10.2 on two AVX-512 cores, batch 128, float32, XLA's / the chosen one's milliseconds; n = 7
alternations, medians, few other processes:

| map, channels, kernel        | forward    | kernel gradient | input gradient |
|------------------------------|------------|-----------------|----------------|
| 1x1, 512 -> 512, 3x3  dense  | 20.0 / 1.4 | 3.7 / 1.0       | 21.4 / 1.1     |
| 2x2, 256 -> 256, 3x3  dense  | 88.3 / 2.9 | 3.6 / 2.2       | 87.5 / 3.3     |
| 2x2, 256 -> 512, 3x3/2 dense | 65.5 / 1.7 | 1.9 / 1.3       | 57.4 / 1.7     |
| 4x4, 128 -> 256, 3x3/2 im2col| 2.6 / 2.6  | 2.9 / 2.3       | 71.9 / 2.1     |
| 8x8, 64 -> 128, 3x3/2 im2col | 2.5 / -    | 3.3 / -         | 2.5 / 2.0      |
| 8x8, 64 -> 128, 1x1/2 im2col | .43 / .41  | 1.8 / .55       | .72 / .55      |

and of the kernel gradient of 3x3 kernels at stride 1, on a machine that two to seven other processes shared (n = 25
alternations, fastest, ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``): XLA / rows / winograd 4x4x128 7.7 / 7.7 / 6.7;
4x4x512 189 / 172 / 119; 8x8x64 11.9 / 11.5 / 11.7; 8x8x256 458 / 260 / 217; 16x16x128 372 / 267 / 299; 32x32x64
291 / 266 / 488. These want measuring again on an idle one.
Also tried there, and slower than the best of these: one matmul a tap, im2col, tiles of two or four columns, the dense
form along the columns alone. The 7x7/2 stem's kernel gradient: 46 and 83 GFLOP/s (XLA, im2col; idle).
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


# winograd: F(3x3, 2x2) for the kernel's gradient -----------------------------------------------------------------
#
# The transpose of F(2x2, 3x3) (Lavin and Gray, arXiv:1509.09308): x in 4x4 tiles two apart, dy in 2x2 tiles, both
# transformed to 4x4, multiplied point by point over tiles and batch (16 matmuls instead of 36), and the 4x4 products
# transformed to the 3x3 kernel. For 3x3 kernels of stride 1 on maps of even size.


def _both_axes(transform: Callable[[list[Array]], list[Array]], tile: list[list[Array]]) -> list[list[Array]]:
    """A transform of a list of arrays, over the rows and then the columns of a grid of arrays."""
    columns = [transform(list(column)) for column in zip(*tile, strict=True)]
    return [transform(list(row)) for row in zip(*columns, strict=True)]


def _winograd_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    out_height, out_width = geometry.output_size
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    x_tiles = [[x[:, i : i + out_height - 1 : 2, j : j + out_width - 1 : 2] for j in range(4)] for i in range(4)]
    dy_tiles = [[dy[:, i::2, j::2] for j in range(2)] for i in range(2)]
    x_points = _both_axes(lambda t: [t[0] - t[2], t[1] + t[2], t[2] - t[1], t[1] - t[3]], x_tiles)
    dy_points = _both_axes(lambda t: [t[0], t[0] + t[1], t[0] - t[1], -t[1]], dy_tiles)
    x_stack, dy_stack = (jnp.stack([point for row in points for point in row]) for points in (x_points, dy_points))
    products = lax.dot_general(x_stack, dy_stack, (((1, 2, 3), (1, 2, 3)), ((0,), (0,))))
    grid = [[products[4 * i + j] for j in range(4)] for i in range(4)]
    taps = _both_axes(
        lambda t: [t[0] + (t[1] + t[2]) / 2, (t[1] - t[2]) / 2, (t[1] + t[2]) / 2 + t[3]],
        grid,
    )
    return jnp.stack([jnp.stack(row) for row in taps])


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
    "rows": Lowering(_xla_forward, _rows_kernel_gradient, _xla_input_gradient),
    "winograd": Lowering(_xla_forward, _winograd_kernel_gradient, _xla_input_gradient),
    "dense": Lowering(_dense_forward, _dense_kernel_gradient, _dense_input_gradient),
}


# The choice -----------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """Names of :data:`LOWERINGS` for the three products."""

    forward: str = "xla"
    kernel_gradient: str = "xla"
    input_gradient: str = "xla"


class Rule(NamedTuple):
    """A choice, and the convolutions that it is for: square kernels of this size, maps and channels within bounds."""

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
            and ("winograd" not in self.choice or all(size % 2 == 0 for size in geometry.output_size))
        )


# The first rule that applies; XLA's own throughout where none does. Measured figures: the module's docstring.
TABLE: tuple[Rule, ...] = (
    Rule(7, (2,), (16, 64), Choice("xla", "im2col", "xla"), channels=(1, 4)),
    Rule(1, (2,), (1, 64), Choice("im2col", "im2col", "im2col")),
    Rule(3, (1, 2), (1, 2), Choice("dense", "dense", "dense")),
    Rule(3, (2,), (3, 4), Choice("im2col", "im2col", "im2col")),
    Rule(3, (2,), (5, 8), Choice("xla", "xla", "im2col")),
    Rule(3, (1,), (3, 8), Choice("xla", "winograd", "xla"), channels=(128, 1 << 30)),
    Rule(3, (1,), (5, 32), Choice("xla", "rows", "xla"), channels=(32, 1 << 30)),
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
