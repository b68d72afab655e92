"""From runs to verdicts: measures each claim's comparisons, tests them twice, decides, and sums up.

`results/report/analysis_plan.md` says how and why. The tests with moderated variances give the verdicts; the plain
paired t-test follows the same rules (`train.study.verdicts.rulings`) and is reported next to them. The first look uses
the seeds that the study has for every variant, once all of those runs have ended; the second uses all seeds.
"""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

from train.config import to_dict
from train.study.plan import Study, planned_runs, tuning
from train.study.plan.claims import Claim
from train.study.results.records import Progress, RunRecord, StudyResults, Verdict
from train.study.verdicts.comparisons import comparison_result
from train.study.verdicts.measurements import BySeed, Measured, Measurements, runs_by_variant, variant_ids
from train.study.verdicts.notes import note, variants_of
from train.study.verdicts.rulings import LOOKS, Ruling, rule
from train.study.verdicts.seeds import claim_seeds
from train.study.verdicts.statistics import ALPHA, Evidence, Gain, p_values


class Decided(NamedTuple):
    """A claim as it was decided.

    Attributes:
      claim: the claim.
      first, last: its comparisons at the first and the last look; the same for comparisons without more seeds.
      moderated, plain: the rulings of the two tests.
      level: what the smallest p-value of the unresolved claims must be below, on the two-sided scale.
    """

    claim: Claim
    first: tuple[Measured, ...]
    last: tuple[Measured, ...]
    moderated: Ruling
    plain: Ruling
    level: float

    def at(self, ruling: Ruling) -> tuple[Measured, ...]:
        """The measurements that a ruling is based on."""
        return self.first if ruling.look == 1 else self.last


def decide(study: Study, ids: Mapping[tuple[str, str], str], runs: Mapping[str, BySeed]) -> tuple[Decided, ...]:
    """The rulings on every claim of a study.

    Args:
      study: the plan.
      ids: its `train.study.verdicts.measurements.variant_ids`.
      runs: its `train.study.verdicts.measurements.runs_by_variant`.
    """
    early, late = Measurements(study, ids, runs, study.seeds), Measurements(study, ids, runs)
    first = {claim.key: tuple(map(early, claim.comparisons)) for claim in study.claims}
    last = first
    if any(seed >= study.seeds for by_seed in runs.values() for seed in by_seed):
        last = {
            key: tuple(_later(measured, late(measured.comparison)) for measured in before)
            for key, before in first.items()
        }
    decided: dict[str, Decided] = {}
    for source in dict.fromkeys(claim.source for claim in study.claims):
        family = [claim for claim in study.claims if claim.source == source]
        looks = [[which[claim.key] for claim in family] for which in (first, last)]
        moderated, plain = (
            rule(family, *([[_evidence(test, moderate) for test in tests] for tests in look] for look in looks))
            for moderate in (True, False)
        )
        unresolved = sum(ruling.verdict == "not resolved" for ruling in moderated)
        level = ALPHA / LOOKS / max(1, unresolved)
        for claim, by_moderated, by_plain in zip(family, moderated, plain, strict=True):
            measured = first[claim.key], last[claim.key]
            decided[claim.key] = Decided(claim, *measured, by_moderated, by_plain, level)
    return tuple(decided[claim.key] for claim in study.claims)


def _later(first: Measured, last: Measured) -> Measured:
    """The later measurement if it has more seeds; otherwise the first, because there is nothing new to look at."""
    return last if [p.seeds for p in last.pairs] != [p.seeds for p in first.pairs] else first


def _evidence(measured: Measured, moderate: bool) -> Evidence | None:
    if not measured.testable:
        return None
    samples = measured.moderated if moderate else measured.plain
    return p_values(Gain(*samples), measured.comparison.kind, measured.comparison.margin)


def judge(study: Study, runs: Mapping[str, RunRecord]) -> tuple[Verdict, ...]:
    """The verdict on every claim of a study."""
    failed = collections.Counter(run.variant_id for run in runs.values() if run.status == "failed")
    decided = decide(study, variant_ids(study), runs_by_variant(runs.values()))
    return tuple(_verdict(study, one, failed) for one in decided)


def _verdict(study: Study, decided: Decided, failed: Mapping[str, int]) -> Verdict:
    claim, moderated, plain = decided.claim, decided.moderated, decided.plain
    lost = sum(failed.get(variant.id, 0) for variant in variants_of(study, claim))
    tests = decided.at(moderated)
    results = tuple(
        comparison_result(study, test, by_plain, finding, by_plain_finding, decided.level)
        for test, by_plain, finding, by_plain_finding in zip(
            tests, decided.at(plain), moderated.findings, plain.findings, strict=True
        )
    )
    ready = [test.ready for test in tests]
    started = lost or any(ready) or any(result.n for result in results)
    progress: Progress = "run" if all(ready) else "partly run" if started else "not run"
    unresolved = [result for result in results if result.outcome == "not resolved" == moderated.verdict]
    return Verdict(
        claim,
        moderated.verdict,
        plain.verdict,
        results,
        moderated.p_holm,
        note(study, claim, results, ready=ready, progress=progress, lost=lost, moderated=moderated, plain=plain),
        study.scale,
        moderated.look,
        progress,
        claim_seeds(claim, [result.seeds_if_seen for result in unresolved]),
        claim_seeds(claim, [result.seeds_at_edge for result in unresolved]),
    )


def without_trials(runs: Mapping[str, RunRecord]) -> dict[str, RunRecord]:
    """The runs but for trials of tuning: a trial that was chosen is at its variant's settings, and no seed of it."""
    return {run.id: run for run in runs.values() if run.seed != tuning.SEED}


def assemble(study: Study, runs: Mapping[str, RunRecord], facts: dict[str, Any]) -> StudyResults:
    """The results of these runs; planned runs that are not among them are included as missing."""
    everything = without_trials(runs)
    for run in planned_runs(study):
        if run.id not in everything:
            everything[run.id] = RunRecord(
                run.id, run.variant_id, run.data, study.scale, to_dict(run.config), run.config.seed, [], "missing"
            )
    trials = {run.id: run for run in runs.values() if run.seed == tuning.SEED}
    return StudyResults(study, everything, judge(study, everything), facts, trials)
