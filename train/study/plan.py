"""What a study consists of. A study file is Python with a `get_study()` that returns a `Study`."""

import dataclasses
import importlib.util
from pathlib import Path

from train.config import Config, validate
from train.errors import UserError


@dataclasses.dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
      name: as legends and tables show it.
      config: its run; `seed` is set for each seed of the study.
    """

    name: str
    config: Config


@dataclasses.dataclass(frozen=True)
class Study:
    """Variants that are compared with each other, paired by seed: same initial weights, same order of the data.

    Attributes:
      name: of its files; a word.
      title: of its figure.
      baseline: the variant that differences are taken from.
      variants: all of them, the baseline included.
      seeds: how many seeds each variant has.
    """

    name: str
    title: str
    baseline: str
    variants: tuple[Variant, ...]
    seeds: int = 3

    def __post_init__(self):
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise UserError(f"study {self.name}: two variants have the same name; names are {', '.join(names)}")
        if self.baseline not in names:
            raise UserError(f"study {self.name}: the baseline {self.baseline!r} is not among {', '.join(names)}")
        if self.seeds < 1:
            raise UserError(f"study {self.name}: seeds={self.seeds} must be at least 1")
        for variant in self.variants:
            validate(variant.config)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study: a variant at a seed."""

    variant: Variant
    seed: int

    @property
    def config(self) -> Config:
        return dataclasses.replace(self.variant.config, seed=self.seed)

    @property
    def folder(self) -> str:
        """Name of its workdir: the variant in letters, digits and dashes, and the seed."""
        word = "".join(c if c.isalnum() else "-" for c in self.variant.name.lower()).strip("-")
        return f"{word}_seed{self.seed}"


def planned_runs(study: Study) -> list[PlannedRun]:
    """All runs, seed by seed, so that an interrupted study has whole comparisons."""
    return [PlannedRun(variant, seed) for seed in range(study.seeds) for variant in study.variants]


def load_study(path: Path) -> Study:
    """Runs a study file and returns its plan.

    Raises:
      UserError: there is no such file, or it is not a study.
    """
    if not path.is_file():
        raise UserError(f"--study={path} is not a file; the studies are in configs/studies")
    spec = importlib.util.spec_from_file_location("study_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--study={path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise UserError(f"--study={path} cannot be read: {error}") from error
    study = module.get_study() if hasattr(module, "get_study") else None
    if not isinstance(study, Study):
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    return study
