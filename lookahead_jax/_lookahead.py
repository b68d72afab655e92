"""Lookahead as an Optax gradient transformation."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import functools
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lookahead_jax import _fast_state, _sync
from lookahead_jax._adaptive import AdaptiveStepSize
from lookahead_jax._fast_state import FastStateAtSync

_DEFAULT_SLOW_STEP_SIZE = 0.8

# The text of optax._src.base.NO_PARAMS_MSG, which optax does not export; a test compares the two.
_NO_PARAMS_MSG = (
    "You are using a transformation that requires the current value of "
    "parameters, but you are not passing `params` when calling `update`."
)


class LookaheadState(NamedTuple):
    """State of the transformation returned by :func:`lookahead`.

    Attributes:
        fast_state: state of the fast optimizer.
        slow_params: the slow weights: a tree like the parameters, in buffers of its own.
        steps_since_sync: steps of the fast optimizer since the last sync; int32, shape ().
        sync_count: completed syncs, the argument of schedules; int32, shape ().
        slow_state: state of `slow_optimizer`; an empty tuple without one.
        after_sync: what `fast_state_at_sync` leaves to be done to `fast_state` as the next step begins; an empty
            tuple for "maintain".
    """

    fast_state: optax.OptState
    slow_params: optax.Params
    steps_since_sync: jax.Array
    sync_count: jax.Array
    slow_state: optax.OptState = ()
    after_sync: Any = ()


def lookahead(
    fast_optimizer: optax.GradientTransformation,
    sync_period: jax.typing.ArrayLike | optax.Schedule = 5,
    slow_step_size: jax.typing.ArrayLike | optax.Schedule | AdaptiveStepSize = _DEFAULT_SLOW_STEP_SIZE,
    *,
    slow_optimizer: optax.GradientTransformation | None = None,
    fast_state_at_sync: FastStateAtSync = "maintain",
    slow_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookahead: k steps forward, 1 step back.

    The fast optimizer takes :math:`k` steps from the slow weights :math:`\phi`; then the slow weights go a part
    :math:`\alpha` of the way to where it arrived, and the fast (live) weights :math:`\theta` start again from there:

    .. math::

        \begin{align*}
          \theta_{t,0} &= \phi_t, \\
          \theta_{t,i} &= \theta_{t,i-1} + A(L, \theta_{t,i-1}), \qquad i = 1, \dots, k, \\
          \phi_{t+1} &= \phi_t + \alpha (\theta_{t,k} - \phi_t).
        \end{align*}

    The parameters given to `init` and `update` are the live weights, where gradients are taken; the slow weights
    are in the state. Evaluate with ``slow_params(opt_state)``. Right after a sync live and slow weights are equal,
    bit for bit (with `slow_dtype`: once the slow ones are rounded to the parameters' dtype). BatchNorm's running
    statistics are those of the live weights: evaluate right after a sync, or estimate them anew.

    The sync changes the updates so that ``params + updates`` lands on the slow weights. So nothing may change
    updates after Lookahead: gradient clipping, weight decay and learning rates belong before it in a chain or
    inside `fast_optimizer`.

    Args:
        fast_optimizer: the inner optimizer :math:`A`, any :class:`optax.GradientTransformation`. Extra arguments
            of `update` are forwarded to it.
        sync_period: :math:`k`, an integer >= 1: a number, an array (may be traced) or a schedule of the number
            of completed syncs. A step counts when the fast optimizer emits an update: under `optax.MultiSteps` or
            `optax.apply_if_finite`, around Lookahead or directly inside as `fast_optimizer`, an accumulating or
            a skipped step does not count. Deeper inside (in a chain, in `partition`) each call of `update` counts.
        slow_step_size: :math:`\alpha` in [0, 1]: a number, an array (may be traced), a schedule of the number of
            completed syncs, or :func:`adaptive_step_size`.
        slow_optimizer: the outer step in general: a transformation of the pseudo-gradient
            :math:`\phi_t - \theta_{t,k}`, called with the slow weights as its parameters. ``optax.sgd(alpha)`` is
            plain Lookahead; ``optax.sgd(lr, momentum, nesterov=True)`` is the outer optimizer of SNOO and, with one
            worker, of DiLoCo. It takes the place of `slow_step_size`. On a CPU it, like an adaptive step size,
            costs XLA temporary buffers: an update takes 3 to 5 times as long as Adam's.
        fast_state_at_sync: what becomes of the fast optimizer's moments at a sync. "maintain" leaves them;
            "reset" sets them to their initial value; "pullback" interpolates them, like the weights, with
            :math:`\alpha` between their values after this and after the last sync. Only accumulators shaped like
            the parameters change, never step counts, schedules or random keys: after "reset" Adam's bias
            correction goes on from the current step count. The change is made as the next step begins.
        slow_dtype: a floating-point dtype that the slow weights have at least; None is the parameters' own. float32
            with bfloat16 parameters keeps what many small outer steps add up to; the live weights are the slow ones
            rounded after each sync. Parameters of a wider dtype keep it, complex ones stay complex.

    Returns:
        An :class:`optax.GradientTransformationExtraArgs`, whose updates have the shapes and dtypes of the fast
        optimizer's. Integer parameters are left to the fast optimizer; their slow copy takes the live value at each
        sync.

    Raises:
        ValueError: a static argument is out of its range, an optimizer is none, or `update` is called without
            `params`.

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
    _check_sync_period(sync_period)
    _check_slow_step_size(slow_step_size)
    _check_outer_step(slow_step_size, slow_optimizer, fast_state_at_sync)
    fast = _with_extra_args("fast_optimizer", fast_optimizer)
    slow = None if slow_optimizer is None else _with_extra_args("slow_optimizer", slow_optimizer)
    dtype = None if slow_dtype is None else jax.dtypes.canonicalize_dtype(slow_dtype)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"slow_dtype={slow_dtype!r} holds no fractions; use a floating-point dtype such as float32")

    def init_fn(params: optax.Params) -> LookaheadState:
        fast_state = fast.init(params)
        slow_params = jax.tree.map(functools.partial(_slow_copy, dtype), params)
        return LookaheadState(
            fast_state=fast_state,
            slow_params=slow_params,
            steps_since_sync=jnp.zeros([], jnp.int32),
            sync_count=jnp.zeros([], jnp.int32),
            slow_state=() if slow is None else slow.init(slow_params),
            after_sync=_fast_state.init_after_sync(fast_state_at_sync, fast, fast_state),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,  # a LookaheadState; Optax's protocol allows no narrower type
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LookaheadState]:
        if params is None:
            raise ValueError(_NO_PARAMS_MSG)
        grads = updates
        before = _fast_state.begin_step(fast_state_at_sync, fast, state.fast_state, state.after_sync, params)
        updates, fast_state = fast.update(grads, before, params, **extra_args)

        emitted = _fast_state.emitted_update(before, fast_state)
        steps = state.steps_since_sync + emitted
        sync = emitted & (steps >= _value_at(sync_period, state.sync_count))

        pseudo_grads = _sync.pseudo_gradients(params, updates, state.slow_params)
        if slow is None:
            if isinstance(slow_step_size, AdaptiveStepSize):
                alpha = slow_step_size.estimate(sync, grads, params, updates, state.slow_params, fast_state)
            else:
                alpha = _value_at(slow_step_size, state.sync_count)
            slow_updates = jax.tree.map(functools.partial(_descend, alpha), pseudo_grads)
            slow_state = state.slow_state
        else:
            alpha = 1.0  # of pullback, which is refused here
            slow_updates, slow_state = slow.update(pseudo_grads, state.slow_state, state.slow_params, **extra_args)
            slow_state = _sync.select(sync, slow_state, state.slow_state)
        updates, slow_params = _sync.synchronize(sync, params, updates, state.slow_params, slow_updates)

        return updates, LookaheadState(
            fast_state=fast_state,
            slow_params=slow_params,
            steps_since_sync=jnp.where(sync, 0, steps),
            sync_count=state.sync_count + sync,
            slow_state=slow_state,
            after_sync=_fast_state.end_step(fast_state_at_sync, sync, fast_state, state.after_sync, alpha),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _value_at(value: Any, sync_count: jax.Array) -> Any:
    return value(sync_count) if callable(value) else value


def _descend(step_size: jax.typing.ArrayLike, grads: jax.Array) -> jax.Array:
    return -jnp.asarray(step_size).astype(grads.dtype) * grads


def _slow_copy(dtype: Any, param: jax.typing.ArrayLike) -> jax.Array:
    # A copy, since the live weights and the state are donated together and one buffer cannot be donated twice;
    # with an explicit dtype, since a Python number would give a weakly typed array and a second compilation.
    own = jnp.asarray(param).dtype
    if dtype is not None and jnp.issubdtype(own, jnp.inexact):
        own = jnp.promote_types(own, dtype)
    return jnp.array(param, dtype=own, copy=True)


def _with_extra_args(name: str, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(f"{name}={optimizer!r} is no optax.GradientTransformation; give one, as in optax.adam(1e-3)")
    return optax.with_extra_args_support(optimizer)


def _check_sync_period(value: Any) -> None:
    # Arrays may be traced (inject_hyperparams makes them so) and are taken as they are.
    if callable(value) or isinstance(value, jax.Array | np.ndarray):
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"sync_period={value!r} is not a number of steps; use an integer >= 1")


def _check_slow_step_size(value: Any) -> None:
    if isinstance(value, AdaptiveStepSize) or callable(value) or isinstance(value, jax.Array | np.ndarray):
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise ValueError(
            f"slow_step_size={value!r} does not lie between the slow and the fast weights; use a number in [0, 1]"
        )


def _check_outer_step(slow_step_size: Any, slow_optimizer: Any, fast_state_at_sync: str) -> None:
    if fast_state_at_sync not in get_args(FastStateAtSync):
        raise ValueError(
            f"fast_state_at_sync={fast_state_at_sync!r} is unknown; use one of {get_args(FastStateAtSync)}"
        )
    if slow_optimizer is None:
        return
    if fast_state_at_sync == "pullback":
        raise ValueError(
            'fast_state_at_sync="pullback" interpolates with slow_step_size, which slow_optimizer replaces; '
            'use "maintain" or "reset"'
        )
    # inject_hyperparams passes the default on as an array.
    if not isinstance(slow_step_size, jax.Array) and slow_step_size != _DEFAULT_SLOW_STEP_SIZE:
        raise ValueError(
            f"slow_step_size={slow_step_size!r} and slow_optimizer exclude each other; "
            "put the step size into slow_optimizer, as in optax.sgd(0.5)"
        )
