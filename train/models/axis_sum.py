"""Sums over the devices of an axis."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
from jax import Array, lax

from train.hosts import agreement


def axis_sum(tree: Any, axis_name: str) -> Any:
    """``lax.psum``, whose order of additions does not depend on which process a device belongs to.

    One process adds up what its CPU devices have in their order. Several processes, over gloo, add in an order of their
    own, so that the last bits would differ. There every device gets what all have, and adds it up in their order. On
    other devices it is ``lax.psum``.
    """
    if not (agreement.count() > 1 and jax.default_backend() == "cpu"):
        return lax.psum(tree, axis_name)
    return jax.tree.map(lambda x: _in_order(x, axis_name), tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _in_order(x: Array, axis_name: str) -> Array:
    parts = lax.all_gather(x, axis_name)
    return functools.reduce(operator.add, [parts[device] for device in range(parts.shape[0])])


def _in_order_fwd(x: Array, axis_name: str) -> tuple[Array, None]:
    return _in_order(x, axis_name), None


def _in_order_bwd(axis_name: str, _: None, gradient: Array) -> tuple[Array]:
    return (_in_order(gradient, axis_name),)  # as psum's


_in_order.defvjp(_in_order_fwd, _in_order_bwd)
