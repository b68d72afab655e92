"""Which steps of a training loop end in a sync."""

from __future__ import annotations  # help() shows types as they are written here

from typing import Any

import numpy as np


def is_sync_step(step: int, sync_period: int) -> bool:
    """Whether this step of a training loop ends in a sync; pass the result to `update` as `sync`.

    Args:
        step: the number of updates so far, including this one: 1 for the first.
        sync_period: the number given to :func:`lookahead`.

    Returns:
        True on every `sync_period`-th step; a Python bool, so it is static for `update`.

    Raises:
        ValueError: an argument is not an integer >= 1.

    Example:
        >>> import lookahead_jax as la
        >>> [la.is_sync_step(step, sync_period=2) for step in (1, 2, 3, 4)]
        [False, True, False, True]
    """
    arguments: dict[str, Any] = {"step": step, "sync_period": sync_period}
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value!r} is not a number of steps; use an integer >= 1")
    return bool(step % sync_period == 0)
