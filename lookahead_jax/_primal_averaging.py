"""Primal averaging: averages the iterates at every step, instead of a sync every k steps."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _checks, _fast_state, _sync, _trees


class PrimalAveragingState(NamedTuple):
    """State of the transformation returned by :func:`primal_averaging`.

    Attributes:
        fast_state: state of the fast optimizer.
        slow_params: the average :math:`x`, in its own buffers.
        started: whether there has been an update; bool, shape ().
    """

    fast_state: optax.OptState
    slow_params: optax.Params
    started: jax.Array


def primal_averaging(
    fast_optimizer: optax.GradientTransformation, mu_x: jax.typing.ArrayLike, mu_y: jax.typing.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""Generalized primal averaging (GPA): gradients between an average and the fast optimizer's iterate.

    The fast optimizer :math:`A` moves :math:`z`; gradients are taken at :math:`y`; :math:`x` is the average to
    evaluate:

    .. math::

        \begin{align*}
          y_t &= \mu_y x_t + (1 - \mu_y) z_t, \\
          z_{t+1} &= z_t + A(\nabla L(y_t), z_t), \\
          x_{t+1} &= \mu_x x_t + (1 - \mu_x) z_{t+1}.
        \end{align*}

    It is the smooth form of DiLoCo with one worker: there is no sync, all steps are alike, and :math:`x` is one buffer
    more than the fast optimizer needs. The parameters given to `init` and `update` are :math:`y`;
    ``slow_params(opt_state)`` gives :math:`x`. :math:`z` is not stored but computed from both, which multiplies the
    rounding error of :math:`y` by :math:`1 / (1 - \mu_y)`: keep the parameters in float32. The fast optimizer gets
    :math:`z` as its parameters, so AdamW's decay acts on :math:`z`.

    With :math:`\mu_x = 0` or :math:`\mu_y = 0` the parameters move as with the fast optimizer alone; if
    :math:`\mu_y = 0`, :math:`x` is an exponential moving average of them. A call in which the fast optimizer makes no
    update (it is an `optax.MultiSteps` that accumulates, or an `optax.apply_if_finite` that rejects; deeper inside they
    are not seen) moves nothing. Integer parameters and those without a gradient (None) are left to the fast optimizer;
    :math:`x` has their live value.

    Args:
        fast_optimizer: the inner optimizer :math:`A`, such as `optax.adamw`. Extra arguments of `update` are forwarded
            to it.
        mu_x: :math:`\mu_x` in [0, 1], the decay of the average; near 1, such as 0.99.
        mu_y: :math:`\mu_y` in [0, 1), the weight of the average in the point where gradients are taken, such as 0.9.

    Returns:
        An :class:`optax.GradientTransformationExtraArgs`.

    Raises:
        ValueError: `mu_x` or `mu_y` is out of range, or `fast_optimizer` is not a gradient transformation; raised by
            `init` for `optax.contrib.sam`, whose ascent would be taken for a step.

    Example:
        With gradient 1, learning rate 1 and both weights 1/2: z = 7, x = 7.5, y = 7.25; then z = 6, x = 6.75.

        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.primal_averaging(optax.sgd(1.0), mu_x=0.5, mu_y=0.5)
        >>> params = jnp.array([8.0])
        >>> opt_state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, opt_state = tx.update(jnp.array([1.0]), opt_state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(params, la.slow_params(opt_state))
        [7.25] [7.5]
        [6.375] [6.75]

    References:
        Defazio et al, `Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs
        <https://arxiv.org/abs/2512.17131>`_, 2025
    """
    _checks.check_fraction("mu_x", mu_x, schedule=False)
    _checks.check_fraction("mu_y", mu_y, below_one=True, schedule=False)
    fast = _checks.check_optimizer("fast_optimizer", fast_optimizer)

    def init_fn(params: optax.Params) -> PrimalAveragingState:
        _checks.check_init(params)
        copies = jax.tree.map(lambda p: jnp.array(p, dtype=jnp.asarray(p).dtype, copy=True), params)
        fast_state = fast.init(params)
        if _fast_state.is_displaced(fast_state) is not False:
            raise ValueError("primal_averaging() cannot be around optax.contrib.sam; lookahead() can")
        return PrimalAveragingState(fast_state, copies, jnp.zeros([], jnp.bool_))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, PrimalAveragingState]:
        params = _checks.check_params(params)
        x = _sync.start(~state.started, params, state.slow_params)
        # With d = z - x = (y - x) / (1 - mu_y) before the step and A's update u, d' = d + u and
        #
        #   x' = x + (1 - mu_x) d',    y' = y + mu_y (1 - mu_x) d' + (1 - mu_y) u,
        #
        # only differences, so that small steps are not lost next to large numbers.

        def distance(x: jax.Array, y: jax.Array) -> jax.Array | None:
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return None
            wide_x, wide_y = _sync.widen(x, y)
            return (wide_y - wide_x) / (1 - _as(mu_y, wide_x))

        def iterate(x: jax.Array, y: jax.Array, d: jax.Array | None) -> jax.Array:
            return y if d is None else (x.astype(d.dtype) + d).astype(x.dtype)

        distances = _trees.map_slow(distance, x, params)
        z = _trees.map_slow(iterate, x, params, distances)
        updates, fast_state = fast.update(updates, state.fast_state, z, **extra_args)
        emitted = _fast_state.emitted_update(state.fast_state, fast_state)

        def leaf(x: Any, y: Any, d: Any, u: Any) -> tuple[Any, Any]:
            if x is None:
                return u, None
            if u is None or d is None:
                # What is not averaged is as the live parameter; a select, so that it gets a buffer of its own.
                live = y if u is None else y + u
                return u, _sync.where(state.started | True, live, x)
            moved = d + u.astype(d.dtype)
            share_x, share_y = 1 - _as(mu_x, d), _as(mu_y, d)
            new_u = share_y * share_x * moved + (1 - share_y) * u.astype(d.dtype)
            return _sync.where(emitted, new_u, u), _sync.where(emitted, x.astype(d.dtype) + share_x * moved, x)

        tree, rows = _trees.columns(x, params, distances, updates)
        pairs = [leaf(*row) for row in zip(*rows, strict=True)]
        new_updates, new_x = tree.unflatten(u for u, _ in pairs), tree.unflatten(x for _, x in pairs)
        # A line search has cached the loss and gradient at z, where the next ones are not taken.
        fast_state = _fast_state.forget_values(True, fast_state)
        return new_updates, PrimalAveragingState(fast_state, new_x, _sync.where(emitted, True, state.started))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _as(value: jax.typing.ArrayLike, like: jax.Array) -> jax.Array:
    return jnp.asarray(value).astype(like.dtype)
