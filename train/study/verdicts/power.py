"""How many seeds a comparison needs: the power of its t-tests, from the noncentral t distribution."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scipy import special, stats

from train.study.results.records import SeedsNeeded
from train.study.verdicts.moderation import Prior, moderated_freedom
from train.study.verdicts.statistics import Sample, standard_error

POWER = 0.8
# Larger numbers are not distinguished: MOST_SEEDS + 1 stands for all of them.
MOST_SEEDS = 1000

# Maps a number of seeds to the standard error of a gain and its degrees of freedom.
Spread = Callable[[int], tuple[float, float]]


def spread(samples: Sequence[Sample], priors: Sequence[Prior | None], seeds_now: Sequence[int]) -> Spread:
    """What a gain's standard error would be with other numbers of seeds, at the observed variances.

    Args:
      samples: the one or two sets of gains, with moderated variances.
      priors: the prior of each; None if it is not moderated.
      seeds_now: number of gains in each.
    """

    def at(n: int) -> tuple[float, float]:
        resized = []
        for one, prior, now in zip(samples, priors, seeds_now, strict=True):
            freedom = n - 1.0
            if prior is not None:
                freedom = moderated_freedom(prior._replace(observed=prior.observed + max(0, n - now)), freedom)
            resized.append(one._replace(freedom=freedom, n=n))
        return standard_error(resized)

    return at


class Levels(NamedTuple):
    """What a comparison's p-values must be below to be shown and to be refuted, on the two-sided scale."""

    shown: float
    refuted: float


class Chances(NamedTuple):
    """How likely it is that a comparison is shown, and that it is refuted."""

    shown: float
    refuted: float


def chances(kind: str, margin: float, gain: float, error: float, freedom: float, levels: Levels) -> Chances:
    """The power of a comparison's two tests if the true gain is `gain`.

    Args:
      kind: one of `train.study.plan.claims.KINDS`.
      margin: the comparison's margin.
      gain: the true gain.
      error: its standard error.
      freedom: degrees of freedom of the standard error.
      levels: on the two-sided scale of `train.study.verdicts.statistics`.
    """

    def exceeds(distance: float, level: float) -> float:
        """The chance of t above its critical value, `distance` from the bound in the direction tested."""
        if error == 0.0:
            return float(distance > 0)
        critical = float(special.stdtrit(freedom, 1.0 - level / 2))
        found = float(stats.nct.sf(critical, freedom, distance / error))
        # SciPy returns NaN for tails that are 0 or 1 to all digits.
        return float(distance > critical * error) if math.isnan(found) else found

    def above(bound: float, level: float) -> float:
        return exceeds(gain - bound, level)

    def below(bound: float, level: float) -> float:
        return exceeds(bound - gain, level)

    def apart(level: float) -> float:
        return min(1.0, above(0.0, level) + below(0.0, level))

    def within(level: float) -> float:
        # Both one-sided tests reject: at least the sum of the two chances minus one, and hardly more where it matters.
        return max(0.0, above(-margin, level) + below(margin, level) - 1.0)

    shown, refuted = levels
    match kind:
        case "better":
            return Chances(above(0.0, shown), below(margin, refuted))
        case "worse":
            return Chances(below(0.0, shown), above(-margin, refuted))
        case "not_better":
            return Chances(below(margin, shown), above(0.0, refuted))
        case "not_worse":
            return Chances(above(-margin, shown), below(0.0, refuted))
        case "equal":
            return Chances(within(shown), apart(refuted))
        case "differs":
            return Chances(apart(shown), within(refuted))
        case _:
            raise ValueError(kind)


def edge(kind: str, margin: float) -> float:
    """The gain at the edge of the kind's margin; zero for kinds that claim no gain."""
    return {"better": margin, "worse": -margin, "differs": margin}.get(kind, 0.0)


def seeds_needed(kind: str, margin: float, gain: float, spread: Spread, levels: Levels) -> SeedsNeeded:
    """The smallest numbers of seeds, at least two, with power `POWER`; `MOST_SEEDS` + 1 if one is larger than that.

    Args:
      kind: one of `train.study.plan.claims.KINDS`.
      margin: the comparison's margin.
      gain: the true gain.
      spread: standard error and degrees of freedom for a number of seeds.
      levels: on the two-sided scale of `train.study.verdicts.statistics`.
    """

    @functools.cache
    def at(n: int) -> Chances:
        return chances(kind, margin, gain, *spread(n), levels)

    return SeedsNeeded(_smallest(lambda n: at(n).shown >= POWER), _smallest(lambda n: at(n).refuted >= POWER))


def _smallest(enough: Callable[[int], bool]) -> int:
    """The smallest number from 2 to `MOST_SEEDS` that is enough, as all larger ones then are; else the next one."""
    low, high = 1, 2
    while not enough(high):
        if high == MOST_SEEDS:
            return MOST_SEEDS + 1
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
