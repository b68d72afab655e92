"""Batch normalisation with torch's semantics."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from train.models.axis_sum import axis_sum


def is_real(size: int, examples: int | Array, axis_name: str | None) -> Array:
    """Which of this device's examples are among the first ``examples`` of the global batch: bool ``[size]``."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * size
    return first + jnp.arange(size) < examples


def _batch_mean(x: Array, axis_name: str | None, examples: int | Array | None) -> Array:
    """Mean over all axes of the batch but the last: over its first ``examples``, all if None."""
    axes = tuple(range(x.ndim - 1))
    if examples is None:
        mean = jnp.mean(x, axes)
        return mean if axis_name is None else axis_sum(mean, axis_name) / lax.axis_size(axis_name)
    real = jnp.expand_dims(is_real(x.shape[0], examples, axis_name), tuple(range(1, x.ndim)))
    total = jnp.sum(jnp.where(real, x, 0), axes)
    total = total if axis_name is None else axis_sum(total, axis_name)
    count = examples * math.prod(x.shape[1:-1])
    return total / (count if isinstance(count, int) else jnp.maximum(count, 1))


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as ``torch.nn.BatchNorm2d`` defines it.

    In training the input is normalised with the mean and the *biased* variance of the batch, and the running
    variance is updated with the *unbiased* one, ``n / (n - 1)`` times as large. ``flax.linen.BatchNorm`` keeps
    the biased one and has no switch for it; the difference shows where ``n`` is small: on the 1x1 maps at the
    end of the 7x7-stem ResNet18 on CIFAR ``n`` is the batch size alone.

    Statistics are taken in float32 at least, the variance as the mean of squared deviations (not as
    ``E[x^2] - E[x]^2``, which cancels).

    With ``examples``, only so many of the batch count, and the rest, at its end, is padding: of the global batch a
    number, of a worker's own batch a traced one, which may be 0 and then leaves the statistics as they are.

    Attributes:
        axis_name: the ``pmap``/``shard_map`` axis to average over; ``n`` is then the global count. Under plain
            ``jit`` with a sharded batch the mean is global by itself, and this stays None.
        momentum: how much of the running statistics is kept: 0.9 is torch's ``momentum=0.1``.
        epsilon: added to the variance.

    Variables:
        params: scale, bias, shape ``[C]``.
        batch_stats: mean, var, float32, shape ``[C]``.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, train: bool, examples: int | Array | None = None) -> Array:
        features = x.shape[-1:]
        stats_dtype = jnp.promote_types(x.dtype, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, stats_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, stats_dtype)

        if train:
            axis_name = None if self.is_initializing() else self.axis_name
            over_batch = partial(_batch_mean, axis_name=axis_name, examples=examples)
            count = x.size // x.shape[-1]
            if examples is not None:
                count = count // x.shape[0] * examples
            elif axis_name is not None:
                count *= lax.axis_size(axis_name)
            mean = over_batch(x.astype(stats_dtype))
            var = over_batch(lax.square(x - self._expand(mean, x)))
            if not self.is_initializing():
                largest = max if isinstance(count, int) else jnp.maximum
                unbiased = var * (count / largest(count - 1, 1))
                keep = self.momentum if isinstance(count, int) else jnp.where(count > 0, self.momentum, 1.0)
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        else:
            mean, var = running_mean.value, running_var.value

        factor = scale * lax.rsqrt(var + self.epsilon)
        centered = x - self._expand(mean, x)
        return (centered * self._expand(factor, x) + self._expand(bias, x)).astype(x.dtype)

    @staticmethod
    def _expand(per_channel: Array, x: Array) -> Array:
        return jnp.expand_dims(per_channel, tuple(range(x.ndim - 1)))
