"""Which weights to evaluate. Two kinds are means of those that trained: a moving average, Schedule-Free's average."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

import lookahead_jax as la


class AveragedState(NamedTuple):
    """State of `with_ema`.

    Attributes:
      inner_state: the optimizer's.
      average: `optax.EmaState`: the number of updates, and the sum that the average is made of.
    """

    inner_state: Any
    average: Any


def with_ema(tx: optax.GradientTransformationExtraArgs, decay: float) -> optax.GradientTransformationExtraArgs:
    """The optimizer, keeping an exponential moving average of the parameters after each of its updates.

    With d the decay and p_t the parameters after update t, the average after n updates is

        sum_t d^(n - t) p_t / sum_t d^(n - t),

    `optax.ema(d, debias=True)` of the parameters: the initial ones have no part in it. Calls that make no update leave
    it as it is: see `lookahead_jax.emitted_update`, which does not see a wrapper behind `clip_norm`.
    """

    ema = optax.ema(decay, debias=True)

    def init_fn(params: optax.Params) -> AveragedState:
        return AveragedState(tx.init(params), ema.init(params))

    def update_fn(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, AveragedState]:
        updates, inner_state = tx.update(updates, state.inner_state, params, **extra_args)
        _, average = ema.update(optax.apply_updates(params, updates), state.average)
        made = la.emitted_update(state.inner_state, inner_state)
        average = jax.tree.map(lambda new, old: jnp.where(made, new, old), average, state.average)
        return updates, AveragedState(inner_state, average)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def ema_params(opt_state: AveragedState, params: optax.Params, decay: float) -> optax.Params:
    """The average that `with_ema` keeps; before the first update the parameters themselves."""
    average = opt_state.average
    corrected = optax.tree.bias_correction(average.ema, decay, jnp.maximum(average.count, 1))
    return jax.tree.map(lambda mean, p: jnp.where(average.count > 0, mean, p), corrected, params)


def without_ema(opt_state: Any) -> Any:
    """The state of the optimizer that `with_ema` is around, where it is."""
    return opt_state.inner_state if isinstance(opt_state, AveragedState) else opt_state


def is_schedule_free(opt_state: Any) -> bool:
    """Whether the optimizer is Schedule-Free, so that its parameters are not the weights to evaluate."""
    return bool(_schedule_free_states(opt_state))


def schedule_free_params(opt_state: Any, params: optax.Params) -> optax.Params:
    """Schedule-Free's average x. Gradients are taken at its parameters, y = b1 x + (1 - b1) z; the state has z."""
    return schedule_free_eval_params(_schedule_free_states(opt_state)[0], params)


def _now(name: str, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def evaluated_params(
    opt_state: Any,
    params: optax.Params,
    *,
    slow: bool = False,
    ema_decay: float = 0.0,
    compute: Callable[..., Any] = _now,
) -> Any:
    """The weights to evaluate: Lookahead's slow ones, the moving average, or the live ones.

    With Schedule-Free, its average takes the place of the live ones.

    Args:
      opt_state: of the run's optimizer.
      params: the live weights.
      slow: the slow weights, which the state holds.
      ema_decay: of the moving average; 0 for the weights without it.
      compute: `compute(name, function, *args)` gives `function(*args)`; it is called only for weights that the state
        does not hold as they are, for example to compile the function under that name.
    """
    if slow:
        return la.slow_params(opt_state)
    if ema_decay:
        return compute("ema_params", functools.partial(ema_params, decay=ema_decay), opt_state, params)
    if is_schedule_free(opt_state):
        return compute("schedule_free_params", schedule_free_params, opt_state, params)
    return params


def _schedule_free_states(opt_state: Any) -> list[Any]:
    def is_state(node: Any) -> bool:
        return isinstance(node, ScheduleFreeState)

    return [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
