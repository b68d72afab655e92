"""What several workers that each train fast weights of their own do together: average their outer steps."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from typing import Any

import jax
import jax.numpy as jnp
import optax


def mean_at(sync: jax.Array | bool, tree: optax.Updates, axis_name: Any) -> optax.Updates:
    """The mean over the workers where `sync` holds, zeros elsewhere; nothing is sent on other steps.

    Args:
        sync: boolean scalar, the same on all workers.
        tree: pseudo-gradients of one worker.
        axis_name: the name (or names) of the mapped axis of workers.
    """

    def mean(tree: optax.Updates) -> optax.Updates:
        return jax.lax.pmean(tree, axis_name)

    if isinstance(sync, bool):
        return mean(tree) if sync else tree
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
    return jax.lax.cond(sync, mean, lambda _: zeros, tree)


def all_agree(emitted: jax.Array | bool, axis_name: Any) -> jax.Array | bool:
    """Whether all workers emitted an update, so that none of them waits alone for the others' outer steps."""
    if isinstance(emitted, bool):
        return emitted
    return jax.lax.pmin(emitted.astype(jnp.int32), axis_name) == 1
