"""Lookahead as an Optax gradient transformation."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

import functools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _checks, _fast_state, _sync, _trees, _workers
from lookahead_jax._adaptive import AdaptiveStepSize, estimate_step_size
from lookahead_jax._fast_state import FastStateAtSync
from lookahead_jax._spellings import FOURTH, LOOKAHEAD, other_spellings

_DEFAULT_SLOW_STEP_SIZE = 0.8


class LookaheadState(NamedTuple):
    """State of the transformation returned by :func:`lookahead`.

    Attributes:
        fast_state: state of the fast optimizer. With `fast_state_at_sync` "reset" or "pullback", its moments change
            at the beginning of the next step; right after a sync they are still the old ones.
        slow_params: the slow weights: a tree like the parameters, in its own buffers.
        steps_since_sync: steps of the fast optimizer since the last sync; int32, shape ().
        sync_count: number of completed syncs, which schedules are called with; int32, shape ().
        slow_state: state of `slow_optimizer`; an empty tuple without one.
        after_sync: what `fast_state_at_sync` still has to do to `fast_state` at the beginning of the next step; an
            empty tuple for "maintain".
    """

    fast_state: optax.OptState
    slow_params: optax.Params
    steps_since_sync: jax.Array
    sync_count: jax.Array
    slow_state: optax.OptState = ()
    after_sync: Any = ()


@other_spellings(LOOKAHEAD, FOURTH)
def lookahead(
    fast_optimizer: optax.GradientTransformation,
    sync_period: jax.typing.ArrayLike | optax.Schedule = 5,
    slow_step_size: jax.typing.ArrayLike | optax.Schedule | AdaptiveStepSize | None = None,
    *,
    slow_optimizer: optax.GradientTransformation | None = None,
    fast_state_at_sync: FastStateAtSync = "maintain",
    slow_dtype: jax.typing.DTypeLike | None = None,
    axis_name: Hashable | Sequence[Hashable] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookahead: k steps forward, 1 step back.

    The fast optimizer takes :math:`k` steps from the slow weights :math:`\phi`. Then the slow weights move a fraction
    :math:`\alpha` of the way to where it arrived, and the fast (live) weights :math:`\theta` restart from there:

    .. math::

        \begin{align*}
          \theta_{t,0} &= \phi_t, \\
          \theta_{t,i} &= \theta_{t,i-1} + A(L, \theta_{t,i-1}), \qquad i = 1, \dots, k, \\
          \phi_{t+1} &= \phi_t + \alpha (\theta_{t,k} - \phi_t).
        \end{align*}

    The parameters given to `init` and `update` are the live weights, where gradients are taken; the slow weights
    are in the state. Evaluate with ``slow_params(opt_state)``. Right after a sync, live and slow weights are
    bit-identical (with `slow_dtype`, after rounding the slow ones to the parameters' dtype). BatchNorm's running
    statistics belong to the live weights: evaluate right after a sync, or re-estimate them first.

    A sync changes the updates so that ``params + updates`` equals the slow weights, so nothing may change the
    updates after Lookahead. Gradient clipping belongs before it in a chain or inside `fast_optimizer`; learning rates
    and decoupled weight decay belong inside (before it, an Adam inside undoes the one and makes the other an L2
    penalty). :func:`check_chain` tests that nothing changes the updates afterwards.

    **When to sync.** ``update(grads, opt_state, params, sync=None)`` follows `sync_period`. A boolean `sync` overrides
    it: True syncs now and starts a new period; False does not sync but keeps counting, so that an overdue sync happens
    at the next None. In a call in which `optax.contrib.sam` inside climbs, True does not sync either. A Python bool is
    static: jitted with False, the step does not touch the slow weights at all, which saves two of nine passes over
    memory on a GPU with Adam inside, and lets the slow weights stay in host memory. A loop that knows its step number
    can compile both programs and call ``step(..., sync=is_sync_step(i, sync_period))``. Use the same argument to sync
    before an evaluation or at the end of an epoch.

    Transformations around Lookahead that take extra arguments forward `sync`, `optax.MultiSteps` in the calls that
    update; the outermost Lookahead consumes it. Those that take none, such as the
    ``MultiSteps(...).gradient_transformation()`` that a chain needs, drop it: :func:`check_chain` tells.

    **Weights that you change yourself.** The first update copies its `params` to the slow weights, so you can load
    weights between `init` and training. It does not if it is given ``sync=False``, which leaves the slow weights
    alone, or, with `axis_name`, any `sync`. Then, and after any later change that does not go through `update`, such as
    pruning or loading, call :func:`resync`; otherwise the next sync pulls the parameters back.

    Args:
        fast_optimizer: the inner optimizer :math:`A`, any :class:`optax.GradientTransformation`. Extra arguments
            of `update` are forwarded to it.
        sync_period: :math:`k`, an integer >= 1: a number, an array (may be traced) or a schedule of the number
            of completed syncs. A step counts if the fast optimizer emits an update: steps that `optax.MultiSteps`
            accumulates, that `optax.apply_if_finite` skips, or in which `optax.contrib.sam` climbs do not count,
            whether these wrap Lookahead (not `sam`) or are themselves `fast_optimizer`, or that of a Lookahead that
            is. Deeper inside (in a chain, in `partition`), every call of `update` counts. After more than
            `max_consecutive_errors`, `optax.apply_if_finite` emits updates that do not count.
        slow_step_size: :math:`\alpha` in [0, 1]: a number, an array (may be traced), a schedule of the number of
            completed syncs, or :func:`adaptive_step_size`. None means 0.8.
        slow_optimizer: a general outer step, instead of `slow_step_size`: a transformation of the
            pseudo-gradient :math:`\phi_t - \theta_{t,k}`, called with the slow weights as its parameters.
            ``optax.sgd(alpha)`` is plain Lookahead; see :func:`snoo` and :func:`diloco`. Its arithmetic and its state
            are at least float32. On a CPU, XLA needs temporary buffers for it, as for an adaptive step size: with one
            program for all steps an update takes 4 to 5 times as long as Adam's, with a static `sync` 1.6 to 1.9 times.
        fast_state_at_sync: what happens to the fast optimizer's moments at a sync. "maintain" leaves them alone;
            "reset" sets them to their initial values, together with the step count of their bias correction, so that
            Adam keeps its step length; "pullback" interpolates them with :math:`\alpha`, like the weights, between
            their values after the last sync and now. Schedules and random keys do not change, but optimizers that
            read their schedule from the step count of their moments (in `optax.contrib`: `prodigy`, `dadapt_adamw`,
            `madgrad`) restart it with "reset". The change takes effect at the beginning of the next step.
        slow_dtype: the narrowest floating-point dtype allowed for the slow weights; None uses the parameters' dtype.
            With bfloat16 parameters, float32 slow weights keep small outer steps that rounding would lose; after each
            sync the live weights are the slow ones, rounded. Parameters of a wider dtype keep it, complex ones stay
            complex.
        axis_name: the name (or names) of a mapped axis of workers, for `shard_map`, `pmap` or `vmap`, where each
            worker trains its own fast weights: the outer step uses the mean of their pseudo-gradients, one `pmean`
            the size of the parameters per sync. The slow weights are then identical on all workers, and the live
            weights equal them up to the last bit.

    Returns:
        An :class:`optax.GradientTransformationExtraArgs`, whose updates have the shapes and dtypes of the fast
        optimizer's. Integer parameters and those without a gradient (None), such as random keys, are left to the fast
        optimizer; their slow copy takes the live value at each sync.

    Raises:
        ValueError: an argument is out of its range (traced arrays cannot be checked), the fast optimizer's moments
            cannot be found, or `update` is called without `params`.
        TypeError: an unknown argument (the message says what it is called here), or parameters are shapes, not arrays,
            or the pairs that `optax.lookahead` takes.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.lookahead(optax.sgd(0.5), sync_period=2, slow_step_size=0.5)
        >>> params = jnp.array([8.0])
        >>> opt_state = tx.init(params)
        >>> for _ in range(4):
        ...     grads = jax.grad(lambda x: jnp.sum(x**2) / 2)(params)
        ...     updates, opt_state = tx.update(grads, opt_state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(params, la.slow_params(opt_state))
        [4.] [8.]
        [5.] [5.]
        [2.5] [5.]
        [3.125] [3.125]

    References:
        Zhang et al, `Lookahead Optimizer: k steps forward, 1 step back <https://arxiv.org/abs/1907.08610>`_, 2019

        Douillard et al, `DiLoCo: Distributed Low-Communication Training of Language Models
        <https://arxiv.org/abs/2311.08105>`_, 2023

        Kallusky et al, `SNOO: Step-K Nesterov Outer Optimizer <https://arxiv.org/abs/2510.15830>`_, 2025
    """
    _checks.check_sync_period(sync_period)
    adaptive = isinstance(slow_step_size, AdaptiveStepSize)
    _checks.check_outer_step(slow_step_size, slow_optimizer, fast_state_at_sync, axis_name, adaptive=adaptive)
    fast = _checks.check_optimizer("fast_optimizer", fast_optimizer)
    slow = None if slow_optimizer is None else _checks.check_optimizer("slow_optimizer", slow_optimizer)
    dtype = _checks.check_slow_dtype(slow_dtype)
    step_size = _DEFAULT_SLOW_STEP_SIZE if slow_step_size is None else slow_step_size

    def init_fn(params: optax.Params) -> LookaheadState:
        _checks.check_init(params)
        fast_state = fast.init(params)
        slow_params = jax.tree.map(functools.partial(_slow_copy, dtype), params)
        return LookaheadState(
            fast_state=fast_state,
            slow_params=slow_params,
            steps_since_sync=jnp.zeros([], jnp.int32),
            sync_count=jnp.zeros([], jnp.int32),
            slow_state=() if slow is None else slow.init(_sync.widened(slow_params)),
            after_sync=_fast_state.init_after_sync(fast_state_at_sync, fast, fast_state),
        )

    def outer_step(
        sync: jax.Array | bool,
        state: LookaheadState,
        grads: optax.Updates,
        params: optax.Params,
        updates: optax.Updates,
        base: optax.Params,
        fast_state: optax.OptState,
        extra_args: dict[str, Any],
    ) -> tuple[optax.Updates, optax.OptState, Any]:
        """The slow weights' updates from `base`, the slow optimizer's state, and the step size."""
        pseudo_grads = _sync.pseudo_gradients(params, updates, base)
        if axis_name is not None:
            pseudo_grads = _workers.mean_at(sync, pseudo_grads, axis_name)
        if slow is not None:
            slow_updates, slow_state = slow.update(pseudo_grads, state.slow_state, _sync.widened(base), **extra_args)
            return slow_updates, _sync.select(sync, slow_state, state.slow_state), 1.0
        if isinstance(step_size, AdaptiveStepSize):
            alpha = estimate_step_size(step_size, sync, grads, params, updates, base, fast_state)
        else:
            alpha = _value_at(step_size, state.sync_count)
        return jax.tree.map(functools.partial(_descend, alpha), pseudo_grads), state.slow_state, alpha

    def update_fn(
        updates: optax.Updates,
        state: Any,  # a LookaheadState; Optax's protocol allows no narrower type
        params: optax.Params | None = None,
        *,
        sync: jax.typing.ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LookaheadState]:
        params = _checks.check_params(params)
        given = _checks.check_sync(sync)
        grads = updates
        after_sync = state.after_sync
        own_params = _trees.prune(params, state.slow_params)
        before = _fast_state.begin_step(fast_state_at_sync, fast, state.fast_state, after_sync, own_params)
        updates, fast_state = fast.update(grads, before, params, **extra_args)
        updates = _sync.rounded(updates, state.sync_count)

        emitted = _fast_state.emitted_update(before, fast_state)
        if axis_name is not None:
            emitted = _workers.all_agree(emitted, axis_name)
        steps = _sync.where(emitted, state.steps_since_sync + 1, state.steps_since_sync)
        if given is False:
            return updates, state._replace(
                fast_state=fast_state,
                steps_since_sync=steps,
                after_sync=_fast_state.end_step(fast_state_at_sync, fast, False, fast_state, after_sync, 1.0),
            )
        now = emitted & _reached(steps, _value_at(sync_period, state.sync_count)) if given is None else given
        displaced = _fast_state.is_displaced(fast_state)
        if given is not None and displaced is not False:
            now = jnp.logical_and(now, jnp.logical_not(displaced))

        first = (state.sync_count == 0) & (state.steps_since_sync == 0) & ~jnp.asarray(_fast_state.is_displaced(before))
        base = state.slow_params
        if axis_name is None:
            base = _sync.start(first, own_params, base)
        elif given is None:  # otherwise the workers would have to agree on their first parameters, at each step
            base = _workers.start(first, own_params, base, axis_name)
        slow_updates, slow_state, alpha = outer_step(
            now, state, grads, own_params, updates, base, fast_state, extra_args
        )
        slow_updates = _sync.rounded(slow_updates, state.sync_count)
        updates, slow_params = _sync.synchronize(
            now, own_params, updates, base, slow_updates, state.sync_count, replicated=axis_name is not None
        )
        return updates, LookaheadState(
            fast_state=_fast_state.forget_values(now, fast_state),
            slow_params=slow_params,
            steps_since_sync=_sync.where(now, 0, steps),
            sync_count=_sync.where(now, state.sync_count + 1, state.sync_count),
            slow_state=slow_state,
            after_sync=_fast_state.end_step(fast_state_at_sync, fast, now, fast_state, after_sync, alpha),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _value_at(value: Any, sync_count: jax.Array) -> Any:
    return value(sync_count) if callable(value) else value


def _reached(steps: jax.Array, period: Any) -> jax.Array:
    # Optax schedules return periods as floating-point numbers.
    return steps >= jnp.ceil(jnp.asarray(period)).astype(steps.dtype)


def _descend(step_size: jax.typing.ArrayLike, grads: jax.Array) -> jax.Array:
    if not jnp.issubdtype(grads.dtype, jnp.inexact):
        return grads  # zeros, which take no step
    return -jnp.asarray(step_size).astype(grads.dtype) * grads


def _slow_copy(dtype: Any, param: jax.typing.ArrayLike) -> jax.Array:
    # A copy, since the live weights and the state are donated together and one buffer cannot be donated twice;
    # with an explicit dtype, since a Python number would give a weakly typed array and a second compilation.
    own = jnp.asarray(param).dtype
    if dtype is not None and jnp.issubdtype(own, jnp.inexact):
        own = _sync.promoted(own, dtype)
    return jnp.array(param, dtype=own, copy=True)
