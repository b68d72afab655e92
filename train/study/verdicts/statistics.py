"""Intervals, tests and the correction for many tests; plain numbers in and out.

Intervals are Student's t. A bootstrap is not used: with the three to ten seeds of a study its intervals are too narrow
(three values give ten different resamples), and nothing here is skewed enough to need one. Equivalence is tested by two
one-sided t-tests (TOST). SciPy has no Holm correction; statsmodels has one but would bring pandas and three more
packages, so the four lines are written here.

All p-values are on the two-sided scale: twice the one-sided one, at most 1. So "p < .05" means exactly that the whole
95 % interval is where the statement holds, and one interval serves every kind of statement.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import special

ALPHA = 0.05


class Sample(NamedTuple):
    """Independent values, summarised as a t-test needs them.

    Attributes:
      mean: mean of the values.
      variance: variance of one value; 0 if the values are equal up to rounding.
      freedom: degrees of freedom of the variance; 0 for one value.
      n: number of values.
    """

    mean: float
    variance: float
    freedom: float
    n: int


def sample(values: Sequence[float]) -> Sample:
    """The sample of at least one value."""
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    # Equal up to rounding: there is no spread, and nothing to divide by.
    if math.sqrt(variance) <= 1e-12 * max(1.0, *map(abs, values)):
        variance = 0.0
    return Sample(mean, variance, n - 1, n)


class Estimate(NamedTuple):
    """A mean with its uncertainty.

    Attributes:
      mean: mean of the values.
      deviation: their standard deviation; None for one value.
      low, high: 95 % interval of the mean; None for one value.
      n: number of values.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    n: int


def standard_error(samples: Sequence[Sample]) -> tuple[float, float]:
    """Standard error of a mean, or of the difference of two independent means, and its degrees of freedom.

    The degrees of freedom are Satterthwaite's, f = (e1 + e2)^2 / (e1^2 / f1 + e2^2 / f2) with e = variance / n; for a
    single sample they are its own.
    """
    errors = [one.variance / one.n for one in samples]
    total = sum(errors)
    if total == 0.0:
        return 0.0, 1.0
    shares = sum(error**2 / one.freedom for error, one in zip(errors, samples, strict=True))
    return math.sqrt(total), total**2 / shares


class Gain:
    """A mean gain with its t distribution: paired gains, or the difference between two sets of them.

    Args:
      gains: one value per seed.
      less: gains that are not paired with these; their mean is subtracted (Welch's test).

    Attributes:
      estimate: mean and interval; `n` is the smaller number of seeds.
      freedom: degrees of freedom of the interval; None for one value.
    """

    def __init__(self, gains: Sample, less: Sample | None = None):
        samples = [gains] if less is None else [gains, less]
        n = min(one.n for one in samples)
        mean = gains.mean - (less.mean if less else 0.0)
        if n < 2:
            self.estimate, self.freedom = Estimate(mean, None, None, None, n), None
            return
        self._error, self.freedom = standard_error(samples)
        deviation = math.sqrt(sum(one.variance for one in samples))
        half = self._error * float(special.stdtrit(self.freedom, 1.0 - ALPHA / 2)) if self._error else 0.0
        self.estimate = Estimate(mean, deviation, mean - half, mean + half, n)

    def p_above(self, bound: float) -> float:
        """p-value of the statement that the true gain is greater than `bound` (n of at least 2)."""
        return self._p(self.estimate.mean - bound)

    def p_below(self, bound: float) -> float:
        """p-value of the statement that the true gain is less than `bound` (n of at least 2)."""
        return self._p(bound - self.estimate.mean)

    def _p(self, excess: float) -> float:
        if not self._error:
            return 0.0 if excess > 0 else 1.0
        # stdtr is scipy.stats.t.cdf without its argument checks, which take fifty times as long.
        return min(1.0, 2.0 * float(special.stdtr(self.freedom, -excess / self._error)))


class Evidence(NamedTuple):
    """p-values of a comparison.

    Attributes:
      shown: p-value that it is true.
      refuted: p-value that it is false.
    """

    shown: float
    refuted: float


def p_values(gain: Gain, kind: str, margin: float) -> Evidence:
    """p-values for a kind of comparison (`train.study.plan.claims.KINDS`)."""
    above, below = gain.p_above(0.0), gain.p_below(0.0)
    not_low, not_high = gain.p_above(-margin), gain.p_below(margin)
    apart, within = min(above, below), max(not_low, not_high)
    return {
        "better": Evidence(above, not_high),
        "worse": Evidence(below, not_low),
        "not_better": Evidence(not_high, above),
        "not_worse": Evidence(not_low, below),
        "equal": Evidence(within, apart),
        "differs": Evidence(apart, within),
    }[kind]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % t interval of independent values, at least one."""
    return Gain(sample(values)).estimate


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of m p-values times m - i + 1, and never smaller than those before it.

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979)
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        adjusted[place] = largest = max(largest, min(1.0, p[place] * (len(p) - rank)))
    return adjusted
