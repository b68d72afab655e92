"""The page's section on what a study can and cannot say: every claim is in one group, by what it would take."""

import dataclasses

import pytest

from train.study.page.verdicts import reach
from train.study.plan import Claim, Comparison, Pair
from train.study.results.records import Verdict

CLAIM = Claim(
    "1", "A is better.", (Comparison(Pair("s:digits", variant="A", baseline="B"), "better", "loss_area", 0.02),)
)


@pytest.fixture
def verdict():
    def make(key, **changes):
        claim = dataclasses.replace(CLAIM, key=key)
        plain = {"claim": claim, "verdict": "not resolved", "plain": "not resolved", "tests": (), "p_holm": 1.0}
        return Verdict(**{**plain, "note": "", "scale": "mini", **changes})

    return make


def test_every_claim_is_in_the_group_that_its_verdict_and_its_seeds_say(verdict):
    verdicts = [
        verdict("a", verdict="supported", plain="supported"),
        verdict("b", verdict="supported"),
        verdict("c", verdict="contradicted", plain="contradicted"),
        verdict("d", seeds_if_seen=8),
        verdict("e", seeds_if_seen=9),
        verdict("f", seeds_if_seen=10**6),
        verdict("g"),
        verdict("h", progress="partly run", seeds_if_seen=3),
        verdict("i", progress="not run"),
    ]
    assert [group.claims for group in reach(verdicts)] == [
        ["a", "b*"],
        ["c"],
        ["d (8)"],
        ["e (9)", "f (> 1000)"],
        ["g"],
        ["h", "i"],
    ]


def test_groups_that_no_claim_is_in_are_left_out(verdict):
    (group,) = reach([verdict("a", progress="not run")])
    assert group.words == "Waiting for runs"
