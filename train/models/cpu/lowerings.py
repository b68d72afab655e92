"""Ways to compute a convolution and its two gradients: XLA's own, matmuls, and oneDNN's where it is installed.

Each is a `Lowering`: three functions of the operands and the static `Geometry`.
`train.models.cpu.convolution` chooses among them by shape; `python -m benchmarks.convolutions` times them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from train.models.cpu import onednn
from train.models.cpu.geometry import DIMENSION_NUMBERS, Geometry, Lowering

# For larger maps the matrix has more blocks than the matmul saves.
MAX_DENSE_SIZE = 4


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


FEW_CHANNELS = 4  # images, where copying one pixel moves only a few bytes
NARROW = 256  # patches with at most this many columns give a product with dy too small to split among cores
GROUPS = 4


def _shifted(x: Array, axis: int, geometry: Geometry) -> list[Array]:
    """The part of x that each tap of the kernel sees, along the height (axis 1) or width (axis 2)."""
    size, taps, stride = geometry.output_size[axis - 1], geometry.kernel_shape[axis - 1], geometry.strides[axis - 1]
    return [lax.slice_in_dim(x, tap, tap + (size - 1) * stride + 1, stride, axis) for tap in range(taps)]


def _patches(x: Array, geometry: Geometry) -> Array:
    """`[B, H, W, C]` to `[B, OH, OW, KH * KW * C]`."""
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    if x.shape[-1] <= FEW_CHANNELS:
        # Taps along the width first, so that the second pass copies one row of a patch at a time.
        return jnp.concatenate(_shifted(jnp.concatenate(_shifted(x, 2, geometry), axis=-1), 1, geometry), axis=-1)
    shifted = [piece for row in _shifted(x, 1, geometry) for piece in _shifted(row, 2, geometry)]
    return jnp.concatenate(shifted, axis=-1)


def _im2col_forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    patches = _patches(x, geometry)
    return lax.dot_general(patches, kernel.reshape(-1, kernel.shape[3]), (((3,), (0,)), ((), ())))


def _im2col_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    patches = _patches(x, geometry)
    groups = math.gcd(x.shape[0], GROUPS) if patches.shape[-1] <= NARROW else 1
    patches, dy = (a.reshape(groups, -1, a.shape[-1]) for a in (patches, dy))
    gradient = lax.dot_general(patches, dy, (((1,), (1,)), ((0,), (0,)))).sum(0)
    return gradient.reshape(geometry.kernel_shape)


def _im2col_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
    x = jax.ShapeDtypeStruct(geometry.input_shape, dy.dtype)
    patches = lax.dot_general(dy, kernel.reshape(-1, kernel.shape[3]), (((3,), (1,)), ((), ())))
    (gradient,) = jax.linear_transpose(lambda x: _patches(x, geometry), x)(patches)
    return gradient


# rows: half of the kernel's taps on either side of the matmul ----------------------------------------------------
#
# For each tap (i, j), the kernel's gradient is the product of x shifted by (i, j) with dy. Shifting x down by i and dy
# left by j does the same, and makes it one matmul of KH * C by KW * N columns: neither operand grows by more than three
# times, and no side is as narrow as im2col's N. For kernels with a column stride of 1.


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


# winograd: 16 multiplications instead of the definition's 36 -----------------------------------------------------
#
# F(2x2, 3x3) (Lavin and Gray, arXiv:1509.09308): x in 4x4 tiles, two apart, and the kernel are both transformed to 4x4,
# multiplied point by point over tiles and batch (16 matmuls), and the 4x4 products are transformed to 2x2 outputs. The
# kernel's gradient is the transpose: dy in 2x2 tiles, the products transformed to the 3x3 kernel. The input's gradient
# is a convolution of dy with the rotated kernel. For 3x3 kernels of stride 1 on maps of even size.


def _both_axes(transform: Callable[[list[Array]], list[Array]], tile: list[list[Array]]) -> list[list[Array]]:
    """Applies a transform of lists of arrays along both axes of a grid of arrays."""
    columns = [transform(list(column)) for column in zip(*tile, strict=True)]
    return [transform(list(row)) for row in zip(*columns, strict=True)]


def _input_points(x: Array, geometry: Geometry) -> Array:
    """The 4x4 tiles of x, transformed: `[16, B, OH / 2, OW / 2, C]`."""
    out_height, out_width = geometry.output_size
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    tiles = [[x[:, i : i + out_height - 1 : 2, j : j + out_width - 1 : 2] for j in range(4)] for i in range(4)]
    points = _both_axes(lambda t: [t[0] - t[2], t[1] + t[2], t[2] - t[1], t[1] - t[3]], tiles)
    return _stack(points)


def _stack(grid: list[list[Array]]) -> Array:
    return jnp.stack([point for row in grid for point in row])


def _grid(points: Array) -> list[list[Array]]:
    return [[points[4 * i + j] for j in range(4)] for i in range(4)]


def _winograd(x: Array, kernel: Array, contracted: int, geometry: Geometry) -> Array:
    """Convolves x with a 3x3 kernel, contracting the kernel's axis `contracted`: 2 (inputs) or 3 (outputs)."""
    taps = [[kernel[i, j] for j in range(3)] for i in range(3)]
    kernel_points = _both_axes(lambda t: [t[0], (t[0] + t[1] + t[2]) / 2, (t[0] - t[1] + t[2]) / 2, t[2]], taps)
    sums = (((4,), (contracted - 1,)), ((0,), (0,)))
    products = lax.dot_general(_input_points(x, geometry), _stack(kernel_points), sums)
    y = _both_axes(lambda t: [t[0] + t[1] + t[2], t[1] - t[2] - t[3]], _grid(products))
    interleaved = jnp.stack([jnp.stack(row, axis=3) for row in y], axis=2)  # [B, OH / 2, 2, OW / 2, 2, N]
    return interleaved.reshape(geometry.output_shape)


def _winograd_forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _winograd(x, kernel, 2, geometry)


def _winograd_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
    height, width, channels, features = geometry.kernel_shape
    (top, bottom), (left, right) = geometry.padding
    padding = ((2 - top, 2 - bottom), (2 - left, 2 - right))
    backwards = Geometry(geometry.output_shape, (height, width, features, channels), (1, 1), padding)
    return _winograd(dy, kernel[::-1, ::-1], 3, backwards)


def _winograd_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
    dy_tiles = [[dy[:, i::2, j::2] for j in range(2)] for i in range(2)]
    dy_points = _both_axes(lambda t: [t[0], t[0] + t[1], t[0] - t[1], -t[1]], dy_tiles)
    over_tiles = (((1, 2, 3), (1, 2, 3)), ((0,), (0,)))
    products = lax.dot_general(_input_points(x, geometry), _stack(dy_points), over_tiles)
    taps = _both_axes(
        lambda t: [t[0] + (t[1] + t[2]) / 2, (t[1] - t[2]) / 2, (t[1] + t[2]) / 2 + t[3]],
        _grid(products),
    )
    return jnp.stack([jnp.stack(row) for row in taps])


# dense: a small map as one vector, the convolution as one matrix of its taps --------------------------------------
#
# With the map flattened, a convolution is a matrix [H * W * C, OH * OW * N] whose block (input position p, output
# position o) is the kernel's tap p - o * stride + padding, or zero if that is outside. With a padded 3x3 kernel, none
# of the 16 blocks is zero on a 2x2 map, and the only block on a 1x1 map is the centre tap: the matmul does only the
# useful multiplications, 4/9 and 1/9 of what im2col and XLA do.


def _tap(axis: int, position: int, output: int, geometry: Geometry) -> int | None:
    tap = position - output * geometry.strides[axis] + geometry.padding[axis][0]
    return tap if 0 <= tap < geometry.kernel_shape[axis] else None


def _blocks(geometry: Geometry) -> list[list[tuple[int, int] | None]]:
    """The tap for every (input position, output position); None if no tap connects them."""
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
    "winograd": Lowering(_winograd_forward, _winograd_kernel_gradient, _winograd_input_gradient),
    "dense": Lowering(_dense_forward, _dense_kernel_gradient, _dense_input_gradient),
    "onednn": onednn.LOWERING,
}


def applicable(name: str, geometry: Geometry) -> bool:
    """Whether a lowering of `LOWERINGS` can compute this convolution."""
    kernel_size, strides = geometry.kernel_shape[:2], geometry.strides
    if name == "winograd":
        sizes = (*geometry.input_shape[1:3], *geometry.output_size)
        within = all(pad <= 2 for pads in geometry.padding for pad in pads)
        return kernel_size == (3, 3) and strides == (1, 1) and within and all(size % 2 == 0 for size in sizes)
    if name == "rows":
        return max(kernel_size) > 1 and strides[1] == 1
    if name == "dense":
        return max(geometry.input_shape[1:3]) <= MAX_DENSE_SIZE
    if name == "onednn":
        return onednn.is_fast(geometry)
    return True
