"""A comparison with all its numbers: both tests, the additional quantity and the references."""

from collections.abc import Sequence

from train.study.plan import Study
from train.study.plan.claims import Pair
from train.study.plan.quantities import QUANTITIES, gain, values_of_pair
from train.study.results.records import Beside, ComparisonResult, Reading
from train.study.verdicts.measurements import Measured, Paired
from train.study.verdicts.power import Levels
from train.study.verdicts.rulings import Finding
from train.study.verdicts.seeds import seeds_at_edge, seeds_if_seen
from train.study.verdicts.statistics import Gain, Sample, sample

Logged = tuple[float | None, float | None, float | None]


def comparison_result(
    study: Study,
    measured: Measured,
    measured_plain: Measured,
    finding: Finding,
    finding_plain: Finding,
    levels: Levels,
) -> ComparisonResult:
    """The result of a comparison.

    Args:
      study: the plan.
      measured: the measurement at the look that gave the verdict.
      measured_plain: the measurement at the look that gave the plain test's verdict.
      finding: the moderated test's finding.
      finding_plain: the plain test's finding.
      levels: what its p-values must be below, for the numbers of seeds.
    """
    comparison, first = measured.comparison, measured.pairs[0]
    unresolved = finding.outcome == "not resolved"
    variant_mean, baseline_mean = _means(first)
    return ComparisonResult(
        comparison,
        first.variant,
        first.baseline,
        measured.n,
        QUANTITIES[comparison.quantity].relative,
        variant_mean,
        baseline_mean,
        Gain(*measured.plain).estimate.mean if measured.n else None,
        _reading(finding, measured.n, measured.moderated if measured.n else ()),
        _reading(finding_plain, measured_plain.n, measured_plain.plain if measured_plain.n else ()),
        _beside(study, measured),
        seeds_if_seen(measured, levels) if unresolved else None,
        seeds_at_edge(measured, levels) if unresolved else None,
        *_of_references(study, measured, measured.pairs, comparison.quantity, comparison.baseline_quantity),
    )


def _reading(finding: Finding, n: int, samples: Sequence[Sample]) -> Reading:
    if not samples or min(one.n for one in samples) < 2:
        return Reading(finding.outcome, n=n)
    found = Gain(*samples)
    _, deviation, low, high, _ = found.estimate
    return Reading(finding.outcome, low, high, finding.p, finding.p_holm, deviation, found.freedom, n)


def _means(pair: Paired) -> tuple[float | None, float | None]:
    if not pair.values:
        return None, None
    ours, theirs = zip(*pair.values, strict=True)
    return sum(ours) / len(ours), sum(theirs) / len(theirs)


def _beside(study: Study, measured: Measured) -> Beside | None:
    quantity, pairs = measured.comparison.beside, measured.beside
    if not quantity:
        return None
    logged = _of_references(study, measured, pairs, quantity)
    if not all(pair.gains for pair in pairs):
        return Beside(quantity, *_means(pairs[0]), None, None, None, *logged)
    mean, _, low, high, _ = Gain(*(sample(pair.gains) for pair in pairs)).estimate
    return Beside(quantity, *_means(pairs[0]), mean, low, high, *logged)


def _of_references(
    study: Study, measured: Measured, chosen: Sequence[Paired], quantity: str, baseline_quantity: str = ""
) -> Logged:
    """Variant, baseline and gain in the reference runs, which have one seed; None if there are none."""

    def published(pair: Pair, found: Paired) -> tuple[float, float] | None:
        section = study.section(pair.section)
        ours, theirs = (section.variant(name).reference for name in (found.variant, found.baseline))
        # If a reference has no scores of the slow weights, those would be the live weights'.
        if ours is None or theirs is None or quantity.startswith("slow_"):
            return None
        return values_of_pair(ours.rows, theirs.rows, quantity, baseline_quantity)

    values = [published(pair, found) for pair, found in zip(measured.comparison.pairs, chosen, strict=True)]
    if values[0] is None:
        return None, None, None
    gains = [gain(both, quantity) if both else None for both in values]
    if None in gains:
        return *values[0], None
    first, *less = (value for value in gains if value is not None)
    return *values[0], first - sum(less)
