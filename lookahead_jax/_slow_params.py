"""Finds the slow weights in an optimizer state, and resets them."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _checks, _fast_state, _trees
from lookahead_jax._lookahead import LookaheadState
from lookahead_jax._primal_averaging import PrimalAveragingState

_STATES = (LookaheadState, PrimalAveragingState)


def slow_params(opt_state: Any, params: optax.Params | None = None) -> optax.Params:
    """The slow weights in an optimizer state: the weights to evaluate, average or publish.

    Finds the state of :func:`lookahead` (or of :func:`primal_averaging`, whose average it returns) wherever it is:
    in a chain, under `optax.inject_hyperparams`, `optax.MultiSteps` or `optax.apply_if_finite`, in a
    `flax.training.train_state.TrainState`, or in the dictionaries that Orbax restores without a target. If Lookaheads
    are nested, it returns the outermost one's. Under `optax.masked` and `optax.partition` a Lookahead covers part of
    the tree: several parts are merged, and `params` fill in for parameters that have no slow weights. Under
    `optax.flatten` and `optax.contrib.split_real_and_imaginary` the result has their layout; put these inside Lookahead
    instead.

    Args:
        opt_state: an optimizer state, or any pytree that contains one.
        params: the live weights. Needed only if some parameters are not under Lookahead. A whole Equinox model
            also works: the result is then a model with slow weights.

    Returns:
        A tree like the parameters, in the dtype `slow_dtype` if that is wider. The arrays are those in the optimizer
        state, not copies: if your step donates that state, copy them first.

    Raises:
        ValueError: there is no Lookahead in `opt_state`, or more than one for the same parameters, or some
            parameters have none and `params` is not given (in what Orbax restores without a target also if a parameter
            is None), or `params` has a different structure.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = optax.chain(optax.clip_by_global_norm(1.0), la.lookahead(optax.adam(1e-3)))
        >>> params = {"w": jnp.ones([2])}
        >>> la.slow_params(tx.init(params))
        {'w': Array([1., 1.], dtype=float32)}

        With Flax NNX, where `optimizer` is an `nnx.Optimizer` of `model`, the slow model is ``slow =
        nnx.clone(model)`` after ``nnx.update(slow, la.slow_params(optimizer.opt_state))``.
    """
    states = [x for x in jax.tree.leaves(opt_state, is_leaf=_is_any_state) if _is_any_state(x)]
    if not states:
        raise ValueError("this optimizer state contains no LookaheadState; wrap the optimizer in lookahead()")
    try:
        merged = functools.reduce(_trees.merge, map(_slow_of, states))
    except ValueError:
        raise ValueError(
            "this optimizer state contains several LookaheadStates for the same parameters or for different parameter "
            "trees; pass slow_params the part of the state that you mean"
        ) from None
    if params is not None:
        return _filled(merged, params)
    # Orbax restores a masked node as None, too; elsewhere None is a place where there is no parameter.
    restored = any(isinstance(state, Mapping) for state in states)
    missing = _trees.is_left_out if restored else _trees.is_masked
    if any(missing(x) for x in jax.tree.leaves(merged, is_leaf=missing)):
        where = "masked out of Lookahead" + ", or None (a restored state does not tell which)" * restored
        raise ValueError(
            f"some parameters are {where}, and have no slow weights; "
            "use slow_params(opt_state, params), which returns the live ones for them"
        )
    return merged


def resync(opt_state: Any, params: optax.Params) -> Any:
    """Sets the slow weights to `params`, as if a sync had just ended there.

    Call it after every change of the parameters that does not go through `update`: loading, pruning, clipping or
    re-initialising weights. Otherwise the next sync pulls the parameters back towards the slow weights from before
    the change.

    Args:
        opt_state: an optimizer state, or any pytree that contains one; every Lookahead in it is set, nested ones too.
        params: the new live weights.

    Returns:
        `opt_state` with the slow weights copied from `params`, the steps since the last sync set to 0, and the loss
        and gradient that a line search has cached invalidated. Moments and schedules are unchanged, also those that
        "pullback" has kept from the last sync.

    Raises:
        ValueError: there is no Lookahead in `opt_state`, or `params` has a different structure.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.lookahead(optax.adam(1e-3))
        >>> opt_state = tx.init(jnp.array([0.0]))
        >>> la.slow_params(la.resync(opt_state, jnp.array([9.0])))
        Array([9.], dtype=float32)
    """
    found = False

    def reset(node: Any) -> Any:
        nonlocal found
        if not isinstance(node, _STATES):
            return node
        found = True
        _check_structure(node.slow_params, params)
        slow = jax.tree.map(_copied, node.slow_params, params, is_leaf=_trees.is_left_out)
        fast_state = _fast_state.forget_values(True, jax.tree.map(reset, node.fast_state, is_leaf=_is_state))
        node = node._replace(slow_params=slow, fast_state=fast_state)
        if isinstance(node, LookaheadState):
            node = node._replace(steps_since_sync=jnp.zeros_like(node.steps_since_sync))
        return node

    opt_state = jax.tree.map(reset, opt_state, is_leaf=_is_state)
    if not found:
        raise ValueError(
            "this optimizer state contains no LookaheadState; wrap the optimizer in lookahead(), and restore "
            "checkpoints into a target, such as jax.eval_shape(tx.init, params)"
        )
    return opt_state


def _copied(slow: Any, param: Any) -> Any:
    # A copy, since the live weights and the state are donated together.
    return slow if _trees.is_left_out(slow) else jnp.array(param, dtype=slow.dtype, copy=True)


def _filled(slow: Any, params: optax.Params) -> optax.Params:
    """`slow`, with the live weights where it is masked or None."""
    _check_structure(slow, params)

    def leaf(s: Any, p: Any) -> Any:
        return p if _trees.is_left_out(s) else s

    return jax.tree.map(leaf, slow, params, is_leaf=_trees.is_left_out)


def _check_structure(slow: Any, params: optax.Params) -> None:
    _checks.check_plain(params)
    advice = (
        "pass the parameters that the optimizer was initialised with; if optax.flatten or split_real_and_imaginary is "
        "around lookahead(), put it inside"
    )
    leaves, tree = jax.tree_util.tree_flatten_with_path(slow, is_leaf=_trees.is_left_out)
    try:
        rows = zip(leaves, tree.flatten_up_to(params), strict=True)
    except ValueError as error:
        raise ValueError(f"params and the slow weights have different structures: {error}; {advice}") from None
    for (path, s), p in rows:
        if not _trees.is_left_out(s) and _shape(p) != jnp.shape(s):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} does not fit its slow weights, an array of shape {jnp.shape(s)}; "
                f"{advice}"
            )


def _shape(x: Any) -> tuple[int, ...] | None:
    return () if isinstance(x, bool | int | float | complex) else getattr(x, "shape", None)


def _is_state(x: Any) -> bool:
    return isinstance(x, _STATES)


def _is_any_state(x: Any) -> bool:
    # Orbax restores named tuples as dictionaries unless it gets a target.
    return _is_state(x) or (isinstance(x, Mapping) and {"fast_state", "slow_params"} <= cast(Any, x).keys())


def _slow_of(state: Any) -> Any:
    return state["slow_params"] if isinstance(state, Mapping) else state.slow_params
