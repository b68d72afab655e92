"""From p-values to verdicts: within a claim, over the claims of a family, and over two looks. Numbers only.

**Within a claim.** A claim says several things at once, so it is supported where all its comparisons are shown, and
contradicted where one is refuted (`train.study.plan.claims.KINDS` says what shown and refuted mean). Hence its
p-value of support is the largest of theirs (an intersection-union test, which needs no correction within the claim),
and its p-value of contradiction is the smallest times their number (Bonferroni). Of a claim that one comparison is
enough for (`any_of`), the two change places.

**Over claims.** Holm's correction runs over all claims of a family, each with the smaller of its two p-values, and 1
where it cannot be tested yet; so no verdict is lost by running more of the plan. That is valid since of a claim's two
errors only one can be made. A comparison's adjusted p-value is the one that its claim would have by that comparison
alone, so verdicts and outcomes never disagree; across the comparisons of one claim it is not corrected.

**Over looks.** There are at most two: the first at the study's own number of seeds, the second at all seeds of the
claims that were given more. Each p-value is doubled for that. A claim that is resolved at the first look keeps that
verdict, and the p-value of it in the second look's correction; a comparison that was given no more seeds keeps its
p-values. So what Holm's correction sees at the second look is nowhere smaller than min(1, 2 min(p1, p2)) with p1 and p2
of the two looks, which is itself a valid p-value (Bonferroni): both looks together err as often as one Holm procedure
does. The numbers of seeds at which a claim is looked at must not depend on what is seen between the two
(`train.study.verdicts.seeds`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from train.study.plan.claims import Claim
from train.study.results.records import Outcome
from train.study.verdicts.statistics import ALPHA, Evidence, holm

LOOKS = 2


class Finding(NamedTuple):
    """What is found of a comparison.

    Attributes:
      outcome: "supported" (shown), "contradicted" (refuted) or "not resolved", by `p_holm`.
      p: of being shown or of being refuted, whichever `outcome` is or, where that is open, has the smaller corrected
        p-value; None where it cannot be tested.
      p_holm: the same, corrected.
    """

    outcome: Outcome
    p: float | None
    p_holm: float | None


class Ruling(NamedTuple):
    """What is found of a claim.

    Attributes:
      verdict: by p < .05, corrected.
      p_holm: corrected; None where no comparison can be tested.
      look: 1 or 2, the look that it is of.
      findings: one a comparison.
    """

    verdict: Outcome
    p_holm: float | None
    look: int
    findings: tuple[Finding, ...]


# Of each comparison of a claim; None where it cannot be tested.
ClaimEvidence = Sequence[Evidence | None]


def rule(claims: Sequence[Claim], first: Sequence[ClaimEvidence], second: Sequence[ClaimEvidence]) -> list[Ruling]:
    """The rulings on all claims of a family.

    Args:
      claims: of the family, those without any runs included.
      first: their evidence at the first look.
      second: their evidence at the second look; that of the first for comparisons without more seeds.
    """
    before = _at_a_look(claims, first, look=1)
    current = [
        early if ruling.verdict != "not resolved" else late
        for ruling, early, late in zip(before, first, second, strict=True)
    ]
    after = _at_a_look(claims, current, look=2)
    return [
        ruling if ruling.verdict != "not resolved" else late._replace(look=1 if list(has) == list(had) else 2)
        for ruling, late, had, has in zip(before, after, first, second, strict=True)
    ]


def _at_a_look(claims: Sequence[Claim], evidence: Sequence[ClaimEvidence], look: int) -> list[Ruling]:
    p = [claim_p(claim, tests) for claim, tests in zip(claims, evidence, strict=True)]
    doubled = [1.0 if value is None else min(1.0, LOOKS * value) for value in p]
    found = []
    for place, (claim, tests) in enumerate(zip(claims, evidence, strict=True)):
        others = doubled[:place] + doubled[place + 1 :]

        def adjusted(value: float, others: list[float] = others) -> float:
            return holm([min(1.0, LOOKS * value), *others])[0]

        findings = tuple(_finding(test, claim, adjusted) for test in tests)
        own = p[place]
        found.append(Ruling(_verdict(claim, findings), None if own is None else adjusted(own), look, findings))
    return found


def claim_p(claim: Claim, tests: ClaimEvidence) -> float | None:
    """What Holm's correction takes, before it is doubled; None where no comparison can be tested."""
    if not any(tests):
        return None
    shown, refuted = ([1.0 if test is None else test[side] for test in tests] for side in (0, 1))
    if claim.any_of:
        return min(_one(shown), max(refuted))
    return min(max(shown), _one(refuted))


def _one(p: Sequence[float]) -> float:
    """p-value of at least one of these holding."""
    return min(1.0, len(p) * min(p))


def _verdict(claim: Claim, findings: Sequence[Finding]) -> Outcome:
    outcomes = [finding.outcome for finding in findings]
    # What all must say, and what one may.
    whole: Outcome = "contradicted" if claim.any_of else "supported"
    single: Outcome = "supported" if claim.any_of else "contradicted"
    if all(outcome == whole for outcome in outcomes):
        return whole
    return single if single in outcomes else "not resolved"


def _finding(test: Evidence | None, claim: Claim, adjusted: Callable[[float], float]) -> Finding:
    if test is None:
        return Finding("not resolved", None, None)
    # Where one comparison is enough each pays for their number: to contradict, or with any_of to support.
    number = len(claim.comparisons)
    shown, refuted = (number, 1) if claim.any_of else (1, number)
    support, contradiction = adjusted(min(1.0, shown * test.shown)), adjusted(min(1.0, refuted * test.refuted))
    if support < ALPHA:
        outcome: Outcome = "supported"
    else:
        outcome = "contradicted" if contradiction < ALPHA else "not resolved"
    against = outcome == "contradicted" or (outcome == "not resolved" and contradiction < support)
    return Finding(outcome, *((test.refuted, contradiction) if against else (test.shown, support)))
