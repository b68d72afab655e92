"""What a study consists of: sections of variants, and claims. A study file's `get_study()` returns a `Study`."""

import dataclasses
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

from train.config import Config, validate
from train.errors import UserError
from train.study.claims import Claim
from train.study.identity import run_id
from train.study.report_logs import report_runs

SCALES = ("smoke", "mini", "full")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
      name: short; claims refer to it, unique within its section.
      config: its run; `seed` is set for each seed of the study.
      report_run: name of the report's log that it redoes (`train.study.report_logs`); "" for none.
      label: as legends and tables show it; the name where not given.
      against: name of the variant that its difference is taken from; "" for the section's baseline.
    """

    name: str
    config: Config
    report_run: str = ""
    label: str = ""
    against: str = ""

    def __post_init__(self):
        validate(self.config)
        if self.report_run and self.report_run not in report_runs():
            known = ", ".join(report_runs())
            raise UserError(f"variant {self.name!r}: the report has no log {self.report_run!r}; it has {known}")
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def id(self) -> str:
        """Which variant it is, whatever the seed: the run id with seed 0."""
        return run_id(dataclasses.replace(self.config, seed=0))

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
    """

    name: str
    title: str
    sections: tuple[Section, ...]
    claims: tuple[Claim, ...] = ()
    seeds: int = 3
    scale: str = ""

    def __post_init__(self):
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
      id: of its config, see `train.study.identity`.
      variant_id: that of seed 0.
      config: with its seed.
      name: section and name of the first variant that needs it, and the seed: for people.
    """

    id: str
    variant_id: str
    config: Config
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
                run = PlannedRun(run_id(config), variant.id, config, name)
                found.setdefault(run.id, run)
    return list(found.values())


def with_data_dir(config: Config, data_dir: str) -> Config:
    """The config with that folder, unless it names one of its own."""
    return dataclasses.replace(config, data_dir=data_dir) if data_dir and not config.data_dir else config


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


def load_study(path: Path, *, scale: str = "") -> Study:
    """Runs a study file and returns its plan.

    Args:
      path: a Python file; it may import its neighbours, as a script may.
      scale: given to `get_study` where that takes one.

    Raises:
      UserError: there is no such file, it is not a study, or the scale is not one that it has.
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
    get_study = getattr(module, "get_study", None)
    if get_study is None:
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    has_scales = "scale" in inspect.signature(get_study).parameters
    if scale and not has_scales:
        raise UserError(f"--scale={scale}: the study {path} has one scale only; leave --scale out")
    study = get_study(scale=scale) if scale else get_study()
    if not isinstance(study, Study):
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    return study
