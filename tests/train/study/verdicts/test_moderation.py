"""Moderated variances against limma's own numbers, maximum likelihood, and known limits."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from train.study.verdicts.moderation import Prior, fit, moderate, trigamma_inverse
from train.study.verdicts.statistics import Gain, Sample, sample


def of_variances(variances, freedom):
    freedoms = np.broadcast_to(freedom, len(variances))
    return [Sample(0.0, s2, d, int(d) + 1) for s2, d in zip(variances, freedoms, strict=True)]


def test_it_is_what_limma_gives():
    # limma's squeezeVar(c(0.5, 1.3, 7.8), df = 3): df.prior, var.prior, var.post.
    samples = of_variances([0.5, 1.3, 7.8], 3)
    prior = fit(samples, most=math.inf)
    assert prior.freedom == pytest.approx(2.830777, abs=1e-6)
    assert prior.variance == pytest.approx(1.676927, abs=1e-6)
    posterior = [moderate(one, prior).variance for one in samples]
    assert posterior == pytest.approx([1.071385, 1.482994, 4.827317], abs=1e-6)
    assert [moderate(one, prior).freedom for one in samples] == pytest.approx([5.830777] * 3, abs=1e-6)


@pytest.mark.parametrize("x", [1e-5, 0.01, 0.5, 1.0, 2.5, 40.0, 1e5, 1e8])
def test_the_inverse_of_the_trigamma_function_is_one(x):
    assert trigamma_inverse(float(special.polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def inverse_chi_squared(rng, size, variance, freedom):
    return freedom * variance / rng.chisquare(freedom, size=size)


def test_the_moments_find_the_prior_that_drew_the_variances_as_maximum_likelihood_does():
    rng = np.random.default_rng(0)
    freedom = np.where(rng.random(4000) < 0.5, 2, 7)
    true = inverse_chi_squared(rng, 4000, 0.09, 5.0)
    observed = true * rng.chisquare(freedom) / freedom

    def loss(parameters):
        log_variance, log_d0 = parameters
        scaled = observed / math.exp(log_variance)
        return -float(np.sum(stats.f.logpdf(scaled, freedom, math.exp(log_d0)) - log_variance))

    best = optimize.minimize(loss, [0.0, 1.0], method="Nelder-Mead").x
    prior = fit(of_variances(observed, freedom), most=math.inf)
    assert prior.freedom == pytest.approx(5.0, rel=0.15)
    assert prior.freedom == pytest.approx(math.exp(best[1]), rel=0.12)
    assert prior.variance == pytest.approx(0.09, rel=0.05)
    assert prior.variance == pytest.approx(math.exp(best[0]), rel=0.05)


def test_variances_that_differ_no_more_than_by_chance_are_pooled():
    samples = of_variances([1.0, 1.1, 0.9, 1.2], [2, 2, 7, 7])
    prior = fit(samples, most=math.inf)
    pooled = (2 * 1.0 + 2 * 1.1 + 7 * 0.9 + 7 * 1.2) / 18
    assert prior == (pytest.approx(pooled), math.inf, 18)
    assert moderate(samples[0], prior)[1:] == (pytest.approx(pooled), 18, 3)


def test_variances_without_anything_in_common_are_left_alone():
    samples = of_variances([10.0**power for power in range(-30, 31, 6)], 2)
    prior = fit(samples)
    assert prior.freedom < 0.07
    for one in samples[5:]:
        assert moderate(one, prior).variance == pytest.approx(one.variance, rel=0.05)


def test_a_moderated_variance_has_no_more_degrees_of_freedom_than_were_observed():
    one = Sample(0.0, 1.0, 2, 3)
    assert moderate(one, Prior(1.0, 50.0, 8.0)).freedom == 8.0
    assert moderate(one, Prior(1.0, 4.0, 8.0)).freedom == 6.0


def test_a_prior_counts_no_more_than_three_seeds_so_that_one_noisy_comparison_stays_noisy():
    alike = of_variances([1.0, 1.1, 0.9, 1.2, 1.0, 0.8], 2)
    noisy = Sample(0.0, 60.0, 2, 3)
    prior = fit([*alike, noisy])
    assert prior.freedom == 2.0
    shrunk = moderate(noisy, prior)
    assert shrunk.variance == pytest.approx((2 * prior.variance + 2 * 60.0) / 4)
    assert shrunk.variance > 0.5 * noisy.variance
    assert shrunk.freedom == 4.0
    # Smyth's own prior takes the noise away.
    pooled = fit(alike, most=math.inf)
    assert moderate(noisy, pooled).variance < 0.05 * noisy.variance


def test_few_or_single_values_are_not_moderated():
    assert fit(of_variances([1.0, 2.0], 2)) is None
    assert fit([*of_variances([1.0, 2.0], 2), Sample(0.0, 0.0, 0, 1)]) is None
    assert fit(of_variances([0.0, 0.0, 1.0], 2)) is None
    one, alone = Sample(0.1, 2.0, 2, 3), Sample(0.1, 0.0, 0, 1)
    assert moderate(one, None) == one
    assert moderate(alone, Prior(1.0, 4.0, 8.0)) == alone


def test_gains_without_spread_get_the_groups():
    prior = fit([*of_variances([1.0, 2.0, 0.5, 4.0], 2), sample([0.5, 0.5, 0.5])])
    found = Gain(moderate(sample([0.5, 0.5, 0.5]), prior))
    assert found.estimate.deviation > 0
    assert found.p_above(0.0) > 0


@pytest.mark.parametrize("freedom", [2.0, 4.0, 20.0])
def test_under_its_model_the_moderated_test_errs_at_the_stated_rate(freedom):
    rng = np.random.default_rng(int(freedom))
    true = inverse_chi_squared(rng, 6000, 1.0, freedom)
    values = np.sqrt(true)[:, None] * rng.normal(size=(6000, 3))
    samples = [sample(row) for row in values.tolist()]
    prior = fit(samples, most=math.inf)
    p = [Gain(moderate(one, prior)).p_above(0.0) for one in samples]
    for level in (0.05, 0.01):
        # One-sided, on the two-sided scale.
        assert np.mean(np.array(p) < level) == pytest.approx(level / 2, abs=3.5 * math.sqrt(level / 2 / 6000))
