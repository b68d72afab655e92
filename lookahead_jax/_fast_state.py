"""What Lookahead may know of the fast optimizer's state: whether it emitted an update, and where its moments are."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _trees
from lookahead_jax._sync import select, where

FastStateAtSync = Literal["maintain", "reset", "pullback"]

# Counts of bias correction, by the names that Optax gives them. A state that has one of them directly beside its
# moments counts the steps of those moments; counts of schedules have no moments beside them.
_COUNTS = ("count", "t")


def emitted_update(before: optax.OptState, after: optax.OptState) -> jax.Array | bool:
    """Whether the fast optimizer's last call emitted an update.

    False where `optax.MultiSteps` only accumulated, where `optax.apply_if_finite` refused the gradients (those calls
    return zeros, and are no steps), and where `optax.contrib.sam` climbed: that step it takes back itself. Looks at
    these wrappers at the root of the state only; what a chain emits while one of its members waits is for its members
    to say.

    Args:
        before: the fast optimizer's state before the call.
        after: its state after the call.
    """
    if isinstance(before, optax.MultiStepsState) and isinstance(after, optax.MultiStepsState):
        stepped = jnp.not_equal(after.gradient_step, before.gradient_step)
        return stepped & emitted_update(before.inner_opt_state, after.inner_opt_state)
    if isinstance(before, optax.ApplyIfFiniteState) and isinstance(after, optax.ApplyIfFiniteState):
        return after.last_finite & emitted_update(before.inner_state, after.inner_state)
    if isinstance(before, optax.contrib.SAMState) and isinstance(after, optax.contrib.SAMState):
        return jnp.equal(after.steps_since_sync, 0)
    return True


def is_displaced(before: optax.OptState) -> jax.Array | bool:
    """Whether the live weights of this call are a point that the fast optimizer will come back from: SAM's ascent."""
    if isinstance(before, optax.contrib.SAMState):
        return jnp.not_equal(before.steps_since_sync, 0)
    if isinstance(before, optax.ApplyIfFiniteState):
        return is_displaced(before.inner_state)
    return False


def forget_values(sync: jax.Array | bool, fast_state: optax.OptState) -> optax.OptState:
    """Invalidates the loss that a line search keeps beside the gradient: they belong to the point left by the sync.

    `optax.value_and_grad_from_state` computes both anew where the value is infinite.
    """

    def is_cache(node: Any) -> bool:
        return _has_fields(node, "value", "grad")

    def forget(node: Any) -> Any:
        return node._replace(value=where(sync, jnp.inf, node.value)) if is_cache(node) else node

    return jax.tree.map(forget, fast_state, is_leaf=is_cache)


class AfterSync(NamedTuple):
    """What a sync leaves for the step after it to do to the fast optimizer's state.

    The moments are replaced at the beginning of that step and not at the sync itself, where the parameters and the
    moments would each be computed from the other's old value: XLA then copies every buffer, and a step costs four
    times as much on a CPU. The trajectory is the same; but who reads `fast_state` between the two sees the old
    moments.

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
    """The state of `mode` before the first step; an empty tuple for "maintain".

    Raises:
        ValueError: the moments of this optimizer cannot be told from the rest of its state.
    """
    if mode == "maintain":
        return ()
    try:
        marked = _marked(fast_optimizer, fast_state)
    except Exception as error:  # whatever an optimizer does with a tree of parameters that has no leaves
        raise ValueError(
            f'fast_state_at_sync="{mode}" has to find the moments in the fast optimizer\'s state, and this optimizer '
            "keeps them in other shapes than the parameters' (optax.lbfgs and optax.flatten do); "
            'use "maintain"'
        ) from error
    pending = jnp.zeros([], jnp.bool_)
    if mode == "reset":
        return AfterSync(pending)

    def copied(node: Any) -> Any:
        # A copy, since one buffer cannot be donated twice.
        if not isinstance(node, _Moments):
            return None
        return jax.tree.map(lambda x: jnp.array(x, copy=True) if _is_inexact(x) else None, node.tree)

    return AfterSync(pending, jax.tree.map(copied, marked))


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
        params: the live weights, as `init` saw them.
    """
    if mode == "maintain":
        return fast_state
    marked = _marked(fast_optimizer, fast_state)
    if mode == "pullback":
        return _replace_moments(after_sync.pending, marked, fast_state, after_sync.pulled, counts=False)
    return _replace_moments(after_sync.pending, marked, fast_state, fast_optimizer.init(params), counts=True)


def end_step(
    mode: FastStateAtSync,
    sync: jax.Array | bool,
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
    pending = jnp.asarray(sync)
    if mode == "reset":
        return AfterSync(pending)

    def pull(last: jax.Array, x: Any) -> jax.Array:
        if x is None:
            return last
        return where(sync, last + jnp.asarray(alpha).astype(last.dtype) * (x - last), last)

    return AfterSync(pending, _trees.map_slow(pull, after_sync.pulled, fast_state))


class _Moments:
    """A part of a state that is shaped after the parameters; JAX takes it for a leaf."""

    def __init__(self, tree: Any):
        self.tree = tree


def _marked(fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState) -> Any:
    """The state with each tree that the optimizer shaped after the parameters in a `_Moments`.

    Found by structure, as `optax.tree.map_params` finds it: initialised with a placeholder for the parameters,
    the state holds that placeholder where its moments go, and not at counts, schedules' values and random keys.
    """
    return optax.tree.map_params(fast_optimizer, _Moments, fast_state, is_leaf=lambda _: True)


def _replace_moments(pending: jax.Array, marked: Any, old: Any, new: Any, *, counts: bool) -> Any:
    """`old` with the moments of `new` where `pending`, and with their counts of steps if `counts`."""

    def is_counted(node: Any) -> bool:
        fields = getattr(node, "_fields", ())
        return any(name in fields for name in _COUNTS) and any(
            isinstance(getattr(node, name), _Moments) for name in fields
        )

    def replace(node: Any, old: Any, new: Any) -> Any:
        if isinstance(node, _Moments):
            return _trees.map_slow(lambda x, y: select(pending, y, x) if _is_inexact(x) else x, old, new)
        if not is_counted(node):
            return old
        # Adam without moments takes steps of 1 / (1 - b1) times their length as long as it corrects the bias of a
        # later step: zeros count from zero.
        fields = {}
        for name in node._fields:
            values = getattr(node, name), getattr(old, name), getattr(new, name)
            is_count = counts and name in _COUNTS
            fields[name] = select(pending, values[2], values[1]) if is_count else walk(*values)
        return type(node)(**fields)

    def walk(marked: Any, old: Any, new: Any) -> Any:
        return jax.tree.map(replace, marked, old, new, is_leaf=is_counted)

    return walk(marked, old, new)


def _has_fields(node: Any, *names: str) -> bool:
    return all(name in getattr(node, "_fields", ()) for name in names)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)
