"""From a data set on the device to a batch, inside the step's program: order, crop, flip, erase, normalise.

A batch is drawn in two stages. `draw` makes the small random part of the *global* batch (which examples, which crops)
from the state's key and step alone. `load` gathers the pixels of it. Devices split what was drawn before they load, so
that several devices see exactly the batch that one device would.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from train.data import Dataset, Split
from train.data.dataset import Augmentation
from train.errors import UserError
from train.step.resized_crop import UNIFORMS, random_resized_crop, resize_center_crop

CROP_PADDING = 4


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
      inputs: images float32 [B, H, W, C], normalised; or tokens int32 [B, T].
      targets: classes int32 [B]; or next tokens int32 [B, T].
    """

    inputs: jax.Array
    targets: jax.Array


class Drawn(NamedTuple):
    """The random part of a batch; every field has a leading batch axis, and is None where nothing needs it.

    Attributes:
      index: int32 [B], which examples.
      offset: int32 [B, 2], pad_crop_flip: top-left corner of the crop in the padded image.
      flip: bool [B], pad_crop_flip.
      erased: float32 [B, 2] in [0, 1), cutout: centre of the erased square, in heights and widths of the image.
      uniforms: float32 [B, UNIFORMS] in [0, 1), random_resized_crop.
    """

    index: jax.Array
    offset: jax.Array | None = None
    flip: jax.Array | None = None
    erased: jax.Array | None = None
    uniforms: jax.Array | None = None


@flax.struct.dataclass
class DeviceSplit:
    """A split on the device.

    Attributes:
      inputs: uint8 [N, H, W, C] or int32 [N, T].
      targets: int32 [N] or [N, T].
      sizes: int32 [N, 2], height and width of each image in its canvas; None where images fill their arrays.
    """

    inputs: jax.Array
    targets: jax.Array
    sizes: jax.Array | None = None


class Preprocessing(NamedTuple):
    """What is fixed about loading a data set: static under jit.

    Attributes:
      augmentation: "none", "pad_crop_flip" or "random_resized_crop".
      mean: per channel, in units of 0..255; empty for tokens.
      std: likewise.
      shuffle: whether each epoch has an order of its own.
      cutout: side of the square that pad_crop_flip erases, in pixels; 0 for none.
      image_size: height and width that random_resized_crop, and its counterpart in testing, give.
    """

    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shuffle: bool
    cutout: int = 0
    image_size: int = 224

    @classmethod
    def of(cls, dataset: Dataset, *, cutout: int = 0, image_size: int = 224) -> "Preprocessing":
        """The data set's, with the run's settings.

        Raises:
          UserError: cutout for a data set that has none, or larger than the images.
        """
        if cutout and dataset.augmentation != "pad_crop_flip":
            raise UserError(f"config.cutout={cutout} is for the CIFAR sets; leave it at 0 for {dataset.name}")
        if cutout and cutout > min(dataset.train.inputs.shape[1:3]):
            height, width = dataset.train.inputs.shape[1:3]
            raise UserError(f"config.cutout={cutout} is larger than the images of {dataset.name}, {height}x{width}")
        return cls(dataset.augmentation, dataset.mean, dataset.std, dataset.shuffle, cutout, image_size)


def to_host_arrays(split: Split) -> DeviceSplit:
    """The split as a pytree of host arrays that `jax.device_put` places in one go."""
    # The lengths of texts stay on the host: no model here has a use for them.
    sizes = np.ascontiguousarray(split.sizes) if split.sizes is not None and split.sizes.ndim == 2 else None
    inputs, targets = np.ascontiguousarray(split.inputs), np.ascontiguousarray(split.targets)
    return DeviceSplit(inputs, targets, sizes)  # pyright: ignore[reportArgumentType]


def shapes_of(split: Split) -> DeviceSplit:
    """Shapes and dtypes of what `to_host_arrays` gives; the split's arrays may be `jax.ShapeDtypeStruct` themselves."""

    def shape_of(array: Any) -> Any:
        return jax.ShapeDtypeStruct(array.shape, array.dtype)

    sizes = shape_of(split.sizes) if split.sizes is not None and split.sizes.ndim == 2 else None
    return DeviceSplit(shape_of(split.inputs), shape_of(split.targets), sizes)


def epoch_order(key: jax.Array, epoch: jax.Array, examples: int, *, shuffle: bool) -> jax.Array:
    """The order of an epoch: int32 [examples], a function of the run's key and the epoch's number alone."""
    if not shuffle:
        return jnp.arange(examples, dtype=jnp.int32)
    return jax.random.permutation(jax.random.fold_in(key, epoch), examples)


def draw(
    key: jax.Array,
    step: jax.Array,
    order: jax.Array,
    *,
    start: jax.Array,
    batch_size: int,
    preprocessing: Preprocessing,
) -> Drawn:
    """Draws the global batch of a step.

    Args:
      key: the run's data key; the same for the whole run.
      step: int32 scalar, batches so far in the whole run.
      order: int32 [N], the epoch's order.
      start: int32 scalar, where the batch starts in the order.
      batch_size: B (the last batch of an epoch may be short).
      preprocessing: says which random numbers are needed.

    Returns:
      `Drawn` with leading axis B.
    """
    index = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
    key = jax.random.fold_in(key, step)
    match preprocessing.augmentation:
        case "pad_crop_flip":
            offset_key, flip_key, erased_key = jax.random.split(key, 3)
            offset = jax.random.randint(offset_key, (batch_size, 2), 0, 2 * CROP_PADDING + 1, jnp.int32)
            flip = jax.random.bernoulli(flip_key, 0.5, (batch_size,))
            cutout = preprocessing.cutout
            erased = jax.random.uniform(erased_key, (batch_size, 2), jnp.float32) if cutout else None
            return Drawn(index, offset, flip, erased)
        case "random_resized_crop":
            return Drawn(index, uniforms=jax.random.uniform(key, (batch_size, UNIFORMS), jnp.float32))
        case "none":
            return Drawn(index)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Levels 0..255 [..., C] to float32 [..., C] with the data set's mean and deviation taken out."""
    shape = (1,) * (images.ndim - 1) + (-1,)
    centred = images.astype(jnp.float32) - jnp.asarray(mean, jnp.float32).reshape(shape)
    return centred / jnp.asarray(std, jnp.float32).reshape(shape)


def crop_and_flip(images: jax.Array, index: jax.Array, offset: jax.Array, flip: jax.Array) -> jax.Array:
    """Pads by 4 zero pixels, cuts the drawn window and mirrors it where drawn: uint8 [N, H, W, C] to [B, H, W, C].

    Written as one gather from the whole data set: no padded copy exists.
    """
    height, width = images.shape[1:3]
    columns = jnp.broadcast_to(jnp.arange(width), (flip.shape[0], width))
    columns = jnp.where(flip[:, None], columns[:, ::-1], columns) + offset[:, 1:] - CROP_PADDING
    rows = jnp.arange(height)[None, :] + offset[:, :1] - CROP_PADDING
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    pixels = images[
        index[:, None, None],
        jnp.clip(rows, 0, height - 1)[:, :, None],
        jnp.clip(columns, 0, width - 1)[:, None, :],
    ]
    return jnp.where(inside[..., None], pixels, 0)


def erase_square(images: jax.Array, erased: jax.Array, size: int) -> jax.Array:
    """Cutout (DeVries and Taylor, arXiv:1708.04552): sets a square of each image [B, H, W, C] to zero.

    Its centre is any pixel with equal chance, so that it may reach beyond the border, where it is cut off. Zero after
    normalisation is the data set's mean colour.

    Args:
      images: float32 [B, H, W, C], normalised.
      erased: float32 [B, 2] in [0, 1), the drawn centres.
      size: side in pixels.
    """

    def hit(length: int, drawn: jax.Array) -> jax.Array:
        first = jnp.floor(drawn * length).astype(jnp.int32) - size // 2
        at = jnp.arange(length)[None, :] - first[:, None]
        return (at >= 0) & (at < size)

    rows, columns = hit(images.shape[1], erased[:, 0]), hit(images.shape[2], erased[:, 1])
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0.0, images)


def _sizes(split: DeviceSplit) -> jax.Array:
    if split.sizes is not None:
        return split.sizes
    return jnp.broadcast_to(jnp.asarray(split.inputs.shape[1:3], jnp.int32), (split.inputs.shape[0], 2))


def load(split: DeviceSplit, drawn: Drawn, preprocessing: Preprocessing) -> Batch:
    """Gathers, augments and normalises what was drawn.

    Normalising comes before resizing: both are linear and the filter's weights add up to one, so that the result is the
    same, and the images are smaller there.
    """

    def normalised(levels: jax.Array) -> jax.Array:
        return normalise(levels, preprocessing.mean, preprocessing.std) if preprocessing.mean else levels

    targets = split.targets[drawn.index]
    if drawn.offset is not None and drawn.flip is not None:
        inputs = normalised(crop_and_flip(split.inputs, drawn.index, drawn.offset, drawn.flip))
    elif drawn.uniforms is not None:
        canvases, sizes = normalised(split.inputs[drawn.index]), _sizes(split)[drawn.index]
        inputs = random_resized_crop(canvases, sizes, drawn.uniforms, size=preprocessing.image_size)
    else:
        inputs = normalised(split.inputs[drawn.index])
    if drawn.erased is not None:
        inputs = erase_square(inputs, drawn.erased, preprocessing.cutout)
    return Batch(inputs, targets)


def slice_batch(
    split: DeviceSplit,
    start: Any,
    size: int,
    preprocessing: Preprocessing,
    shard: Callable[[DeviceSplit], DeviceSplit] = lambda part: part,
) -> Batch:
    """Examples [start, start + size) as evaluation reads them: resized where need be, normalised, not augmented.

    Args:
      split: the examples.
      start: the first one; may be traced.
      size: how many.
      preprocessing: of the data set.
      shard: takes this device's part of the examples, before any pixel of them is worked on.
    """
    part = shard(jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), split))
    inputs = part.inputs
    if preprocessing.mean:
        inputs = normalise(inputs, preprocessing.mean, preprocessing.std)
    if preprocessing.augmentation == "random_resized_crop":
        inputs = resize_center_crop(inputs, _sizes(part), size=preprocessing.image_size)
    return Batch(inputs, part.targets)
