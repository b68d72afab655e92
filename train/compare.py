"""python -m train.compare RUN RUN ... [--out=DIR] [--register=FILE.py]

Draws the curves of workdirs side by side: OUT/index.html, the same page as a study's, and PNG and SVG figures. Runs on
the same data share a section; runs that differ in the seed alone are one line with a band. Lines are named by the
settings in which they differ, or by their workdirs. Gains are taken over the first run, paired by seed. Runs that are
still going on are drawn as far as they are. Nothing is written to a workdir.

Exit status: 0 done, 2 wrong input or nothing can be written.
"""

import sys

if __name__ == "__main__":  # before the imports that take seconds
    from train.interface.installed import require

    require("study")

import argparse
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.config import Config, from_dict, to_dict, validate
from train.errors import UnknownName, UserError
from train.files import read_json
from train.identity import identity, run_id, variant_id
from train.interface.command_line import Parser, argument_path, run_command
from train.interface.output import Extras, accept_any_text, tolerant_output
from train.interface.user_code import load_module
from train.run.provenance import run_facts
from train.run.records import Row, read_rows
from train.study.page.summary import format_tables
from train.study.plan import Section, Study, Variant
from train.study.results.records import RunRecord, StudyResults

# Files by which a study's own folder is known: its page must not be overwritten.
STUDY_FILES = ("runs.csv", "study.json")
MOST_NAMED = 3  # settings in the name of a line; beyond, the workdir's name says more


@dataclasses.dataclass(frozen=True)
class Found:
    """A run as its workdir has it.

    Attributes:
      name: of the workdir.
      config: its settings.
      rows: of metrics.csv; at least one.
      facts: run.json.
      copy: 0, or how many runs before it have the same settings, seed and data.
    """

    name: str
    config: Config
    rows: list[Row]
    facts: dict[str, Any]
    copy: int = 0

    @property
    def digest(self) -> str:
        """Of its data; "" if its run.json has none."""
        return str(self.facts.get("data", {}).get("digest", ""))

    @property
    def data(self) -> str:
        """What stands for its data in its ids: the digest, with a mark for a copy, so that it is a line of its own."""
        return self.digest + f" copy {self.copy}" * (self.copy > 0)

    @property
    def line(self) -> str:
        """What all runs of the same line share."""
        return variant_id(self.config, self.data)

    @property
    def left(self) -> int:
        """Epochs that it has not done."""
        return self.config.epochs - len(self.rows)


def read_workdir(path: Path) -> Found:
    """Reads what a run has left in its workdir.

    Raises:
      UserError: it is no workdir, a file is damaged, or no epoch is done.
    """
    if not (path / "config.json").is_file():
        inside = sorted(file.parent for file in (*path.glob("*/config.json"), *path.glob("runs/*/config.json")))
        hint = f"those in it, such as {inside[0]}" if inside else "the --workdir of python -m train"
        raise UserError(f"{path} is not a workdir: it has no config.json; give {hint}")
    if not (path / "metrics.csv").is_file():
        raise UserError(f"{path} has no metrics.csv: the run has not finished an epoch; train it first")
    try:
        config = validate(from_dict(read_json(path / "config.json")))
    except UserError as error:
        hint = "; if it is registered in a file, give --register=FILE" * isinstance(error, UnknownName)
        raise UserError(f"{path / 'config.json'}: {error}{hint}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows = read_rows(path / "metrics.csv")
    if not rows:
        raise UserError(f"{path} has no finished epoch; train it first")
    return Found(path.resolve().name, config, rows, run_facts(path))


def distinct(runs: Sequence[Found]) -> list[Found]:
    """The runs, with those marked that repeat the settings, the seed and the data of an earlier one."""
    seen: dict[tuple[str, int], int] = {}
    marked = []
    for run in runs:
        key = run.line, run.config.seed
        marked.append(dataclasses.replace(run, copy=seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
    return marked


def line_names(lines: Mapping[str, Sequence[Found]]) -> dict[str, str]:
    """A name for each line of a section: its settings that not all lines share, or its first workdir."""
    settings = {line: identity(runs[0].config) for line, runs in lines.items()}
    keys = dict.fromkeys(key for given in settings.values() for key in given if key != "seed")
    differing = [key for key in keys if len({repr(given.get(key)) for given in settings.values()}) > 1]
    names = {
        line: ", ".join(f"{key.rpartition('.')[2]}={_printable(given[key])}" for key in differing if key in given)
        for line, given in settings.items()
    }
    if not differing or len(differing) > MOST_NAMED or len(set(names.values())) < len(names):
        names = {line: _printable(runs[0].name) for line, runs in lines.items()}
        if len(set(names.values())) < len(names):
            names = {line: f"{name} ({place + 1})" for place, (line, name) in enumerate(names.items())}
    for line, runs in lines.items():
        if any(run.left for run in runs):
            names[line] += f" ({min(len(run.rows) for run in runs)} of {runs[0].config.epochs} epochs)"
    return names


def _printable(value: Any) -> str:
    """A text that `check_name` takes."""
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return " ".join("".join(c if c.isprintable() else "?" for c in text.replace(";", ",")).split()) or "none"


def compared(runs: Sequence[Found]) -> StudyResults:
    """The runs as a study without claims: a section for each data set; one whose content differs is another."""
    sections, records = [], {}
    contents = dict.fromkeys((run.config.dataset, run.digest) for run in runs)
    names_of_sets = [dataset for dataset, _ in contents]
    for place, (dataset, digest) in enumerate(contents):
        lines: dict[str, list[Found]] = {}
        for run in (run for run in runs if (run.config.dataset, run.digest) == (dataset, digest)):
            lines.setdefault(run.line, []).append(run)
        names = line_names(lines)
        variants = [Variant(names[line], found[0].config, data=found[0].data) for line, found in lines.items()]
        title = _printable(dataset) + f" (SHA-256 {digest[:8] or 'unknown'})" * (names_of_sets.count(dataset) > 1)
        sections.append(Section(key=str(place + 1), variants=variants, title=title, figure=f"runs_{place + 1}"))
        for found in lines.values():
            for run in found:
                record = _record(run)
                records[record.id] = record
    title = "Runs: " + ", ".join(dict.fromkeys(_printable(run.name) for run in runs))
    study = Study(name="comparison", title=title if len(title) < 100 else f"{len(runs)} runs", sections=sections)
    return StudyResults(study, records, ())


def _record(run: Found) -> RunRecord:
    facts = run.facts
    provenance = {"date": facts.get("started", ""), "machine": facts.get("machine", "")}
    return RunRecord(
        run_id(run.config, run.data),
        run.line,
        run.data,
        "",
        to_dict(run.config),
        run.config.seed,
        run.rows,
        "finished",
        seconds=float(facts.get("wall_seconds", 0.0)),
        provenance={name: str(value) for name, value in provenance.items() if value},
    )


def write(results: StudyResults, out: Path) -> list[Path]:
    """Writes figures and page; returns the files, the page first."""
    from train.study.page.figures import draw_all
    from train.study.page.write import write_page

    out.mkdir(parents=True, exist_ok=True)
    figures = draw_all(results, out / "figures", Extras())
    write_page(results, out / "index.html")
    return [out / "index.html", *figures]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    accept_any_text()
    with tolerant_output():
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        parser = Parser(prog="python -m train.compare", description=__doc__)
        parser.add_argument("runs", nargs="+", type=argument_path, metavar="RUN", help="a workdir")
        parser.add_argument(
            "--out", type=argument_path, default=Path("checkpoints/comparison"), help="folder to write (%(default)s)"
        )
        parser.add_register()
        return run_command(lambda: _compare(parser.parse_args(arguments)))


def _compare(flags: argparse.Namespace) -> int:
    if found := [name for name in STUDY_FILES if (flags.out / name).exists()]:
        raise UserError(f"--out={flags.out} contains a study ({found[0]}); choose another folder")
    if (flags.out / "config.json").exists():
        raise UserError(f"--out={flags.out} is the workdir of a run; choose another folder")
    if flags.register:
        load_module(flags.register, "--register")
    results = compared(distinct([read_workdir(path) for path in flags.runs]))
    print(f"{format_tables(results, results.study.sections)}\n")
    files = write(results, flags.out)
    print(f"page:    {files[0]}")
    print(f"figures: {files[1].parent} ({len(files) - 1} files)" if files[1:] else "figures: none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
