"""Intervals, tests and verdict rules, on made-up numbers whose answer is known."""

import math

import numpy as np
import pytest
from scipy import stats

from train.study.plan.claims import KINDS
from train.study.verdicts.statistics import ALPHA, Gain, estimate, holm, p_values, sample

# What is shown and what is refuted of each kind where the true gain is far above, near and far below zero.
ANSWERS = {
    "better": ("shown", "refuted", "refuted"),
    "worse": ("refuted", "refuted", "shown"),
    "not_better": ("refuted", "shown", "shown"),
    "not_worse": ("shown", "shown", "refuted"),
    "equal": ("refuted", "shown", "refuted"),
    "differs": ("shown", "refuted", "shown"),
}


def of(gains, less=None):
    return Gain(*(sample(values) for values in (gains, less) if values is not None))


def answer(gains, kind, margin, less=None):
    shown, refuted = p_values(of(gains, less), kind, margin)
    return "shown" if shown < ALPHA else "refuted" if refuted < ALPHA else "open"


def draws(rng, studies, seeds, mean, deviation=1.0):
    return mean + deviation * rng.normal(size=(studies, seeds))


def test_an_estimate_is_students_interval():
    values = [0.3, 0.5, 0.4, 0.9]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(0.525)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_has_no_interval():
    assert estimate([1.5]) == (1.5, None, None, None, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("place", "mean"), [(0, 3.0), (1, 0.0), (2, -3.0)])
def test_a_planted_gain_gets_the_right_answer(kind, place, mean):
    rng = np.random.default_rng([KINDS.index(kind), place])
    answers = [answer(gains, kind, 1.0) for gains in draws(rng, 100, 8, mean, deviation=0.3)]
    # A true gain of nothing still makes for a small one in as many studies as the level says.
    assert answers.count(ANSWERS[kind][place]) >= (90 if mean == 0 else 100)


# The true gain at which each kind is just false, and just true: where its tests err most often.
BORDERS = {
    "better": (0.0, 1.0),
    "worse": (0.0, -1.0),
    "not_better": (1.0, 0.0),
    "not_worse": (-1.0, 0.0),
    "equal": (1.0, 0.0),
    "differs": (0.0, 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", [3, 10])
def test_a_null_is_rejected_at_no_more_than_the_stated_rate(kind, seeds):
    false, true = BORDERS[kind]
    rng, studies = np.random.default_rng([KINDS.index(kind), seeds]), 1000
    shown = sum(p_values(of(g), kind, 1.0)[0] < ALPHA for g in draws(rng, studies, seeds, false, 0.2))
    refuted = sum(p_values(of(g), kind, 1.0)[1] < ALPHA for g in draws(rng, studies, seeds, true, 0.2))
    # One-sided statements err at half the rate, on the two-sided scale of the p-values.
    limit = stats.binom.ppf(0.9999, studies, ALPHA) / studies
    assert shown / studies <= limit
    assert refuted / studies <= limit


def test_the_rate_of_a_two_sided_null_is_the_stated_one():
    rng = np.random.default_rng(0)
    found = sum(p_values(of(gains), "differs", 1.0)[0] < ALPHA for gains in draws(rng, 1500, 4, 0.0))
    assert found / 1500 == pytest.approx(ALPHA, abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [estimate(values) for values in draws(rng, 3000, 3, 7.0)]
    assert sum(e.low <= 7.0 <= e.high for e in found) / 3000 == pytest.approx(0.95, abs=0.015)


def test_a_p_value_below_the_level_is_an_interval_inside_the_statement():
    rng = np.random.default_rng(2)
    for gains in draws(rng, 100, 4, 0.6):
        low, high = estimate(gains).low, estimate(gains).high
        assert (answer(gains, "better", 0.0) == "shown") == (low > 0)
        assert (answer(gains, "equal", 1.5) == "shown") == (low > -1.5 and high < 1.5)


def test_equivalence_is_found_within_the_margin_and_not_across_it():
    gains = [0.002, -0.001, 0.001, 0.000]
    assert answer(gains, "equal", 0.005) == "shown"
    assert answer(gains, "equal", 0.002) == "open"
    assert p_values(of(gains), "equal", 0.005)[0] == pytest.approx(
        2 * max(stats.ttest_1samp(gains, 0.005, alternative="less").pvalue,
                stats.ttest_1samp(gains, -0.005, alternative="greater").pvalue)
    )  # fmt: skip


def test_a_gain_over_another_gain_is_welchs_test():
    first, second = [0.31, 0.28, 0.35], [0.10, 0.12, 0.07, 0.30]
    reference = stats.ttest_ind(first, second, equal_var=False)
    found = of(first, second)
    assert found.estimate.n == 3
    assert found.estimate.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert min(found.p_above(0.0), found.p_below(0.0)) == pytest.approx(reference.pvalue)
    assert (found.estimate.low, found.estimate.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


@pytest.mark.parametrize("less", [None, [0.0, 0.0]])
def test_gains_without_any_spread_are_what_they_are(less):
    found = of([0.5, 0.5, 0.5], less)
    assert (found.estimate.low, found.estimate.high) == (0.5, 0.5)
    assert (found.p_above(0.0), found.p_below(0.0), found.p_above(0.5)) == (0.0, 1.0, 1.0)
    assert answer([0.0, 0.0], "equal", 0.005) == "shown"


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04; none may be less than the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_errs_once_in_no_more_than_the_stated_share_of_families():
    rng = np.random.default_rng(3)
    families = rng.uniform(size=(4000, 12))
    families[:, 6:] *= 1e-6  # half of the hypotheses are false, and plainly so
    wrong = sum(min(holm(family)[:6]) < ALPHA for family in families)
    assert wrong / 4000 == pytest.approx(1 - (1 - ALPHA / 6) ** 6, abs=0.012)


def test_no_number_is_ever_nan():
    for gains in ([0.1, 0.2], [0.0, 0.0], [1e-9, 1e9], [1e-17, 2e-17], [1e-9, 2e-9]):
        for kind in KINDS:
            assert all(0.0 <= p <= 1.0 for p in p_values(of(gains), kind, 0.01))
        assert all(math.isfinite(v) for v in estimate(gains))
