"""Identifies a run: a hash over all its settings, by value, and over its data."""

import hashlib
import json
from typing import Any

from train.config import FORMER, Config, leaves

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
            found[name] = float(value) if field.type is float else value
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
