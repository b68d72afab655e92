"""How many seeds would resolve a comparison or a claim."""

from collections.abc import Sequence

from train.study.plan.claims import Claim
from train.study.verdicts.measurements import Measured
from train.study.verdicts.power import POWER, Spread, edge, power, seeds_needed, spread
from train.study.verdicts.statistics import Gain

# The default of --max_seeds. A claim that needs more is reported as out of reach.
MAX_SEEDS = 8


def seeds_if_seen(measured: Measured, level: float) -> int | None:
    """Seeds that would resolve a comparison, with power 0.8, if the true gain is the one seen.

    Args:
      measured: the comparison.
      level: what its p-value must be below, on the two-sided scale.

    Returns:
      The number; one above `train.study.verdicts.power.MOST_SEEDS` stands for any larger one. None if the comparison
      cannot be tested.
    """
    return _seeds_at(measured, _seen(measured), level) if measured.testable else None


def seeds_at_edge(measured: Measured, level: float) -> int | None:
    """The same if the true gain is at the edge of the margin, or zero for kinds that claim no gain."""
    at_edge = edge(measured.comparison.kind, measured.comparison.margin)
    return _seeds_at(measured, at_edge, level) if measured.testable else None


def would_resolve(measured: Measured, level: float, seeds: int) -> bool:
    """Whether this many seeds have power 0.8 at the gain seen: whether `seeds_if_seen` is at most `seeds`."""
    if not measured.testable:
        return False
    comparison = measured.comparison
    return power(comparison.kind, comparison.margin, _seen(measured), *_errors(measured)(seeds), level) >= POWER


def _seen(measured: Measured) -> float:
    return Gain(*measured.plain).estimate.mean


def _errors(measured: Measured) -> Spread:
    samples = measured.moderated
    return spread(samples, measured.priors, [one.n for one in samples])


def _seeds_at(measured: Measured, gain: float, level: float) -> int:
    comparison = measured.comparison
    return seeds_needed(comparison.kind, comparison.margin, gain, _errors(measured), level)


def claim_seeds(claim: Claim, seeds: Sequence[int | None]) -> int | None:
    """The number of seeds that a claim needs, from those of its open comparisons.

    It is the largest of them, or the smallest if one comparison is enough. None if there are none or one is not known.
    """
    known = [number for number in seeds if number is not None]
    if not known or len(known) < len(seeds):
        return None
    return min(known) if claim.any_of else max(known)
