"""The published form of a study, in its out directory: small files for people, spreadsheets and later sessions.

| file | a row is |
|---|---|
| runs.csv | a run: where it belongs, its last epoch's metrics, what ran it, every setting |
| curves.csv.gz | an epoch of a run: its id, and the columns of metrics.csv |
| claims.csv | a comparison of a claim, with the claim's verdict |
| summary.csv | a quantity of a variant (`train.study.page.summary`) |
| study.json | – : command, versions, machine, and a record of each session (`train.study.execution.session`) |

runs.csv and curves.csv.gz are what later sessions read; the others follow from them. All are written atomically, and
with the same runs bit for bit the same, but for study.json and for curves of runs without a line, which stay behind.
runs.csv and curves.csv.gz are read back before they replace what was there, and each number that can be checked when
they are read is: a run's id is the hash of its row's settings.
"""

import contextlib
import csv
import dataclasses
import gzip
import io
import logging
import typing
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from train.config import FORMER, Config, from_dict
from train.errors import RunFailed, UserError
from train.files import csv_text, read_text, write_together
from train.identity import run_id, variant_id
from train.locks import exclusive
from train.registry import PARTS, Registry
from train.run.records import COLUMNS, FURTHER_COLUMNS, PERPLEXITIES, Row, parse_number
from train.setting import elements_of, leaves
from train.study.plan import Study
from train.study.results.cells import exact, guarded, short, unguarded
from train.study.results.facts import FACTS, read_facts
from train.study.results.records import RunRecord

log = logging.getLogger(__name__)

RUNS, CURVES = "runs.csv", "curves.csv.gz"
# Copies of the study file and its neighbours, as the session that goes on has read them.
STUDY_COPIES = ".study"

METRICS = (*COLUMNS, *PERPLEXITIES)
FINAL = tuple(name for name in METRICS if name.startswith(("train_", "test_", "slow_test_")))
PROVENANCE = ("date", "machine", "python", "versions", "commit")
SETTINGS = {name: field for name, _, field in leaves(Config()) if field.metadata["identity"] and name != "seed"}
_PLACES = ("scale", "sections", "variants", "reference")
RUN_COLUMNS = ("id", "variant_id", "data", *_PLACES, "seed", "status", "epochs_done")


@contextlib.contextmanager
def open_directory(out: Path, study: Study) -> Iterator[None]:
    """Makes or opens an out directory, and keeps other studies out of it while the block runs.

    Raises:
      UserError: it cannot be made or written, is in use, or belongs to another study or scale.
    """
    with exclusive(out, f"--out={out}", by="study", disk_wait=Config().disk_wait):
        facts = read_facts(out)
        if not facts and (out / RUNS).exists():
            raise UserError(f"{out} has {RUNS} but no {FACTS}; restore it, e.g. from git, or choose another --out")
        for what in ("name", "scale"):
            theirs, ours = facts.get(what), getattr(study, what)
            if facts and theirs != ours:
                raise UserError(f"--out={out} contains a study of {what} {theirs!r}, not {ours!r}; choose another")
        yield


# Reading


def read_runs(out: Path) -> dict[str, RunRecord]:
    """The published runs by id; none where nothing is published yet.

    Raises:
      UserError: a file is damaged, a number in one does not fit the others, or a run has no curves. If a
        kill between the two writes left curves of a run that is not in runs.csv, they cause a warning and stay until
        the run is repeated.
    """
    if not (out / RUNS).exists():
        # A kill between the two files leaves curves of runs whose workdirs are still there.
        with contextlib.suppress(*_UNREADABLE):
            if all((out / "runs" / run).is_dir() for run in _curves_in(out)):
                return {}
        raise UserError(f"{out} has {CURVES} but no {RUNS}; restore it, e.g. from git, or choose another --out")
    try:
        runs, others = _parse(read_text(out / RUNS), (out / CURVES).read_bytes())
    except _UNREADABLE as error:
        raise UserError(f"{out / RUNS} and {CURVES} cannot be read ({error}); restore them, e.g. from git") from error
    if names := sorted(others):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        log.warning(
            f"{RUNS} has no line for the runs {', '.join(names[:3])}{more}, whose curves are in {CURVES}: they count "
            "as not run. If they should count, restore the lines, e.g. from git; else run the study, which makes again "
            "those that it plans, or delete their rows from the curves"
        )
    return runs


_UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, UserError, zlib.error, csv.Error)


def _parse(runs_text: str, curves: bytes) -> tuple[dict[str, RunRecord], dict[str, list[Row]]]:
    """The runs, and curves of runs that have no line."""
    rows = _read_curves(gzip.decompress(curves).decode())
    reader = csv.DictReader(io.StringIO(runs_text, newline=""))
    if missing := sorted({*RUN_COLUMNS, "seconds", "log", *PROVENANCE} - set(reader.fieldnames or ())):
        raise ValueError(f"{RUNS} has no column {missing[0]!r}")
    runs: dict[str, RunRecord] = {}
    for cells in reader:
        if None in cells or None in cells.values():
            raise ValueError(f"line {reader.line_num} of {RUNS} has too many or too few cells")
        try:
            run = _read_run(cells, rows.get(cells["id"], []))
        except ValueError as error:
            raise ValueError(f"line {reader.line_num} of {RUNS}: {error}") from error
        if run.id in runs:
            raise ValueError(f"run {run.id} is in {RUNS} twice")
        runs[run.id] = run
    return runs, {run: rows[run] for run in rows.keys() - runs.keys()}


def _curves_in(out: Path) -> dict[str, list[Row]]:
    with contextlib.suppress(FileNotFoundError):
        return _read_curves(gzip.decompress((out / CURVES).read_bytes()).decode())
    return {}


def _read_curves(text: str) -> dict[str, list[Row]]:
    curves: dict[str, list[Row]] = {}
    for cells in csv.DictReader(io.StringIO(text, newline="")):
        run = cells.pop("run")
        curves.setdefault(run, []).append({name: parse_number(name, cell) for name, cell in cells.items()})
    return curves


def _read_run(cells: dict[str, str], rows: list[Row]) -> RunRecord:
    run, seed, status = cells["id"], int(cells["seed"]), cells["status"]
    if status == "failed" and cells["epochs_done"] == "0":
        rows = []  # it has finished since; a kill came between the two files
    settings: dict[str, Any] = {"seed": seed}
    for name, field in SETTINGS.items():
        if name not in cells and name not in FORMER:
            raise ValueError(f"{RUNS} has no column {name!r}")
        *nest, last = name.split(".")
        inner = settings
        for part in nest:
            inner = inner.setdefault(part, {})
        inner[last] = _parse_setting(cells[name], field.type) if name in cells else FORMER[name]
    for part, registry in PARTS.items():
        if options := _read_options(part, registry, settings[part]["name"], cells):
            settings[part]["options"] = options
    config = from_dict(settings)
    for column, expected in (
        ("id", run_id(config, cells["data"])),
        ("variant_id", variant_id(config, cells["data"])),
    ):
        if cells[column] != expected:
            raise ValueError(
                f"by its settings, the {column} of run {run} should be {expected}: a cell of its row has changed"
            )
    if status not in ("finished", "failed"):
        raise ValueError(f"run {run} has the status {status!r}, not finished or failed")
    if [row["epoch"] for row in rows] != list(range(1, int(cells["epochs_done"]) + 1)):
        raise ValueError(f"run {run} does not have the epochs 1 to {cells['epochs_done']}, in this order, in {CURVES}")
    if status == "finished" and int(cells["epochs_done"]) != config.epochs:
        raise ValueError(f"run {run} is marked finished but has only {cells['epochs_done']} of {config.epochs} epochs")
    for name in (name for name in (*FINAL, *FURTHER_COLUMNS) if name in cells):
        last = short(rows[-1].get(name)) if rows else ""
        if rows and cells[name] != last:
            raise ValueError(f"{name} of run {run} is {cells[name]} in {RUNS} but {last} in {CURVES}")
    return RunRecord(
        id=run,
        variant_id=cells["variant_id"],
        data=cells["data"],
        scale=unguarded(cells["scale"]),
        config=settings,
        seed=seed,
        rows=rows,
        status=status,
        seconds=float(cells["seconds"]),
        log=unguarded(cells["log"]),
        provenance={name: unguarded(cells[name]) for name in PROVENANCE},
    )


def _parse_setting(cell: str, kind: Any) -> Any:
    if kind in (int, float):
        return kind(cell)
    if kind is str:
        return unguarded(cell)
    if kind is bool:
        return cell == "True"
    parts = [part for part in cell.split("/") if part]
    return [element(part) for part, element in zip(parts, elements_of(kind, len(parts)), strict=True)]


def _read_options(part: str, registry: Registry, name: str, cells: Mapping[str, str]) -> dict[str, Any]:
    """The options of a run's model or optimizer, of which each has a column of its own."""
    kind = registry[name].options_type() if any(cell.startswith(f"{part}.options.") for cell in cells) else None
    if kind is None:
        return {}
    kinds = typing.get_type_hints(kind)
    columns = {field.name: f"{part}.options.{field.name}" for field in dataclasses.fields(kind)}
    return {name: _parse_setting(cells[column], kinds[name]) for name, column in columns.items() if column in cells}


def _options(run: RunRecord) -> dict[str, Any]:
    found = {part: run.config[part].get("options") or {} for part in PARTS}
    return {f"{part}.options.{name}": value for part, options in found.items() for name, value in options.items()}


# Writing


def write_runs(out: Path, study: Study, runs: Mapping[str, RunRecord]) -> None:
    """Writes curves.csv.gz and runs.csv, in the plan's order, runs that it does not have behind, then other curves.

    Both are on the disk before either takes its place, the curves first: a run counts once it is in runs.csv.
    """
    places: dict[str, list[tuple[str, str, str]]] = {}
    for section in study.sections:
        for variant in section.variants:
            redone = variant.reference.name if variant.reference else ""
            places.setdefault(variant.id, []).append((section.ref, variant.name, redone))
            for trial in section.all_trials(variant):
                if trial.id != variant.id:
                    places.setdefault(trial.id, []).append((section.ref, trial.name, ""))
    order = {variant_id: number for number, variant_id in enumerate(places)}
    published = sorted(
        (run for run in runs.values() if run.status != "missing"),
        key=lambda run: (order.get(run.variant_id, len(order)), run.variant_id, run.seed),
    )
    curves_of = {run.id: run.rows for run in published}
    # What a merge lost from runs.csv must not be lost here; see `read_runs`.
    curves_of |= {run: rows for run, rows in _curves_in(out).items() if run not in curves_of}
    # Columns that only some runs have are there where any run has them.
    further = [name for name in FURTHER_COLUMNS if any(name in row for rows in curves_of.values() for row in rows)]
    options = sorted({name for run in published for name in _options(run)})
    metrics = (*METRICS, *further)
    epochs = (
        {"run": run} | {name: short(row.get(name)) for name in metrics}
        for run, rows in curves_of.items()
        for row in rows
    )
    curves = gzip.compress(csv_text(("run", *metrics), epochs).encode(), 9, mtime=0)
    records = [_run_record(run, places.get(run.variant_id, []), (*further, *options)) for run in published]
    columns = (*RUN_COLUMNS, *FINAL, *further, "seconds", *PROVENANCE, "log", *SETTINGS, *options)
    text = csv_text(columns, records)
    try:
        back = _parse(text, curves)[0].values()
        if [(run.id, run.seed, len(run.rows)) for run in published] != [(r.id, r.seed, len(r.rows)) for r in back]:
            raise ValueError("they read back as other runs")
    except _UNREADABLE as error:
        raise RunFailed(
            f"{RUNS} and {CURVES} could not be read back ({error}), so those in {out} are left as they were; this is a "
            "fault of the program: please report it"
        ) from error
    write_together({out / CURVES: curves, out / RUNS: text.encode()})


def _run_record(run: RunRecord, places: list[tuple[str, str, str]], more: Sequence[str]) -> dict[str, str]:
    record = {
        "id": run.id,
        "variant_id": run.variant_id,
        "data": run.data,
        "scale": guarded(run.scale),
        "sections": guarded(";".join(place[0] for place in places)),
        "variants": guarded(";".join(place[1] for place in places)),
        "reference": guarded(next((place[2] for place in places if place[2]), "")),
        "seed": str(run.seed),
        "status": run.status,
        "epochs_done": str(len(run.rows)),
        "seconds": f"{run.seconds:.1f}",
        "log": guarded(run.log),
    }
    record |= {name: short(run.rows[-1].get(name)) if run.rows else "" for name in FINAL}
    record |= {name: guarded(run.provenance.get(name, "")) for name in PROVENANCE}
    for name in SETTINGS:
        value: Any = run.config
        for part in name.split("."):
            value = value[part]
        record[name] = exact(value)
    record |= {name: short(run.rows[-1].get(name)) if run.rows else "" for name in more if name in FURTHER_COLUMNS}
    record |= {name: exact(value) for name, value in _options(run).items()}
    return dict.fromkeys(more, "") | record
