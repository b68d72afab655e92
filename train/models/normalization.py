"""Batch normalisation with torch's semantics."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as ``torch.nn.BatchNorm2d`` defines it.

    In training the input is normalised with the mean and the *biased* variance of the batch, and the running
    variance is updated with the *unbiased* one, ``n / (n - 1)`` times as large. ``flax.linen.BatchNorm`` always keeps
    the biased one; the difference shows when ``n`` is small: on the 1x1 maps at the end of the 7x7-stem ResNet18 on
    CIFAR, ``n`` is just the batch size.

    Statistics are computed in at least float32, the variance as the mean of squared deviations (not as
    ``E[x^2] - E[x]^2``, which suffers from cancellation).

    Attributes:
        axis_name: the ``pmap``/``shard_map`` axis to average over; ``n`` is then the global count. Leave it None
            under plain ``jit`` with a sharded batch, where the mean is already global.
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
    def __call__(self, x: Array, train: bool) -> Array:
        features = x.shape[-1:]
        stats_dtype = jnp.promote_types(x.dtype, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, stats_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, stats_dtype)

        if train:
            axes = tuple(range(x.ndim - 1))
            count = x.size // x.shape[-1]
            mean = jnp.mean(x, axes, dtype=stats_dtype)
            if self.axis_name is not None and not self.is_initializing():
                mean = lax.pmean(mean, self.axis_name)
                count *= lax.axis_size(self.axis_name)
            var = jnp.mean(lax.square(x - self._expand(mean, x)), axes)
            if self.axis_name is not None and not self.is_initializing():
                var = lax.pmean(var, self.axis_name)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep = self.momentum
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
