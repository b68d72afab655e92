"""The quantities by which runs are compared: each is one number from the rows of a run's metrics.csv.

| quantity | what | better | compared by |
|---|---|---|---|
| late_accuracy | mean test accuracy, live weights, over the last sixth of the epochs | higher | difference |
| final_accuracy | test accuracy of the live weights after the last epoch | higher | difference |
| slow_final_accuracy | the same for the slow weights, or for the live ones if there are none | higher | difference |
| accuracy_area, slow_accuracy_area | the mean of the same over the epochs | higher | difference |
| loss_area | mean training loss over the epochs: the area under its curve | lower | ratio |
| epochs_to_loss | epochs to reach a training loss that both runs of a pair reach | lower | ratio |
| final_train_loss, final_test_loss | after the last epoch; live weights | lower | ratio |
| late_perplexity | geometric mean of the test perplexity over the last sixth of the epochs | lower | ratio |
| perplexity, slow_perplexity | test perplexity after the last epoch | lower | ratio |
| perplexity_area, slow_perplexity_area | the geometric mean of the same over the epochs | lower | ratio |

Why the area under the loss and not under its logarithm: runs converge in the early and middle part of the curve, where
the loss is large; with the logarithm, the last epochs of a run that converged long ago (0.05 against 0.06) would weigh
as much. Areas are then compared by their ratio, so that data sets can be compared with each other.

Why the last sixth: it averages out the noise between epochs, and with the usual step schedules it comes after the last
learning-rate drop (epochs 11 and 12 of 12, 167 to 200 of 200).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from train.run.records import Row


class Quantity(NamedTuple):
    """How a quantity is read and compared.

    Attributes:
      words: its name in tables.
      of: maps a run's rows to its value, or to None if the run has none.
      higher_is_better: its direction.
      relative: whether gains are logarithms of the ratio instead of differences.
      pairwise: whether the value depends on the other run of the pair (`epochs_to_loss`).
    """

    words: str
    of: Callable[[Sequence[Row]], float | None]
    higher_is_better: bool
    relative: bool
    pairwise: bool = False


def _column(name: str) -> Callable[[Row], float | None]:
    """A column; for a run without slow weights, their columns are those of the live weights."""

    def read(row: Row) -> float | None:
        value = row.get(name)
        if value is None and name.startswith("slow_"):
            value = row.get(name.removeprefix("slow_"))
        return value if value is not None and math.isfinite(value) else None

    return read


def _final(name: str) -> Callable[[Sequence[Row]], float | None]:
    read = _column(name)
    return lambda rows: read(rows[-1])


def _mean(name: str) -> Callable[[Sequence[Row]], float | None]:
    read = _column(name)

    def mean(rows: Sequence[Row]) -> float | None:
        values = [value for value in map(read, rows) if value is not None]
        return math.fsum(values) / len(values) if len(values) == len(rows) else None

    return mean


def _geometric_mean(name: str) -> Callable[[Sequence[Row]], float | None]:
    read = _column(name)

    def mean(rows: Sequence[Row]) -> float | None:
        values = [value for value in map(read, rows) if value is not None and value > 0]
        return math.exp(math.fsum(map(math.log, values)) / len(values)) if len(values) == len(rows) else None

    return mean


def late(rows: Sequence[Row]) -> Sequence[Row]:
    """The last sixth of the epochs, rounded up."""
    return rows[-math.ceil(len(rows) / 6) :]


def _late(mean: Callable[[Sequence[Row]], float | None]) -> Callable[[Sequence[Row]], float | None]:
    return lambda rows: mean(late(rows))


QUANTITIES: dict[str, Quantity] = {
    "late_accuracy": Quantity("late accuracy", _late(_mean("test_accuracy")), True, False),
    "final_accuracy": Quantity("final accuracy", _final("test_accuracy"), True, False),
    "slow_final_accuracy": Quantity("final accuracy, slow weights", _final("slow_test_accuracy"), True, False),
    "accuracy_area": Quantity("mean accuracy over the epochs", _mean("test_accuracy"), True, False),
    "slow_accuracy_area": Quantity("mean accuracy, slow weights", _mean("slow_test_accuracy"), True, False),
    "loss_area": Quantity("area under the training loss", _mean("train_loss"), False, True),
    "epochs_to_loss": Quantity("epochs to a loss both reach", lambda rows: None, False, True, pairwise=True),
    "final_train_loss": Quantity("final training loss", _final("train_loss"), False, True),
    "final_test_loss": Quantity("final test loss", _final("test_loss"), False, True),
    "late_perplexity": Quantity("late perplexity", _late(_geometric_mean("test_perplexity")), False, True),
    "perplexity": Quantity("final perplexity", _final("test_perplexity"), False, True),
    "slow_perplexity": Quantity("final perplexity, slow weights", _final("slow_test_perplexity"), False, True),
    "perplexity_area": Quantity("mean perplexity over the epochs", _geometric_mean("test_perplexity"), False, True),
    "slow_perplexity_area": Quantity(
        "mean perplexity, slow weights", _geometric_mean("slow_test_perplexity"), False, True
    ),
}


def epochs_to(rows: Sequence[Row], level: float) -> float | None:
    """Epochs until the training loss is at most `level`, interpolated linearly; None if it never is.

    A level reached in the first epoch, of which only the mean is known, counts as reached at its end.
    """
    previous: Row | None = None
    for row in rows:
        loss = row["train_loss"]
        if loss is not None and loss <= level:
            if previous is None or previous["train_loss"] is None:
                return float(row["epoch"])
            share = (previous["train_loss"] - level) / (previous["train_loss"] - loss)
            return previous["epoch"] + share * (row["epoch"] - previous["epoch"])
        previous = row
    return None


def values_of_pair(
    variant: Sequence[Row], baseline: Sequence[Row], quantity: str, baseline_quantity: str = ""
) -> tuple[float, float] | None:
    """The quantity of two runs; None if one of them has none.

    For `epochs_to_loss` the level is the greater of their lowest training losses, which both reach.
    """
    if QUANTITIES[quantity].pairwise:
        lowest = [_lowest_loss(rows) for rows in (variant, baseline)]
        if any(value is None for value in lowest):
            return None
        level = max(value for value in lowest if value is not None)
        values = epochs_to(variant, level), epochs_to(baseline, level)
    else:
        values = QUANTITIES[quantity].of(variant), QUANTITIES[baseline_quantity or quantity].of(baseline)
    first, second = values
    return None if first is None or second is None else (first, second)


def _lowest_loss(rows: Sequence[Row]) -> float | None:
    losses = [row["train_loss"] for row in rows if row["train_loss"] is not None and math.isfinite(row["train_loss"])]
    return min(losses) if losses else None


def gain(values: tuple[float, float], quantity: str) -> float | None:
    """By how much the first of two values is better than the second; None if a ratio has no logarithm."""
    variant, baseline = values
    rule = QUANTITIES[quantity]
    if rule.relative:
        if variant <= 0 or baseline <= 0:
            return None
        difference = math.log(variant / baseline)
    else:
        difference = variant - baseline
    return difference if rule.higher_is_better else -difference


def per_cent_lower(gain: float) -> float:
    """A gain that is the logarithm of a ratio, as the percentage by which the first of the two is lower."""
    return -100.0 * math.expm1(-gain)
