"""From p-values to verdicts: within a claim, over the claims of a family, and over two looks. Numbers only.

**Within a claim.** A claim says several things at once, so it is supported if all its comparisons are shown, and
contradicted if one is refuted (`train.study.plan.claims.KINDS` says what shown and refuted mean). Hence its p-value of
support is the largest of theirs (an intersection-union test, which needs no correction within the claim), and its
p-value of contradiction is the smallest times their number (Bonferroni). If one comparison is enough for a claim
(`any_of`), the two are swapped. A comparison may be both shown and refuted: "better" is, by a gain above zero and below
the margin. It then counts as shown.

**Over claims.** Holm's correction is made twice over the claims of a family: over their p-values of support, and over
those of contradiction. Each errs in at most 2.5 % of studies, because p-values are on the two-sided scale, where a
statement about one side errs half as often as its p-value says; a difference in either direction has no such half, and
its p-value is doubled. So together they err in at most 5 %, whatever the true gains are, if the comparisons' p-values
are valid (where the best of several variants is chosen by the same runs, they are a little too small). One correction
over the smaller of each claim's two p-values would not do: when most claims are rightly contradicted, it hardly
corrects the few that are left, which are those whose gains came out high by chance
(`tests/train/study/verdicts/test_simulation.py`). A claim that cannot be tested yet counts as p = 1. A comparison's
adjusted p-values are those that its claim would have from that comparison alone, so verdicts and outcomes never
disagree; they are not corrected across the comparisons of one claim.

**Over looks.** There are at most two: the first at the study's own number of seeds, the second at a larger number, for
the claims that got more. Each p-value is doubled for this. A claim resolved at the first look keeps that verdict, and
its p-values there enter the second look's corrections; a comparison that got no more seeds keeps its p-values. So the
p-values in Holm's corrections at the second look are never smaller than min(1, 2 min(p1, p2)), with p1 and p2 from the
two looks, which is itself a valid p-value (Bonferroni): both looks together err no more often than one Holm procedure.
The numbers of seeds at which a claim is looked at must not depend on what is seen between the two
(`train.study.verdicts.resolve`).
"""

from collections.abc import Sequence
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
      p_holm: the corrected p-value, of the verdict or the smaller of the two; None if no comparison can be tested.
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
    sides = [_sides(claim, tests) for claim, tests in zip(claims, evidence, strict=True)]
    shown = _corrected([side.shown for side in sides], alone=[claim.decided_by_one == "shown" for claim in claims])
    # A comparison that is shown does not contradict its claim, even if it is refuted as well.
    counted = [
        [1.0 if supported < ALPHA else p for p, supported in zip(side.refuted, corrected.comparisons, strict=True)]
        for side, corrected in zip(sides, shown, strict=True)
    ]
    refuted = _corrected(counted, alone=[claim.decided_by_one == "refuted" for claim in claims])
    return [
        _ruling(tests, for_it, against_it, look)
        for tests, for_it, against_it in zip(evidence, shown, refuted, strict=True)
    ]


class _Sides(NamedTuple):
    """The p-values of a claim's comparisons, of being shown and of being refuted; 1 if one cannot be tested."""

    shown: list[float]
    refuted: list[float]


def _sides(claim: Claim, tests: ClaimEvidence) -> _Sides:
    found = _Sides([], [])
    for comparison, test in zip(claim.comparisons, tests, strict=True):
        # A difference in either direction is already at its full level: it is doubled like the one-sided ones were.
        both = two_sided(comparison.kind)
        found.shown.append(1.0 if test is None else min(1.0, both.shown * test.shown))
        found.refuted.append(1.0 if test is None else min(1.0, both.refuted * test.refuted))
    return found


def two_sided(kind: str) -> Evidence:
    """By what the p-values of a kind are multiplied: 2 for the one that is of a difference in either direction."""
    return Evidence(2.0 if kind == "differs" else 1.0, 2.0 if kind == "equal" else 1.0)


class _Corrected(NamedTuple):
    """Corrected p-values of one side of a claim: of the whole claim, and of each comparison alone."""

    claim: float
    comparisons: list[float]


def _corrected(family: Sequence[Sequence[float]], alone: Sequence[bool]) -> list[_Corrected]:
    """Doubled for the looks, and corrected by Holm's method over the claims of a family.

    Args:
      family: one side's p-values of the comparisons, by claim.
      alone: of each claim, whether one comparison is enough for this side.
    """
    whole = [min(1.0, len(p) * min(p)) if one else max(p) for p, one in zip(family, alone, strict=True)]
    doubled = [min(1.0, LOOKS * p) for p in whole]

    def adjusted(place: int, value: float) -> float:
        return holm([min(1.0, LOOKS * value), *doubled[:place], *doubled[place + 1 :]])[0]

    return [
        _Corrected(
            adjusted(place, whole[place]),
            [adjusted(place, min(1.0, len(p) * value) if one else value) for value in p],
        )
        for place, (p, one) in enumerate(zip(family, alone, strict=True))
    ]


def _ruling(tests: ClaimEvidence, shown: _Corrected, refuted: _Corrected, look: int) -> Ruling:
    findings = tuple(map(_finding, tests, shown.comparisons, refuted.comparisons))
    if shown.claim < ALPHA:
        return Ruling("supported", shown.claim, look, findings)
    verdict: Outcome = "contradicted" if refuted.claim < ALPHA else "not resolved"
    return Ruling(verdict, min(shown.claim, refuted.claim) if any(tests) else None, look, findings)


def _finding(test: Evidence | None, shown: float, refuted: float) -> Finding:
    if test is None:
        return Finding("not resolved", None, None)
    if shown < ALPHA:
        return Finding("supported", test.shown, shown)
    if refuted < ALPHA:
        return Finding("contradicted", test.refuted, refuted)
    return Finding("not resolved", *((test.refuted, refuted) if refuted < shown else (test.shown, shown)))
