"""metrics.csv: one row an epoch, each epoch exactly once however often the run was interrupted."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.errors import UserError
from train.files import csv_text, read_csv, write_atomic

# Every metrics.csv has these; columns of later metrics are empty in rows from before them.
_ALWAYS = (
    "epoch",
    "step",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "slow_test_loss",
    "slow_test_accuracy",
    "examples_per_second",
    "seconds",
)
# Euclidean norms over all parameters at the last step of the epoch.
NORM_COLUMNS = ("gradient_norm", "update_norm", "parameter_norm", "slow_distance")
COLUMNS = _ALWAYS + NORM_COLUMNS
PERPLEXITIES = ("train_perplexity", "test_perplexity", "slow_test_perplexity")
# Weights and split, of runs that keep a moving average of the weights, or set examples aside for validation.
FURTHER = ("ema_test", "validation", "slow_validation", "ema_validation")
FURTHER_COLUMNS = tuple(f"{name}_{what}" for name in FURTHER for what in ("loss", "accuracy", "perplexity"))
# The columns that say how fast the machine was; all others are a function of the config.
TIMING_COLUMNS = ("examples_per_second", "seconds")
_NUMBERS = {*COLUMNS, *PERPLEXITIES, *FURTHER_COLUMNS}

Row = dict[str, Any]


def columns_of(*, language_model: bool, ema: bool = False, validation: bool = False) -> tuple[str, ...]:
    """The columns of a run's metrics.csv."""
    further = [name for name in FURTHER if (ema or "ema" not in name) and (validation or "validation" not in name)]
    whats = ("loss", "accuracy", *(("perplexity",) if language_model else ()))
    names = tuple(f"{name}_{what}" for name in further for what in whats)
    return COLUMNS + (PERPLEXITIES if language_model else ()) + names


def perplexity(loss: float) -> float:
    """exp of the mean loss per token; infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def seconds_per_epoch(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the mean time of an epoch, the first one left out where there are more: it has compilation in it."""
    seconds = [float(row["seconds"]) for row in rows[1:] or rows if row["seconds"]]
    return statistics.fmean(seconds) if seconds else None


def validation_score(row: Row) -> float | None:
    """By which checkpoints are compared, higher being better: of the slow weights where there are any.

    Accuracy; for language models the negative loss. None without a validation set: a test set chooses nothing.
    """
    # A metrics.csv has the columns of slow weights, empty, where there are none.
    prefix = "validation" if row.get("slow_validation_loss") is None else "slow_validation"
    if row.get(f"{prefix}_perplexity") is not None:
        return -row[f"{prefix}_loss"]
    return row.get(f"{prefix}_accuracy")


def float_text(value: float) -> str:
    """A number as metrics.csv and the published tables have it: seven digits, as many as a float32 has."""
    return format(value, ".7g")


def parse_number(name: str, cell: str) -> int | float | None:
    """The number in a cell of a column; None if it is empty.

    Raises:
      ValueError: it is no number.
    """
    if cell == "":
        return None
    return int(cell) if name in ("epoch", "step") else float(cell)


def _format(value: Any) -> str:
    if value is None:
        return ""
    return float_text(value) if isinstance(value, float) else str(value)


class MetricsFile:
    """The rows of metrics.csv, rewritten atomically with each new one. Columns that a user added are kept as they are.

    Attributes:
      columns: in the file's order.
      rows: what the file holds, values as numbers (None where empty), those of a user's own columns as text.
    """

    def __init__(self, path: Path, columns: tuple[str, ...] = COLUMNS):
        self._path, self.columns = path, columns
        self.rows: list[Row] = []
        if path.exists():
            found, self.rows = _read(path)
            self.columns = found + tuple(name for name in self.columns if name not in found)

    def append(self, row: Row) -> None:
        """Adds the row of the next epoch and writes the file."""
        self._write([*self.rows, row])

    def keep_until(self, step: int) -> None:
        """Drops rows of epochs that end after `step`: those will be trained again."""
        kept = [row for row in self.rows if row["step"] <= step]
        if len(kept) != len(self.rows):
            self._write(kept)

    def _write(self, rows: list[Row]) -> None:
        cells = ({column: _format(row.get(column)) for column in self.columns} for row in rows)
        write_atomic(self._path, csv_text(self.columns, cells))
        self.rows = rows


def read_rows(path: Path) -> list[Row]:
    """Reads a metrics.csv: numbers, None where a cell is empty; text in columns that are not a run's.

    Raises:
      UserError: the file is not one that this module wrote.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    columns, rows = read_csv(path)
    if not set(_ALWAYS) <= set(columns) or len(set(columns)) < len(columns):
        raise UserError(f"{path} does not have the columns of a metrics.csv; move it away")
    try:
        return columns, [
            dict.fromkeys(COLUMNS) | {name: _parse(name, cell) for name, cell in row.items()} for row in rows
        ]
    except ValueError as error:
        raise UserError(f"{path} cannot be read as metrics ({error}); move it away") from error


def _parse(name: str, cell: str) -> int | float | str | None:
    return parse_number(name, cell) if name in _NUMBERS else cell
