"""The report's own logs: 36 runs, one seed each, 6,480 epochs, as rows with the same columns as ours.

The data is in `report_logs/` next to this file (values read from the report's log files; PyTorch 1.4, one GPU, 2020,
seed 1234). `test_*` is what the report tested: the live weights at the end of each epoch; for PTB on valid.txt. Four
things to know before comparing one of our runs with one of them:

- `sgd_no_cifar100` does not match its recipe: its learning rate must have been cut in the first epochs (`FAULTY`).
- `imdb_no` and `imdb_yes` do not match theirs: RAdam falls more slowly, Adam about as they do (`FAULTY`).
- The hw2 logs have no test loss.
- `decay_epochs` are the nominal ones; the drop took effect one epoch later.
"""

import csv
import functools
import gzip
import importlib.resources
import io
import math
from typing import Any

from train.errors import UserError
from train.run.records import COLUMNS, PERPLEXITIES, Row
from train.study.plan import Reference

_IMDB = (
    "The report's logs of IMDB do not fit its code, which trains with RAdam: from the first epoch on, their training "
    "losses are far below those of our runs and of a PyTorch program written anew, and close to those of Adam."
)
# Faulty logs, and what is wrong with them.
FAULTY = {
    "sgd_no_cifar100": (
        "The report's log sgd_no_cifar100 stalls from epoch 3 and shows no drop at 61, 121 or 161, unlike its other 27 "
        "CIFAR runs: its learning rate must have been cut early, so the 41.6 % comes from a broken baseline."
    ),
    "imdb_no": _IMDB,
    "imdb_yes": _IMDB,
}

_WORDS = ("section", "dataset", "model", "inner", "decay_epochs")


def _text(name: str) -> str:
    data = (importlib.resources.files("train.reproduction") / "report_logs" / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode()


def _value(name: str, cell: str) -> float | str | None:
    if name in _WORDS:
        return cell
    return float(cell) if cell else None


@functools.cache
def report_runs() -> dict[str, dict[str, Any]]:
    """Settings and final figures of each run, by its name.

    The keys section, dataset, model, inner, decay_epochs ("60/120/160") are strings; k (0: no Lookahead), alpha,
    learning_rate, batch_size, epochs, final_* (accuracies are fractions) are floats, or None if empty.
    """
    return {
        row["run"]: {name: _value(name, cell) for name, cell in row.items() if name != "run"}
        for row in csv.DictReader(io.StringIO(_text("report_runs.csv")))
    }


def reference(name: str) -> Reference:
    """The log with this name as a study's reference.

    Raises:
      UserError: The report has no such log.
    """
    if name not in report_runs():
        raise UserError(f"the report has no log {name!r}; it has {', '.join(report_runs())}")
    return Reference(name, report_curves()[name], FAULTY.get(name, ""))


@functools.cache
def report_curves() -> dict[str, list[Row]]:
    """Every epoch of each run by name, with the columns of metrics.csv; None for what the log does not have.

    If a log has only perplexities, the losses (their natural logarithm, nats per token) are filled in.
    """
    curves: dict[str, list[Row]] = {}
    for cells in csv.DictReader(io.StringIO(_text("report_curves.csv.gz"))):
        row: Row = dict.fromkeys((*COLUMNS, *PERPLEXITIES))
        row |= {name: _value(name, cell) for name, cell in cells.items() if name != "run"}
        row["epoch"] = int(cells["epoch"])
        for split in ("train", "test"):
            if row[f"{split}_loss"] is None and row[f"{split}_perplexity"] is not None:
                row[f"{split}_loss"] = math.log(row[f"{split}_perplexity"])
        curves.setdefault(cells["run"], []).append(row)
    return curves
