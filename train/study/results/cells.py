"""Cells of the published CSV files."""

from typing import Any


def exact(value: Any) -> str:
    """A cell: "" for None, lists by slashes, floats so that they read back the same."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return "/".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def short(value: Any) -> str:
    return format(value, ".7g") if isinstance(value, float) else exact(value)
