"""A field of a config: its default, its range, and whether it makes another run."""

import dataclasses
from collections.abc import Collection
from typing import Any


def setting(
    default: Any,
    *,
    help: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    choices: Collection[str] = (),
    identity: bool = True,
) -> Any:
    """A dataclass field with its allowed values.

    Args:
      default: The value when nothing is said.
      help: What it is, where its name does not say so: for `--help`.
      at_least: Inclusive lower bound, of each element for tuples.
      at_most: Inclusive upper bound.
      above: Exclusive lower bound.
      choices: The allowed words, looked up when a config is validated.
      identity: Whether a different value makes it a different run (False: where data lies, how often to save).
    """
    rules = {
        "help": help,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "choices": choices,
        "identity": identity,
    }
    return dataclasses.field(default=default, metadata=rules)
