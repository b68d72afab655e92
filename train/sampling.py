"""From a data set on the device to a batch, inside the step's program: order, crop, flip, normalise.

A batch is drawn in two stages. `draw` makes the small random part of the *global* batch (which examples, which crops)
from the state's key and step alone. `load` gathers the pixels of it. Devices split what was drawn before they load, so
that several devices see exactly the batch that one device would.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from train.data import Dataset, Split

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
    """The random part of a batch; every field has a leading batch axis.

    Attributes:
      index: int32 [B], which examples.
      offset: int32 [B, 2], top-left corner of the crop in the padded image.
      flip: bool [B].
    """

    index: jax.Array
    offset: jax.Array
    flip: jax.Array


@flax.struct.dataclass
class DeviceSplit:
    """A split on the device: inputs uint8 [N, H, W, C] or int32 [N, T], targets int32 [N] or [N, T]."""

    inputs: jax.Array
    targets: jax.Array


class Preprocessing(NamedTuple):
    """What is fixed about loading a data set: static under jit.

    Attributes:
      augmentation: "none" or "pad_crop_flip".
      mean: per channel, in units of 0..255; empty for tokens.
      std: likewise.
      shuffle: whether each epoch has an order of its own.
    """

    augmentation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shuffle: bool

    @classmethod
    def of(cls, dataset: Dataset) -> "Preprocessing":
        return cls(dataset.augmentation, dataset.mean, dataset.std, dataset.shuffle)


def to_host_arrays(split: Split) -> DeviceSplit:
    """The split as a pytree that `jax.device_put` places in one go."""
    return DeviceSplit(np.ascontiguousarray(split.inputs), np.ascontiguousarray(split.targets))


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
    batch_size: int,
    full_batch_size: int,
    augmentation: str,
) -> Drawn:
    """Draws the global batch of a step.

    Args:
      key: the run's data key; the same for the whole run.
      step: int32 scalar, updates so far in the whole run.
      order: int32 [N], the epoch's order.
      batch_size: B, of this batch (the last of an epoch may be short).
      full_batch_size: of the others.
      augmentation: "none" or "pad_crop_flip".

    Returns:
      `Drawn` with leading axis B.
    """
    steps_per_epoch = -(-order.shape[0] // full_batch_size)
    start = (step % steps_per_epoch) * full_batch_size
    index = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
    if augmentation == "none":
        centre = jnp.full((batch_size, 2), CROP_PADDING, jnp.int32)
        return Drawn(index, centre, jnp.zeros(batch_size, bool))
    offset_key, flip_key = jax.random.split(jax.random.fold_in(key, step))
    offset = jax.random.randint(offset_key, (batch_size, 2), 0, 2 * CROP_PADDING + 1, jnp.int32)
    return Drawn(index, offset, jax.random.bernoulli(flip_key, 0.5, (batch_size,)))


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 [..., C] to float32 [..., C] with the data set's mean and deviation taken out."""
    shape = (1,) * (images.ndim - 1) + (-1,)
    centred = images.astype(jnp.float32) - jnp.asarray(mean, jnp.float32).reshape(shape)
    return centred / jnp.asarray(std, jnp.float32).reshape(shape)


def crop_and_flip(images: jax.Array, drawn: Drawn) -> jax.Array:
    """Pads by 4 zero pixels, cuts the drawn window and mirrors it where drawn: uint8 [N, H, W, C] to [B, H, W, C].

    Written as one gather from the whole data set: no padded copy exists.
    """
    height, width = images.shape[1:3]
    columns = jnp.broadcast_to(jnp.arange(width), (drawn.flip.shape[0], width))
    columns = jnp.where(drawn.flip[:, None], columns[:, ::-1], columns) + drawn.offset[:, 1:] - CROP_PADDING
    rows = jnp.arange(height)[None, :] + drawn.offset[:, :1] - CROP_PADDING
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    pixels = images[
        drawn.index[:, None, None],
        jnp.clip(rows, 0, height - 1)[:, :, None],
        jnp.clip(columns, 0, width - 1)[:, None, :],
    ]
    return jnp.where(inside[..., None], pixels, 0)


def load(split: DeviceSplit, drawn: Drawn, preprocessing: Preprocessing) -> Batch:
    """Gathers, augments and normalises what was drawn."""
    targets = split.targets[drawn.index]
    if not preprocessing.mean:
        return Batch(split.inputs[drawn.index], targets)
    if preprocessing.augmentation == "pad_crop_flip":
        images = crop_and_flip(split.inputs, drawn)
    else:
        images = split.inputs[drawn.index]
    return Batch(normalise(images, preprocessing.mean, preprocessing.std), targets)


def slice_batch(split: DeviceSplit, start: Any, size: int, preprocessing: Preprocessing) -> Batch:
    """Examples [start, start + size) as they are, normalised: what evaluation reads."""
    inputs = jax.lax.dynamic_slice_in_dim(split.inputs, start, size)
    targets = jax.lax.dynamic_slice_in_dim(split.targets, start, size)
    if not preprocessing.mean:
        return Batch(inputs, targets)
    return Batch(normalise(inputs, preprocessing.mean, preprocessing.std), targets)
