"""Intervals, tests and the correction for many of them, by `scipy.stats`; plain numbers in and out.

Intervals are Student's t. A bootstrap is not used: with the three to ten seeds that a study has, its intervals are too
narrow (three values give ten different resamples), and nothing here is skewed enough to want one. Equivalence is tested
by two one-sided t-tests (TOST). SciPy has no Holm correction; statsmodels has one and would bring pandas and three more
packages for it, so the four lines stand here.

All p-values are on the two-sided scale: twice the one-sided one, at most 1. So "p < .05" says exactly that the
95 % interval lies wholly where the statement holds, and one interval serves every kind of statement.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

ALPHA = 0.05


class Estimate(NamedTuple):
    """A mean and what is known of it.

    Attributes:
      mean: of the values.
      deviation: their sample standard deviation; None for one value.
      low, high: 95 % interval of the mean; None for one value.
      n: number of values.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    n: int


class Gain:
    """A mean gain with its t distribution: paired gains, or the difference between two sets of them.

    Args:
      gains: one a seed.
      less: gains that are not paired with these; their mean is taken off (Welch's test).

    Attributes:
      estimate: mean and interval; `n` is the smaller number of seeds.
    """

    def __init__(self, gains: Sequence[float], less: Sequence[float] | None = None):
        sets = [np.asarray(values, float) for values in (gains, less) if values is not None]
        n = min(len(values) for values in sets)
        mean = float(sets[0].mean() - (sets[1].mean() if len(sets) == 2 else 0.0))
        if n < 2:
            self.estimate = Estimate(mean, None, None, None, n)
            return
        deviation = math.sqrt(sum(float(values.var(ddof=1)) for values in sets))
        errors = [float(values.var(ddof=1)) / len(values) for values in sets]
        self._error = math.sqrt(sum(errors))
        # Equal to the last digits: no spread to speak of, and nothing to divide by.
        self._exact = deviation <= 1e-12 * max(1.0, *(float(np.abs(values).max()) for values in sets))
        # Welch and Satterthwaite's degrees of freedom, n - 1 for one set. SciPy has them inside `ttest_ind`, which
        # warns of sets without spread.
        shares = sum(error**2 / (len(values) - 1) for error, values in zip(errors, sets, strict=True))
        self._freedom = 1.0 if self._exact else sum(errors) ** 2 / shares
        half = 0.0 if self._exact else self._error * float(stats.t.ppf(1.0 - ALPHA / 2, self._freedom))
        self.estimate = Estimate(mean, deviation, mean - half, mean + half, n)

    def p_above(self, bound: float) -> float:
        """p-value of the statement that the true gain is greater than `bound` (n of at least 2)."""
        if self._exact:
            return 0.0 if self.estimate.mean > bound else 1.0
        return min(1.0, 2.0 * float(stats.t.sf((self.estimate.mean - bound) / self._error, self._freedom)))

    def p_below(self, bound: float) -> float:
        """p-value of the statement that the true gain is less than `bound` (n of at least 2)."""
        if self._exact:
            return 0.0 if self.estimate.mean < bound else 1.0
        return min(1.0, 2.0 * float(stats.t.cdf((self.estimate.mean - bound) / self._error, self._freedom)))


def p_values(gain: Gain, kind: str, margin: float) -> tuple[float, float]:
    """p-values of a kind of comparison (`train.study.claims.KINDS`) being shown, and being refuted."""
    above, below = gain.p_above(0.0), gain.p_below(0.0)
    apart, within = min(above, below), max(gain.p_above(-margin), gain.p_below(margin))
    return {
        "better": (above, gain.p_below(margin)),
        "worse": (below, gain.p_above(-margin)),
        "not_better": (gain.p_below(margin), above),
        "not_worse": (gain.p_above(-margin), below),
        "equal": (within, apart),
        "differs": (apart, within),
    }[kind]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % t interval of independent values, at least one."""
    return Gain(values).estimate


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of m p-values times m - i + 1, and at least as large as those before it.

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979)
    """
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted.tolist()
