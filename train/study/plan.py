"""What a study consists of: sections of variants, and claims. A study file's `get_study()` returns a `Study`."""

import dataclasses
import importlib.util
import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from train.config import Config, validate
from train.errors import UserError
from train.identity import run_id
from train.study.claims import Claim
from train.study.report_logs import report_runs

SCALES = ("smoke", "mini", "full")


def check_name(what: str, name: str) -> None:
    """Checks a name that goes into tables, pages and log lines.

    Raises:
      UserError: It is empty, or has characters that cannot be printed, semicolons, or blanks at an end or in a row.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or ";" in name or name != " ".join(name.split()):
        raise UserError(
            f"{what} {name!r} must be a non-empty text of printable characters, without semicolons and with single "
            "spaces between words"
        )


@dataclasses.dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
      name: short; claims refer to it, unique within its section.
      config: its run; `seed` is set for each seed of the study.
      report_run: name of the report's log that it redoes (`train.study.report_logs`); "" for none.
      label: as legends and tables show it; the name where not given.
      against: name of the variant that its difference is taken from; "" for the section's baseline.
      data: digest of the data set that the config names, as `with_data` fills it in; "" where the data is not at hand.
    """

    name: str
    config: Config
    report_run: str = ""
    label: str = ""
    against: str = ""
    data: str = ""

    def __post_init__(self):
        check_name("variant", self.name)
        validate(self.config)
        if self.report_run and self.report_run not in report_runs():
            known = ", ".join(report_runs())
            raise UserError(f"variant {self.name!r}: the report has no log {self.report_run!r}; it has {known}")
        if not self.label:
            object.__setattr__(self, "label", self.name)
        check_name(f"label of variant {self.name!r}:", self.label)

    @property
    def id(self) -> str:
        """Which variant it is, whatever the seed: the run id with seed 0."""
        return run_id(dataclasses.replace(self.config, seed=0), self.data)

    def at(self, seed: int) -> Config:
        """Its config with that seed."""
        return dataclasses.replace(self.config, seed=seed)


@dataclasses.dataclass(frozen=True)
class Section:
    """Variants that are compared with each other on one data set, paired by seed.

    Attributes:
      key: number in the report, such as "2.3.1"; "2.5-controls" and the like for what the study adds.
      dataset: word of the data set that it speaks of, such as "cifar10" (at smoke scale the runs use a smaller one).
      title: of its figures.
      baseline: name of the variant that differences are taken from.
      variants: all of them, the baseline included.
      figure: stem of its figures' files, such as "cifar10_base".
      budget: epochs and examples in words.
      report_budget: whether that is the report's own budget, so that its logged curves may be laid beside ours.
    """

    key: str
    dataset: str
    title: str
    baseline: str
    variants: tuple[Variant, ...]
    figure: str
    budget: str = ""
    report_budget: bool = False

    def __post_init__(self):
        check_name("section", self.key)
        check_name(f"section {self.key}: dataset", self.dataset)
        if not re.fullmatch(r"\w[\w.-]*", self.figure):
            raise UserError(
                f"section {self.ref}: figure {self.figure!r} must be a file name without a folder: letters, digits, "
                "dots, dashes and underscores"
            )
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise UserError(f"section {self.ref}: two variants have the same name; names are {', '.join(names)}")
        if self.baseline not in names:
            raise UserError(f"section {self.ref}: the baseline {self.baseline!r} is not among {', '.join(names)}")
        for variant in self.variants:
            chain = [variant]
            while chain[-1].against:
                chain.append(self.against(chain[-1]))
                if chain[-1] in chain[:-1]:
                    raise UserError(f"section {self.ref}: variant {variant.name!r} is held against itself in the end")

    def against(self, variant: Variant) -> Variant:
        """What a variant's difference is taken from; itself for the baseline."""
        return self.variant(variant.against or self.baseline)

    @property
    def ref(self) -> str:
        """How claims and --only refer to it: "2.1:cifar10"."""
        return f"{self.key}:{self.dataset}"

    @property
    def language_model(self) -> bool:
        """Whether its runs have perplexities."""
        return self.variants[0].config.model.name == "gru"

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
          UserError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise UserError(f"section {self.ref} has no variant {name!r}; its variants are {names}")


@dataclasses.dataclass(frozen=True)
class Study:
    """Sections and claims.

    Attributes:
      name: of the study; a word.
      title: of its page.
      sections: each with the runs that it compares; a run that occurs in several is run once.
      claims: what is tested.
      seeds: how many seeds each variant has.
      scale: the budgets: "smoke", "mini" or "full"; "" for a study that has but one.
      quick_compile: compile the training programs with few of XLA's optimizations: for runs so short that compiling
        takes longer than training. Each run's run.json records it.
    """

    name: str
    title: str
    sections: tuple[Section, ...]
    claims: tuple[Claim, ...] = ()
    seeds: int = 3
    scale: str = ""
    quick_compile: bool = False

    def __post_init__(self):
        check_name("study", self.name)
        for what, keys in (
            ("sections", [section.ref for section in self.sections]),
            ("figures", [section.figure for section in self.sections]),
            ("claims", [claim.key for claim in self.claims]),
        ):
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise UserError(f"study {self.name}: two {what} are called {twice[0]!r}")
        if not self.sections:
            raise UserError(f"study {self.name}: no sections")
        if self.seeds < 1:
            raise UserError(f"study {self.name}: seeds={self.seeds} must be at least 1")
        for claim in self.claims:
            for comparison in claim.comparisons:
                for pair in comparison.pairs:
                    for names in (pair.variant, pair.baseline):
                        for name in (names,) if isinstance(names, str) else names:
                            self.section(pair.section).variant(name)
        folders: dict[str, str] = {}
        for section in self.sections:
            for variant in section.variants:
                folder = variant.config.data_dir
                if folders.setdefault(variant.id, folder) != folder:
                    raise UserError(
                        f"study {self.name}: variant {variant.name!r} of section {section.ref} occurs with two "
                        "data_dir, which do not tell runs apart; make two studies of it"
                    )

    def section(self, ref: str) -> Section:
        """The section of that reference, such as "2.1:cifar10".

        Raises:
          UserError: there is none.
        """
        for section in self.sections:
            if section.ref == ref:
                return section
        raise UserError(f"study {self.name} has no section {ref!r}; it has {', '.join(s.ref for s in self.sections)}")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
      id: of its config and data, see `train.identity`.
      variant_id: that of seed 0.
      config: with its seed.
      data: digest of its data set; "" where that is not at hand.
      name: section and name of the first variant that needs it, and the seed: for people.
    """

    id: str
    variant_id: str
    config: Config
    data: str
    name: str


def planned_runs(study: Study, *, only: Iterable[str] = (), seeds: int | None = None) -> list[PlannedRun]:
    """All runs, each once, seed by seed, so that an interrupted study has whole comparisons.

    Args:
      study: the plan.
      only: sections to run, by key ("2.3" means 2.3.1 and 2.3.2), or by key and data set ("2.4:cifar100"); all where
        empty.
      seeds: 0 .. seeds - 1; by default the study's own number.

    Raises:
      UserError: `only` names no section.
    """
    sections = select(study, only)
    found: dict[str, PlannedRun] = {}
    for seed in range(study.seeds if seeds is None else seeds):
        for section in sections:
            for variant in section.variants:
                config = variant.at(seed)
                name = f"{section.ref} {variant.label}, seed {seed}"
                run = PlannedRun(run_id(config, variant.data), variant.id, config, variant.data, name)
                found.setdefault(run.id, run)
    return list(found.values())


def with_data_dir(config: Config, data_dir: str) -> Config:
    """The config with that folder, unless it names one of its own."""
    return dataclasses.replace(config, data_dir=data_dir) if data_dir and not config.data_dir else config


def with_data(study: Study, digest: Callable[[Config], str]) -> Study:
    """Returns the study with the digest of each variant's data filled in."""

    def filled(variant: Variant) -> Variant:
        return dataclasses.replace(variant, data=digest(variant.config))

    sections = tuple(
        dataclasses.replace(section, variants=tuple(map(filled, section.variants))) for section in study.sections
    )
    return dataclasses.replace(study, sections=sections)


def select(study: Study, only: Iterable[str]) -> tuple[Section, ...]:
    """The sections that `only` names (see `planned_runs`), in the study's order."""
    wanted = tuple(only)
    if not wanted:
        return study.sections
    chosen: set[str] = set()
    for word in wanted:
        key, _, dataset = word.partition(":")
        hits = {
            section.ref
            for section in study.sections
            if (section.key == key or section.key.startswith((f"{key}.", f"{key}-")))
            and dataset in ("", section.dataset)
        }
        if not hits:
            refs = ", ".join(section.ref for section in study.sections)
            raise UserError(f"--only={word}: no such section; the sections are {refs}")
        chosen |= hits
    return tuple(section for section in study.sections if section.ref in chosen)


def run_study_file(path: Path) -> ModuleType:
    """Runs a study file, which may import its neighbours, as a script may.

    Raises:
      UserError: There is no such file, or it cannot be run.
    """
    if not path.is_file():
        raise UserError(f"--study={path} is not a file; the studies are in configs/studies")
    spec = importlib.util.spec_from_file_location("study_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--study={path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise UserError(f"--study={path} cannot be read: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def load_study(path: Path, *, scale: str = "") -> Study:
    """Runs a study file and returns its plan.

    Args:
      path: a Python file.
      scale: given to `get_study` where that takes one.

    Raises:
      UserError: there is no such file, it is not a study, or the scale is not one that it has.
    """
    get_study = getattr(run_study_file(path), "get_study", None)
    if get_study is None:
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    has_scales = "scale" in inspect.signature(get_study).parameters
    if scale and not has_scales:
        raise UserError(f"--scale={scale}: the study {path} has one scale only; leave --scale out")
    study = get_study(scale=scale) if scale else get_study()
    if not isinstance(study, Study):
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    return study


def copy_study_file(path: Path, folder: Path) -> Path:
    """Copies a study file, and the neighbours that it imported, so that processes started later run the same code.

    Args:
      path: the file, which `load_study` has run in this process.
      folder: made anew.

    Returns:
      The copy of the file.
    """
    home = path.resolve().parent
    ours = (__name__.partition(".")[0], "lookahead_jax")  # the same for every process, wherever it lies
    imported = [
        Path(file)
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] not in ours and (file := getattr(module, "__file__", None))
    ]
    neighbours = {
        file for file in imported if home in file.parents and file.suffix == ".py" and "site-packages" not in file.parts
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in {path.resolve(), *neighbours}:
        target = folder / file.relative_to(home)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder / path.name
