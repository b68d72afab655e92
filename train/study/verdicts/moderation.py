"""Moderated variances (Smyth 2004): a comparison's variance, shrunk towards those of its group.

With three seeds a sample variance s^2 has d = 2 degrees of freedom and says little. If many comparisons are alike,
their variances show what is typical. The model, for comparison g with true variance sigma_g^2:

    1 / sigma_g^2 ~ chi^2_{d0} / (d0 s0^2),        s_g^2 | sigma_g^2 ~ sigma_g^2 chi^2_{d_g} / d_g

Given s_g^2, the mean of 1 / sigma_g^2 is the inverse of

    s2_post = (d0 s0^2 + d_g s_g^2) / (d0 + d_g)

and t = mean / sqrt(s2_post / n) has a t distribution with d0 + d_g degrees of freedom.

d0 and s0^2 are estimated from the moments of z_g = log s_g^2. Under the model s_g^2 / s0^2 is F(d_g, d0), so with psi
the digamma and psi' the trigamma function

    E z_g = log s0^2 + psi(d_g / 2) - psi(d0 / 2) + log(d0 / d_g),        Var z_g = psi'(d_g / 2) + psi'(d0 / 2).

With e_g = z_g - psi(d_g / 2) + log(d_g / 2) over G comparisons, d0 therefore solves

    psi'(d0 / 2) = sum (e_g - mean e)^2 / (G - 1) - mean psi'(d_g / 2)

and s0^2 = exp(mean e + psi(d0 / 2) - log(d0 / 2)). If the right-hand side is not positive, the variances differ no
more than expected by chance: d0 is infinite and s0^2 is the pooled variance. d0 + d_g is limited to the sum of the
group's degrees of freedom, because no more than that has been observed.

The model does not allow for one variant that is far noisier than all others: if the others look alike, d0 is large and
the odd one's variance is shrunk to theirs. So d0 is capped at `MOST_FREEDOM`, the freedom of three seeds, and the
prior never outweighs a comparison's own variance. `results/report/analysis_plan.md` has the simulation behind this.

References:
  Smyth, Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray Experiments,
  Statistical Applications in Genetics and Molecular Biology 3 (2004), article 3, sections 3 and 6.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, polygamma

from train.study.verdicts.statistics import Sample

# A smaller group is not moderated.
LEAST = 3
# The cap on a prior's degrees of freedom.
MOST_FREEDOM = 2.0


class Prior(NamedTuple):
    """What a group of comparisons says about the variance of any one of them.

    Attributes:
      variance: s0^2.
      freedom: d0, capped; equal to the cap if the variances differ no more than by chance.
      observed: sum of the group's degrees of freedom, the most that a moderated variance can have.
    """

    variance: float
    freedom: float
    observed: float


def trigamma_inverse(y: float) -> float:
    """The x > 0 with psi'(x) = y > 0, by Newton's method for 1 / psi'.

    1 / psi' is convex and nearly linear, so that from x = 1/2 + 1/y the steps are monotone.
    """
    if y > 1e7:  # psi'(x) ~ 1 / x^2
        return 1.0 / math.sqrt(y)
    if y < 1e-6:  # psi'(x) ~ 1 / x
        return 1.0 / y
    x = 0.5 + 1.0 / y
    for _ in range(50):
        value = float(polygamma(1, x))
        step = value * (1.0 - value / y) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def fit(samples: Sequence[Sample], *, most: float = MOST_FREEDOM) -> Prior | None:
    """The prior of a group, by the method of moments (see above).

    Args:
      samples: the samples of the group's comparisons. Those with one value are left out. A variance below 1e-5 of the
        median is raised to that, because its logarithm would dominate the estimate.
      most: the most degrees of freedom that the prior may have; infinite for Smyth's own method.

    Returns:
      The prior; None if fewer than three samples are left or most have no spread at all.
    """
    samples = [one for one in samples if one.freedom > 0]
    variances = np.array([one.variance for one in samples])
    if len(samples) < LEAST or np.median(variances) == 0.0:
        return None
    freedoms = np.array([one.freedom for one in samples], float)
    floored = np.maximum(variances, 1e-5 * np.median(variances))
    centred = np.log(floored) - digamma(freedoms / 2) + np.log(freedoms / 2)
    excess = float(centred.var(ddof=1) - polygamma(1, freedoms / 2).mean())
    observed = float(freedoms.sum())
    if excess <= 0.0:
        return Prior(float(freedoms @ variances) / observed, most, observed)
    half = trigamma_inverse(excess)
    variance = math.exp(float(centred.mean()) + float(digamma(half)) - math.log(half))
    return Prior(variance, min(2.0 * half, most), observed)


def moderate(one: Sample, prior: Prior | None) -> Sample:
    """The sample with moderated variance and degrees of freedom; unchanged if there is no prior or only one value."""
    if prior is None or one.n < 2:
        return one
    if math.isinf(prior.freedom):
        variance = prior.variance
    else:
        total = prior.freedom + one.freedom
        variance = (prior.freedom * prior.variance + one.freedom * one.variance) / total
    return one._replace(variance=variance, freedom=moderated_freedom(prior, one.freedom))


def moderated_freedom(prior: Prior, freedom: float) -> float:
    """d0 + d, at most what was observed; never less than the sample's own."""
    return max(freedom, min(prior.freedom + freedom, prior.observed))
