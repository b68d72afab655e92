"""From p-values to verdicts: within a claim, over the claims of a family, and over two looks. Numbers only.

**Within a claim.** A claim says several things at once, so it is supported if all its comparisons are shown, and
contradicted if one is refuted (`train.study.plan.claims.KINDS` says what shown and refuted mean). Hence its p-value of
support is the largest of theirs (an intersection-union test, which needs no correction within the claim), and its
p-value of contradiction is the smallest times their number (Bonferroni). If one comparison is enough for a claim
(`any_of`), the two are swapped.

**Over claims.** Holm's correction covers all claims of a family, each with the smaller of its two p-values, or 1 if it
cannot be tested yet; so running more of the plan never loses a verdict. This is valid because only one of a claim's two
errors can be made. A comparison's adjusted p-value is the one that its claim would have from that comparison alone, so
verdicts and outcomes never disagree; it is not corrected across the comparisons of one claim.

**Over looks.** There are at most two: the first at the study's own number of seeds, the second at all seeds of the
claims that got more. Each p-value is doubled for this. A claim resolved at the first look keeps that verdict, and its
p-value there enters the second look's correction; a comparison that got no more seeds keeps its p-values. So the
p-values in Holm's correction at the second look are never smaller than min(1, 2 min(p1, p2)), with p1 and p2 from the
two looks, which is itself a valid p-value (Bonferroni): both looks together err no more often than one Holm procedure.
The numbers of seeds at which a claim is looked at must not depend on what is seen between the two
(`train.study.verdicts.resolve`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from train.study.plan.claims import Claim
from train.study.results.records import Outcome
from train.study.verdicts.statistics import ALPHA, Evidence, holm

LOOKS = 2


class Finding(NamedTuple):
    """The finding on a comparison.

    Attributes:
      outcome: "supported" (shown), "contradicted" (refuted) or "not resolved", by `p_holm`.
      p: p-value of being shown or of being refuted, whichever is the outcome; if that is open, the one whose corrected
        p-value is smaller. None if it cannot be tested.
      p_holm: the same, corrected.
    """

    outcome: Outcome
    p: float | None
    p_holm: float | None


class Ruling(NamedTuple):
    """The ruling on a claim.

    Attributes:
      verdict: by corrected p < .05.
      p_holm: the corrected p-value; None if no comparison can be tested.
      look: 1 or 2, the look at which it was decided.
      findings: one per comparison.
    """

    verdict: Outcome
    p_holm: float | None
    look: int
    findings: tuple[Finding, ...]


# One per comparison of a claim; None if it cannot be tested.
ClaimEvidence = Sequence[Evidence | None]


def rule(claims: Sequence[Claim], first: Sequence[ClaimEvidence], second: Sequence[ClaimEvidence]) -> list[Ruling]:
    """The rulings on all claims of a family.

    Args:
      claims: the family's claims, including those without any runs.
      first: their evidence at the first look.
      second: their evidence at the second look; for comparisons without more seeds, that of the first.
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
    """The claim's p-value for Holm's correction, not yet doubled; None if no comparison can be tested."""
    if not any(tests):
        return None
    shown, refuted = ([1.0 if test is None else test[side] for test in tests] for side in (0, 1))
    if claim.any_of:
        return min(_one(shown), max(refuted))
    return min(max(shown), _one(refuted))


def _one(p: Sequence[float]) -> float:
    """p-value that at least one of these holds."""
    return min(1.0, len(p) * min(p))


def _verdict(claim: Claim, findings: Sequence[Finding]) -> Outcome:
    outcomes = [finding.outcome for finding in findings]
    # The outcome that all must have, and the one that a single comparison decides.
    whole: Outcome = "contradicted" if claim.any_of else "supported"
    single: Outcome = "supported" if claim.any_of else "contradicted"
    if all(outcome == whole for outcome in outcomes):
        return whole
    return single if single in outcomes else "not resolved"


def _finding(test: Evidence | None, claim: Claim, adjusted: Callable[[float], float]) -> Finding:
    if test is None:
        return Finding("not resolved", None, None)
    # If one comparison is enough (to contradict, or with any_of to support), each is corrected for their number.
    number = len(claim.comparisons)
    shown, refuted = (number, 1) if claim.any_of else (1, number)
    support, contradiction = adjusted(min(1.0, shown * test.shown)), adjusted(min(1.0, refuted * test.refuted))
    if support < ALPHA:
        outcome: Outcome = "supported"
    else:
        outcome = "contradicted" if contradiction < ALPHA else "not resolved"
    against = outcome == "contradicted" or (outcome == "not resolved" and contradiction < support)
    return Finding(outcome, *((test.refuted, contradiction) if against else (test.shown, support)))
