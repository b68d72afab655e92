"""Power, the seeds that a comparison needs, and the runs that are added for them."""

import dataclasses
import math

import numpy as np
import pytest

from tests.train.study.verdicts.test_judge import better, runs, study
from train.study.plan.claims import Claim
from train.study.verdicts.judge import judge
from train.study.verdicts.moderation import Prior
from train.study.verdicts.power import MOST_SEEDS, power, seeds_needed, spread
from train.study.verdicts.resolve import next_runs
from train.study.verdicts.seeds import claim_seeds
from train.study.verdicts.statistics import Gain, Sample, p_values, sample
from train.study.verdicts.wording import seeds_words

LEVEL = 0.05


def equal_spread(deviation):
    return spread([Sample(0.0, deviation**2, 2, 3)], [None], [3])


@pytest.mark.parametrize("kind", ["better", "worse", "not_better", "not_worse", "equal", "differs"])
@pytest.mark.parametrize("gain", [-1.5, -0.4, 0.0, 0.4, 1.5])
@pytest.mark.parametrize("n", [6, 20])
def test_power_is_how_often_made_up_gains_are_shown_or_refuted_whichever_is_more(kind, gain, n):
    rng, studies = np.random.default_rng(0), 3000
    values = (gain + rng.normal(size=(studies, n))).tolist()
    p = np.array([p_values(Gain(sample(v)), kind, 1.2) for v in values])
    resolved = (p < LEVEL).mean(axis=0).max()
    found = power(kind, 1.2, gain, 1.0 / math.sqrt(n), n - 1, LEVEL)
    # For two tests that must both reject it is a bound, which is close where the power is high.
    exact = kind not in ("equal", "differs") or resolved > 0.7
    assert found == pytest.approx(resolved, abs=0.03) if exact else found < resolved + 0.03


def test_the_seeds_of_a_t_test_are_those_of_the_textbook():
    # Cohen's table and G*Power for a paired t-test, two-sided 5 %, power 0.8: d = 0.5 takes 34, 0.8 takes 15.
    assert seeds_needed("better", 0.0, 0.5, equal_spread(1.0), 0.05) == 34
    assert seeds_needed("better", 0.0, 0.8, equal_spread(1.0), 0.05) == 15


def test_power_and_seeds_agree():
    errors = equal_spread(0.3)
    n = seeds_needed("equal", 0.5, 0.1, errors, 0.002)
    assert power("equal", 0.5, 0.1, *errors(n), 0.002) >= 0.8 > power("equal", 0.5, 0.1, *errors(n - 1), 0.002)


def test_moderation_needs_fewer_seeds_and_its_freedom_grows_with_them():
    one, prior = Sample(0.0, 1.0, 6.0, 3), Prior(1.0, 4.0, 60.0)
    moderated = spread([one], [prior], [3])
    assert moderated(3) == (pytest.approx(1 / math.sqrt(3)), pytest.approx(6.0))
    assert moderated(8) == (pytest.approx(1 / math.sqrt(8)), pytest.approx(11.0))
    assert seeds_needed("better", 0.1, 2.0, moderated, 0.002) < seeds_needed(
        "better", 0.1, 2.0, equal_spread(1.0), 0.002
    )


def test_what_no_number_resolves_is_more_than_the_most():
    assert seeds_needed("better", 0.0, 0.0, equal_spread(1.0), 0.002) == MOST_SEEDS + 1
    assert seeds_words(MOST_SEEDS + 1) == "> 1000"
    assert seeds_words(MOST_SEEDS) == "1000"
    assert seeds_needed("better", 0.0, 0.1, equal_spread(0.0), 0.002) == 2
    assert seeds_needed("better", 0.0, 0.0, equal_spread(0.0), 0.002) == MOST_SEEDS + 1


def test_a_claim_needs_the_most_of_its_comparisons_or_the_fewest_where_one_is_enough():
    every = Claim("a", "A.", (better(),))
    assert claim_seeds(every, [4, 9]) == 9
    assert claim_seeds(dataclasses.replace(every, any_of=True), [4, 9]) == 4
    assert claim_seeds(every, [4, None]) is None
    assert claim_seeds(every, []) is None


# Runs that are added

CLEAR, NEAR, FAR = [0.53, 0.631, 0.73], [0.51, 0.625, 0.709], [0.51, 0.59, 0.702]
PLAIN = [0.50, 0.60, 0.70]
BOTH = Claim("a", "A.", (better("Look"),)), Claim("b", "B.", (better("Look 2"),))


def added(claims=BOTH, max_seeds=8, only=(), **values):
    plan = study(*claims)
    given = {("1:digits", name): v for name, v in ({"plain": PLAIN} | values).items()}
    found = next_runs(plan, runs(plan, given).values(), max_seeds=max_seeds, only=only)
    names = {variant.id: variant.name for section in plan.sections for variant in section.variants}
    return [(names[run.variant_id], run.config.seed) for run in found]


def test_seeds_are_added_to_all_variants_of_the_claims_that_they_can_decide_and_to_no_others():
    assert added(**{"Look": CLEAR, "Look 2": NEAR}) == [
        (name, seed) for seed in range(3, 8) for name in ("plain", "Look 2")
    ]
    assert added(**{"Look": CLEAR, "Look 2": FAR}) == []
    assert added(**{"Look": CLEAR, "Look 2": CLEAR}) == []


def test_the_decision_does_not_see_the_seeds_that_were_added():
    before = added(**{"Look": CLEAR, "Look 2": NEAR})
    assert added(**{"Look": CLEAR, "Look 2": [*NEAR, 0.9, 0.1], "plain": [*PLAIN, 0.1, 0.9]}) == before


def test_nothing_is_added_before_the_first_look_or_beyond_the_limit():
    assert added(**{"Look": CLEAR, "Look 2": NEAR[:2]}) == []
    assert added(max_seeds=3, **{"Look": CLEAR, "Look 2": NEAR}) == []
    assert added(only=("2",), **{"Look": CLEAR, "Look 2": NEAR}) == []


def test_a_claim_has_the_seeds_that_it_needs_and_equality_out_of_reach_is_said_to_be_so():
    equal = Claim("e", "E.", (better("Look 2", kind="equal"),))
    plan = study(Claim("a", "A.", (better("Look"),)), equal)
    given = {("1:digits", "plain"): PLAIN, ("1:digits", "Look"): CLEAR, ("1:digits", "Look 2"): FAR}
    clear, open_ = judge(plan, runs(plan, given))
    assert (clear.verdict, clear.seeds_if_seen, clear.seeds_at_edge) == ("supported", None, None)
    assert open_.seeds_if_seen == open_.tests[0].seeds_if_seen > 8
    assert open_.seeds_at_edge == open_.tests[0].seeds_at_edge > 8
    words = seeds_words(open_.seeds_at_edge)
    assert f"Equal within 0.50 points is out of reach at this budget: it would take {words} seeds" in open_.note
