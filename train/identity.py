"""Identifies a run by a hash of its settings and its data, and says which runs one of more epochs continues."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from train.config import FORMER, Config, differences, from_dict, validate
from train.errors import UserError
from train.setting import converted, leaves

# Raise it when the same settings come to mean another run.
SCHEMA = 2


def identity(config: Config) -> dict[str, Any]:
    """Returns the settings that make the run what it is, by dotted name, defaults included.

    A setting that was added after runs had been published (`train.config.FORMER`) is left out while it has the value
    that those runs had, so their ids stay.
    """
    found: dict[str, Any] = {}
    for name, value, field in leaves(config):
        if field.metadata["identity"] and not (name in FORMER and value == FORMER[name]):
            found[name] = converted(value, field.type)
    return found


def run_id(config: Config, data: str) -> str:
    """Returns 12 hexadecimal digits that stand for one run.

    Args:
      config: The run, with its seed.
      data: `train.data.Dataset.digest` of what it trains on.
    """
    facts = {"schema": SCHEMA, "data": data, "settings": identity(config)}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cycle_epochs(config: Config) -> int:
    """Epochs that the cosine schedule spans."""
    return config.optimizer.schedule_epochs or config.epochs


def earlier_configs(config: Config, lengths: Iterable[int]) -> Iterator[Config]:
    """Configs with fewer epochs whose runs `config` continues: the epochs that they share are identical.

    With a step schedule, these are all configs that differ only in `epochs`. A cosine schedule that spans all epochs
    depends on their number; one of `schedule_epochs` does not, and until the first restart it is that of a run of so
    many epochs.

    Args:
      config: Of the run of more epochs.
      lengths: Numbers of epochs; only configs with one of them are yielded, in this order.
    """
    optimizer = config.optimizer
    cosine, cycle = optimizer.schedule == "cosine", cycle_epochs(config)
    for epochs in (length for length in lengths if 0 < length < config.epochs):
        if optimizer.schedule_epochs or not cosine:
            yield dataclasses.replace(config, epochs=epochs)
        if cosine and epochs == cycle:
            yield dataclasses.replace(
                config, epochs=epochs, optimizer=dataclasses.replace(optimizer, schedule_epochs=0)
            )


def variant_id(config: Config, data: str) -> str:
    """The id that all seeds of a run share: that of seed 0."""
    return run_id(dataclasses.replace(config, seed=0), data)


def continues(config: Config, stored: Mapping[str, Any]) -> bool:
    """Whether a run of `config` is that of a config.json with more epochs.

    Raises:
      UserError: it would be, if its schedule did not depend on the number of epochs.
    """
    try:
        theirs = validate(from_dict(stored))
    except UserError:
        return False
    if config.epochs <= theirs.epochs:
        return False
    if any(not differences(stored, earlier) for earlier in earlier_configs(config, [theirs.epochs])):
        return True
    if config.optimizer.schedule == "cosine" and not differences(
        stored, dataclasses.replace(config, epochs=theirs.epochs)
    ):
        raise UserError(
            f"epochs was {theirs.epochs}, is now {config.epochs}, and the cosine schedule spans all of them; add "
            f"--config.optimizer.schedule_epochs={theirs.epochs} to restart it after so many, or choose another workdir"
        )
    return False


class ContinuedRuns:
    """The ids of the runs that a run of `config` continues: a container, since few ask and there may be many.

    Args:
      config: of the run of more epochs.
      data: digest of its data.
    """

    def __init__(self, config: Config, data: str):
        self._config, self._data = config, data

    def __contains__(self, run: object) -> bool:
        lengths = range(self._config.epochs - 1, 0, -1)
        return any(run_id(earlier, self._data) == run for earlier in earlier_configs(self._config, lengths))
