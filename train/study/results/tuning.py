"""What tuning has found: the trials of each variant with their scores, and the study at the chosen values."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from train.identity import run_id
from train.run.records import validation_score
from train.study.plan import Section, Study, Variant, tuning
from train.study.results.records import RunRecord


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial of a variant.

    Attributes:
      number: from 1.
      values: of the tuned settings, by dotted name.
      status: of its run: "finished", "failed" (a loss that is not finite, as a rule), or "missing".
      score: on the validation set after the last epoch, higher being better; None unless finished.
    """

    number: int
    values: Mapping[str, float]
    status: str
    score: float | None


def trials_of(section: Section, variant: Variant, runs: Mapping[str, RunRecord]) -> list[Trial]:
    """The trials of a variant, in their order; none where the section is not tuned."""
    found = []
    both = zip(section.trial_values(variant), section.all_trials(variant), strict=True)
    for number, (values, trial) in enumerate(both, start=1):
        run = runs.get(run_id(trial.at(tuning.SEED), trial.data))
        score = validation_score(run.rows[-1]) if run and run.status == "finished" else None
        usable = score is not None and math.isfinite(score)
        found.append(Trial(number, values, run.status if run else "missing", score if usable else None))
    return found


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest score, the first of equal ones; None where none has a score."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def tuned(study: Study, runs: Mapping[str, RunRecord]) -> Study:
    """The study with each tuned variant at its best trial's values; one without a score stays as it is."""

    def chosen(section: Section, variant: Variant) -> Variant:
        best = best_of(trials_of(section, variant, runs))
        config = section.trial(variant, best.number).config if best else variant.config
        return dataclasses.replace(variant, config=config)

    def at_best(section: Section) -> Section:
        if not section.trials:
            return section
        return dataclasses.replace(section, variants=tuple(chosen(section, variant) for variant in section.variants))

    return dataclasses.replace(study, sections=tuple(map(at_best, study.sections)))


def without_choice(sections: Sequence[Section], runs: Mapping[str, RunRecord]) -> list[str]:
    """The tuned variants of these sections all of whose trials have failed, in words."""
    return [
        f"{section.ref} {variant.label}"
        for section in sections
        for variant in section.variants
        if section.trials and best_of(trials_of(section, variant, runs)) is None
    ]


def best_so_far(trials: Sequence[Trial]) -> list[float | None]:
    """After each trial, the highest score until then; None before the first score."""
    best: float | None = None
    found = []
    for trial in trials:
        if trial.score is not None:
            best = trial.score if best is None else max(best, trial.score)
        found.append(best)
    return found


def mean_scores(runs: Sequence[RunRecord]) -> list[float]:
    """The mean validation score of a variant's runs after each epoch; empty where there are none."""
    if not runs:
        return []
    by_run = [[validation_score(row) for row in run.rows] for run in runs]
    return [
        math.fsum(score if score is not None else -math.inf for score in scores) / len(scores)
        for scores in zip(*by_run, strict=False)
    ]


def target_of(section: Section, by_variant: Mapping[str, Sequence[RunRecord]]) -> float | None:
    """The score whose time is taken: the section's own, or what the baseline ends with; None where it has no runs."""
    if section.target is not None:
        return section.target
    baseline = mean_scores(by_variant[section.baseline])
    return baseline[-1] if baseline else None


def epochs_to_target(scores: Sequence[float], target: float | None) -> int | None:
    """The first epoch after which the mean score is at least the target; None where it never is."""
    if target is None:
        return None
    return next((epoch for epoch, score in enumerate(scores, start=1) if score >= target), None)


def performance_profile(times: Sequence[Mapping[str, int | None]], name: str, ratios: Sequence[float]) -> list[float]:
    """For each ratio r, the part of the tasks that `name` solves within r times the fastest one's time.

    Dolan and More, arXiv:cs/0102001; a task that nobody solves counts against all.

    Args:
      times: of each task, epochs to its target by variant; None where it is not reached.
      name: of the variant.
      ratios: at least 1.
    """
    relative = []
    for task in times:
        reached = [time for time in task.values() if time is not None]
        own = task.get(name)
        relative.append(own / min(reached) if own is not None else math.inf)
    return [sum(ratio <= limit for ratio in relative) / len(relative) for limit in ratios]
