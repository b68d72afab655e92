"""Lookahead's relatives with a Nesterov outer step: SNOO and DiLoCo."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

from collections.abc import Hashable, Sequence

import jax
import optax

from lookahead_jax._checks import check_fraction
from lookahead_jax._fast_state import FastStateAtSync
from lookahead_jax._lookahead import lookahead
from lookahead_jax._spellings import OUTER, other_spellings


@other_spellings(OUTER)
def snoo(
    fast_optimizer: optax.GradientTransformation,
    sync_period: jax.typing.ArrayLike | optax.Schedule,
    learning_rate: optax.ScalarOrSchedule,
    momentum: float | None,
    *,
    fast_state_at_sync: FastStateAtSync = "maintain",
    slow_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SNOO: every k steps, a Nesterov step of the slow weights towards the fast weights.

    With slow weights :math:`s`, fast weights :math:`f` after :math:`k` steps of the fast optimizer, and the outer
    momentum :math:`b`:

    .. math::

        \begin{align*}
          d &= s - f, \\
          b &\leftarrow m b + d, \\
          s &\leftarrow s - \eta (d + m b),
        \end{align*}

    after which the fast weights restart from :math:`s`. It is :func:`lookahead` with
    ``slow_optimizer=optax.sgd(learning_rate, momentum, nesterov=True)``, and needs one more buffer. With
    :math:`m = 0` it is plain Lookahead.

    Args:
        fast_optimizer: the inner optimizer, as in :func:`lookahead`.
        sync_period: :math:`k`, as in :func:`lookahead`; a few dozen steps.
        learning_rate: :math:`\eta` of the outer step, a number or a schedule of the number of completed syncs; tune
            it together with the momentum, near :math:`1 - m`.
        momentum: :math:`m` of the outer step, in [0, 1); None for none.
        fast_state_at_sync: "maintain" or "reset", as in :func:`lookahead`.
        slow_dtype: as in :func:`lookahead`.

    Returns:
        An :class:`optax.GradientTransformationExtraArgs`, as from :func:`lookahead`.

    Raises:
        ValueError: `momentum` is outside [0, 1), or as :func:`lookahead`.

    Example:
        With gradient 1, inner learning rate 1, k = 2, :math:`\eta` = 1/2 and m = 1/2: d = 2, b = 2, s = 8 - 1.5.

        >>> import jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.snoo(optax.sgd(1.0), sync_period=2, learning_rate=0.5, momentum=0.5)
        >>> params = jnp.array([8.0])
        >>> opt_state = tx.init(params)
        >>> for _ in range(4):
        ...     updates, opt_state = tx.update(jnp.array([1.0]), opt_state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(params)
        [7.]
        [6.5]
        [5.5]
        [4.75]

    References:
        Kallusky et al, `SNOO: Step-K Nesterov Outer Optimizer <https://arxiv.org/abs/2510.15830>`_, 2025
    """
    return diloco(
        fast_optimizer,
        sync_period,
        learning_rate,
        momentum,
        fast_state_at_sync=fast_state_at_sync,
        slow_dtype=slow_dtype,
    )


@other_spellings(OUTER)
def diloco(
    fast_optimizer: optax.GradientTransformation,
    sync_period: jax.typing.ArrayLike | optax.Schedule = 500,
    learning_rate: optax.ScalarOrSchedule = 0.7,
    momentum: float | None = 0.9,
    *,
    fast_state_at_sync: FastStateAtSync = "maintain",
    slow_dtype: jax.typing.DTypeLike | None = None,
    axis_name: Hashable | Sequence[Hashable] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""DiLoCo: workers train separately for k steps, then take one Nesterov step towards their mean.

    With slow weights :math:`s` that all workers share, fast weights :math:`f_i` of worker :math:`i` after :math:`k`
    steps, and the outer momentum :math:`b`:

    .. math::

        \begin{align*}
          d &= \tfrac{1}{n} \sum_i (s - f_i), \\
          b &\leftarrow m b + d, \\
          s &\leftarrow s - \eta (d + m b).
        \end{align*}

    Each sync sends one `pmean` the size of the parameters; the other steps send nothing. Do not average the gradients
    yourself. With one worker it is :func:`snoo` with other defaults.

    Args:
        fast_optimizer: the inner optimizer of each worker; `optax.adamw` in the paper.
        sync_period: :math:`k`, as in :func:`lookahead`; 30 to 500 steps.
        learning_rate: :math:`\eta` of the outer step, a number or a schedule of the number of completed syncs.
        momentum: :math:`m` of the outer step, in [0, 1); None for none.
        fast_state_at_sync: "maintain" or "reset", as in :func:`lookahead`.
        slow_dtype: as in :func:`lookahead`.
        axis_name: the name (or names) of the mapped axis of workers, as in :func:`lookahead`; None means one worker.

    Returns:
        An :class:`optax.GradientTransformationExtraArgs`, as from :func:`lookahead`.

    Raises:
        ValueError: `momentum` is outside [0, 1), or as :func:`lookahead`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.diloco(optax.sgd(1.0), sync_period=1, learning_rate=0.5, momentum=0.0, axis_name="workers")
        >>> def step(grads):
        ...     params = jnp.array([8.0])
        ...     updates, opt_state = tx.update(grads, tx.init(params), params)
        ...     return optax.apply_updates(params, updates)
        >>> jax.vmap(step, axis_name="workers")(jnp.array([[1.0], [3.0]]))  # 8 - 0.5 * (1 + 3) / 2
        Array([[7.],
               [7.]], dtype=float32)

    References:
        Douillard et al, `DiLoCo: Distributed Low-Communication Training of Language Models
        <https://arxiv.org/abs/2311.08105>`_, 2023
    """
    if momentum is not None:  # optax.sgd's way to say none
        check_fraction("momentum", momentum, below_one=True, schedule=False)
    return lookahead(
        fast_optimizer,
        sync_period,
        slow_optimizer=optax.sgd(learning_rate, momentum, nesterov=True),
        fast_state_at_sync=fast_state_at_sync,
        slow_dtype=slow_dtype,
        axis_name=axis_name,
    )
