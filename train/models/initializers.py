"""Initialisers with the bounds that torch's layers use by default."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import Initializer

# The normal one of He et al (arXiv:1502.01852) for the number of outputs: `kaiming_normal_(mode="fan_out")` of torch.
kaiming_normal_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def symmetric_uniform(bound: float) -> Initializer:
    """Uniform over `[-bound, bound)`."""

    def init(key: Array, shape, dtype=jnp.float32, out_sharding=None) -> Array:
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_uniform(fan_in: int) -> Initializer:
    """The default of `torch.nn.Linear` and `Conv2d` for weight and bias: uniform over `±1/sqrt(fan_in)`.

    Torch writes it as `kaiming_uniform_(a=sqrt(5))`.
    """
    return symmetric_uniform(1 / math.sqrt(fan_in))
