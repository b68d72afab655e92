"""Which runs --until=resolved adds: seeds for the claims that they can still decide.

The decision is made once, when the first look is complete, and from its seeds only, so that a study interrupted between
the two looks continues with the same runs. A claim gets all seeds up to the limit or none: if its number of seeds at
the second look depended on what was seen in between, its p-value would be invalid.
"""

from collections.abc import Iterable, Sequence

from train.study.plan import PlannedRun, Study, planned_runs
from train.study.plan.claims import Claim
from train.study.results.records import RunRecord
from train.study.verdicts.judge import Decided, decide
from train.study.verdicts.measurements import runs_by_variant, variant_ids
from train.study.verdicts.notes import variants_of
from train.study.verdicts.seeds import levels, would_resolve


def next_runs(study: Study, runs: Iterable[RunRecord], *, max_seeds: int, only: Iterable[str] = ()) -> list[PlannedRun]:
    """The runs to add to those of the first look, which must be complete; including any that already exist.

    Args:
      study: the plan.
      runs: the runs that have ended.
      max_seeds: the number of seeds of a claim that gets more.
      only: sections to run (`train.study.plan.planned_runs`).
    """
    by_variant = {
        variant: {seed: rows for seed, rows in by_seed.items() if seed < study.seeds}
        for variant, by_seed in runs_by_variant(runs).items()
    }
    claims = decidable(decide(study, variant_ids(study), by_variant), max_seeds)
    wanted = {variant.id for claim in claims for variant in variants_of(study, claim)}
    planned = planned_runs(study, only=only, seeds=max_seeds)
    return [run for run in planned if run.config.seed >= study.seeds and run.variant_id in wanted]


def first_look_left(study: Study, runs: Iterable[RunRecord]) -> int:
    """How many runs of the first look have not ended: until they have, they may change which claims can be decided."""
    ended = runs_by_variant(runs)
    return sum(run.config.seed not in ended.get(run.variant_id, {}) for run in planned_runs(study))


def decidable(decided: Sequence[Decided], max_seeds: int) -> list[Claim]:
    """The claims that are not resolved but would be with `max_seeds` seeds, at the gains seen."""
    found = []
    for one in decided:
        if one.moderated.verdict != "not resolved" or not all(measured.testable for measured in one.first):
            continue
        left = [
            (measured, levels(one.claim, measured.comparison.kind, one.family))
            for measured, finding in zip(one.first, one.moderated.findings, strict=True)
            if finding.outcome == "not resolved"
        ]
        if would_resolve(one.claim, left, max_seeds):
            found.append(one.claim)
    return found
