"""The report's image network (hw2): three convolutions on 224x224 images."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
from jax import Array

from train.models.cpu.convolution import conv_general_dilated
from train.models.initializers import torch_uniform
from train.models.normalization import BatchNorm
from train.models.pooling import max_pool


class CNN(nn.Module):
    """Images `[B, H, W, C]` to logits `[B, num_classes]`.

    96@7/2 - ReLU - BatchNorm - max-pool 2 - 128@5/2 - ReLU - BatchNorm - 256@7/2 - ReLU - BatchNorm - flatten - linear;
    all convolutions unpadded and with biases. At 224x224 the maps are 109, 54, 25 and 10 wide and the linear layer
    takes 25,600 inputs; the size of the images fixes its shape.

    The flattened order is height, width, channel; torch's is channel, height, width, so a torch kernel of the linear
    layer is to be permuted. Initialised as torch's `Conv2d` and `Linear`.

    Attributes:
      num_classes: width of the output.
      axis_name: axis over which BatchNorm averages, under `pmap` and `shard_map`.
      conv_general_dilated: what computes the convolutions; `jax.lax.conv_general_dilated` is XLA's own.
    """

    num_classes: int
    axis_name: str | None = None
    conv_general_dilated: Callable[..., Array] = conv_general_dilated

    @nn.compact
    def __call__(self, x: Array, train: bool, examples: int | Array | None = None) -> Array:
        for layer, (features, size) in enumerate(((96, 7), (128, 5), (256, 7)), start=1):
            uniform = torch_uniform(size * size * x.shape[-1])
            x = nn.Conv(
                features,
                (size, size),
                2,
                padding="VALID",
                kernel_init=uniform,
                bias_init=uniform,
                conv_general_dilated=self.conv_general_dilated,
                name=f"conv{layer}",
            )(x)
            x = BatchNorm(axis_name=self.axis_name, name=f"norm{layer}")(nn.relu(x), train, examples)
            if layer == 1:
                x = max_pool(x, window=2, stride=2)
        x = x.reshape(x.shape[0], -1)
        uniform = torch_uniform(x.shape[-1])
        return nn.Dense(self.num_classes, kernel_init=uniform, bias_init=uniform, name="fc")(x)
