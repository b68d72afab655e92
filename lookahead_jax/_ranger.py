"""Ranger: Lookahead around RAdam."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations  # help() shows types as they are written here

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import optax

from lookahead_jax._adaptive import AdaptiveStepSize
from lookahead_jax._fast_state import FastStateAtSync
from lookahead_jax._lookahead import lookahead
from lookahead_jax._spellings import RANGER, other_spellings


@other_spellings(RANGER)
def ranger(
    learning_rate: optax.ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    threshold: jax.typing.ArrayLike = 5.0,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    sync_period: jax.typing.ArrayLike | optax.Schedule = 5,
    slow_step_size: jax.typing.ArrayLike | optax.Schedule | AdaptiveStepSize = 0.8,
    fast_state_at_sync: FastStateAtSync = "maintain",
    slow_dtype: jax.typing.DTypeLike | None = None,
    axis_name: Hashable | Sequence[Hashable] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Lookahead around RAdam with decoupled weight decay.

    Args:
        learning_rate: RAdam's learning rate, a number or a schedule of the number of steps.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the bias-corrected second moment, as in `optax.radam`.
        threshold: RAdam's steps are rectified once the variance has more than this many degrees of freedom; before
            that they are momentum steps. With 5 and ``b2=0.999`` they are rectified from step 6 on.
        weight_decay: decoupled, as in AdamW: each step subtracts `learning_rate * weight_decay` times the weights.
        mask: which parameters decay, a tree of booleans or a function of the parameters that returns one.
        sync_period: as in :func:`lookahead`.
        slow_step_size: as in :func:`lookahead`.
        fast_state_at_sync: as in :func:`lookahead`. "reset" restarts RAdam after each sync, with momentum steps until
            it reaches `threshold`.
        slow_dtype: as in :func:`lookahead`.
        axis_name: as in :func:`lookahead`.

    Returns:
        An :class:`optax.GradientTransformationExtraArgs`. The defaults are Lookahead's and RAdam's; the original
        Ranger used ``b1=0.95, eps=1e-5, sync_period=6, slow_step_size=0.5``.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import lookahead_jax as la
        >>> tx = la.ranger(learning_rate=0.1)
        >>> params = jnp.array([1.0, 2.0])
        >>> opt_state = tx.init(params)
        >>> for _ in range(10):
        ...     grads = jax.grad(lambda x: jnp.sum(x**2))(params)
        ...     updates, opt_state = tx.update(grads, opt_state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> bool(jnp.all(params == la.slow_params(opt_state)) & (jnp.sum(params**2) < 2.0))
        True

    References:
        Liu et al, `On the Variance of the Adaptive Learning Rate and Beyond
        <https://arxiv.org/abs/1908.03265>`_, 2020

        Zhang et al, `Lookahead Optimizer: k steps forward, 1 step back <https://arxiv.org/abs/1907.08610>`_, 2019

        Wright, `Ranger-Deep-Learning-Optimizer
        <https://github.com/lessw2020/Ranger-Deep-Learning-Optimizer>`_, 2019
    """
    radam = optax.chain(
        optax.scale_by_radam(b1=b1, b2=b2, eps=eps, threshold=threshold),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    return lookahead(
        radam,
        sync_period,
        slow_step_size,
        fast_state_at_sync=fast_state_at_sync,
        slow_dtype=slow_dtype,
        axis_name=axis_name,
    )
