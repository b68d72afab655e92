"""Cells of the published CSV files."""

from typing import Any

from train.run.records import float_text

# What makes a spreadsheet take a cell for a formula, and run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """A text as a cell that a spreadsheet shows as it is: behind an apostrophe, where it would be a formula."""
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell.removeprefix("'")


def exact(value: Any) -> str:
    """A cell: "" for None, lists by slashes, floats so that they read back the same, text as `guarded`."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return "/".join(map(str, value))
    if isinstance(value, str):
        return guarded(value)
    return repr(value) if isinstance(value, float) else str(value)


def short(value: Any) -> str:
    """As `exact`, with seven digits of a float."""
    return float_text(value) if isinstance(value, float) else exact(value)
