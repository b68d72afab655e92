"""How many seeds would resolve a comparison or a claim, and which runs are worth adding for that."""

from collections.abc import Sequence

from train.study.claims import Claim
from train.study.measurements import Measured
from train.study.power import edge, seeds_needed, spread
from train.study.statistics import Gain

# What --max_seeds is by default. A claim that needs more is said to be out of reach.
MAX_SEEDS = 8


def seeds_to_resolve(measured: Measured, level: float) -> tuple[int, int] | None:
    """Seeds that would resolve a comparison, with power 0.8.

    Args:
      measured: the comparison.
      level: what its p-value must be below, on the two-sided scale.

    Returns:
      The number if the true gain is the one seen, and the number if it is at the edge of the margin; more than
      `train.study.power.MOST_SEEDS` stands for any larger number. None where the comparison cannot be tested.
    """
    if not measured.testable:
        return None
    comparison, samples = measured.comparison, measured.moderated
    errors = spread(samples, measured.priors, [one.n for one in samples])
    seen = Gain(*samples).estimate.mean
    if_seen, at_edge = (
        seeds_needed(comparison.kind, comparison.margin, gain, errors, level)
        for gain in (seen, edge(comparison.kind, comparison.margin))
    )
    return if_seen, at_edge


def claim_seeds(claim: Claim, seeds: Sequence[int | None]) -> int | None:
    """The number of seeds that a claim needs, from those of its open comparisons.

    It is the largest of them; the smallest, where one comparison is enough. None where there are none, or where one is
    not known.
    """
    known = [number for number in seeds if number is not None]
    if not known or len(known) < len(seeds):
        return None
    return min(known) if claim.any_of else max(known)
