"""Walks trees along the slow weights, skips what they leave out, and merges trees that masks split."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable
from typing import Any

import jax
import optax

_LEAF = jax.tree.structure(0)


def map_slow(function: Callable[..., Any], slow: Any, *rest: Any) -> Any:
    """Maps `function` over the leaves of `slow` and the corresponding ones of `rest`; None where `slow` has None.

    The slow weights have the structure of the tree that `init` saw. The trees of a later `update` may have more: a
    whole Equinox model has functions and frozen arrays where `init`, given ``eqx.filter(model, eqx.is_array)``, saw
    None. They may also have less: None as the gradient of a leaf that is not trained.
    """

    def leaf(s: Any, *others: Any) -> Any:
        return None if s is None else function(s, *others)

    return jax.tree.map(leaf, slow, *rest, is_leaf=is_none)


def prune(tree: Any, slow: Any) -> Any:
    """`tree` with the structure of `slow`: None wherever `slow` has None."""
    return map_slow(lambda _, x: x, slow, tree)


def columns(slow: Any, *rest: Any) -> tuple[Any, list[list[Any]]]:
    """The structure of `slow` (None counts as a leaf), and the lists of leaves of `slow` and of each of `rest`."""
    leaves, structure = jax.tree.flatten(slow, is_leaf=is_none)
    return structure, [leaves, *(structure.flatten_up_to(x) for x in rest)]


def merge(a: Any, b: Any) -> Any:
    """Merges two trees that leave out different places, as `optax.partition` makes them.

    Raises:
        ValueError: both have something in the same place, or they have different structures.
    """
    # One level at a time, because either side may be masked where the other has a whole subtree: optax.partition does
    # this when its labels are prefixes.
    if is_left_out(a):  # Orbax restores a masked node as None
        return b
    if is_left_out(b):
        return a
    node, other = _one_level(a), _one_level(b)
    if node == _LEAF or node != other:
        raise ValueError("two trees for the same parameters, or trees of different structures")
    children: list[list[Any]] = [node.flatten_up_to(x) for x in (a, b)]
    return node.unflatten(map(merge, *children))


def is_none(x: Any) -> bool:
    """Whether `x` is None, which JAX would otherwise treat as a tree without leaves."""
    return x is None


def is_masked(x: Any) -> bool:
    """Whether `x` marks a parameter that `optax.masked` or `optax.partition` leaves out."""
    return isinstance(x, optax.MaskedNode)


def is_left_out(x: Any) -> bool:
    """Whether there is nothing in this place: None or masked."""
    return is_none(x) or is_masked(x)


def _one_level(tree: Any) -> Any:
    def is_below(x: Any) -> bool:
        return x is not tree

    return jax.tree.structure(tree, is_leaf=is_below)
