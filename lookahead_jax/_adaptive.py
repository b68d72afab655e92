"""The slow step size that minimises a quadratic model of the loss between slow and fast weights."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _checks, _sync, _trees


class AdaptiveStepSize(NamedTuple):
    """A rule for the slow step size; made by :func:`adaptive_step_size`, used by :func:`lookahead`.

    Attributes:
        minimum: lower bound of the step size.
        curvature: maps the fast optimizer's state to the diagonal of the curvature, a tree like the parameters.
        axis_name: mapped axes over which the parameters are sharded.
    """

    minimum: jax.typing.ArrayLike
    curvature: Callable[[optax.OptState], optax.Params]
    axis_name: Hashable | Sequence[Hashable] | None = None


def adaptive_step_size(
    minimum: jax.typing.ArrayLike = 0.1,
    b2: jax.typing.ArrayLike | None = None,
    curvature: Callable[[optax.OptState], optax.Params] | None = None,
    axis_name: Hashable | Sequence[Hashable] | None = None,
) -> AdaptiveStepSize:
    r"""Lookahead's adaptive slow step size, for the argument `slow_step_size`.

    On a quadratic with curvature :math:`A` and minimum :math:`\theta^*`, the step size that minimises the loss on
    the segment from the slow weights :math:`\phi` to the fast ones :math:`\theta_k` is

    .. math::

        \alpha^* = \frac{(\phi - \theta^*)^\top A (\phi - \theta_k)}{(\phi - \theta_k)^\top A (\phi - \theta_k)},

    one number for the whole tree. :math:`A` is approximated by the diagonal of the empirical Fisher matrix, which
    Adam's second moment estimates, and :math:`\theta^* \approx \theta_{k-1} - A^{-1} \nabla L(\theta_{k-1})` from the
    last step's gradient, the one given to `update`. The result is clipped to [minimum, 1]. (The paper has
    :math:`\theta_k` instead of :math:`\theta_{k-1}`, which would take one more gradient evaluation. On a quadratic
    both are exact.)

    Parameters without a second moment (masked out of Adam, or Muon's matrices) are left out of the estimate but move
    by the same step size.

    Args:
        minimum: lower bound, in [0, 1]; a bound above 0 makes training more stable.
        b2: decay of the fast optimizer's second moment, to correct its bias; for instance 0.999 for `optax.adam(1e-3)`.
            Required unless `curvature` is given.
        curvature: a function of the fast optimizer's state that returns a tree like the parameters, to use instead of
            Adam's second moment (the state's field `nu` divided by :math:`1 - b_2^t`, where :math:`t` is the field
            `count` next to it). None or a masked node in that tree leaves its parameters out.
        axis_name: the name (or names) of the `shard_map` axes over which the parameters are sharded: the products
            are summed over them. Without it each shard uses its own step size.

    Returns:
        A rule that :func:`lookahead` accepts as `slow_step_size`.

    Raises:
        ValueError: `minimum` is outside [0, 1] or `b2` outside [0, 1), one of them is a schedule, or `b2` and
            `curvature` are both given or both missing; also raised by `update` if the second moment cannot be found in
            the fast optimizer's state.

    Example:
        >>> import optax
        >>> import lookahead_jax as la
        >>> rule = la.adaptive_step_size(minimum=0.5, b2=0.999)
        >>> tx = la.lookahead(optax.adam(1e-3, b2=0.999), slow_step_size=rule)

    References:
        Zhang et al, `Lookahead Optimizer: k steps forward, 1 step back <https://arxiv.org/abs/1907.08610>`_, 2019,
        proposition 1 and the paragraph after it
    """
    _checks.check_fraction("minimum", minimum, schedule=False)
    if (b2 is None) == (curvature is None):
        raise ValueError(
            f"adaptive_step_size() got {'neither b2 nor curvature' if b2 is None else 'both b2 and curvature'}; give "
            "b2=, the decay of the fast optimizer's second moment (0.999 by default in optax.adam), or curvature=, a "
            "function of its state"
        )
    if b2 is not None:
        _checks.check_fraction("b2", b2, below_one=True, schedule=False)
    return AdaptiveStepSize(minimum, curvature or functools.partial(_second_moment, b2), axis_name)


def estimate_step_size(
    rule: AdaptiveStepSize,
    sync: jax.Array | bool,
    grads: optax.Updates,
    params: optax.Params,
    updates: optax.Updates,
    slow: optax.Params,
    fast_state: optax.OptState,
) -> jax.Array:
    """The step size of this sync, a float scalar; `minimum` if there is no sync.

    Args:
        rule: made by :func:`adaptive_step_size`.
        sync: boolean scalar; the Python bool True computes only a sync.
        grads: gradients at `params`.
        params: the live weights before the step.
        updates: the fast optimizer's updates, so that the fast weights are `params + updates`.
        slow: the slow weights.
        fast_state: the fast optimizer's state after the step.
    """

    # On a quadratic with curvature A and minimum t, with d = slow - fast,
    #
    #   alpha* = <slow - t, A d> / <d, A d>
    #
    # The gradient at hand was taken at `params`, so t = params - grads / A (exact when A is), and
    #
    #   <slow - t, A d> = <slow - params, A d> + <grads, d>,
    #
    # which needs no division. For complex numbers these are the products of their real and imaginary parts,
    # Re(conj(x) y). The conditional saves the other steps from reading five trees; its result is a scalar, so every
    # buffer can still be updated in place.
    def on_sync() -> jax.Array:
        # The curvature is computed in here, or the conditional would get a tree of it at each step.
        known = jax.tree.map(_left_out, rule.curvature(fast_state), slow, is_leaf=_trees.is_left_out)
        _, rows = _trees.columns(slow, grads, params, updates, known)
        numerator, denominator = jnp.zeros([], float), jnp.zeros([], float)
        for s, g, p, u, a in (row for row in zip(*rows, strict=True) if _takes_part(*row)):
            s, g, p, u = _sync.widen(s, g, p, u)
            a = jnp.real(a).astype(jnp.real(s).dtype)
            d = s - (p + u)
            numerator += jnp.sum(jnp.real(jnp.conj(a * (s - p) + g) * d)).astype(float)
            denominator += jnp.sum(a * jnp.real(jnp.conj(d) * d)).astype(float)
        if rule.axis_name is not None:
            numerator, denominator = jax.lax.psum((numerator, denominator), rule.axis_name)
        # There is no ratio if the fast weights did not move, or moved only where there is no curvature.
        moved = denominator > 0
        ratio = jnp.where(moved, numerator / jnp.where(moved, denominator, 1.0), 1.0)  # no 0 / 0, nor in its gradient
        return jnp.clip(ratio, _as_float(rule.minimum), 1.0)

    if isinstance(sync, bool):
        return on_sync()
    return jax.lax.cond(sync, on_sync, lambda: _varying(_as_float(rule.minimum), (grads, params, slow), rule.axis_name))


def _second_moment(b2: Any, fast_state: optax.OptState) -> optax.Params:
    nodes = [x for x in jax.tree.leaves(fast_state, is_leaf=_has_nu) if _has_nu(x)]
    corrected = [optax.tree.bias_correction(x.nu, b2, jnp.maximum(x.count, 1)) for x in nodes]
    try:
        # optax.partition makes several, each with the parameters that the others leave out.
        return functools.reduce(_trees.merge, corrected)
    except (TypeError, ValueError):
        raise ValueError(
            f"the fast optimizer's state has {len(nodes)} second moments `nu` with a step `count`, but "
            "adaptive_step_size() needs one for each parameter; use an optimizer of the Adam family or give "
            "curvature=, a function of its state"
        ) from None


def _has_nu(node: Any) -> bool:
    return hasattr(node, "nu") and not callable(getattr(node, "count", len))  # every tuple has a method `count`


def _left_out(curvature: Any, slow: Any) -> Any:
    if _trees.is_left_out(curvature):
        return jax.tree.map(lambda _: None, slow)
    return curvature


def _takes_part(slow: Any, *others: Any) -> bool:
    return all(x is not None for x in (slow, *others)) and jnp.issubdtype(jnp.asarray(slow).dtype, jnp.inexact)


def _as_float(x: jax.typing.ArrayLike) -> jax.Array:
    return jnp.asarray(x).astype(float)


def _varying(x: jax.Array, trees: Any, axis_name: Any) -> jax.Array:
    """`x` with the type of a sum over the trees inside a `shard_map`: varying over the axes of every leaf."""
    summed = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    axes = frozenset[Any]().union(*(_axes_of(jax.typeof(leaf)) for leaf in jax.tree.leaves(trees)))
    axes = tuple(sorted(axes - frozenset(summed), key=str))
    if not axes:
        return x
    # jax.lax.pcast is newer than the oldest JAX.
    return jax.lax.pcast(x, axes, to="varying") if hasattr(jax.lax, "pcast") else getattr(jax.lax, "pvary")(x, axes)  # noqa: B009


def _axes_of(aval: Any) -> Any:
    # Up to JAX 0.9 the attribute is `vma`.
    return aval.manual_axis_type.varying if hasattr(aval, "manual_axis_type") else getattr(aval, "vma", ())
