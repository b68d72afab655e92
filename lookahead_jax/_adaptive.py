"""The slow step size that minimises a quadratic model of the loss between slow and fast weights."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AdaptiveStepSize(NamedTuple):
    """A rule for the slow step size; made by :func:`adaptive_step_size`, used by :func:`lookahead`.

    Attributes:
        minimum: lower bound of the step size.
        curvature: maps the fast optimizer's state to the diagonal of the curvature, a tree like the parameters.
    """

    minimum: jax.typing.ArrayLike
    curvature: Callable[[optax.OptState], optax.Params]

    def estimate(
        self,
        sync: jax.Array,
        grads: optax.Updates,
        params: optax.Params,
        updates: optax.Updates,
        slow: optax.Params,
        fast_state: optax.OptState,
    ) -> jax.Array:
        """The step size of this sync, a float scalar; `minimum` where there is no sync.

        Args:
            sync: boolean scalar.
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
        # which divides by nothing. The conditional spares the other steps the reading of five trees; its result is
        # a scalar, so it keeps no buffer from being updated in place.

        def on_sync() -> jax.Array:
            def leaf(
                g: jax.Array, p: jax.Array, u: jax.Array, s: jax.Array, a: jax.Array
            ) -> tuple[jax.Array, jax.Array]:
                g, p, u, s, a = (jnp.asarray(x).astype(float) for x in (g, p, u, s, a))
                d = s - (p + u)
                return jnp.sum((a * (s - p) + g) * d), jnp.sum(a * d * d)

            terms = jax.tree.leaves(jax.tree.map(leaf, grads, params, updates, slow, self.curvature(fast_state)))
            numerator = jnp.sum(jnp.asarray(terms[0::2], float))
            denominator = jnp.sum(jnp.asarray(terms[1::2], float))
            # Fast weights that did not move, or only where there is no curvature, give no ratio.
            ratio = jnp.where(denominator > 0, numerator / denominator, 1.0)
            return jnp.clip(ratio, self.minimum, 1.0).astype(float)

        def otherwise() -> jax.Array:
            return jnp.full([], self.minimum, float)

        return jax.lax.cond(sync, on_sync, otherwise)


def adaptive_step_size(
    minimum: jax.typing.ArrayLike = 0.1,
    b2: jax.typing.ArrayLike = 0.999,
    curvature: Callable[[optax.OptState], optax.Params] | None = None,
) -> AdaptiveStepSize:
    r"""Lookahead's adaptive slow step size, given as `slow_step_size`.

    On a quadratic with curvature :math:`A` and minimum :math:`\theta^*`, the step size that minimises the loss on
    the segment from the slow weights :math:`\phi` to the fast ones :math:`\theta_k` is

    .. math::

        \alpha^* = \frac{(\phi - \theta^*)^\top A (\phi - \theta_k)}{(\phi - \theta_k)^\top A (\phi - \theta_k)},

    one number for the whole tree. :math:`A` is taken as the diagonal of the empirical Fisher matrix, which Adam's
    second moment estimates; :math:`\theta^* \approx \theta_{k-1} - A^{-1} \nabla L(\theta_{k-1})` from the last
    step's gradient, the one that `update` was given; the result is clipped to [minimum, 1]. (The paper writes
    :math:`\theta_k` for :math:`\theta_{k-1}` there; that gradient would take one more evaluation. On a quadratic
    both are exact.)

    Args:
        minimum: lower bound, in [0, 1]; above 0 it makes training more stable.
        b2: decay of the fast optimizer's second moment, to correct its bias.
        curvature: a function of the fast optimizer's state that returns a tree like the parameters, in place of
            Adam's second moment: the one field `nu` in that state, divided by :math:`1 - b_2^t` with the field
            `count` beside it.

    Returns:
        A rule that :func:`lookahead` accepts as `slow_step_size`.

    Raises:
        ValueError: `minimum` is outside [0, 1]; and from `update`, where the fast optimizer's state has not one
            second moment and `curvature` is not given.

    Example:
        >>> import optax
        >>> import lookahead_jax as la
        >>> tx = la.lookahead(optax.adam(1e-3), slow_step_size=la.adaptive_step_size(minimum=0.5))

    References:
        Zhang et al, `Lookahead Optimizer: k steps forward, 1 step back <https://arxiv.org/abs/1907.08610>`_, 2019,
        proposition 1 and the paragraph after it
    """
    if isinstance(minimum, int | float) and not 0 <= minimum <= 1:
        raise ValueError(f"minimum={minimum} is no lower bound of a step size; use a number in [0, 1]")

    def second_moment(fast_state: optax.OptState) -> optax.Params:
        nodes = [x for x in jax.tree.leaves(fast_state, is_leaf=_has_nu) if _has_nu(x)]
        if len(nodes) != 1:
            raise ValueError(
                f"the fast optimizer's state has {len(nodes)} second moments `nu` with a `count` of steps, and "
                "adaptive_step_size() needs one; use an optimizer of Adam's family or give curvature=, a function of "
                "its state"
            )
        count = jnp.maximum(nodes[0].count, 1)
        return optax.tree.bias_correction(nodes[0].nu, b2, count)

    return AdaptiveStepSize(minimum, second_moment if curvature is None else curvature)


def _has_nu(node: Any) -> bool:
    # Every tuple has a method `count`.
    return hasattr(node, "nu") and not callable(getattr(node, "count", len))
