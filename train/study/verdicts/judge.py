"""From runs to verdicts: measures each claim's comparisons, tests them twice, decides, and sums up.

`results/report/analysis_plan.md` says how and why. The tests with moderated variances give the verdicts; the plain
paired t-test follows the same rules (`train.study.verdicts.rulings`) and is reported next to them. The first look uses
the seeds that the study has for every variant, once all of those runs have ended. The second uses the seeds that were
added, of each variant that has all of them: so it is one look, not one after each run.
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
from train.study.verdicts.rulings import Ruling, rule
from train.study.verdicts.seeds import Open, claim_seeds, levels, still_open
from train.study.verdicts.statistics import Evidence, Gain, p_values


class Decided(NamedTuple):
    """A claim as it was decided.

    Attributes:
      claim: the claim.
      first, last: its comparisons at the first and the last look; the same for comparisons without more seeds.
      moderated, plain: the rulings of the two tests.
      family: how many claims of its family Holm's corrections still count.
    """

    claim: Claim
    first: tuple[Measured, ...]
    last: tuple[Measured, ...]
    moderated: Ruling
    plain: Ruling
    family: Open

    def at(self, ruling: Ruling) -> tuple[Measured, ...]:
        """The measurements that a ruling is based on."""
        return self.first if ruling.look == 1 else self.last


def at_second_look(runs: Mapping[str, BySeed], first: int, second: int | None) -> dict[str, BySeed]:
    """The runs that the second look uses: of a variant either all seeds below `second`, or only those of the first.

    Args:
      runs: of the study, by variant and seed; failed ones have ended, too.
      first: seeds of the first look.
      second: seeds of the second; None if there is none, whatever seeds are there.
    """
    found: dict[str, BySeed] = {}
    for variant, by_seed in runs.items():
        whole = second is not None and by_seed.keys() >= set(range(second))
        limit = second if second is not None and whole else first
        found[variant] = {seed: rows for seed, rows in by_seed.items() if seed < limit}
    return found


def decide(
    study: Study, ids: Mapping[tuple[str, str], str], runs: Mapping[str, BySeed], second: int | None = None
) -> tuple[Decided, ...]:
    """The rulings on every claim of a study.

    Args:
      study: the plan.
      ids: its `train.study.verdicts.measurements.variant_ids`.
      runs: its `train.study.verdicts.measurements.runs_by_variant`.
      second: seeds of the second look, see `at_second_look`.
    """
    more = at_second_look(runs, study.seeds, second)
    early, late = Measurements(study, ids, runs, study.seeds), Measurements(study, ids, more)
    first = {claim.key: tuple(map(early, claim.comparisons)) for claim in study.claims}
    last = first
    if any(seed >= study.seeds for by_seed in more.values() for seed in by_seed):
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
        counted = still_open(moderated)
        for claim, by_moderated, by_plain in zip(family, moderated, plain, strict=True):
            measured = first[claim.key], last[claim.key]
            decided[claim.key] = Decided(claim, *measured, by_moderated, by_plain, counted)
    return tuple(decided[claim.key] for claim in study.claims)


def _later(first: Measured, last: Measured) -> Measured:
    """The later measurement if all its pairs have more seeds; otherwise the first, which is not looked at again."""
    return last if all(new.seeds != old.seeds for new, old in zip(last.pairs, first.pairs, strict=True)) else first


def _evidence(measured: Measured, moderate: bool) -> Evidence | None:
    if not measured.testable:
        return None
    samples = measured.moderated if moderate else measured.plain
    return p_values(Gain(*samples), measured.comparison.kind, measured.comparison.margin)


def judge(study: Study, runs: Mapping[str, RunRecord], second: int | None = None) -> tuple[Verdict, ...]:
    """The verdict on every claim of a study; `second` is as in `decide`."""
    failed = collections.Counter(run.variant_id for run in runs.values() if run.status == "failed")
    decided = decide(study, variant_ids(study), runs_by_variant(runs.values()), second)
    return tuple(_verdict(study, one, failed) for one in decided)


def _verdict(study: Study, decided: Decided, failed: Mapping[str, int]) -> Verdict:
    claim, moderated, plain = decided.claim, decided.moderated, decided.plain
    lost = sum(failed.get(variant.id, 0) for variant in variants_of(study, claim))
    tests = decided.at(moderated)
    results = tuple(
        comparison_result(
            study, test, by_plain, finding, by_plain_finding, levels(claim, test.comparison.kind, decided.family)
        )
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
    return StudyResults(study, everything, judge(study, everything, facts.get("second_look")), facts, trials)
