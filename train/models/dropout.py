"""Dropout whose masks do not depend on how the batch is split over devices."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


class Dropout(nn.Module):
    """``flax.linen.Dropout`` that draws the mask of the global batch and takes this device's part of it.

    All devices get the same key, so that each example has the mask that it would have on one device. An example that
    only pads the batch is dropped whole. A worker that stands alone (``examples`` is traced) draws for its own part.

    Attributes:
        rate: probability of a zero, below 1.
        batch_axis: the axis of the batch.
        axis_name: the ``pmap``/``shard_map`` axis over which the batch is split; None where ``jit`` splits it.
    """

    rate: float
    batch_axis: int = 0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, deterministic: bool, examples: int | Array | None = None) -> Array:
        if deterministic or not self.rate:
            return x
        keep, axis, part = 1.0 - self.rate, self.batch_axis, x.shape[self.batch_axis]
        padded = part if self.axis_name is None else part * lax.axis_size(self.axis_name)
        shape = [*x.shape[:axis], examples if isinstance(examples, int) else padded, *x.shape[axis + 1 :]]
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        if shape[axis] != padded:
            mask = jnp.pad(mask, [(0, padded - shape[axis]) if i == axis else (0, 0) for i in range(x.ndim)])
        if self.axis_name is not None:
            mask = lax.dynamic_slice_in_dim(mask, lax.axis_index(self.axis_name) * part, part, axis)
        return lax.select(mask, x / keep, jnp.zeros_like(x))
