"""How quantities and gains are written: accuracies in points, quantities compared by ratio in per cent."""

import math

from train.study.plan.quantities import QUANTITIES, per_cent_lower
from train.study.verdicts.power import MOST_SEEDS

NONE = "–"


def is_accuracy(quantity: str) -> bool:
    """Whether it is a fraction that is written in per cent."""
    return "accuracy" in quantity


def gain_number(quantity: str, gain: float, more: int = 0) -> str:
    """A gain with its sign and without its unit; `more` adds decimals to gains in per cent or points."""
    if QUANTITIES[quantity].relative:
        text = f"{per_cent_lower(gain):+.{1 + more}f}"
    elif is_accuracy(quantity):
        text = f"{100 * gain:+.{2 + more}f}"
    else:
        text = f"{gain:+.4g}"
    # A gain that rounds to nothing has no sign.
    return text.replace("-", "−") if text.strip("+-0.") else text.lstrip("+-")


def gain_unit(quantity: str) -> str:
    """The unit that follows `gain_number`, with its space."""
    if QUANTITIES[quantity].relative:
        return " %"
    return " points" if is_accuracy(quantity) else ""


def gain_words(quantity: str, gain: float | None, low: float | None = None, high: float | None = None) -> str:
    """A gain with its unit and, if it has one, its interval.

    If the interval excludes zero, but a number of the three would be written as zero, they get two decimals more.
    """
    if gain is None:
        return NONE
    interval, more = "", 0
    if low is not None and high is not None:
        zero = any(not gain_number(quantity, number).strip("+−-0.") for number in (gain, low, high))
        more = 2 if low * high > 0 and zero else 0
        interval = f" [{gain_number(quantity, low, more)}, {gain_number(quantity, high, more)}]"
    return gain_number(quantity, gain, more) + interval + gain_unit(quantity)


def seeds_words(number: int | None) -> str:
    """A number of seeds that would resolve something."""
    if number is None:
        return NONE
    return f"> {MOST_SEEDS}" if number > MOST_SEEDS else str(number)


def two_values(quantity: str, first: float | None, second: float | None) -> str:
    """Two values of a quantity with their unit."""
    if first is None or second is None:
        return NONE
    if is_accuracy(quantity):
        return f"{100 * first:.2f} / {100 * second:.2f} %"
    return f"{_number(first)} / {_number(second)}"


def _number(value: float) -> str:
    return format(value, ".4g") if math.isfinite(value) else NONE
