"""Which runs a study needs: each once, seed by seed, with its data's digest in its id."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from train.config import Config
from train.errors import UserError
from train.identity import run_id
from train.interface.nearest import did_you_mean
from train.study.plan import tuning
from train.study.plan.sections import Section, Variant
from train.study.plan.study import Study


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
      id: hash of its config and data; see `train.identity`.
      variant_id: the id of the same run with seed 0.
      config: its config, with its seed.
      data: digest of its data set; "" if the data is not available.
      name: section and name of the first variant that needs it, and the seed, for people to read.
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
      only: sections to run, by key ("2.3" means 2.3.1 and 2.3.2), or by key and data set ("2.4:cifar100"); all if
        empty.
      seeds: number of seeds, from 0; by default the study's own number.

    Raises:
      UserError: `only` names an unknown section.
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


def trial_runs(study: Study, *, only: Iterable[str] = ()) -> list[PlannedRun]:
    """The trials of all sections that are tuned, trial by trial, so that an interrupted study has equal budgets.

    Args:
      study: the plan.
      only: as of `planned_runs`.
    """
    sections = select(study, only)
    found: dict[str, PlannedRun] = {}
    for number in range(1, max((section.trials for section in sections), default=0) + 1):
        for section in sections:
            for variant in section.variants if number <= section.trials else ():
                trial = section.trial(variant, number)
                config = trial.at(tuning.SEED)
                name = f"{section.ref} {variant.label}, trial {number} of {section.trials}"
                run = PlannedRun(run_id(config, trial.data), trial.id, config, trial.data, name)
                found.setdefault(run.id, run)
    return list(found.values())


def with_data_dir(config: Config, data_dir: str) -> Config:
    """The config with that folder, unless it names its own."""
    return dataclasses.replace(config, data_dir=data_dir) if data_dir and not config.data_dir else config


def with_epochs(study: Study, epochs: int) -> Study:
    """The study with this number of epochs for every run, instead of its own.

    Raises:
      UserError: a variant cannot have this many.
    """

    def changed(variant: Variant) -> Variant:
        return dataclasses.replace(variant, config=dataclasses.replace(variant.config, epochs=epochs))

    def section_with(section: Section) -> Section:
        variants = tuple(map(changed, section.variants))
        return dataclasses.replace(section, variants=variants, budget=f"{epochs} epochs", same_budget=False)

    return dataclasses.replace(study, sections=tuple(map(section_with, study.sections)))


def with_data(study: Study, digest: Callable[[Config], str]) -> Study:
    """Returns the study with the digest of each variant's data filled in."""

    def filled(variant: Variant) -> Variant:
        return dataclasses.replace(variant, data=digest(variant.config))

    sections = tuple(
        dataclasses.replace(section, variants=tuple(map(filled, section.variants))) for section in study.sections
    )
    return dataclasses.replace(study, sections=sections)


def select(study: Study, only: Iterable[str]) -> Sequence[Section]:
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
            refs = [section.ref for section in study.sections]
            raise UserError(
                f"--only={word}: no such section; the sections are {', '.join(refs)}{did_you_mean(word, refs)}"
            )
        chosen |= hits
    return tuple(section for section in study.sections if section.ref in chosen)
