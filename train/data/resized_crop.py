"""Random and central crops of images of any size, resized on the device: what torchvision does with Pillow.

A batch is a uint8 array of canvases `images[n, :height, :width]` with the true sizes beside it. Each output
pixel is a weighted mean of input pixels, the weights being the product of one factor for the row and one for
the column, so a crop with resizing is two matrix products per image, `rows @ image @ columns.T`: dense, but
what an accelerator and a CPU's matmul are fast at, and of fixed shape whatever the crop.

The filter is Pillow's bilinear one (`Image.crop(box).resize(size, BILINEAR)`, also torchvision's default):
a triangle that widens to the scale when it shrinks an image (antialiasing), normalised at the borders of the
crop. `torch.nn.functional.interpolate` without `antialias=True` differs where it shrinks. Pillow rounds to
whole levels after each of its two passes, this does not: the two differ by less than one level of 255.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

TRIES = 10
UNIFORMS = TRIES + 2  # random numbers that one image's crop takes


def random_resized_crop(
    images: jax.Array,
    sizes: jax.Array,
    uniforms: jax.Array,
    *,
    size: int = 224,
    scale: tuple[float, float] = (0.64, 1.0),
) -> jax.Array:
    """Square crops at random places covering a random part of the area, resized to `size`.

    torchvision's `RandomResizedCrop(size, scale, ratio=(1, 1))`: up to ten times a part of the area is drawn
    uniformly from `scale`; the first square of that area (its side rounded to whole pixels) that fits is
    taken, its corner uniform over all places; where none fits, the central square of the shorter side.

    Args:
      images: uint8 [N, H, W, C], each image in the upper left of its canvas.
      sizes: int32 [N, 2], heights and widths.
      uniforms: float32 [N, UNIFORMS] in [0, 1), the random numbers: `jax.random.uniform(key, (N, UNIFORMS))`.

    Returns:
      float32 [N, size, size, C], levels 0..255.
    """
    top, left, side = crop_boxes(sizes, uniforms, scale=scale)
    step = side / size
    return _resample(images, size, (top, top, side, step), (left, left, side, step))


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
      float32 [N, size, size, C], levels 0..255.
    """
    shorter = jnp.min(sizes, axis=1)

    def axis(length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        resized = (size * length) // shorter  # torchvision truncates the longer side
        step = length / resized
        offset = jnp.round((resized - size) / 2.0)
        return offset * step, jnp.zeros_like(length), length, step

    return _resample(images, size, axis(sizes[:, 0]), axis(sizes[:, 1]))


def _resample(images: jax.Array, size: int, rows: tuple, columns: tuple) -> jax.Array:
    row_weights = _weights(images.shape[1], size, *rows)
    column_weights = _weights(images.shape[2], size, *columns)
    # Image by image on a CPU: XLA's batched products are up to four times slower there (36 images of
    # 320x320: 80-95 ms against 330-360 on two busy cores).
    return jax.lax.platform_dependent(
        images,
        row_weights,
        column_weights,
        cpu=lambda *batch: jax.lax.map(lambda image: _resample_one(*image), batch),
        default=jax.vmap(_resample_one),
    )


def _resample_one(image: jax.Array, row_weights: jax.Array, column_weights: jax.Array) -> jax.Array:
    """`row_weights @ image @ column_weights.T` for each channel: [H, W, C] to [size, size, C]."""
    height, width, channels = image.shape
    size = row_weights.shape[0]
    # HIGHEST: an accelerator's default would round the levels to 8 or 10 bits.
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    part = product(row_weights, image.reshape(height, width * channels).astype(jnp.float32))
    part = part.reshape(size, width, channels).transpose(0, 2, 1).reshape(size * channels, width)
    return product(part, column_weights.T).reshape(size, channels, size).transpose(0, 2, 1)


def _weights(canvas: int, size: int, start: jax.Array, low: jax.Array, length: jax.Array, step: jax.Array) -> jax.Array:
    """float32 [N, size, canvas]: what each input row weighs in each output row.

    Output pixel i is centred at `start + (i + 1/2) * step` in the input, whose pixel j is centred at j + 1/2;
    only pixels low <= j < low + length count.
    """
    out = jnp.arange(size, dtype=jnp.float32)
    at = jnp.arange(canvas, dtype=jnp.float32)
    centre = start[:, None] + (out[None, :] + 0.5) * step[:, None]
    support = jnp.maximum(step, 1.0)
    distance = (at[None, None, :] + 0.5 - centre[:, :, None]) / support[:, None, None]
    inside = (at[None, :] >= low[:, None]) & (at[None, :] < (low + length)[:, None])
    weights = jnp.maximum(1.0 - jnp.abs(distance), 0.0) * inside[:, None, :]
    return weights / weights.sum(axis=2, keepdims=True)
