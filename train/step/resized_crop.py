"""Random and central crops of images of any size, resized on the device: what torchvision does with Pillow.

A batch is an array of canvases `images[n, :height, :width]` with the true sizes beside it. Each output pixel is
a weighted mean of input pixels, the weights being the product of one factor for the row and one for the
column, so a crop with resizing is two products per image, `rows @ image @ columns.T`, of fixed shape whatever the crop.

An output row is a mean of few input rows (two where nothing shrinks): those are gathered, and only the columns are
a matrix product. 36 images, jax 0.10.2, two shared Zen 4 cores, median (quartiles) of 7, against two dense products:
64x64 5.0 (5.0-5.1) ms for 4.6 (4.5-5.7, two gathered rows as here), 300x300 37 (37-39) for 74 (73-74), 384x384 44
(44-44) for 104 (98-115), 512x512 58 (58-59) for 149 (148-152).

The filter is Pillow's bilinear one (`Image.crop(box).resize(size, BILINEAR)`, also torchvision's default):
a triangle that widens to the scale when it shrinks an image (antialiasing), normalised at the borders of the
crop. `torch.nn.functional.interpolate` without `antialias=True` differs where it shrinks. Pillow rounds to
whole levels after each of its two passes, this does not: the two differ by less than one level of 255.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

TRIES = 10
UNIFORMS = TRIES + 2  # random numbers that one image's crop takes


class _Axis(NamedTuple):
    """Where the output pixels lie along one axis of the input, for each image: arrays [N].

    Attributes:
      start: the left border of output pixel 0, in input pixels.
      low: the first input pixel that counts.
      length: how many count.
      step: the width of an output pixel, in input pixels.
    """

    start: jax.Array
    low: jax.Array
    length: jax.Array
    step: jax.Array


def random_resized_crop(
    images: jax.Array,
    sizes: jax.Array,
    uniforms: jax.Array,
    *,
    size: int = 224,
) -> jax.Array:
    """Square crops at random places covering a random part of the area, resized to `size`.

    torchvision's `RandomResizedCrop(size, scale=(0.64, 1), ratio=(1, 1))`: up to ten times a part of the area is drawn
    uniformly from `scale`; the first square of that area (its side rounded to whole pixels) that fits is
    taken, its corner uniform over all places; where none fits, the central square of the shorter side.

    Args:
      images: uint8 or float32 [N, H, W, C], each image in the upper left of its canvas.
      sizes: int32 [N, 2], heights and widths.
      uniforms: float32 [N, UNIFORMS] in [0, 1), the random numbers: `jax.random.uniform(key, (N, UNIFORMS))`.

    Returns:
      float32 [N, size, size, C], in the units of `images`.
    """
    top, left, side = crop_boxes(sizes, uniforms)
    step = side / size
    return _resample(images, size, _Axis(top, top, side, step), _Axis(left, left, side, step))


def crop_boxes(
    sizes: jax.Array, uniforms: jax.Array, *, scale: tuple[float, float] = (0.64, 1.0)
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Top, left and side, int32 [N] each, of the squares that `random_resized_crop` cuts out."""
    height, width = sizes[:, 0], sizes[:, 1]
    shorter = jnp.minimum(height, width)
    area = (height * width).astype(jnp.float32)
    parts = scale[0] + (scale[1] - scale[0]) * uniforms[:, :TRIES]
    sides = jnp.round(jnp.sqrt(area[:, None] * parts)).astype(jnp.int32)
    fits = (sides > 0) & (sides <= shorter[:, None])
    first = jnp.argmax(fits, axis=1)
    any_fits = fits.any(axis=1)
    side = jnp.where(any_fits, jnp.take_along_axis(sides, first[:, None], axis=1)[:, 0], shorter)

    def corner(free: jax.Array, uniform: jax.Array) -> jax.Array:
        # The product may round up to free + 1.
        drawn = jnp.minimum((uniform * (free + 1)).astype(jnp.int32), free)
        return jnp.where(any_fits, drawn, free // 2)

    return corner(height - side, uniforms[:, TRIES]), corner(width - side, uniforms[:, TRIES + 1]), side


def resize_center_crop(images: jax.Array, sizes: jax.Array, *, size: int = 224) -> jax.Array:
    """The shorter side resized to `size`, then the central square: torchvision's Resize and CenterCrop.

    Args:
      images, sizes: as for `random_resized_crop`.

    Returns:
      float32 [N, size, size, C], in the units of `images`.
    """
    shorter = jnp.min(sizes, axis=1)

    def axis(length: jax.Array) -> _Axis:
        resized = (size * length) // shorter  # torchvision truncates the longer side
        step = length / resized
        offset = jnp.round((resized - size) / 2.0)
        return _Axis(offset * step, jnp.zeros_like(length), length, step)

    return _resample(images, size, axis(sizes[:, 0]), axis(sizes[:, 1]))


def _resample(images: jax.Array, size: int, rows: _Axis, columns: _Axis) -> jax.Array:
    images = images.astype(jnp.float32)
    column_weights = _weights(images.shape[2], size, columns)
    how = (*_taps(images.shape[1], size, rows), column_weights)
    # Image by image on a CPU: XLA's batched products are up to four times slower there (36 images of
    # 320x320: 80-95 ms against 330-360 on two busy cores). And what a loop gives lies in memory, whereas the mean of
    # rows at the end of a batched form is computed again in each of the slices that a 7x7 convolution by im2col takes
    # of its input (XLA does not keep to an optimization_barrier here).
    return jax.lax.platform_dependent(
        images,
        *how,
        cpu=lambda *batch: jax.lax.map(lambda image: _resample_one(*image), batch),
        default=jax.vmap(_resample_one),
    )


def _resample_one(image: jax.Array, index: jax.Array, part: jax.Array, column_weights: jax.Array) -> jax.Array:
    """[H, W, C] to [size, size, C]: row i the sum over t of `part[i, t]` times the image's row `index[i, t]`.

    The shorter side first: rows where there are more of them than are wanted, else columns.
    """

    def resample_rows(image: jax.Array) -> jax.Array:
        return sum(part[:, t, None, None] * image[index[:, t]] for t in range(index.shape[1]))  # type: ignore[return-value]

    if image.shape[0] > index.shape[0]:
        return _resample_columns(resample_rows(image), column_weights)
    return resample_rows(_resample_columns(image, column_weights))


def _resample_columns(image: jax.Array, weights: jax.Array) -> jax.Array:
    """`image @ weights.T` for each channel: [H, W, C] to [H, size, C]."""
    height, width, channels = image.shape
    part = _product(image.transpose(0, 2, 1).reshape(height * channels, width), weights.T)
    return part.reshape(height, channels, -1).transpose(0, 2, 1)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    # HIGHEST: an accelerator's default would round the levels to 8 or 10 bits.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _taps(canvas: int, size: int, axis: _Axis) -> tuple[jax.Array, jax.Array]:
    """The input pixels that count for each output pixel, int32, and what each weighs, float32: [N, size, T] each.

    T = 2 where nothing shrinks, 4 from 384 to 224; pixels beyond the border weigh nothing.
    """
    support = jnp.maximum(axis.step, 1.0)[:, None, None]
    centre = _centres(size, axis)[:, :, None]
    # An open interval of width 2 * support holds at most so many pixels' centres.
    taps = jnp.arange(math.ceil(2 * max(canvas / size, 1.0)))
    index = jnp.floor(centre - support + 0.5).astype(jnp.int32) + taps[None, None, :]
    low = axis.low[:, None, None]
    high = low + axis.length[:, None, None]
    weights = jnp.maximum(1.0 - jnp.abs(index + 0.5 - centre) / support, 0.0) * ((index >= low) & (index < high))
    return jnp.clip(index, 0, canvas - 1), weights / weights.sum(axis=2, keepdims=True)


def _weights(canvas: int, size: int, axis: _Axis) -> jax.Array:
    """float32 [N, size, canvas]: what each input pixel weighs in each output pixel, along one axis."""
    at = jnp.arange(canvas, dtype=jnp.float32)
    support = jnp.maximum(axis.step, 1.0)
    distance = (at[None, None, :] + 0.5 - _centres(size, axis)[:, :, None]) / support[:, None, None]
    inside = (at[None, :] >= axis.low[:, None]) & (at[None, :] < (axis.low + axis.length)[:, None])
    weights = jnp.maximum(1.0 - jnp.abs(distance), 0.0) * inside[:, None, :]
    return weights / weights.sum(axis=2, keepdims=True)


def _centres(size: int, axis: _Axis) -> jax.Array:
    """float32 [N, size]: where the output pixels' centres lie in the input, whose pixel j is centred at j + 1/2."""
    out = jnp.arange(size, dtype=jnp.float32)
    return axis.start[:, None] + (out[None, :] + 0.5) * axis.step[:, None]
