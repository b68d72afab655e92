"""study.json: what a study was made with, and a record of each of its sessions."""

from pathlib import Path
from typing import Any

from train.errors import UserError
from train.files import read_json

FACTS = "study.json"


def read_facts(out: Path) -> dict[str, Any]:
    """study.json; empty where there is none.

    Raises:
      UserError: it is damaged.
    """
    path = out / FACTS
    if not path.exists():
        return {}
    try:
        facts = read_json(path)
        for name, kind in (("name", str), ("title", str), ("scale", str), ("sessions", list)):
            if name in facts and not isinstance(facts[name], kind):
                raise ValueError(f"its {name!r} is {facts[name]!r}")
        for session in facts.get("sessions", []):
            if not isinstance(session, dict) or not isinstance(session.get("seconds"), int | float):
                raise ValueError(f"a session in it is {session!r}, without its seconds")
        return facts
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or choose another --out") from error
