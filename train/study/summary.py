"""The runs of a study as numbers: mean and spread of each variant, paired differences from the baseline."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.files import write_atomic
from train.metrics import Row
from train.study.plan import Study

# Rows of a variant's runs: [seed][epoch].
Runs = dict[str, list[list[Row]]]

QUANTITIES = ("train_loss", "test_loss", "test_accuracy", "slow_test_accuracy")


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
      mean: of the seeds.
      deviation: sample standard deviation; NaN for one seed.
      half_width: of the 95 % interval of the mean, by Student's t; NaN for one seed.
      n: seeds.
    """

    mean: float
    deviation: float
    half_width: float
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % t interval of independent values."""
    from scipy import stats

    array, n = np.asarray(values, float), len(values)
    if n < 2:
        return Estimate(float(array.mean()), math.nan, math.nan, n)
    deviation = float(array.std(ddof=1))
    return Estimate(float(array.mean()), deviation, float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n), n)


def final_values(runs: list[list[Row]], quantity: str) -> list[float] | None:
    """The last epoch's value of each seed; None where the variant has none (slow weights without Lookahead)."""
    values = [rows[-1][quantity] for rows in runs]
    return None if any(value is None for value in values) else values


def summarise(study: Study, runs: Runs) -> list[dict[str, object]]:
    """One record a variant and quantity, the paired difference from the baseline beside it."""
    records: list[dict[str, object]] = []
    for variant in study.variants:
        for quantity in QUANTITIES:
            values = final_values(runs[variant.name], quantity)
            if values is None:
                continue
            # Slow weights are compared with what the baseline has to offer: its live weights.
            against = final_values(runs[study.baseline], quantity.removeprefix("slow_"))
            difference = None
            if variant.name != study.baseline and against is not None:
                difference = estimate([a - b for a, b in zip(values, against, strict=True)])
            mean = estimate(values)
            records.append(
                {
                    "variant": variant.name,
                    "quantity": quantity,
                    "n": mean.n,
                    "mean": mean.mean,
                    "standard_deviation": mean.deviation,
                    "difference": difference.mean if difference else "",
                    "difference_95_percent": difference.half_width if difference else "",
                }
            )
    return records


def write_summary(records: list[dict[str, object]], path: Path) -> None:
    """Writes the records as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: format(v, ".6g") if isinstance(v, float) else v for k, v in record.items()})
    write_atomic(path, text.getvalue())


def format_table(study: Study, records: list[dict[str, object]]) -> str:
    """The summary for a terminal: last epoch, mean ± standard deviation, difference ± 95 % interval."""

    def cell(record: dict[str, object] | None) -> str:
        if record is None:
            return "–"
        scale, digits = (100.0, 2) if "accuracy" in str(record["quantity"]) else (1.0, 4)
        text = f"{scale * record['mean']:.{digits}f} ± {scale * record['standard_deviation']:.{digits}f}"  # type: ignore[operator]
        if record["difference"] != "":
            text += (
                f"  ({scale * record['difference']:+.{digits}f} ± {scale * record['difference_95_percent']:.{digits}f})"  # type: ignore[operator]
            )
        return text

    header = ["", *(q.replace("_", " ") + (" %" if "accuracy" in q else "") for q in QUANTITIES)]
    table = [header]
    for variant in study.variants:
        by_quantity = {r["quantity"]: r for r in records if r["variant"] == variant.name}
        table.append([variant.name, *(cell(by_quantity.get(q)) for q in QUANTITIES)])
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append(
        f"last epoch, mean ± standard deviation over {study.seeds} seeds; in brackets the difference from "
        f"{study.baseline}, paired by seed, ± 95 % t interval (slow weights: from its live weights)"
    )
    return "\n".join(lines)
