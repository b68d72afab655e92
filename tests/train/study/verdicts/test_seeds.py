"""Power, the seeds that a comparison needs, and the runs that are added for them."""

import dataclasses
import math

import numpy as np
import pytest

from tests.train.study.verdicts.test_judge import better, runs, study
from train.study.plan.claims import Claim
from train.study.results.records import SeedsNeeded
from train.study.verdicts.judge import judge
from train.study.verdicts.moderation import Prior
from train.study.verdicts.power import MOST_SEEDS, Levels, chances, seeds_needed, spread
from train.study.verdicts.resolve import first_look_left, next_runs
from train.study.verdicts.seeds import Open, claim_seeds, levels
from train.study.verdicts.statistics import Gain, Sample, p_values, sample
from train.study.verdicts.wording import seeds_words

LEVEL = 0.05


def both(level):
    return Levels(level, level)


def equal_spread(deviation):
    return spread([Sample(0.0, deviation**2, 2, 3)], [None], [3])


@pytest.mark.parametrize("kind", ["better", "worse", "not_better", "not_worse", "equal", "differs"])
@pytest.mark.parametrize("gain", [-1.5, -0.4, 0.0, 0.4, 1.5])
@pytest.mark.parametrize("n", [6, 20])
def test_power_is_how_often_made_up_gains_are_shown_and_how_often_refuted(kind, gain, n):
    rng, studies = np.random.default_rng(0), 3000
    values = (gain + rng.normal(size=(studies, n))).tolist()
    p = np.array([p_values(Gain(sample(v)), kind, 1.2) for v in values])
    found = chances(kind, 1.2, gain, 1.0 / math.sqrt(n), n - 1, both(LEVEL))
    for chance, share, within in zip(
        found, (p < LEVEL).mean(axis=0), (kind == "equal", kind == "differs"), strict=True
    ):
        # For two tests that must both reject it is a bound, which is close where the power is high.
        exact = not within or share > 0.7
        assert chance == pytest.approx(share, abs=0.03) if exact else chance < share + 0.03


def test_each_side_has_its_own_level():
    one, two = (chances("better", 1.0, 0.5, 0.2, 5.0, Levels(*levels)) for levels in ((0.05, 0.01), (0.01, 0.05)))
    assert one.shown > two.shown == pytest.approx(one.refuted)


def test_the_seeds_of_a_t_test_are_those_of_the_textbook():
    # Cohen's table and G*Power for a paired t-test, two-sided 5 %, power 0.8: d = 0.5 takes 34, 0.8 takes 15.
    assert seeds_needed("better", 0.0, 0.5, equal_spread(1.0), both(0.05)).shown == 34
    assert seeds_needed("better", 0.0, 0.8, equal_spread(1.0), both(0.05)).shown == 15


def test_power_and_seeds_agree():
    errors = equal_spread(0.3)
    for gain, side in ((0.1, "shown"), (0.4, "refuted")):
        n = getattr(seeds_needed("equal", 0.5, gain, errors, both(0.002)), side)
        enough, too_few = (getattr(chances("equal", 0.5, gain, *errors(m), both(0.002)), side) for m in (n, n - 1))
        assert enough >= 0.8 > too_few


def test_moderation_needs_fewer_seeds_and_its_freedom_grows_with_them():
    one, prior = Sample(0.0, 1.0, 6.0, 3), Prior(1.0, 4.0, 60.0)
    moderated = spread([one], [prior], [3])
    assert moderated(3) == (pytest.approx(1 / math.sqrt(3)), pytest.approx(6.0))
    assert moderated(8) == (pytest.approx(1 / math.sqrt(8)), pytest.approx(11.0))
    with_prior, without = (
        seeds_needed("better", 0.1, 2.0, errors, both(0.002)) for errors in (moderated, equal_spread(1.0))
    )
    assert with_prior.shown < without.shown


def test_what_no_number_resolves_is_more_than_the_most():
    assert seeds_needed("better", 0.0, 0.0, equal_spread(1.0), both(0.002)).either == MOST_SEEDS + 1
    assert seeds_words(MOST_SEEDS + 1) == "> 1000"
    assert seeds_words(MOST_SEEDS) == "1000"
    assert seeds_needed("better", 0.0, 0.1, equal_spread(0.0), both(0.002)).shown == 2
    assert seeds_needed("better", 0.0, 0.0, equal_spread(0.0), both(0.002)).either == MOST_SEEDS + 1


def test_a_claim_needs_what_the_cheaper_of_its_two_sides_takes():
    every = Claim("a", "A.", (better(), better()))
    any_of = dataclasses.replace(every, any_of=True)
    far = MOST_SEEDS + 1
    # All must be shown, or one refuted; with any_of one shown, or all refuted.
    needed = [SeedsNeeded(4, far), SeedsNeeded(9, 30)]
    assert (claim_seeds(every, needed), claim_seeds(any_of, needed)) == (9, 4)
    needed = [SeedsNeeded(40, 7), SeedsNeeded(50, 6)]
    assert (claim_seeds(every, needed), claim_seeds(any_of, needed)) == (6, 7)
    assert claim_seeds(every, [SeedsNeeded(4, 4), None]) is None
    assert claim_seeds(every, []) is None


def test_levels_are_those_of_the_claims_that_each_correction_counts():
    one, kind = Claim("a", "A.", (better(), better(kind="equal"))), "better"
    assert levels(one, kind, Open(10, 20)) == pytest.approx((0.025 / 10, 0.025 / 20 / 2))
    assert levels(dataclasses.replace(one, any_of=True), kind, Open(10, 20)) == pytest.approx((0.025 / 20, 0.025 / 20))
    # What says that there is a difference, in either direction, has half the level.
    assert levels(one, "equal", Open(10, 20)) == pytest.approx((0.025 / 10, 0.025 / 20 / 4))
    assert levels(one, "differs", Open(10, 20)) == pytest.approx((0.025 / 20, 0.025 / 20 / 2))


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


def test_what_is_left_of_the_first_look_is_counted_failed_runs_apart():
    plan = study(*BOTH)
    given = {("1:digits", "plain"): PLAIN, ("1:digits", "Look"): [0.5, None, 0.5], ("1:digits", "Look 2"): [0.5]}
    found = runs(plan, given).values()
    assert first_look_left(plan, found) == 2 + 3 * len(plan.sections[1].variants)


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
    assert open_.seeds_if_seen == open_.tests[0].seeds_if_seen.either > 8
    assert open_.seeds_at_edge == open_.tests[0].seeds_at_edge.either > 8
    words = seeds_words(open_.tests[0].seeds_at_edge.shown)
    assert f"Equal within 0.50 points is out of reach at this budget: it would take {words} seeds" in open_.note
