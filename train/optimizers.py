"""The report's optimizers and learning-rate schedules as Optax transformations, with or without Lookahead.

| name  | weight decay          | what it is                                                          |
|-------|-----------------------|---------------------------------------------------------------------|
| sgd   | L2, in the gradient   | torch.optim.SGD; no momentum unless asked for                       |
| adam  | L2, in the gradient   | torch.optim.Adam                                                    |
| radam | decoupled: p(1 - lr wd) | the RAdam authors' code: eps beside sqrt(v), v not bias-corrected |

`train.register_optimizer` adds any other Optax optimizer by a name of its own.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la
from train.config import INT32_MAX, OptimizerConfig
from train.errors import UserError
from train.registry import OPTIMIZERS


class ScaleByRAdamState(NamedTuple):
    """State of `scale_by_radam`.

    Attributes:
      count: int32 scalar, updates so far.
      mu: first moment, a tree like params.
      nu: second moment, a tree like params.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


def scale_by_radam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Rescales updates by RAdam as its authors' (and the report's) code does.

    With rho_inf = 2/(1-b2) - 1 and rho_t = rho_inf - 2 t b2^t/(1 - b2^t), where rho_t >= 5:

        u = r_t m_hat sqrt(1 - b2^t) / (sqrt(v) + eps),
        r_t = sqrt((rho_t-4)(rho_t-2) rho_inf / ((rho_inf-4)(rho_inf-2) rho_t))

    and u = m_hat before (the first five steps at b2 = .999). `optax.scale_by_radam` adds eps to the bias-corrected
    sqrt(v_hat) instead; that is why this one exists.

    References:
      Liu et al., `On the Variance of the Adaptive Learning Rate and Beyond <https://arxiv.org/abs/1908.03265>`_, 2020
    """
    rho_inf = 2.0 / (1.0 - b2) - 1.0

    def init_fn(params):
        zeros = optax.tree.zeros_like(params)
        return ScaleByRAdamState(jnp.zeros([], jnp.int32), zeros, optax.tree.zeros_like(params))

    def update_fn(updates, state, params=None):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        t = count.astype(jnp.result_type(float))
        # expm1: in float32, 1 - b2**t keeps three digits at t = 6, and rho is a difference of near-equal numbers.
        bias1, bias2 = -jnp.expm1(t * math.log(b1)), -jnp.expm1(t * math.log(b2))
        rho = rho_inf - 2.0 * t * (1.0 - bias2) / bias2
        rectified = rho >= 5.0
        ratio = (rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)
        scale = jnp.sqrt(jnp.where(rectified, ratio, 1.0)) * jnp.sqrt(bias2) / bias1

        def rescale(m, v):
            return jnp.where(rectified, scale.astype(m.dtype) * m / (jnp.sqrt(v) + eps), m / bias1.astype(m.dtype))

        return jax.tree.map(rescale, mu, nu), ScaleByRAdamState(count, mu, nu)

    return optax.GradientTransformation(init_fn, update_fn)


def make_schedule(config: OptimizerConfig, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates.

    "step": multiplied by `decay_factor` when `decay_epochs[i] + decay_delay` epochs are done.
    "cosine": from `learning_rate` to 0 over all epochs.

    Raises:
      UserError: the last step of the run, or the step of a drop, is beyond int32, in which steps are counted.
    """
    most = INT32_MAX // steps_per_epoch
    if epochs > most:
        raise UserError(
            f"config.epochs={epochs} must be at most {most}: each has {steps_per_epoch} steps, counted in int32"
        )
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, epochs * steps_per_epoch)
    for epoch in config.decay_epochs:
        if epoch + config.decay_delay > most:
            late = f" with config.optimizer.decay_delay={config.decay_delay}" if config.decay_delay else ""
            raise UserError(
                f"config.optimizer.decay_epochs={config.decay_epochs}{late} must be at most {most}: each epoch has "
                f"{steps_per_epoch} steps, counted in int32"
            )
    drops = {(epoch + config.decay_delay) * steps_per_epoch: config.decay_factor for epoch in config.decay_epochs}
    return optax.piecewise_constant_schedule(config.learning_rate, drops)


def sgd(learning_rate: optax.Schedule, config: OptimizerConfig) -> optax.GradientTransformation:
    """g <- g + wd p; with momentum m: v <- m v + g, and u = -lr v (Nesterov: u = -lr (g + m v))."""
    momentum = optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity()
    return optax.chain(_decay(config), momentum, optax.scale_by_learning_rate(learning_rate))


def adam(learning_rate: optax.Schedule, config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam on g + wd p."""
    return optax.chain(_decay(config), optax.scale_by_adam(), optax.scale_by_learning_rate(learning_rate))


def radam(learning_rate: optax.Schedule, config: OptimizerConfig) -> optax.GradientTransformation:
    """u = -lr (RAdam(g) + wd p)."""
    return optax.chain(scale_by_radam(), _decay(config), optax.scale_by_learning_rate(learning_rate))


def _decay(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.add_decayed_weights(config.weight_decay) if config.weight_decay else optax.identity()


def make_inner_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that `config.name` names, its weight decay included, without Lookahead.

    Raises:
      UserError: the name is unknown, or what it names does not return an optimizer.
    """
    entry = OPTIMIZERS[config.name]
    options = {} if config.options is None else {"options": config.options}
    inner = entry.load()(schedule, config, **options)
    if not isinstance(inner, optax.GradientTransformation):
        raise UserError(
            f"optimizer {config.name!r} returned {inner!r}; expected an optax.GradientTransformation, for example "
            "optax.adam(learning_rate)"
        )
    return inner


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, *, workers_axis: str | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a run: the inner one, in Lookahead where the config says so.

    Args:
      config: says which.
      schedule: the learning rate.
      workers_axis: the axis of workers over which Lookahead's outer step averages; None where there is one.
    """
    inner = make_inner_optimizer(config, schedule)
    if config.lookahead:
        return la.lookahead(
            inner,
            sync_period=config.sync_period,
            slow_step_size=config.slow_step_size,
            axis_name=workers_axis,
        )
    return optax.with_extra_args_support(inner)
