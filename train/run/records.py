"""metrics.csv and TensorBoard: one row an epoch, each epoch exactly once however often the run was interrupted."""

import math
from pathlib import Path
from typing import Any

from train.errors import UserError
from train.files import csv_text, read_csv, write_atomic

COLUMNS = (
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
    # Beyond the fixed ones: Euclidean norms over all parameters at the last step of the epoch.
    "gradient_norm",
    "update_norm",
    "parameter_norm",
    "slow_distance",
)
PERPLEXITIES = ("train_perplexity", "test_perplexity", "slow_test_perplexity")
# The columns that say how fast the machine was; all others are a function of the config.
TIMING_COLUMNS = ("examples_per_second", "seconds")
NORM_COLUMNS = ("gradient_norm", "update_norm", "parameter_norm", "slow_distance")

Row = dict[str, Any]


def perplexity(loss: float) -> float:
    """exp of the mean loss per token; infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _format(value: Any) -> str:
    if value is None:
        return ""
    return format(value, ".7g") if isinstance(value, float) else str(value)


class MetricsFile:
    """The rows of metrics.csv, rewritten atomically with each new one.

    Attributes:
      rows: what the file holds, values as numbers (None where empty).
    """

    def __init__(self, path: Path, *, language_model: bool):
        self._path = path
        self.columns = COLUMNS + (PERPLEXITIES if language_model else ())
        self.rows = read_rows(path) if path.exists() else []

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
    """Reads a metrics.csv: numbers, None where a cell is empty.

    Raises:
      UserError: the file is not one that this module wrote.
    """
    columns, rows = read_csv(path)
    if columns[: len(COLUMNS)] != COLUMNS:
        raise UserError(f"{path} does not have the columns of a metrics.csv; move it away")
    try:
        return [{name: _parse(name, cell) for name, cell in row.items()} for row in rows]
    except ValueError as error:
        raise UserError(f"{path} cannot be read as metrics ({error}); move it away") from error


def _parse(name: str, cell: str) -> int | float | None:
    if cell == "":
        return None
    return int(cell) if name in ("epoch", "step") else float(cell)


class TensorBoard:
    """Event files with the columns of metrics.csv as scalars, by tensorboardX (no TensorFlow).

    The file is opened, and tensorboardX imported (a second), when there is a row for it: not before the first step.
    """

    def __init__(self, directory: Path, *, after_epoch: int):
        self._directory, self._after_epoch = directory, after_epoch
        self._writer: Any = None

    def append(self, row: Row) -> None:
        """Adds the scalars of an epoch."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            purge_step = self._after_epoch + 1 if self._after_epoch else None
            self._writer = SummaryWriter(str(self._directory), purge_step=purge_step)
        for name, value in row.items():
            if value is not None and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        if self._writer is not None:
            self._writer.close()
