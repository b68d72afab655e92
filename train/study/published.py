"""The published form of a study, in its out directory: small files for people, spreadsheets and later sessions.

| file | a row is |
|---|---|
| runs.csv | a run: where it belongs, its last epoch's metrics, what ran it, every setting |
| curves.csv.gz | an epoch of a run: its id, and the columns of metrics.csv |
| claims.csv | a comparison of a claim, with the claim's verdict |
| summary.csv | a quantity of a variant (`train.study.summary`) |
| study.json | – : command, versions, machine, and a record of each session (`train.study.session`) |

runs.csv and curves.csv.gz are what later sessions read; the others follow from them. All are written atomically, and
with the same runs bit for bit the same (but study.json).
"""

import contextlib
import csv
import fcntl
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.config import Config, leaves, to_dict
from train.errors import UserError
from train.files import write_atomic, write_json
from train.run.records import COLUMNS, PERPLEXITIES, Row
from train.study.plan import Study, planned_runs
from train.study.results import RunRecord, StudyResults
from train.study.tables import csv_text, exact, short, write_claims, write_summary
from train.study.verdicts import judge

RUNS, CURVES, FACTS = "runs.csv", "curves.csv.gz", "study.json"

METRICS = (*COLUMNS, *PERPLEXITIES)
FINAL = tuple(name for name in METRICS if name.startswith(("train_", "test_", "slow_test_")))
PROVENANCE = ("date", "machine", "python", "versions", "commit")
SETTINGS = {name: field for name, _, field in leaves(Config()) if field.metadata["identity"] and name != "seed"}
RUN_COLUMNS = ("id", "variant_id", "scale", "sections", "variants", "report_run", "seed", "status", "epochs_done")


@contextlib.contextmanager
def open_directory(out: Path, study: Study) -> Iterator[None]:
    """Makes or opens an out directory, and keeps other studies out of it meanwhile, by flock.

    Raises:
      UserError: it cannot be made or written, is in use, or holds another study or scale.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a")
    except OSError as error:
        raise UserError(f"--out={out} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--out={out} is in use by another study; wait for it or choose another") from error
        facts = read_facts(out)
        for what in ("name", "scale"):
            theirs, ours = facts.get(what), getattr(study, what)
            if facts and theirs != ours:
                raise UserError(f"--out={out} holds a study of {what} {theirs!r}, not {ours!r}; choose another")
        yield


# Reading


def read_facts(out: Path) -> dict[str, Any]:
    """study.json; empty where there is none.

    Raises:
      UserError: it is damaged.
    """
    path = out / FACTS
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); bring it back, or choose another --out") from error


def read_runs(out: Path) -> dict[str, RunRecord]:
    """The published runs by id; none where nothing is published yet.

    Raises:
      UserError: a file is damaged, or the curves lack epochs of a finished run.
    """
    if not (out / RUNS).exists():
        if (out / CURVES).exists():
            raise UserError(f"{out} has {CURVES} but no {RUNS}; bring it back, e.g. from git, or choose another --out")
        return {}
    try:
        curves = _read_curves(out / CURVES)
        with (out / RUNS).open(newline="", encoding="utf-8") as file:
            runs = [_read_run(cells, curves) for cells in csv.DictReader(file)]
    except (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, csv.Error) as error:
        raise UserError(
            f"{out / RUNS} and {CURVES} cannot be read ({error}); bring them back, e.g. from git"
        ) from error
    return {run.id: run for run in runs}


def _read_curves(path: Path) -> dict[str, list[Row]]:
    curves: dict[str, list[Row]] = {}
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            run = cells.pop("run")
            curves.setdefault(run, []).append(
                {
                    name: None if cell == "" else int(cell) if name in ("epoch", "step") else float(cell)
                    for name, cell in cells.items()
                }
            )
    return curves


def _read_run(cells: dict[str, str], curves: dict[str, list[Row]]) -> RunRecord:
    config: dict[str, Any] = {"seed": int(cells["seed"])}
    for name, field in SETTINGS.items():
        *nest, last = name.split(".")
        inner = config
        for part in nest:
            inner = inner.setdefault(part, {})
        inner[last] = _parse_setting(cells.get(name), field)
    status, run = cells["status"], cells["id"]
    if status not in ("finished", "failed"):
        raise ValueError(f"run {run} has the status {status!r}")
    rows = curves.get(run, [])
    if status == "finished" and len(rows) != int(cells["epochs_done"]):
        raise ValueError(f"run {run} has {len(rows)} epochs in {CURVES}, and should have {cells['epochs_done']}")
    return RunRecord(
        id=run,
        variant_id=cells["variant_id"],
        scale=cells["scale"],
        config=config,
        seed=int(cells["seed"]),
        rows=rows,
        status=status,
        seconds=float(cells["seconds"]),
        log=cells["log"],
        provenance={name: cells[name] for name in PROVENANCE},
    )


def _parse_setting(cell: str | None, field: Any) -> Any:
    if cell is None:  # a setting that is younger than the file
        return list(field.default) if isinstance(field.default, tuple) else field.default
    if field.type in (int, float, str):
        return field.type(cell)
    return cell == "True" if field.type is bool else [int(part) for part in cell.split("/") if part]


# Writing


def write_runs(out: Path, study: Study, runs: Mapping[str, RunRecord]) -> None:
    """Writes curves.csv.gz and runs.csv, in the plan's order, runs that it does not have behind.

    The curves first: a run counts once it is in runs.csv.
    """
    places: dict[str, list[tuple[str, str, str]]] = {}
    for section in study.sections:
        for variant in section.variants:
            places.setdefault(variant.id, []).append((section.ref, variant.name, variant.report_run))
    order = {variant_id: number for number, variant_id in enumerate(places)}
    published = sorted(
        (run for run in runs.values() if run.status != "missing"),
        key=lambda run: (order.get(run.variant_id, len(order)), run.variant_id, run.seed),
    )
    epochs = (
        {"run": run.id} | {name: short(row.get(name)) for name in METRICS} for run in published for row in run.rows
    )
    text = csv_text(("run", *METRICS), epochs)
    write_atomic(out / CURVES, gzip.compress(text.encode(), 9, mtime=0))
    records = [_run_record(run, places.get(run.variant_id, [])) for run in published]
    columns = (*RUN_COLUMNS, *FINAL, "seconds", *PROVENANCE, "log", *SETTINGS)
    write_atomic(out / RUNS, csv_text(columns, records))


def _run_record(run: RunRecord, places: list[tuple[str, str, str]]) -> dict[str, str]:
    record = {
        "id": run.id,
        "variant_id": run.variant_id,
        "scale": run.scale,
        "sections": ";".join(place[0] for place in places),
        "variants": ";".join(place[1] for place in places),
        "report_run": next((place[2] for place in places if place[2]), ""),
        "seed": str(run.seed),
        "status": run.status,
        "epochs_done": str(len(run.rows)),
        "seconds": f"{run.seconds:.1f}",
        "log": run.log,
    }
    record |= {name: short(run.rows[-1].get(name)) if run.rows else "" for name in FINAL}
    record |= {name: run.provenance.get(name, "") for name in PROVENANCE}
    for name in SETTINGS:
        value: Any = run.config
        for part in name.split("."):
            value = value[part]
        record[name] = exact(value)
    return record


# A study and its directory


def assemble(study: Study, runs: Mapping[str, RunRecord], facts: dict[str, Any]) -> StudyResults:
    """Results of these runs; the planned ones that are not among them are there as missing."""
    everything = dict(runs)
    for run in planned_runs(study):
        if run.id not in everything:
            everything[run.id] = RunRecord(
                run.id, run.variant_id, study.scale, to_dict(run.config), run.config.seed, [], "missing"
            )
    return StudyResults(study, everything, judge(study, everything), facts)


def save(out: Path, results: StudyResults) -> None:
    """Writes all tables, and study.json."""
    write_runs(out, results.study, results.runs)
    write_claims(out, results.verdicts)
    write_summary(out, results)
    write_json(out / FACTS, results.facts)
