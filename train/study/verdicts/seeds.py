"""How many seeds would resolve a comparison or a claim."""

from collections.abc import Sequence
from typing import NamedTuple

from train.study.plan.claims import Claim
from train.study.results.records import SeedsNeeded
from train.study.verdicts.measurements import Measured
from train.study.verdicts.power import POWER, Chances, Levels, Spread, chances, edge, seeds_needed, spread
from train.study.verdicts.rulings import LOOKS, Ruling, two_sided
from train.study.verdicts.statistics import ALPHA, Gain

# The default of --max_seeds. A claim that needs more is reported as out of reach.
MAX_SEEDS = 8


class Open(NamedTuple):
    """How many claims of a family each of Holm's two corrections still counts."""

    not_supported: int
    not_contradicted: int


def still_open(rulings: Sequence[Ruling]) -> Open:
    """Of a family's rulings."""
    return Open(*(sum(ruling.verdict != words for ruling in rulings) for words in ("supported", "contradicted")))


def levels(claim: Claim, kind: str, family: Open) -> Levels:
    """What the p-values of a claim's comparison must be below, for the smallest that Holm's corrections still count.

    Args:
      claim: the claim.
      kind: the comparison's, one of `train.study.plan.claims.KINDS`.
      family: of the claim.
    """
    # The side that one comparison decides is corrected for their number.
    number = len(claim.comparisons)
    shown, refuted = (number if claim.decided_by_one == side else 1 for side in ("shown", "refuted"))
    both = two_sided(kind)
    return Levels(
        ALPHA / LOOKS / max(1, family.not_supported) / shown / both.shown,
        ALPHA / LOOKS / max(1, family.not_contradicted) / refuted / both.refuted,
    )


def seeds_if_seen(measured: Measured, levels: Levels) -> SeedsNeeded | None:
    """Seeds that would resolve a comparison, with power 0.8, if the true gain is the one seen.

    Args:
      measured: the comparison.
      levels: of its claim.

    Returns:
      The numbers; one above `train.study.verdicts.power.MOST_SEEDS` stands for any larger one. None if the comparison
      cannot be tested.
    """
    return _seeds_at(measured, _seen(measured), levels) if measured.testable else None


def seeds_at_edge(measured: Measured, levels: Levels) -> SeedsNeeded | None:
    """The same if the true gain is at the edge of the margin, or zero for kinds that claim no gain."""
    at_edge = edge(measured.comparison.kind, measured.comparison.margin)
    return _seeds_at(measured, at_edge, levels) if measured.testable else None


def _seeds_at(measured: Measured, gain: float, levels: Levels) -> SeedsNeeded:
    comparison = measured.comparison
    return seeds_needed(comparison.kind, comparison.margin, gain, _errors(measured), levels)


def _seen(measured: Measured) -> float:
    return Gain(*measured.plain).estimate.mean


def _errors(measured: Measured) -> Spread:
    samples = measured.moderated
    return spread(samples, measured.priors, [one.n for one in samples])


def claim_seeds(claim: Claim, needed: Sequence[SeedsNeeded | None]) -> int | None:
    """The number of seeds that a claim needs, from those of its open comparisons.

    The side that all comparisons must have takes the most seeds of them, the other one the fewest; whichever takes
    fewer resolves the claim. None if there are none or one is not known.
    """
    known = [one for one in needed if one is not None]
    if not known or len(known) < len(needed):
        return None
    single = claim.decided_by_one
    every = "refuted" if single == "shown" else "shown"
    whole = max(getattr(one, every) for one in known)
    # A comparison that is shown with fewer seeds than refuted does not count against its claim.
    alone = [getattr(one, single) for one in known if claim.any_of or one.refuted < one.shown]
    return min([whole, *alone])


def would_resolve(claim: Claim, open_comparisons: Sequence[tuple[Measured, Levels]], seeds: int) -> bool:
    """Whether so many seeds have power 0.8 at the gains seen: `claim_seeds` of at most `seeds`, without the search."""

    def of(measured: Measured, levels: Levels) -> Chances:
        comparison = measured.comparison
        return chances(comparison.kind, comparison.margin, _seen(measured), *_errors(measured)(seeds), levels)

    if not open_comparisons or not all(measured.testable for measured, _ in open_comparisons):
        return False
    found = [of(measured, levels) for measured, levels in open_comparisons]
    if claim.any_of:
        return any(one.shown >= POWER for one in found) or all(one.refuted >= POWER for one in found)
    # At least so likely is it that one is refuted and not shown as well, which is what contradicts the claim.
    return all(one.shown >= POWER for one in found) or any(one.refuted - one.shown >= POWER for one in found)
