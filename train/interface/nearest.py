"""Suggests the nearest known name for a misspelt one, by one rule for flags, fields, values and names."""

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["did_you_mean", "file_like"]

_ALIKE = 0.6


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Returns " (did you mean 'NAME'?)" with the known name nearest to a misspelt one; "" if none is near.

    Case, dashes and leading dashes do not count. In dotted names the part after the last dot decides, and the rest only
    breaks ties: "learning_rate" and "optimiser.lr" are both near "optimizer.learning_rate".

    Args:
      given: what the user wrote.
      known: all valid names, in their correct spelling.
    """
    return _suggestion(_nearest(given, known))


def file_like(given: Path, *folders: Path) -> str:
    """The same for a Python file of these folders whose name was given without them, without ending, or misspelt."""
    there = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.py")}
    return _suggestion(there.get(_nearest(given.stem, there)))


def _suggestion(name: object) -> str:
    return f" (did you mean {str(name)!r}?)" if name else ""


def _nearest(given: object, known: Iterable[str]) -> str:
    """The known name that is nearest; "" if none is near."""
    wanted = _folded(str(given))
    scored = [(_alike(wanted, _folded(name)), name) for name in known]
    (last, _), nearest = max(scored, key=lambda pair: pair[0], default=((0.0, 0.0), ""))
    return nearest if last >= _ALIKE else ""


def _alike(wanted: str, name: str) -> tuple[float, float]:
    """How similar two names are, from 0 to 1: their last parts, and the whole names."""
    ours, theirs = wanted.rpartition(".")[2], name.rpartition(".")[2]
    initials = "".join(word[:1] for word in theirs.split("_"))
    if ours == initials and len(initials) > 1:
        last = 1.0
    elif len(ours) > 2 and theirs.startswith(ours):
        last = 0.9
    else:
        last = _ratio(ours, theirs)
    return last, _ratio(wanted, name)


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio() if a and b else 0.0


def _folded(name: str) -> str:
    return name.lstrip("-").replace("-", "_").casefold()
