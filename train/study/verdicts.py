"""From runs to verdicts: each claim's comparisons tested, corrected over the claims, and summed up.

A claim says several things at once, so it is supported where all its comparisons are shown, and contradicted where one
is refuted (what shown and refuted mean for each kind: `train.study.claims.KINDS`). Hence its p-value of support is the
largest of theirs (an intersection-union test, which needs no correction within the claim), and its p-value of
contradiction is the smallest times their number (Bonferroni). Of a claim that one comparison is enough for (`any_of`),
the two change places. The claims of one source ("report", "control") are a family: Holm's correction runs over all of
them, each with the smaller of its two p-values, and 1 where it has no data yet; so no verdict is lost by running more
of the plan. That is valid since of a claim's two errors only one can be made. A comparison's own adjusted p-value is
the one that its claim would have by that comparison alone, so verdicts and outcomes never disagree; across the
comparisons of one claim it is not corrected. Verdicts of a claim go by p < .05; with fewer than two seeds a comparison
is not resolved.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from train.run.records import Row
from train.study.claims import Claim, Comparison, Pair
from train.study.plan import Section, Study, Variant
from train.study.quantities import QUANTITIES, gain, values_of_pair
from train.study.report_logs import FAULTY, report_curves
from train.study.results import ComparisonResult, Outcome, RunRecord, Verdict
from train.study.statistics import ALPHA, Gain, holm, p_values

# The rows of a variant's runs by seed; None for a run that failed.
Runs = Callable[[Section, str], Mapping[int, Sequence[Row] | None]]


class Paired(NamedTuple):
    """A pair, seed by seed.

    Attributes:
      variant, baseline: the names, chosen where there was a choice.
      values: of the quantity for variant and baseline, one a seed that both have.
      gains: likewise.
    """

    variant: str
    baseline: str
    values: list[tuple[float, float]]
    gains: list[float]


class Tested(NamedTuple):
    """A comparison before the correction.

    Attributes:
      result: all but the outcome and the adjusted p-value.
      shown, refuted: p-values; None where n < 2.
    """

    result: ComparisonResult
    shown: float | None
    refuted: float | None


def judge(study: Study, runs: Mapping[str, RunRecord]) -> tuple[Verdict, ...]:
    """The verdict on every claim of a study."""
    by_variant: dict[str, dict[int, Sequence[Row] | None]] = {}
    for run in runs.values():
        if run.status != "missing":
            by_variant.setdefault(run.variant_id, {})[run.seed] = run.rows if run.status == "finished" else None
    failed = collections.Counter(run.variant_id for run in runs.values() if run.status == "failed")

    def rows(section: Section, variant: str) -> Mapping[int, Sequence[Row] | None]:
        return by_variant.get(section.variant(variant).id, {})

    tested = {
        claim.key: [measure(study, comparison, rows) for comparison in claim.comparisons] for claim in study.claims
    }
    verdicts: dict[str, Verdict] = {}
    for source in ("report", "control"):
        family = [claim for claim in study.claims if claim.source == source]
        claim_p = {claim.key: _claim_p(claim, tested[claim.key]) for claim in family}
        for claim in family:
            others = [1.0 if p is None else p for key, p in claim_p.items() if key != claim.key]
            verdicts[claim.key] = _verdict(study, claim, tested[claim.key], others, failed)
    return tuple(verdicts[claim.key] for claim in study.claims)


def measure(study: Study, comparison: Comparison, runs: Runs) -> Tested:
    """Numbers and raw p-values of a comparison."""
    first = _paired(study, comparison.pair, comparison, runs)
    second = _paired(study, comparison.than, comparison, runs) if comparison.than else None
    result = ComparisonResult(
        comparison,
        first.variant,
        first.baseline,
        "not resolved",
        n=min(len(pairs.gains) for pairs in (first, second) if pairs is not None),
        relative=QUANTITIES[comparison.quantity].relative,
        variant_mean=_mean([value for value, _ in first.values]),
        baseline_mean=_mean([value for _, value in first.values]),
        estimate=None,
        low=None,
        high=None,
        p=None,
        p_holm=None,
        **_of_report(study, comparison, first, second),
    )
    if not result.n:
        return Tested(result, None, None)
    found = Gain(first.gains, None if second is None else second.gains)
    estimate = found.estimate
    result = dataclasses.replace(result, estimate=estimate.mean, low=estimate.low, high=estimate.high)
    if result.n < 2:
        return Tested(result, None, None)
    return Tested(result, *p_values(found, comparison.kind, comparison.margin))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _paired(study: Study, pair: Pair, comparison: Comparison, runs: Runs) -> Paired:
    section = study.section(pair.section)
    # The best of some is not the best of all: a seed counts once all that may be chosen have run at it, or failed.
    names = [name for side in (pair.variant, pair.baseline) for name in ([side] if isinstance(side, str) else side)]
    seeds = set.intersection(*(set(runs(section, name)) for name in names))
    variant = _best(section, pair.variant, comparison.quantity, runs, seeds)
    baseline = _best(section, pair.baseline, comparison.baseline_quantity or comparison.quantity, runs, seeds)
    values, gains = [], []
    for seed in sorted(seeds):
        ours, theirs = runs(section, variant)[seed], runs(section, baseline)[seed]
        if ours is None or theirs is None:
            continue
        both = values_of_pair(ours, theirs, comparison.quantity, comparison.baseline_quantity)
        difference = gain(both, comparison.quantity) if both else None
        if both and difference is not None:
            values.append(both)
            gains.append(difference)
    return Paired(variant, baseline, values, gains)


def _best(section: Section, names: str | tuple[str, ...], quantity: str, runs: Runs, seeds: Iterable[int]) -> str:
    """The variant with the best mean over those of the seeds that all have finished, or, where there is none, that all
    but the ones with the fewest have; the first where none has finished any.
    """
    if isinstance(names, str):
        return names
    rule = QUANTITIES[quantity]
    values: dict[str, dict[int, float]] = {}
    for name in names:
        finished = {seed: rows for seed in seeds if (rows := runs(section, name)[seed]) is not None}
        values[name] = {seed: value for seed, rows in finished.items() if (value := rule.of(rows)) is not None}
    while values and not (common := set.intersection(*map(set, values.values()))):
        del values[min(values, key=lambda name: len(values[name]))]
    if not values:
        return names[0]
    sign = 1 if rule.higher_is_better else -1
    return max(values, key=lambda name: sign * sum(values[name][seed] for seed in common))


def _of_report(study: Study, comparison: Comparison, first: Paired, second: Paired | None) -> dict[str, float | None]:
    """The same numbers from the report's own logs: one seed."""

    def logs(pair: Pair, found: Paired) -> tuple[float, float] | None:
        names = [study.section(pair.section).variant(name).report_run for name in (found.variant, found.baseline)]
        if not all(names):
            return None
        ours, theirs = (report_curves()[name] for name in names)
        # The report has no slow weights' scores: those would be the live ones'.
        if comparison.quantity.startswith("slow_"):
            return None
        return values_of_pair(ours, theirs, comparison.quantity, comparison.baseline_quantity)

    values = logs(comparison.pair, first)
    if values is None:
        return {}
    difference = gain(values, comparison.quantity)
    if second is not None and comparison.than is not None and difference is not None:
        others = logs(comparison.than, second)
        less = gain(others, comparison.quantity) if others else None
        difference = None if less is None else difference - less
    return {"report_variant": values[0], "report_baseline": values[1], "report_estimate": difference}


def _all_p(p: Sequence[float | None]) -> float:
    """p-value of all of these holding."""
    return max(1.0 if value is None else value for value in p)


def _any_p(p: Sequence[float | None]) -> float:
    """p-value of at least one of these holding."""
    return min(1.0, len(p) * min((value for value in p if value is not None), default=1.0))


def _claim_p(claim: Claim, tests: Sequence[Tested]) -> float | None:
    """What Holm's correction takes; None where no comparison has two seeds."""
    shown, refuted = [test.shown for test in tests], [test.refuted for test in tests]
    if all(p is None for p in shown):
        return None
    return min(_any_p(shown), _all_p(refuted)) if claim.any_of else min(_all_p(shown), _any_p(refuted))


def _verdict(
    study: Study, claim: Claim, tests: Sequence[Tested], others: list[float], failed: Mapping[str, int]
) -> Verdict:
    def adjusted(p: float) -> float:
        return holm([p, *others])[0]

    results = [_outcome(tested, claim, adjusted) for tested in tests]
    outcomes = [result.outcome for result in results]
    # What all must say, and what one may.
    whole, single = ("contradicted", "supported") if claim.any_of else ("supported", "contradicted")
    verdict: Outcome = "not resolved"
    if all(outcome == whole for outcome in outcomes):
        verdict = whole
    elif single in outcomes:
        verdict = single
    raw = _claim_p(claim, tests)
    p_holm = None if raw is None else adjusted(raw)
    lost = sum(failed.get(variant.id, 0) for variant in _variants(study, claim))
    waits = not lost and not any(result.n for result in results)
    return Verdict(claim, verdict, tuple(results), p_holm, _note(study, claim, results, lost), study.scale, waits)


def _outcome(tested: Tested, claim: Claim, adjusted: Callable[[float], float]) -> ComparisonResult:
    """A comparison with its outcome, by the corrected p-values."""
    if tested.shown is None or tested.refuted is None:
        return tested.result
    # Where one comparison is enough each pays for their number: to contradict, or with any_of to support.
    number = len(claim.comparisons)
    shown, refuted = (number, 1) if claim.any_of else (1, number)
    support, contradiction = adjusted(min(1.0, shown * tested.shown)), adjusted(min(1.0, refuted * tested.refuted))
    if support < ALPHA:
        outcome: Outcome = "supported"
    else:
        outcome = "contradicted" if contradiction < ALPHA else "not resolved"
    against = outcome == "contradicted" or (outcome == "not resolved" and contradiction < support)
    p, p_holm = (tested.refuted, contradiction) if against else (tested.shown, support)
    return dataclasses.replace(tested.result, outcome=outcome, p=p, p_holm=p_holm)


def _note(study: Study, claim: Claim, results: Sequence[ComparisonResult], lost: int) -> str:
    notes = [claim.note] if claim.note else []
    few = [result.n for result in results if result.n < 2]
    if len(few) == len(results) and not any(few):
        notes += ["Not run yet."] * (not lost)
    elif len(few) == len(results):
        notes.append("One seed: no interval, so nothing can be resolved.")
    elif few:
        notes.append(f"{len(few)} of {len(results)} comparisons have fewer than two seeds.")
    if lost:
        notes.append(f"{lost} run{'s' * (lost > 1)} failed and {'are' if lost > 1 else 'is'} left out.")
    logged = [_fits(result) for result in results if result.report_estimate is not None]
    if len(logged) == len(results) and not (any(logged) if claim.any_of else all(logged)):
        notes.append("The report's own logs, of one seed, do not show it within the margins used here.")
    if study.scale != "full" and all(study.section(ref).report_budget for ref in claim.sections):
        notes.append("Measured at the report's own budget.")
    for name, fault in FAULTY.items():
        if any(variant.report_run == name for variant in _variants(study, claim)):
            notes.append(f"{fault[0].upper()}{fault[1:]}.")
    return " ".join(notes)


def _fits(result: ComparisonResult) -> bool:
    """Whether the report's own gain lies where the comparison says; one seed differs where it does by the margin."""
    gain, margin = result.report_estimate, result.comparison.margin
    assert gain is not None
    return {
        "better": gain > 0,
        "worse": gain < 0,
        "not_better": gain < margin,
        "not_worse": gain > -margin,
        "equal": abs(gain) < margin,
        "differs": abs(gain) >= margin,
    }[result.comparison.kind]


def _variants(study: Study, claim: Claim) -> list[Variant]:
    """All variants that a claim compares, each once."""
    found: dict[str, Variant] = {}
    for pair in (pair for comparison in claim.comparisons for pair in comparison.pairs):
        for names in (pair.variant, pair.baseline):
            for name in (names,) if isinstance(names, str) else names:
                variant = study.section(pair.section).variant(name)
                found[variant.id] = variant
    return list(found.values())
