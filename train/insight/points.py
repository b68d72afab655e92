"""The numbers that the picture of `train.insight` shows: insight.csv and insight.json."""

from pathlib import Path
from typing import Any, NamedTuple

from train.errors import UserError
from train.files import csv_text, read_csv, read_json, write_atomic, write_json

STEM = "insight"


class Point(NamedTuple):
    """Weights that were scored.

    Attributes:
      kind: "grid"; "line", from the slow weights at the start through the fast ones at the end of the first cycle;
        "without" Lookahead (its steps up to `sync_period` are also the first cycle's fast weights);
        "with", the live weights, both before and after a sync; "slow", the slow weights.
      step: steps since the start of the cycle; 0 for the grid and the line.
      x: coordinate in the plane, along the line from the start to the end of the cycle.
      y: coordinate at right angles to it.
      off_plane: distance from the plane; 0 for the grid and the line, which are in it.
      test_loss: mean over the examples, with BatchNorm statistics re-estimated at these weights.
      test_accuracy: likewise.
    """

    kind: str
    step: int
    x: float
    y: float
    off_plane: float
    test_loss: float
    test_accuracy: float


class Insight(NamedTuple):
    """A measurement.

    Attributes:
      facts: plain values that describe the run and the measurement.
      points: the paths in the order of their steps, the line, then the grid row by row.
    """

    facts: dict[str, Any]
    points: list[Point]

    def of(self, kind: str) -> list[Point]:
        """The points of one kind."""
        return [point for point in self.points if point.kind == kind]


def write(insight: Insight, folder: Path) -> None:
    """Writes insight.csv and insight.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (point._asdict() for point in insight.points)
    cells = ({k: v if isinstance(v, str) else format(v, ".6g") for k, v in row.items()} for row in rows)
    write_atomic(folder / f"{STEM}.csv", csv_text(Point._fields, cells))
    write_json(folder / f"{STEM}.json", insight.facts)


def read(folder: Path) -> Insight:
    """Reads what `write` wrote.

    Raises:
      UserError: the files are missing or cannot be read.
    """
    path = folder / f"{STEM}.csv"
    try:
        facts = read_json(folder / f"{STEM}.json")
        points = [
            Point(row["kind"], int(row["step"]), *(float(row[name]) for name in Point._fields[2:]))
            for row in read_csv(path)[1]
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); measure it first, without --redraw") from error
    insight = Insight(facts, points)
    if not insight.of("line"):
        raise UserError(f"{path} has no points of kind line: an earlier version measured it; measure it again")
    return insight
