"""The procedure on made-up studies with known truth: it errs in fewer than 5 % of them, wherever the true gains are."""

import functools
import math

import pytest

from tests.train.study import simulate_verdicts as simulation
from train.study.verdicts import measurements, rulings
from train.study.verdicts.moderation import fit
from train.study.verdicts.statistics import ALPHA

# `python tests/train/study/simulate_verdicts.py 400` for more. A procedure that errs in 5 % of studies makes more than
# `MOST` of so many false with a chance of 0.7 %.
STUDIES, MOST = 25, 4


@pytest.fixture(scope="module")
def plan():
    made = simulation.Plan()
    assert len(made.study.claims) == 25
    return made


@pytest.mark.parametrize("noise", simulation.NOISES)
@pytest.mark.parametrize("spread", simulation.SPREADS)
def test_few_studies_have_a_false_verdict_in_any_scenario(plan, spread, noise, capsys):
    cells = [(scenario, spread, noise) for scenario in simulation.SCENARIOS]
    tallies = {cell: simulation.simulate(plan, *cell, STUDIES, seed=1) for cell in cells}
    share, error = simulation.false_share(tallies.values(), "moderated")
    with capsys.disabled():
        print("\n" + "\n".join(simulation.lines(tallies)))
        print(
            f"in all: {100 * share:.2f} ± {100 * error:.2f} % of {STUDIES * len(tallies)} studies have a false verdict"
        )
    assert {cell: tally.false["moderated"] for cell, tally in tallies.items() if tally.false["moderated"] > MOST} == {}
    assert share < ALPHA
    # It is worth having: it resolves more than the plain test does, and finds large gains as a rule.
    resolved = {test: sum(t.resolved[test] for t in tallies.values()) for test in ("moderated", "plain")}
    assert resolved["moderated"] > resolved["plain"]
    if noise == 1.0:  # of smaller noise, three standard deviations are within the margin
        number, found = tallies["gains of 1, 2, 3 sd", spread, noise].effects["moderated", 3]
        assert found / number > 0.5


def one_holm(claims, evidence, look):
    """The rule as it was, on today's p-values: Holm's correction once, over the smaller of each claim's two."""
    sides = [rulings._sides(claim, tests) for claim, tests in zip(claims, evidence, strict=True)]
    smaller = []
    for claim, side in zip(claims, sides, strict=True):
        every, single = (side.refuted, side.shown) if claim.any_of else (side.shown, side.refuted)
        smaller.append(min(1.0, rulings.LOOKS * min(max(every), len(single) * min(single))))
    found = []
    for place, (claim, tests, side) in enumerate(zip(claims, evidence, sides, strict=True)):

        def adjusted(p, factor, place=place):
            others = smaller[:place] + smaller[place + 1 :]
            return rulings.holm([min(1.0, rulings.LOOKS * factor * p), *others])[0]

        number = len(side.shown)
        shown, refuted = (number, 1) if claim.any_of else (1, number)
        shown = rulings._Corrected(1.0, [adjusted(p, shown) for p in side.shown])
        refuted = rulings._Corrected(1.0, [adjusted(p, refuted) for p in side.refuted])
        shown = shown._replace(claim=(min if claim.any_of else max)(shown.comparisons))
        refuted = refuted._replace(claim=(max if claim.any_of else min)(refuted.comparisons))
        found.append(rulings._ruling(tests, shown, refuted, look))
    return found


FAULTS = {
    "a prior that outweighs three seeds": (
        *(measurements, "fit", functools.partial(fit, most=math.inf)),
        ("all gains 0", "one", 1.0),
    ),
    "no correction for many claims": (rulings, "holm", list, ("all gains 0", "one", 1.0)),
    "one correction for both sides, gains of zero": (rulings, "_at_a_look", one_holm, ("all gains 0", "one", 0.15)),
    "one correction for both sides, gains at the margin": (
        *(rulings, "_at_a_look", one_holm),
        ("all gains at the margin", "one", 0.15),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_procedures_known_to_be_wrong_are_found_out(plan, fault, monkeypatch):
    module, name, wrong, cell = FAULTS[fault]
    monkeypatch.setattr(module, name, wrong)
    tally = simulation.simulate(plan, *cell, 150, seed=1)
    assert simulation.false_share([tally], "moderated")[0] > 1.2 * ALPHA


def test_the_simulation_knows_a_false_verdict():
    truly, is_false = simulation.truly, simulation.is_false
    # At the edge of the margin "better" is true and cannot be refuted; at zero it is false and can be.
    assert truly("better", 0.005, 0.005) == (True, False)
    assert truly("better", 0.0, 0.005) == (False, True)
    assert truly("equal", 0.005, 0.005) == (False, True)
    assert truly("equal", 0.0, 0.005) == (True, False)
    assert truly("not_worse", -0.005, 0.005) == (False, True)
    both = [(True, False), (False, True)]
    assert [is_false(both, False, verdict) for verdict in ("supported", "contradicted", "not resolved")] == [1, 0, 0]
    assert [is_false(both, True, verdict) for verdict in ("supported", "contradicted", "not resolved")] == [0, 1, 0]
