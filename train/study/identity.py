"""Which run a config is: a hash of its settings, the same for ever."""

import hashlib
import json
from typing import Any

from train.config import Config, leaves


def identity(config: Config) -> dict[str, Any]:
    """The settings that make the run what it is, by dotted name, those at their default left out.

    Leaving them out keeps the hash when a field is added to the config later. The seed is among them.
    """
    found = {}
    for name, value, field in leaves(config):
        if field.metadata["identity"] and value != field.default:
            found[name] = float(value) if field.type is float else value
    return found


def run_id(config: Config) -> str:
    """12 hexadecimal digits of the SHA-256 of the identity."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
