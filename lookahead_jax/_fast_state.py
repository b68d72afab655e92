"""What Lookahead may know of the fast optimizer's state: whether it emitted an update, and where its moments are."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookahead_jax._sync import select

FastStateAtSync = Literal["maintain", "reset", "pullback"]


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


class AfterSync(NamedTuple):
    """What a sync leaves for the step after it to do to the fast optimizer's state.

    The moments are replaced at the beginning of that step and not at the sync itself, where the parameters and the
    moments would each be computed from the other's old value: XLA then copies every buffer, and a step costs four
    times as much on a CPU. The trajectory is the same.

    Attributes:
        pending: boolean scalar; whether the last step ended in a sync.
        pulled: for "pullback", the moments as the last sync pulled them back, with None for every other leaf of the
            fast optimizer's state; an empty tuple for "reset".
    """

    pending: jax.Array
    pulled: Any = ()


def init_after_sync(
    mode: FastStateAtSync, fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState
) -> Any:
    """The state of `mode` before the first step; an empty tuple for "maintain"."""
    if mode == "maintain":
        return ()
    pending = jnp.zeros([], jnp.bool_)
    if mode == "reset":
        return AfterSync(pending)

    def copied(is_moment: bool, x: jax.Array) -> jax.Array | None:
        # A copy, since one buffer cannot be donated twice.
        return jnp.array(x, copy=True) if is_moment else None

    return AfterSync(pending, jax.tree.map(copied, _is_moment(fast_optimizer, fast_state), fast_state))


def begin_step(
    mode: FastStateAtSync,
    fast_optimizer: optax.GradientTransformation,
    fast_state: optax.OptState,
    after_sync: Any,
    params: optax.Params,
) -> optax.OptState:
    """The state that the fast optimizer's step starts from: right after a sync, with other moments.

    Args:
        mode: "maintain", "reset" or "pullback".
        fast_optimizer: whose state it is.
        fast_state: its state after the last step.
        after_sync: of the last step.
        params: the live weights.
    """
    if mode == "maintain":
        return fast_state

    def replaced(is_moment: bool, x: jax.Array, new: Any) -> jax.Array:
        return select(after_sync.pending, new, x) if is_moment else x

    new_state = fast_optimizer.init(params) if mode == "reset" else after_sync.pulled
    return jax.tree.map(replaced, _is_moment(fast_optimizer, fast_state), fast_state, new_state)


def end_step(
    mode: FastStateAtSync,
    sync: jax.Array,
    fast_state: optax.OptState,
    after_sync: Any,
    alpha: jax.typing.ArrayLike,
) -> Any:
    """What the next step has to do: on a sync, `pulled` moves by `alpha` of the way to the moments.

    Args:
        mode: "maintain", "reset" or "pullback".
        sync: boolean scalar; whether this step ends in a sync.
        fast_state: the fast optimizer's state after the step.
        after_sync: of the last step.
        alpha: the slow step size of this sync.
    """
    if mode == "maintain":
        return ()
    if mode == "reset":
        return AfterSync(sync)

    def pull(last: jax.Array | None, x: jax.Array) -> Any:
        return None if last is None else select(sync, last + jnp.asarray(alpha).astype(last.dtype) * (x - last), last)

    pulled = jax.tree.map(pull, after_sync.pulled, fast_state, is_leaf=lambda x: x is None)
    return AfterSync(sync, pulled)


def _is_moment(fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState) -> Any:
    """True for each leaf of the state that the optimizer shaped after the parameters, in floating point.

    Found by structure, as `optax.tree.map_params` finds it: initialised with a placeholder for the parameters,
    the state holds that placeholder where its moments go, and not at counts, schedules' values and random keys.
    """

    def is_inexact(x: jax.Array) -> bool:
        return jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)

    def is_no_param(_: Any) -> bool:
        return False

    return optax.tree.map_params(fast_optimizer, is_inexact, fast_state, transform_non_params=is_no_param)
