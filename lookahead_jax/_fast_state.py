"""What Lookahead may know of the fast optimizer's state: whether it emitted an update, and where its moments are."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lookahead_jax._sync import select


def emitted_update(before: optax.OptState, after: optax.OptState) -> jax.Array | bool:
    """Whether the fast optimizer's last call emitted an update.

    False where `optax.MultiSteps` only accumulated and where `optax.apply_if_finite` refused the gradients: those
    calls return zeros, and are no steps. Looks at these wrappers at the root of the state only; what a chain
    emits while one of its members waits is for its members to say.

    Args:
        before: the fast optimizer's state before the call.
        after: its state after the call.
    """
    if isinstance(before, optax.MultiStepsState) and isinstance(after, optax.MultiStepsState):
        stepped = jnp.not_equal(after.gradient_step, before.gradient_step)
        return stepped & emitted_update(before.inner_opt_state, after.inner_opt_state)
    if isinstance(before, optax.ApplyIfFiniteState) and isinstance(after, optax.ApplyIfFiniteState):
        return after.last_finite & emitted_update(before.inner_state, after.inner_state)
    return True


def moments(fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState) -> Any:
    """A copy of the moment accumulators, with None for every other leaf of the state.

    A copy, since the state holds both and a buffer cannot be donated twice.
    """
    return jax.tree.map(
        lambda is_moment, x: jnp.array(x, copy=True) if is_moment else None,
        _is_moment(fast_optimizer, fast_state),
        fast_state,
    )


def reset(
    fast_optimizer: optax.GradientTransformation,
    sync: jax.Array,
    fast_state: optax.OptState,
    params: optax.Params,
) -> optax.OptState:
    """The state with, on a sync, its moments as `fast_optimizer.init(params)` makes them.

    Args:
        fast_optimizer: whose state it is.
        sync: boolean scalar.
        fast_state: its state after the step.
        params: the live weights after the step.
    """
    return jax.tree.map(
        lambda is_moment, x, initial: select(sync, initial, x) if is_moment else x,
        _is_moment(fast_optimizer, fast_state),
        fast_state,
        fast_optimizer.init(params),
    )


def pullback(
    fast_optimizer: optax.GradientTransformation,
    sync: jax.Array,
    fast_state: optax.OptState,
    pulled: Any,
    alpha: jax.typing.ArrayLike,
) -> tuple[optax.OptState, Any]:
    """On a sync, moments become `pulled + alpha * (moments - pulled)`, and so does `pulled`.

    Args:
        fast_optimizer: whose state it is.
        sync: boolean scalar.
        fast_state: its state after the step.
        pulled: the moments as the last sync left them, in the form of :func:`moments`.
        alpha: the slow step size of this sync.

    Returns:
        The new state and the new `pulled`: equal after a sync, in different buffers.
    """

    def pull(is_moment: bool, x: jax.Array, last: jax.Array | None) -> Any:
        # A state leaf that is no moment is passed on as it is, and has None in `pulled`.
        if not is_moment or last is None:
            return x, None
        moved = select(sync, last + jnp.asarray(alpha).astype(last.dtype) * (x - last), x)
        # From `moved`, which has been written by then, so that XLA can update both in place.
        return moved, select(sync, moved, last)

    is_moment = _is_moment(fast_optimizer, fast_state)
    pairs = jax.tree.map(pull, is_moment, fast_state, pulled)
    return (
        jax.tree.map(lambda _, pair: pair[0], is_moment, pairs),
        jax.tree.map(lambda _, pair: pair[1], is_moment, pairs),
    )


def _is_moment(fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState) -> Any:
    """True for each leaf of the state that the optimizer shaped after the parameters, in floating point.

    Found by structure, as `optax.tree.map_params` finds it: initialised with a placeholder for the parameters,
    the state holds that placeholder where its moments go, and not at counts, schedules' values and random keys.
    """
    return optax.tree.map_params(
        fast_optimizer,
        lambda x: jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact),
        fast_state,
        transform_non_params=lambda _: False,
    )
