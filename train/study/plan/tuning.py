"""Tuning: the same number of quasi-random trials for each variant of a section, chosen among on the validation set.

The trials of every variant are at the same points of the unit cube, the first ones of the Halton sequence, which it
maps to its own ranges. All trials have one seed, which no comparison uses; the test set chooses nothing.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from train.config import Config, validate
from train.errors import UserError
from train.interface.nearest import did_you_mean
from train.setting import leaves

SEED = 99_999  # beyond those that --seeds can ask for


@dataclasses.dataclass(frozen=True)
class Range:
    """Where a setting is looked for.

    Attributes:
      low, high: its ends.
      log: whether equal ratios are equally likely, instead of equal differences.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"a range from {self.low} to {self.high} is empty; give the smaller end first")
        if self.log and self.low <= 0:
            raise UserError(f"log_uniform({self.low}, {self.high}) must begin above 0; use uniform")

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the way, to three digits."""
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)
        return float(f"{value:.3g}")


def log_uniform(low: float, high: float) -> Range:
    """From `low` to `high`, equal ratios equally likely: for learning rates and weight decays."""
    return Range(low, high, log=True)


def uniform(low: float, high: float) -> Range:
    """From `low` to `high`, equal differences equally likely."""
    return Range(low, high)


def points(dimensions: int, trials: int) -> list[tuple[float, ...]]:
    """The first points of the Halton sequence behind the origin; fewer trials are the first ones of more."""
    from scipy.stats import qmc

    halton = qmc.Halton(dimensions, scramble=False)  # scrambled, it would differ between versions of SciPy
    return [tuple(map(float, point)) for point in halton.fast_forward(1).random(trials)]


def full_name(config: Config, name: str) -> str:
    """The dotted name of a setting: `learning_rate` is short for `optimizer.learning_rate`.

    Raises:
      UserError: it is no setting of the config, or not a number.
    """
    known = {known: field for known, _, field in leaves(config) if field.metadata["identity"]}
    found = next((n for n in (f"optimizer.{name}", name) if n in known), None)
    if found is None:
        short = [n.removeprefix("optimizer.") for n in known]
        raise UserError(f"tune: {name!r} is not a setting of the config{did_you_mean(name, short)}")
    if known[found].type not in (int, float) or found in ("seed", "epochs"):
        raise UserError(f"tune: {name!r} cannot be tuned; choose a number, other than seed and epochs")
    return found


def with_settings(config: Config, values: Mapping[str, float]) -> Config:
    """The config with these values, by `full_name`.

    Raises:
      UserError: a value is out of the setting's range.
    """

    def changed(owner, path: Sequence[str], value: float):
        name, *rest = path
        new = changed(getattr(owner, name), rest, value) if rest else value
        return dataclasses.replace(owner, **{name: new})

    for name, value in values.items():
        config = changed(config, name.split("."), value)
    return validate(config)


def trial_values(config: Config, ranges: Mapping[str, Range], trials: int) -> list[dict[str, float]]:
    """The values of each trial by `full_name`, in their order; those of whole numbers are rounded."""
    named = {full_name(config, name): found for name, found in ranges.items()}
    whole = {name for name, _, field in leaves(config) if field.type is int}
    return [
        {name: _at(found, share, name in whole) for (name, found), share in zip(named.items(), point, strict=True)}
        for point in points(len(named), trials)
    ]


def _at(found: Range, share: float, whole: bool) -> float:
    value = found.at(share)
    return round(value) if whole else value
