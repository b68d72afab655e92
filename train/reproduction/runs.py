"""Our first epochs of the report's recipes, and how each run was made: results/fidelity.

A run is `<report's name>_seed<N>.csv`, the metrics.csv of its workdir; `about.json` has the command, versions and
machine of each. `collect` files a workdir there. Its config.json, never its folder's name, decides which of the
report's runs it is, and a config that is not one of the report's recipes is rejected.
"""

import dataclasses
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

from train.config import Config, to_dict
from train.errors import UserError
from train.files import read_json, write_atomic, write_json
from train.reproduction.logs import report_runs
from train.run.provenance import run_facts
from train.run.records import Row, read_rows
from train.setting import leaves

ABOUT = "about.json"
_FILE = re.compile(r"(?P<name>\w+)_seed(?P<seed>\d+)\.csv")
# Settings in which two runs of one recipe may differ; test_examples, because training does not see the test set.
_FREE = ("epochs", "seed", "test_examples", "devices", "parallel")
# Settings that say where files are and how often they are saved, which are not part of a recipe.
_PLACES = frozenset(name for name, _, field in leaves(Config()) if not field.metadata["identity"])
_FAMILY = {
    "cifar10": "",
    "cifar100": "_cifar100",
    "ptb": "nlp",
    "imagefolder": "cnn",
    "images": "cnn",
    "imdb_reviews": "imdb",
}
_CONFIG_FILES = {
    "": "cifar10_resnet18",
    "_cifar100": "cifar100_resnet18",
    "nlp": "ptb_gru",
    "cnn": "hw2_cnn",
    "imdb": "imdb_bilstm",
}


@dataclasses.dataclass(frozen=True)
class FiledRun:
    """One run in results/fidelity.

    Attributes:
      name: name of the report's run with the same recipe.
      seed: the run's seed.
      rows: the rows of its metrics.csv, one per epoch, from 1 without gaps.
      about: "command", "versions", "machine" and "commit", as far as they were recorded.
    """

    name: str
    seed: int
    rows: list[Row]
    about: dict[str, str]

    def value(self, epoch: int, quantity: str) -> float | None:
        """A quantity at an epoch (from 1); None if the run did not get that far."""
        return self.rows[epoch - 1][quantity] if epoch <= len(self.rows) else None


def read_filed_runs(folder: Path) -> list[FiledRun]:
    """The runs in a folder, by name and seed.

    Raises:
      UserError: a file is not named after one of the report's runs, or is not a metrics.csv.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; expected one with the metrics.csv of runs, named <report's name>_seed<N>.csv"
        )
    about, runs = _read_about(folder), []
    for path in sorted(folder.glob("*.csv")):
        parts = _FILE.fullmatch(path.name)
        if parts is None or parts["name"] not in report_runs():
            raise UserError(f"{path}: not named after one of the report's runs, such as radam_no_seed0.csv")
        rows = read_rows(path)
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            raise UserError(f"{path}: its epochs are not 1, 2, 3 and so on")
        runs.append(FiledRun(parts["name"], int(parts["seed"]), rows, about.get(path.stem, {})))
    return sorted(runs, key=lambda run: (run.name, run.seed))


def _read_about(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / ABOUT
    try:
        return read_json(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def collect(workdir: Path, folder: Path, *, machine: str) -> str:
    """Files a workdir's run in `folder`; an existing run is replaced only if the new one has more epochs.

    Args:
      workdir: a workdir of `python -m train`.
      folder: results/fidelity.
      machine: a short description of the machine.

    Returns:
      What was done, in one line.

    Raises:
      UserError: it is not a workdir, or not one of the report's recipes.
    """
    try:
        config = read_json(workdir / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is not the workdir of a run: {error}") from error
    name, command = identify(config, workdir)
    stem = f"{name}_seed{config['seed']}"
    source, path = workdir / "metrics.csv", folder / f"{stem}.csv"
    if not source.exists():
        return f"{stem}: skipped, the run in {workdir} has not finished an epoch yet"
    rows = read_rows(source)
    if path.exists() and len(read_rows(path)) >= len(rows):
        return f"{stem}: kept, the run in {workdir} has no more epochs"
    facts = run_facts(workdir)
    if lacking := [what for what in ("python", "versions", "devices") if what not in facts]:
        raise UserError(f"{workdir / 'run.json'} does not say which {lacking[0]} made the run; train it again")
    versions = {"Python": facts["python"], **facts["versions"]}
    about = _read_about(folder)
    about[stem] = {
        "command": command,
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
        "machine": f"{machine}; {', '.join(map(str, facts['devices']))}",
        "commit": facts.get("commit", ""),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, source.read_bytes())
    write_json(folder / ABOUT, dict(sorted(about.items())))
    return f"{stem}: {len(rows)} epochs from {workdir}"


def identify(config: dict[str, Any], workdir: Path) -> tuple[str, str]:
    """The report's run that has the recipe in a config.json, and the command that runs it.

    Raises:
      UserError: it is not one of the report's recipes; the message names a setting that differs.
    """
    family, optimizer = _FAMILY.get(config["dataset"]), config["optimizer"]
    if family is None:
        raise UserError(f"{workdir}: dataset={config['dataset']!r} is not one of the report's")
    which = "yes" if optimizer["lookahead"] else "no"
    name = f"{family}_{which}" if family in ("nlp", "cnn", "imdb") else f"{optimizer['name']}_{which}{family}"
    report, path = report_runs().get(name), f"configs/{_CONFIG_FILES[family]}.py"
    if report is None:
        raise UserError(f"{workdir}: the report has no run {name}")
    try:
        default = _flat(to_dict(runpy.run_path(path)["get_config"]()))
    except OSError as error:
        raise UserError(f"{path} cannot be read: run this from the repository's root ({error})") from error
    recipe = default | {
        "optimizer.name": report["inner"],
        "optimizer.learning_rate": report["learning_rate"],
        "optimizer.lookahead": bool(report["k"]),
    }
    if family == "cnn":
        recipe["dataset"] = config["dataset"]  # the same tree, in either form
    given = {field: value for field, value in _flat(config).items() if field not in _PLACES}
    for field, value in given.items():
        if field not in _FREE and value != recipe.get(field):
            raise UserError(f"{workdir}: {field}={value!r} differs from the recipe of the report's {name}")
    changes = [
        f"--config.{field}={str(value).lower() if isinstance(value, bool) else value}"
        for field, value in given.items()
        if value != default[field]
    ]
    if config["dataset"] == "imagefolder":  # has no default folder
        changes.append("--config.data_dir=IMAGES")
    return name, shlex.join(["python", "-m", "train", f"--config={path}", "--workdir=DIR", *changes])


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for field, value in config.items():
        found |= _flat(value, f"{prefix}{field}.") if isinstance(value, dict) else {prefix + field: value}
    return found
