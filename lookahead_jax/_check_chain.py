"""A test for chains that change the updates after Lookahead."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lookahead_jax import _trees
from lookahead_jax._checks import check_optimizer
from lookahead_jax._lookahead import LookaheadState
from lookahead_jax._slow_params import slow_params

# Enough for optax.contrib.reduce_on_plateau with its default patience of 10, and for a debiased average.
_STEPS = 25


def check_chain(tx: optax.GradientTransformation, params: optax.Params, **extra_args: Any) -> None:
    """Checks that nothing in `tx` changes the updates after Lookahead, for your tests.

    A sync is an update that takes the live weights exactly to the slow ones. A transformation that comes later in the
    chain, such as clipping, `optax.ema` or `optax.keep_params_nonnegative`, changes that update like any other: live
    and slow weights then differ, without an error. The check takes a few steps with random gradients of several
    scales, syncs at each, and compares live and slow weights after each.

    Args:
        tx: an optimizer that contains one or more Lookaheads.
        params: parameters for `tx`; the check is fast if they are small. Random values replace theirs.
        **extra_args: further arguments of `tx.update`. `value`, the loss, is 1 unless given; ``value=None`` leaves it
            out, as `optax.contrib.sam` needs.

    Raises:
        ValueError: live and slow weights differ after a sync (the message names the first such parameter), or there
            was no sync because a transformation around Lookahead does not forward the argument `sync`, or makes no
            update in so few steps.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> params = {"w": jnp.ones([2])}
        >>> la.check_chain(optax.chain(optax.clip(1.0), la.lookahead(optax.sgd(0.1))), params)
        >>> la.check_chain(optax.chain(la.lookahead(optax.sgd(0.1)), optax.clip(1e-3)), params)
        Traceback (most recent call last):
            ...
        ValueError: after a sync, params['w'] differs from its slow weights: ...
    """
    tx = check_optimizer("tx", tx)
    extra_args = {k: v for k, v in ({"value": jnp.ones([])} | extra_args).items() if k != "value" or v is not None}
    rng = np.random.default_rng(0)

    @jax.jit
    def step(params: optax.Params, opt_state: Any, grads: optax.Updates) -> tuple[optax.Params, Any]:
        updates, opt_state = tx.update(grads, opt_state, params, sync=True, **extra_args)
        return optax.apply_updates(params, updates), opt_state

    def random_like(x: jax.typing.ArrayLike, scale: float) -> jax.Array:
        return jnp.asarray(rng.normal(scale=scale, size=jnp.shape(x))).astype(jnp.asarray(x).dtype)

    live = jax.tree.map(lambda x: random_like(x, 1.0), params)
    opt_state, compared = tx.init(live), False
    if not _sync_counts(opt_state):
        raise ValueError("tx contains no lookahead(), and so no sync to check; primal_averaging() has none either")
    for i in range(_STEPS):
        scale = 10.0 ** (i % 5 - 2)
        before = _sync_counts(opt_state)
        live, opt_state = step(live, opt_state, jax.tree.map(lambda x, scale=scale: random_like(x, scale), params))
        if all(new > old for new, old in zip(_sync_counts(opt_state), before, strict=True)):
            _compare(live, slow_params(opt_state, live))
            compared = True
    if not compared:
        raise ValueError(
            f"no sync happened in {_STEPS} steps, although update() was given sync=True: a transformation around "
            "lookahead() does not forward extra arguments, or updates less often; for this check use sync_period=1, or "
            "let it accumulate fewer steps"
        )


def _sync_counts(opt_state: Any) -> list[int]:
    def is_state(x: Any) -> bool:
        return isinstance(x, LookaheadState)

    return [int(x.sync_count) for x in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(x)]


def _compare(live: optax.Params, slow: optax.Params) -> None:
    leaves, tree = jax.tree_util.tree_flatten_with_path(live, is_leaf=_trees.is_none)
    for (path, p), s in zip(leaves, tree.flatten_up_to(slow), strict=True):
        if p is not None and not jnp.array_equal(p, s.astype(p.dtype), equal_nan=jnp.issubdtype(p.dtype, jnp.inexact)):
            raise ValueError(
                f"after a sync, params{jax.tree_util.keystr(path)} differs from its slow weights: a transformation "
                "after lookahead() in the chain changed the update; put it before lookahead() or inside fast_optimizer"
            )
