"""A small CNN for the 8x8 digits."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from train.models.cpu.convolution import conv_general_dilated
from train.models.initializers import kaiming_normal_fan_out, torch_uniform
from train.models.normalization import BatchNorm


class SmallCNN(nn.Module):
    """Images `[B, H, W, C]` of about 8x8 to logits `[B, num_classes]`: three 3x3 convolutions with
    BatchNorm, the second and third of stride 2, and a linear layer on what is left of the map.

    About 96 % on scikit-learn's digits (`configs/digits_cnn.py`); 20,202 parameters at 8x8x1 and ten classes.
    """

    num_classes: int
    axis_name: str | None = None
    features: int = 32
    conv_general_dilated: Callable[..., Array] = conv_general_dilated

    @nn.compact
    def __call__(self, x: Array, train: bool, examples: int | Array | None = None) -> Array:
        for layer, (features, stride) in enumerate(
            ((self.features, 1), (self.features, 2), (self.features, 2)), start=1
        ):
            x = nn.Conv(
                features,
                (3, 3),
                stride,
                padding=1,
                use_bias=False,
                kernel_init=kaiming_normal_fan_out,
                conv_general_dilated=self.conv_general_dilated,
                name=f"conv{layer}",
            )(x)
            x = nn.relu(BatchNorm(axis_name=self.axis_name, name=f"norm{layer}")(x, train, examples))
        x = jnp.reshape(x, (x.shape[0], -1))
        fan_in = x.shape[-1]
        return nn.Dense(
            self.num_classes, kernel_init=torch_uniform(fan_in), bias_init=torch_uniform(fan_in), name="fc"
        )(x)
