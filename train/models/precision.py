"""Computation in bfloat16 with float32 weights."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def in_bfloat16(model: nn.Module) -> nn.Module:
    """The same module, with forward and backward passes in bfloat16; its parameters and outputs stay float32.

    `apply` rounds parameters and inputs to bfloat16 and converts the outputs back to float32, so losses are computed
    in float32. The gradient of the rounding is the identity, so the optimizer gets float32 gradients. Running
    statistics are not rounded, and `train.models.normalization.BatchNorm` computes a batch's statistics in float32. A
    language model's last layer is part of its loss (`train.step.objectives`) and therefore float32.
    """
    names = [field.name for field in dataclasses.fields(model) if field.init and field.name not in ("parent", "name")]  # type: ignore[arg-type]
    return _in_bfloat16(type(model))(**{name: getattr(model, name) for name in names})


class _InBfloat16:
    def apply(self, variables: Any, inputs: jax.Array, **how: Any) -> Any:
        variables = {**variables, "params": _cast(variables["params"], jnp.bfloat16)}
        found = super().apply(variables, _cast(inputs, jnp.bfloat16), **how)  # type: ignore[misc]
        if not how.get("mutable"):
            return _cast(found, jnp.float32)
        outputs, updated = found
        return _cast(outputs, jnp.float32), updated


@functools.cache
def _in_bfloat16(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"{kind.__name__}InBfloat16", (_InBfloat16, kind), {})


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
