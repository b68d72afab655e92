"""ResNet18 (He et al., arXiv:1512.03385) as torchvision builds it, NHWC."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from train.errors import UserError
from train.models.cpu.convolution import conv_general_dilated
from train.models.initializers import kaiming_normal_fan_out, torch_uniform
from train.models.normalization import BatchNorm
from train.models.pooling import max_pool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    features: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array, train: bool, examples: int | Array | None = None) -> Array:
        y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train, examples))
        y = self.conv(self.features, (3, 3), 1, padding=1, name="conv2")(y)
        y = self.norm(name="norm2")(y, train, examples)
        if x.shape != y.shape:
            x = self.conv(self.features, (1, 1), self.stride, padding=0, name="downsample_conv")(x)
            x = self.norm(name="downsample_norm")(x, train, examples)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Images `[B, H, W, C]` to logits `[B, num_classes]`.

    Attributes:
      num_classes: width of the output.
      axis_name: axis over which BatchNorm averages, under `pmap` and `shard_map`.
      stem: `"imagenet"`, a 7x7/2 convolution and a 3x3/2 max-pool (the report's, on 32x32 images too), or
        `"cifar"`, one 3x3/1 convolution.
      num_filters: of the stem and the first stage; the next ones have 2, 4 and 8 times as many.
      conv_general_dilated: what computes the convolutions; `jax.lax.conv_general_dilated` is XLA's own.

    A training step at batch 128 on 32x32 images under the ImageNet stem takes 366 to 402 ms of processor time with the
    lowerings and `max_pool` here and 2146 ms with XLA's own (medians, n = 6 alternations in one process; wall 5.7
    times as fast, 4.0 to 6.6, on two cores that other processes shared).

    Initialised as torchvision does: convolutions Kaiming normal over fan-out, BatchNorm 1 and 0, the last
    layer `torch.nn.Linear`'s default.
    """

    num_classes: int
    axis_name: str | None = None
    stem: str = "imagenet"
    num_filters: int = 64
    conv_general_dilated: Callable[..., Array] = conv_general_dilated

    def __post_init__(self):
        if self.stem not in ("imagenet", "cifar"):
            raise UserError(f"unknown stem {self.stem!r} for resnet18; it is 'imagenet' or 'cifar'")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool, examples: int | Array | None = None) -> Array:
        conv = partial(
            nn.Conv,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            conv_general_dilated=self.conv_general_dilated,
        )
        norm = partial(BatchNorm, axis_name=self.axis_name)
        if self.stem == "imagenet":
            x = conv(self.num_filters, (7, 7), 2, padding=3, name="stem_conv")(x)
            x = nn.relu(norm(name="stem_norm")(x, train, examples))
            x = max_pool(x, window=3, stride=2, padding=1)
        else:
            x = conv(self.num_filters, (3, 3), 1, padding=1, name="stem_conv")(x)
            x = nn.relu(norm(name="stem_norm")(x, train, examples))
        for stage in (1, 2, 3, 4):
            features = self.num_filters * 2 ** (stage - 1)
            for block in (1, 2):
                stride = 2 if stage > 1 and block == 1 else 1
                x = BasicBlock(features, stride, conv, norm, name=f"stage{stage}_block{block}")(x, train, examples)
        x = jnp.mean(x, axis=(1, 2))
        fan_in = x.shape[-1]
        return nn.Dense(
            self.num_classes,
            kernel_init=torch_uniform(fan_in),
            bias_init=torch_uniform(fan_in),
            name="fc",
        )(x)
