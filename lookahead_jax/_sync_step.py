"""Which steps of a training loop end in a sync."""

# JAX is typed in part only.
# pyright: reportUnknownMemberType=false, reportAttributeAccessIssue=false

from __future__ import annotations  # help() shows types as they are written here

import operator
from typing import Any

import jax


def is_sync_step(step: int | jax.Array, sync_period: int | jax.Array) -> bool:
    """Whether this step of a training loop ends in a sync; pass the result to `update` as `sync`.

    Args:
        step: the number of updates so far, including this one: 1 for the first. An integer, or a concrete array such
            as Flax's `TrainState.step`, plus 1; reading one waits for the device, so count on the host in a fast loop.
        sync_period: the number given to :func:`lookahead`.

    Returns:
        True on every `sync_period`-th step; a Python bool, so it is static for `update`.

    Raises:
        ValueError: an argument is not an integer >= 1, or is traced.

    Example:
        >>> import lookahead_jax as la
        >>> [la.is_sync_step(step, sync_period=2) for step in (1, 2, 3, 4)]
        [False, True, False, True]
    """
    arguments: dict[str, Any] = {"step": step, "sync_period": sync_period}
    numbers: list[int] = []  # Python's, which do not wrap around as an array's may
    for name, value in arguments.items():
        if isinstance(value, jax.core.Tracer):
            raise ValueError(
                f"{name} is traced; call is_sync_step outside jit, and pass its result as a static argument"
            )
        if isinstance(value, bool) or (number := _index(value)) is None or number < 1:
            raise ValueError(f"{name}={value!r} is not a number of steps; use an integer >= 1")
        numbers.append(number)
    return numbers[0] % numbers[1] == 0


def _index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None
