"""Averages the outer steps of workers that each train their own fast weights."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _trees


def start(first: jax.Array, params: optax.Params, slow: optax.Params, axis_name: Any) -> optax.Params:
    """The slow weights at the start of this period, the same on all workers; see `_sync.start`.

    At the very first step they are the first worker's live weights, sent unchanged: a mean of equal numbers may differ
    from them in the last bit.
    """

    def of_the_first_worker() -> optax.Params:
        is_first = jax.lax.axis_index(axis_name) == 0

        def leaf(s: jax.Array, p: jax.typing.ArrayLike) -> jax.Array:
            if jnp.issubdtype(s.dtype, jax.dtypes.prng_key):
                return s
            mine = jnp.asarray(p).astype(s.dtype)
            # A sum of booleans is an integer.
            return jax.lax.psum(jnp.where(is_first, mine, jnp.zeros_like(mine)), axis_name).astype(s.dtype)

        return _trees.map_slow(leaf, slow, params)

    return jax.lax.cond(first, of_the_first_worker, lambda: slow)


def mean_at(sync: jax.Array | bool, tree: optax.Updates, axis_name: Any) -> optax.Updates:
    """The mean over the workers on a sync; zeros on other steps, which send nothing. Never called with a static False.

    Args:
        sync: boolean scalar, the same on all workers.
        tree: pseudo-gradients of one worker.
        axis_name: the name (or names) of the mapped axis of workers.
    """

    def mean(tree: optax.Updates) -> optax.Updates:
        # The pseudo-gradients of integers are zeros; their mean would have another dtype.
        return jax.tree.map(lambda x: jax.lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.inexact) else x, tree)

    if isinstance(sync, bool):
        return mean(tree)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
    return jax.lax.cond(sync, mean, lambda _: zeros, tree)


def all_agree(emitted: jax.Array | bool, axis_name: Any) -> jax.Array | bool:
    """Whether all workers emitted an update, so that none of them waits alone for the others' outer steps."""
    if isinstance(emitted, bool):
        return emitted
    return jax.lax.pmin(emitted.astype(jnp.int32), axis_name) == 1
