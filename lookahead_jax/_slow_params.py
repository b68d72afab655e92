"""Where the slow weights are in an optimizer state."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import functools
from typing import Any

import jax
import optax

from lookahead_jax._lookahead import LookaheadState

_LEAF = jax.tree.structure(0)


def slow_params(opt_state: Any, params: optax.Params | None = None) -> optax.Params:
    """The slow weights in an optimizer state: the weights to evaluate, average or publish.

    Finds the state of :func:`lookahead` wherever it sits: in a chain, under `optax.inject_hyperparams`,
    `optax.MultiSteps`, `optax.apply_if_finite`, in a `flax.training.train_state.TrainState`. Of nested Lookaheads
    it takes the outermost. Under `optax.masked` and `optax.partition` a Lookahead holds part of the tree: the parts
    of several are merged, and `params` fill in for parameters that have no slow weights.

    Args:
        opt_state: an optimizer state, or any pytree that holds one.
        params: the live weights. Needed only where some parameters are not under Lookahead.

    Returns:
        A tree like the parameters; of the dtype `slow_dtype` where that is wider. The arrays are those of the state,
        so copy them before the state is donated.

    Raises:
        ValueError: there is no Lookahead in `opt_state`, or more than one for the same parameters, or some
            parameters have none and `params` is not given.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = optax.chain(optax.clip_by_global_norm(1.0), la.lookahead(optax.adam(1e-3)))
        >>> params = {"w": jnp.ones([2])}
        >>> la.slow_params(tx.init(params))
        {'w': Array([1., 1.], dtype=float32)}

        With Flax NNX, where `optimizer` is an `nnx.Optimizer` of `model`, the slow model is ``slow =
        nnx.clone(model)`` after ``nnx.update(slow, nnx.as_pure(la.slow_params(optimizer.opt_state)))``.
    """
    states = [x for x in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(x)]
    if not states:
        raise ValueError("there is no LookaheadState in this optimizer state; wrap the optimizer in lookahead()")
    merged = functools.reduce(_merge, (state.slow_params for state in states))
    if params is not None:
        return jax.tree.map(_filled, merged, params, is_leaf=_is_masked)
    if any(_is_masked(x) for x in jax.tree.leaves(merged, is_leaf=_is_masked)):
        raise ValueError(
            "some parameters are masked out of Lookahead and have no slow weights; "
            "slow_params(opt_state, params) takes the live ones for them"
        )
    return merged


def _filled(slow: Any, param: Any) -> Any:
    return param if _is_masked(slow) else slow


def _merge(a: Any, b: Any) -> Any:
    # One level at a time, since either side may be masked where the other has a whole subtree: with prefixes as
    # labels, optax.partition masks so.
    if _is_masked(a):
        return b
    if _is_masked(b):
        return a
    node, other = _one_level(a), _one_level(b)
    if node == _LEAF or node != other:
        raise ValueError(
            "this optimizer state holds more than one LookaheadState for the same parameters, or some for different "
            "trees of parameters; give slow_params the part of the state that is meant"
        )
    children: list[list[Any]] = [node.flatten_up_to(x) for x in (a, b)]
    return node.unflatten(map(_merge, *children))


def _one_level(tree: Any) -> Any:
    def is_below(x: Any) -> bool:
        return x is not tree

    return jax.tree.structure(tree, is_leaf=is_below)


def _is_state(x: Any) -> bool:
    return isinstance(x, LookaheadState)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
