"""Which convolutions the models have: what the tables of `train.models.cpu.convolution` are for."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from train.models import create_model
from train.models.cpu.geometry import Geometry, geometry_of


def geometries_in(name: str, images: tuple[int, ...], **options: Any) -> list[Geometry]:
    """The distinct convolutions in a model, which the tables have to cover.

    Args:
      name: the model's name.
      images: shape of a batch.
      **options: the model's options.
    """
    found: dict[Geometry, None] = {}

    def record(lhs, rhs, strides, padding, **kwargs):
        found[geometry_of(lhs.shape, rhs.shape, strides, padding)] = None
        return lax.conv_general_dilated(lhs, rhs, strides, padding, **kwargs)

    model = create_model(name, num_classes=10, **options).clone(conv_general_dilated=record)
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jax.ShapeDtypeStruct(images, jnp.float32))
    return list(found)
