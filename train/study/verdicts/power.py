"""How many seeds a comparison needs: the power of its t-tests, from the noncentral t distribution."""

import math
from collections.abc import Callable, Sequence

from scipy import special, stats

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


def power(kind: str, margin: float, gain: float, error: float, freedom: float, level: float) -> float:
    """The chance that a comparison is resolved (shown or refuted) if the true gain is `gain`.

    Args:
      kind: one of `train.study.plan.claims.KINDS`.
      margin: the comparison's margin.
      gain: the true gain.
      error: its standard error.
      freedom: degrees of freedom of the standard error.
      level: significance level on the two-sided scale of `train.study.verdicts.statistics`.
    """
    critical = float(special.stdtrit(freedom, 1.0 - level / 2))

    def exceeds(distance: float) -> float:
        """The chance of t above its critical value, `distance` from the bound in the direction tested."""
        if error == 0.0:
            return float(distance > 0)
        found = float(stats.nct.sf(critical, freedom, distance / error))
        # SciPy returns NaN for tails that are 0 or 1 to all digits.
        return float(distance > critical * error) if math.isnan(found) else found

    def apart() -> float:
        return min(1.0, exceeds(gain) + exceeds(-gain))

    def within() -> float:
        # Both one-sided tests reject: at least the sum of the two chances minus one, and hardly more where it matters.
        return max(0.0, exceeds(gain + margin) + exceeds(margin - gain) - 1.0)

    if kind in ("equal", "differs"):
        return max(apart(), within())
    if kind in ("better", "not_better"):
        return max(exceeds(gain), exceeds(margin - gain))
    return max(exceeds(-gain), exceeds(gain + margin))


def edge(kind: str, margin: float) -> float:
    """The gain at the edge of the kind's margin; zero for kinds that claim no gain."""
    return {"better": margin, "worse": -margin, "differs": margin}.get(kind, 0.0)


def seeds_needed(kind: str, margin: float, gain: float, spread: Spread, level: float) -> int:
    """The smallest number of seeds, at least two, with power `POWER`; `MOST_SEEDS` + 1 if it is larger than that.

    Args:
      kind: one of `train.study.plan.claims.KINDS`.
      margin: the comparison's margin.
      gain: the true gain.
      spread: standard error and degrees of freedom for a number of seeds.
      level: significance level on the two-sided scale of `train.study.verdicts.statistics`.
    """

    def enough(n: int) -> bool:
        return power(kind, margin, gain, *spread(n), level) >= POWER

    # Power grows with n.
    low, high = 1, 2
    while not enough(high):
        if high == MOST_SEEDS:
            return MOST_SEEDS + 1
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
