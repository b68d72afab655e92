"""What Lookahead reads from the fast optimizer's state: whether it emitted an update, and where its moments are."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from typing import Any, Literal, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _trees
from lookahead_jax._sync import select, where

FastStateAtSync = Literal["maintain", "reset", "pullback"]

# Optax's names for the step count of a bias correction, and for a flag that only the first step finds set. They sit
# right next to the moments whose steps they count; the counts of schedules have no moments next to them.
_COUNTS = ("count", "t", "is_initial_step")


def emitted_update(before: Any, after: Any) -> jax.Array | bool:
    """Whether an optimizer's last call emitted an update: those are the calls that a Lookahead around it counts.

    False if `optax.MultiSteps` only accumulated or `optax.apply_if_finite` rejected the gradients (such calls return
    zeros and are not steps), or if `optax.contrib.sam` climbed (it undoes that step itself). These wrappers
    are found only as the outermost transformation, or directly inside an outermost Lookahead: in a chain, other members
    may turn a wrapper's zeros into an update. Past `max_consecutive_errors`, `optax.apply_if_finite` emits what is not
    finite, and this is still False. Use it for anything that must follow updates, such as a moving average of
    the parameters.

    Args:
        before: the optimizer's state before the call.
        after: its state after the call.

    Returns:
        A boolean scalar, or True where no such wrapper is found.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.lookahead(optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2))
        >>> params = jnp.ones(3)
        >>> before = tx.init(params)
        >>> for _ in range(4):
        ...     updates, after = tx.update(params, before, params)
        ...     print(la.emitted_update(before, after))
        ...     before = after
        False
        True
        False
        True
    """
    if isinstance(before, optax.MultiStepsState) and isinstance(after, optax.MultiStepsState):
        stepped = jnp.not_equal(after.gradient_step, before.gradient_step)
        return stepped & emitted_update(before.inner_opt_state, after.inner_opt_state)
    if isinstance(before, optax.ApplyIfFiniteState) and isinstance(after, optax.ApplyIfFiniteState):
        return after.last_finite & emitted_update(before.inner_state, after.inner_state)
    if isinstance(before, optax.contrib.SAMState) and isinstance(after, optax.contrib.SAMState):
        return jnp.equal(after.steps_since_sync, 0)
    if _is_lookahead(before):
        return emitted_update(before.fast_state, after.fast_state)
    return True


def is_displaced(fast_state: Any) -> jax.Array | bool:
    """Whether the live weights of this state are a point that the fast optimizer will return from: SAM's ascent."""
    if isinstance(fast_state, optax.contrib.SAMState):
        return jnp.not_equal(fast_state.steps_since_sync, 0)
    if isinstance(fast_state, optax.MultiStepsState):
        return is_displaced(fast_state.inner_opt_state)
    if isinstance(fast_state, optax.ApplyIfFiniteState):
        return is_displaced(fast_state.inner_state)
    if _is_lookahead(fast_state):
        return is_displaced(fast_state.fast_state)
    return False


def forget_values(sync: jax.Array | bool, fast_state: optax.OptState) -> optax.OptState:
    """Invalidates the loss and gradient that a line search caches: they belong to the point before the sync.

    `optax.value_and_grad_from_state` recomputes both if the value is infinite.
    """

    def is_cache(node: Any) -> bool:
        return _has_fields(node, "value", "grad") and jnp.issubdtype(getattr(node.value, "dtype", int), jnp.floating)

    def forget(node: Any) -> Any:
        if not is_cache(node):
            return node
        return node._replace(value=where(sync, jnp.full_like(node.value, jnp.inf), node.value))

    return jax.tree.map(forget, fast_state, is_leaf=is_cache)


class AfterSync(NamedTuple):
    """What the step after a sync has to do to the fast optimizer's state.

    The moments are replaced at the beginning of that step and not at the sync itself, where the parameters and the
    moments would each be computed from the other's old value: XLA then copies every buffer, and a step costs four
    times as much on a CPU. The trajectory is the same, but code that reads `fast_state` in between sees the old
    moments.

    Attributes:
        pending: boolean scalar; whether the last step ended in a sync.
        pulled: for "pullback", the moments as the last sync pulled them back: a tuple of trees like the parameters,
            with None for leaves that cannot be interpolated; empty for "reset".
    """

    pending: jax.Array
    pulled: Any = ()


def init_after_sync(
    mode: FastStateAtSync, fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState
) -> Any:
    """The state of `mode` before the first step; an empty tuple for "maintain".

    Raises:
        ValueError: this optimizer's moments cannot be told apart from the rest of its state.
    """
    if mode == "maintain":
        return ()
    try:
        marked = _marked(fast_optimizer, fast_state)
    except Exception as error:  # whatever an optimizer does with a tree of parameters that has no leaves
        raise ValueError(
            f'fast_state_at_sync="{mode}" has to find the moments in the fast optimizer\'s state, but this optimizer '
            "keeps them in shapes other than the parameters', as optax.lbfgs and optax.flatten do; "
            'use "maintain"'
        ) from error
    pending = jnp.zeros([], jnp.bool_)
    if mode == "reset":
        if any(map(_is_momo, jax.tree.leaves(fast_state, is_leaf=_is_momo))):
            raise ValueError(
                'fast_state_at_sync="reset" does not fit optax.contrib.momo and momo_adam, whose averages of the loss '
                'would go on without their moments; use "maintain" or "pullback"'
            )
        return AfterSync(pending)

    def copied(tree: Any) -> Any:
        # A copy, since one buffer cannot be donated twice.
        return jax.tree.map(lambda x: jnp.array(x, copy=True) if _is_inexact(x) else None, tree)

    return AfterSync(pending, tuple(map(copied, _moments(marked))))


def begin_step(
    mode: FastStateAtSync,
    fast_optimizer: optax.GradientTransformation,
    fast_state: optax.OptState,
    after_sync: Any,
    params: optax.Params,
) -> optax.OptState:
    """The state that the fast optimizer's step starts from: right after a sync, with new moments.

    Args:
        mode: "maintain", "reset" or "pullback".
        fast_optimizer: the optimizer that `fast_state` belongs to.
        fast_state: its state after the last step.
        after_sync: the last step's `after_sync`.
        params: the live weights, with the structure that `init` saw.
    """
    if mode == "maintain":
        return fast_state
    marked = _marked(fast_optimizer, fast_state)
    if mode == "pullback":
        pulled = iter(after_sync.pulled)
        new = jax.tree.map(lambda x: next(pulled) if isinstance(x, _Moments) else None, marked)
        return _replace_moments(after_sync.pending, marked, fast_state, new, counts=False)
    return _replace_moments(after_sync.pending, marked, fast_state, fast_optimizer.init(params), counts=True)


def end_step(
    mode: FastStateAtSync,
    fast_optimizer: optax.GradientTransformation,
    sync: jax.Array | bool,
    fast_state: optax.OptState,
    after_sync: Any,
    alpha: jax.typing.ArrayLike,
) -> Any:
    """What the next step has to do: on a sync, `pulled` moves a fraction `alpha` of the way to the moments.

    Args:
        mode: "maintain", "reset" or "pullback".
        fast_optimizer: the optimizer that `fast_state` belongs to.
        sync: boolean scalar; whether this step ends in a sync.
        fast_state: its state after the step.
        after_sync: the last step's `after_sync`.
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

    moments = _moments(_marked(fast_optimizer, fast_state))
    pulled = (_trees.map_slow(pull, last, now) for last, now in zip(after_sync.pulled, moments, strict=True))
    return AfterSync(pending, tuple(pulled))


class _Moments:
    """A part of a state that is shaped like the parameters; JAX treats it as a leaf."""

    def __init__(self, tree: Any):
        self.tree = tree


def _marked(fast_optimizer: optax.GradientTransformation, fast_state: optax.OptState) -> Any:
    """The state, with each tree that is shaped like the parameters wrapped in a `_Moments`.

    `optax.tree.map_params` finds them: a state initialised with a placeholder for the parameters contains that
    placeholder where the moments go, but not at counts, schedules' values and random keys. The gradients that
    `optax.MultiSteps` has accumulated are no moments.
    """
    return _without_gradients(optax.tree.map_params(fast_optimizer, _Moments, fast_state, is_leaf=lambda _: True))


def _without_gradients(marked: Any) -> Any:
    def is_multi(node: Any) -> bool:
        return isinstance(node, optax.MultiStepsState)

    def unmark(node: Any) -> Any:
        if not is_multi(node):
            return node
        gradients = jax.tree.map(lambda x: x.tree if isinstance(x, _Moments) else x, node.acc_grads)
        return node._replace(acc_grads=gradients, inner_opt_state=_without_gradients(node.inner_opt_state))

    return jax.tree.map(unmark, marked, is_leaf=is_multi)


def _moments(marked: Any) -> list[Any]:
    return [x.tree for x in jax.tree.leaves(marked) if isinstance(x, _Moments)]


def _replace_moments(pending: jax.Array, marked: Any, old: Any, new: Any, *, counts: bool) -> Any:
    """`old` with the moments of `new` if `pending`; with `counts`, their step counts too."""

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
        # Adam's steps would change length if zeroed moments kept the bias correction of a later step, so their
        # count restarts from zero as well.
        fields = {}
        for name in node._fields:
            values = getattr(node, name), getattr(old, name), getattr(new, name)
            is_count = counts and name in _COUNTS
            fields[name] = select(pending, values[2], values[1]) if is_count else walk(*values)
        return type(node)(**fields)

    def walk(marked: Any, old: Any, new: Any) -> Any:
        return jax.tree.map(replace, marked, old, new, is_leaf=is_counted)

    return walk(marked, old, new)


def _is_momo(node: Any) -> bool:
    return isinstance(node, optax.contrib.MomoState | optax.contrib.MomoAdamState)


def _is_lookahead(node: Any) -> TypeGuard[Any]:
    """Whether it is the state of `lookahead` or `primal_averaging`, whose modules import this one."""
    return _has_fields(node, "fast_state", "slow_params")


def _has_fields(node: Any, *names: str) -> bool:
    return all(name in getattr(node, "_fields", ()) for name in names)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)
