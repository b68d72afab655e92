"""Optimizers and learning-rate schedules as Optax transformations, with or without Lookahead.

| name  | weight decay          | what it is                                                          |
|-------|-----------------------|---------------------------------------------------------------------|
| sgd   | L2, in the gradient   | torch.optim.SGD; no momentum unless asked for                       |
| adam  | L2, in the gradient   | torch.optim.Adam                                                    |
| radam | decoupled: p(1 - lr wd) | the RAdam authors' code: eps beside sqrt(v), v not bias-corrected |
| adamw, nadamw, lion, muon, schedule_free_adamw | decoupled | Optax's own, with its defaults          |

`train.register_optimizer` adds any other Optax optimizer by a name of its own. A run's whole optimizer is

    ema(lookahead(multi_steps(clip_by_global_norm, optimizer)))

with the parts that the config asks for.
"""

import inspect
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la
from train.averages import with_ema
from train.config import OptimizerConfig
from train.errors import UserError
from train.optimizer_options import AdamW, Lion, Muon, ScheduleFreeAdamW
from train.registry import OPTIMIZERS, Entry
from train.setting import INT32_MAX


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
    """The learning rate as a function of the number of batches done.

    "step": multiplied by `decay_factor` when `decay_epochs[i] + decay_delay` epochs are done.
    "cosine": from `learning_rate` to 0 over all epochs, or over each `schedule_epochs` of them (SGDR,
    arXiv:1608.03983).

    In the first `warmup_epochs` of the run or, if `schedule_epochs` is set, of each cycle, the rate rises linearly from
    0. With "cosine" this is `optax.warmup_cosine_decay_schedule`: the cosine begins after the warm-up. With "step" the
    warm-up multiplies the rate, and the drops stay at their epochs.

    Raises:
      UserError: the last step of the run, or the step of a drop, is beyond int32, in which steps are counted; or the
        warm-up is as long as the run.
    """
    most, warmup = INT32_MAX // steps_per_epoch, config.warmup_epochs
    if epochs > most:
        raise UserError(
            f"config.epochs={epochs} must be at most {most}: each has {steps_per_epoch} steps, counted in int32"
        )
    span = config.schedule_epochs or epochs
    if warmup >= span:
        raise UserError(f"config.optimizer.warmup_epochs={warmup} must be less than the schedule's {span} epochs")
    warmup_steps, total = round(warmup * steps_per_epoch), span * steps_per_epoch
    if config.schedule == "cosine":
        cosine = optax.cosine_decay_schedule(config.learning_rate, total)
        if warmup_steps:
            cosine = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup_steps, total)
        return (lambda step: cosine(jnp.asarray(step) % total)) if span < epochs else cosine
    for epoch in config.decay_epochs:
        if epoch + config.decay_delay > most:
            late = f" with config.optimizer.decay_delay={config.decay_delay}" if config.decay_delay else ""
            raise UserError(
                f"config.optimizer.decay_epochs={config.decay_epochs}{late} must be at most {most}: each epoch has "
                f"{steps_per_epoch} steps, counted in int32"
            )
    drops = {(epoch + config.decay_delay) * steps_per_epoch: config.decay_factor for epoch in config.decay_epochs}
    steps = optax.piecewise_constant_schedule(config.learning_rate, drops)
    if not warmup_steps:
        return steps
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: rise(step) * steps(step)


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


def adamw(learning_rate: optax.Schedule, config: OptimizerConfig, options: AdamW) -> optax.GradientTransformation:
    """`optax.adamw`."""
    return optax.adamw(learning_rate, options.b1, options.b2, options.eps, weight_decay=config.weight_decay)


def nadamw(learning_rate: optax.Schedule, config: OptimizerConfig, options: AdamW) -> optax.GradientTransformation:
    """`optax.nadamw`."""
    return optax.nadamw(learning_rate, options.b1, options.b2, options.eps, weight_decay=config.weight_decay)


def lion(learning_rate: optax.Schedule, config: OptimizerConfig, options: Lion) -> optax.GradientTransformation:
    """`optax.lion`."""
    return optax.lion(learning_rate, options.b1, options.b2, weight_decay=config.weight_decay)


def muon(learning_rate: optax.Schedule, config: OptimizerConfig, options: Muon) -> optax.GradientTransformation:
    """`optax.contrib.muon`: matrices by Muon, kernels of convolutions as matrices [H W in, out], the rest by AdamW."""
    matrix = optax.contrib.MuonDimensionNumbers()
    kernel = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)

    def dimension_numbers(params):
        return jax.tree.map(lambda p: {2: matrix, 4: kernel if options.convolutions else None}.get(p.ndim), params)

    return optax.contrib.muon(
        learning_rate,
        ns_steps=options.ns_steps,
        beta=options.beta,
        nesterov=options.nesterov,
        weight_decay=config.weight_decay,
        adam_weight_decay=config.weight_decay,
        adam_learning_rate=lambda count: options.adam_ratio * learning_rate(count),
        muon_weight_dimension_numbers=dimension_numbers,
        consistent_rms=options.consistent_rms or None,
    )


def schedule_free_adamw(
    learning_rate: optax.Schedule, config: OptimizerConfig, options: ScheduleFreeAdamW
) -> optax.GradientTransformation:
    """`optax.contrib.schedule_free_adamw`; `train.averages.evaluated_params` are its weights."""
    return optax.contrib.schedule_free_adamw(
        learning_rate,  # type: ignore[arg-type]  # a schedule serves, whatever it says
        b1=options.b1,
        b2=options.b2,
        eps=options.eps,
        weight_decay=config.weight_decay,
        weight_lr_power=options.weight_lr_power,
    )


def _decay(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.add_decayed_weights(config.weight_decay) if config.weight_decay else optax.identity()


def _check_factory(name: str, entry: Entry) -> None:
    second = [*inspect.signature(entry.load()).parameters.values()][1:2]
    if second and second[0].default is not inspect.Parameter.empty and second[0].name != "config":
        raise UserError(
            f"optimizer {name!r} takes ({', '.join(entry.parameters())}); expected a function (learning_rate, config) "
            "that returns an optimizer: docs/howto/own_optimizer.md"
        )


def make_inner_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that `config.name` names, its weight decay included, without Lookahead.

    Raises:
      UserError: the name is unknown, or what it names does not return an optimizer.
    """
    entry = OPTIMIZERS[config.name]
    if not entry.own:
        _check_factory(config.name, entry)
    options = {} if config.options is None else {"options": config.options}
    inner = entry.call(schedule, config, **options)
    if not isinstance(inner, optax.GradientTransformation):
        raise UserError(
            f"optimizer {config.name!r} returned {inner!r}; expected an optax.GradientTransformation, for example "
            "optax.adam(learning_rate)"
        )
    return inner


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    *,
    accumulate_steps: int = 1,
    ema_decay: float = 0.0,
    workers_axis: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a run.

    Args:
      config: names the inner optimizer, and says whether Lookahead is around it.
      schedule: the learning rate as a function of the number of batches done.
      accumulate_steps: gradients whose mean makes an update; Lookahead counts updates.
      ema_decay: of the moving average of the weights that `train.averages.with_ema` keeps; 0 for none.
      workers_axis: the axis of workers over which Lookahead's outer step averages; None where there is one.
    """
    if accumulate_steps == 1:
        inner = make_inner_optimizer(config, schedule)
    else:
        inner = make_inner_optimizer(config, lambda count: schedule(count * accumulate_steps))
    if config.clip_norm:
        inner = optax.chain(optax.clip_by_global_norm(config.clip_norm), inner)
    if accumulate_steps > 1:
        inner = optax.MultiSteps(inner, accumulate_steps).gradient_transformation()
    if config.lookahead:
        tx = la.lookahead(
            inner,
            sync_period=config.sync_period,
            slow_step_size=config.slow_step_size,
            axis_name=workers_axis,
        )
    else:
        tx = optax.with_extra_args_support(inner)
    return with_ema(tx, ema_decay) if ema_decay else tx
