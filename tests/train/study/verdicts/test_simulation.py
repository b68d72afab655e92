"""The procedure on made-up studies with known truth: it errs in fewer than 5 % of them."""

import pytest

from tests.train.study import simulate_verdicts as simulation
from train.study.verdicts.statistics import ALPHA

STUDIES = 30  # of each scenario; `python tests/train/study/simulate_verdicts.py 400` for more


@pytest.mark.parametrize("spread", ["some", "one"])
def test_fewer_than_one_study_in_twenty_has_a_false_verdict(spread, capsys):
    plan = simulation.Plan()
    assert len(plan.study.claims) == 25
    cells = [(scenario, spread) for scenario in simulation.SCENARIOS]
    tallies = {cell: simulation.simulate(plan, *cell, STUDIES, seed=1) for cell in cells}
    share, error = simulation.false_share(tallies.values(), "moderated")
    with capsys.disabled():
        print("\n" + "\n".join(simulation.lines(tallies)))
        print(
            f"in all: {100 * share:.2f} ± {100 * error:.2f} % of {STUDIES * len(tallies)} studies have a false verdict"
        )
    assert all(tally.added for tally in tallies.values())
    # It is worth having: it resolves more than the plain test does, and finds large gains as a rule.
    resolved = {test: sum(t.resolved[test] for t in tallies.values()) for test in ("moderated", "plain")}
    assert resolved["moderated"] > resolved["plain"]
    number, found = tallies["gains of 1, 2, 3 sd", spread].effects["moderated", 3]
    assert found / number > 0.5
    assert share < ALPHA


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
