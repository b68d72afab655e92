"""A field of a config: its type, its default, its range, and whether it makes another run."""

import dataclasses
import math
import typing
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from train.errors import UnknownName, UserError
from train.interface.nearest import did_you_mean

# Steps, periods and sizes are int32 on the device, and rates float32.
INT32_MAX = 2**31 - 1
FLOAT32_MAX = float(np.finfo(np.float32).max)


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


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Yields (dotted name, value, field) for every setting, nested ones and options included."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        elif "identity" in field.metadata and not isinstance(field.type, str):
            yield f"{prefix}{field.name}", value, field
        elif value is not None or prefix.endswith("options."):  # options that are not there are no setting
            yield f"{prefix}{field.name}", value, _as_setting(config, field)


def _as_setting(owner: Any, field: dataclasses.Field) -> dataclasses.Field:
    """A field of a user's options, which need not be made by `setting`, as if it were; its type is not a string."""
    made = setting(field.default, **(field.metadata if "identity" in field.metadata else {}))
    made.name, made.type = field.name, typing.get_type_hints(type(owner))[field.name]
    return made


def elements_of(kind: Any, number: int) -> tuple[Any, ...]:
    """The types of the `number` elements of a tuple of this type; () if it is no type of a tuple."""
    if typing.get_origin(kind) is not tuple:
        return ()
    kinds = typing.get_args(kind)
    return kinds[:1] * number if kinds[1:] == (...,) else kinds


def is_storable(kind: Any) -> bool:
    """Whether values of this type survive config.json and the cells of runs.csv."""
    elements = set(elements_of(kind, 1))
    return kind in (int, float, str, bool) or (bool(elements) and elements <= {int, float})


def converted(value: Any, kind: Any) -> Any:
    """The value with whole numbers as floats where its type says float, so that equal settings have one text."""
    if kind is float:
        return float(value)
    if kinds := elements_of(kind, len(value) if isinstance(value, tuple | list) else 0):
        return type(value)(converted(v, k) for v, k in zip(value, kinds, strict=True))
    return value


def _to_python(value: Any) -> Any:
    """The same value as a Python int, float, str, bool or tuple; what is none of these, nor NumPy's, stays as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return tuple(map(_to_python, value))
    for kind in (bool, int, float, str):  # a subclass may print as something that cannot be read back
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    return value


def make_plain(config: Any) -> None:
    """Makes NumPy's scalars, and values of subclasses, plain Python values."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            make_plain(value)
        else:
            setattr(config, field.name, _to_python(value))


def _has_type(value: Any, kind: Any) -> bool:
    if kind is float:
        # abs of a whole number may be too large for a float, which math.isfinite would raise at.
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool):
        return isinstance(value, kind)
    kinds = elements_of(kind, len(value) if isinstance(value, tuple) else 0)
    return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_has_type, value, kinds))


def described(field: dataclasses.Field) -> str:
    """What a setting is, and its allowed values, in a line."""
    rules = field.metadata
    allowed = [f"one of {', '.join(rules['choices'])}"] if rules["choices"] else []
    for rule, words in (("at_least", "at least"), ("above", "above"), ("at_most", "at most")):
        allowed += [f"{words} {rules[rule]}"] if rules[rule] is not None else []
    return "; ".join(filter(None, (", ".join(allowed), rules["help"])))


_WORDS = {float: "a finite number", int: "a whole number", str: "a string", bool: "true or false"}


def wanted(field: dataclasses.Field) -> str:
    """What kind of value a setting takes, in words."""
    kind: Any = field.type
    if kind in _WORDS:
        return _WORDS[kind]
    numbers = "whole numbers" if float not in typing.get_args(kind) else "numbers"
    count = "" if ... in typing.get_args(kind) else f"{len(typing.get_args(kind))} "
    return f"{count}{numbers} separated by commas" + (", or ()" if not count else "")


def _largest(name: str, kind: Any) -> float:
    """The largest value of a setting that states no bound of its own."""
    if ".options." in name:
        return math.inf  # what becomes of a user's option is the user's
    return {int: INT32_MAX, tuple[int, ...]: INT32_MAX, float: FLOAT32_MAX}.get(kind, math.inf)


def check_value(name: str, value: Any, field: dataclasses.Field) -> None:
    """Checks the type and the range of a setting.

    Args:
      name: dotted.
      value: the one to check.
      field: made by `setting`.

    Raises:
      UserError: names the setting, its value and what is allowed.
    """
    if not _has_type(value, field.type):
        raise UserError(f"config.{name}={value!r} must be {wanted(field)}")
    rules = field.metadata
    for element in value if isinstance(value, tuple) else (value,):
        largest = _largest(name, field.type)
        if rules["at_most"] is None and not isinstance(element, str) and abs(element) > largest:
            shown = repr(value) if abs(element) < 1e300 else "..."  # Python refuses to print the largest of them
            raise UserError(f"config.{name}={shown} must be at most {largest:.10g}: it is a 32-bit number")
        if rules["at_least"] is not None and element < rules["at_least"]:
            raise UserError(f"config.{name}={value!r} must be at least {rules['at_least']}")
        if rules["at_most"] is not None and element > rules["at_most"]:
            raise UserError(f"config.{name}={value!r} must be at most {rules['at_most']}")
        if rules["above"] is not None and element <= rules["above"]:
            raise UserError(f"config.{name}={value!r} must be greater than {rules['above']}")
        if rules["choices"] and element not in rules["choices"]:
            raise UnknownName(
                f"config.{name}={value!r} is not known; choose one of {', '.join(rules['choices'])}"
                f"{did_you_mean(element, rules['choices'])}"
            )
