"""What the page says of verdicts, in words: for `templates/macros.html`."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from train.study.page.data import section_id
from train.study.plan import Study
from train.study.plan.quantities import QUANTITIES
from train.study.results.records import ComparisonResult, Verdict
from train.study.verdicts.seeds import MAX_SEEDS
from train.study.verdicts.wording import NONE, gain_words, seeds_words, two_values

MARKS = {"supported": "✓", "contradicted": "✗", "not resolved": "?", "partly run": "…", "not run": NONE}
RESOLVABLE = ("supported", "contradicted", "not resolved")


class Count(NamedTuple):
    """How many claims have a verdict."""

    words: str
    mark: str
    number: int


class SectionLink(NamedTuple):
    """A link to a section: "2.1 CIFAR-10"."""

    id: str
    words: str


class Cell(NamedTuple):
    """A number of a comparison, with what stands beside it; "" for what is not said."""

    label: str
    text: str
    values: str = ""
    beside_words: str = ""
    beside: str = ""
    beside_values: str = ""


class ComparisonView(NamedTuple):
    """A row of a verdict; `stated` alternates text and links."""

    outcome: str
    mark: str
    quantity: str
    stated: list[tuple[str, SectionLink | None]]
    cells: list[Cell]


class VerdictView(NamedTuple):
    """A claim with its verdict; "" for what is not said."""

    key: str
    text: str
    note: str
    words: str
    mark: str
    scale: str
    seeds: str
    plain: str
    seeds_needed: str
    comparisons: list[ComparisonView]


def scale_words(scale: str) -> str:
    """The scale of a verdict, to be read behind it."""
    return f"at {scale} scale" if scale else "at the study's own budget"


def verdict_counts(verdicts: Sequence[Verdict]) -> list[Count]:
    """How many claims were supported, contradicted, not resolved; and how many were run in part, or not at all."""
    found = Counter(verdict.words for verdict in verdicts)
    return [Count(words, mark, found[words]) for words, mark in MARKS.items() if words in RESOLVABLE or found[words]]


class Reach(NamedTuple):
    """Claims by what they would still take.

    Attributes:
      words: what is so of them.
      claims: their keys.
    """

    words: str
    claims: list[str]


def reach(verdicts: Sequence[Verdict]) -> list[Reach]:
    """What is settled, and what the rest would take; only what occurs."""
    within, beyond, unknown, waiting = [], [], [], []
    for verdict in verdicts:
        needed = verdict.seeds_if_seen
        if verdict.words in ("partly run", "not run"):
            waiting.append(verdict.claim.key)
        elif verdict.words != "not resolved":
            continue
        elif needed is None:
            unknown.append(verdict.claim.key)
        elif needed <= MAX_SEEDS:
            within.append(f"{verdict.claim.key} ({needed})")
        else:
            beyond.append(f"{verdict.claim.key} ({seeds_words(needed)})")
    settled = {
        words: [f"{v.claim.key}" + ("" if v.plain == words else "*") for v in verdicts if v.words == words]
        for words in ("supported", "contradicted")
    }
    found = [
        Reach("Supported (*: by the moderated test only)", settled["supported"]),
        Reach("Contradicted (*: by the moderated test only)", settled["contradicted"]),
        Reach(
            f"Not resolved; up to {MAX_SEEDS} seeds would suffice if the true gain equals the observed one (how many)",
            within,
        ),
        Reach(f"Not resolved; more than {MAX_SEEDS} seeds would be needed at this budget (how many)", beyond),
        Reach("Not resolved; too few runs to say how many seeds it would take", unknown),
        Reach("Waiting for runs", waiting),
    ]
    return [group for group in found if group.claims]


def _place(study: Study, ref: str) -> SectionLink:
    index = [section.ref for section in study.sections].index(ref)
    section = study.sections[index]
    return SectionLink(section_id(index), f"{section.key} {section.dataset_title}")


def _stated(test: ComparisonResult, study: Study) -> list[tuple[str, SectionLink | None]]:
    """What a comparison says, as "A better than B, 2.1 CIFAR-10"."""
    comparison, than = test.comparison, test.comparison.than
    margin = gain_words(comparison.quantity, comparison.margin).lstrip("+")
    kind = {
        "better": "better than",
        "worse": "worse than",
        "not_better": f"no more than {margin} better than",
        "not_worse": f"no more than {margin} worse than",
        "equal": f"equal, within {margin}, to",
        "differs": "different from",
    }[comparison.kind]
    place = _place(study, comparison.pair.section)
    if than is not None:
        other = f" {kind} that of {' or '.join(than.variants)} over {' or '.join(than.baselines)}, "
        return [(f"gain of {test.variant} over {test.baseline}, ", place), (other, _place(study, than.section))]
    words = f"{test.variant} {kind} {test.baseline}"
    if comparison.baseline_quantity not in ("", comparison.quantity):
        words += f" ({QUANTITIES[comparison.baseline_quantity].words})"
    return [(f"{words}, ", place)]


def _p_words(p: float | None) -> str:
    return NONE if p is None else "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def _seeds(if_seen: int | None, at_edge: int | None) -> str:
    return "" if if_seen is None else f"{seeds_words(if_seen)} / {seeds_words(at_edge)}".replace(" ", "\u00a0")


def _said(text: str) -> str:
    return "" if text == NONE else text


def range_words(numbers: Sequence[int]) -> str:
    """Numbers of seeds as "3 seeds" or "3 to 8 seeds"."""
    fewest, most = min(numbers), max(numbers)
    return (f"{fewest} to " if fewest < most else "") + f"{most} seed{'s' * (most != 1)}"


def _plain_words(verdict: Verdict) -> str:
    """The plain test's verdict, with its seeds if that was given at another look."""
    seeds = range_words([test.n for test in verdict.tests])
    of_plain = range_words([test.plain.n for test in verdict.tests])
    return verdict.plain + f" with {of_plain}" * (of_plain != seeds)


def _cells(test: ComparisonResult) -> list[Cell]:
    quantity, moderated, plain, beside = test.comparison.quantity, test.moderated, test.plain, test.beside
    gain = Cell("gain [95 %]", gain_words(quantity, test.estimate, moderated.low, moderated.high))
    means = Cell("means", two_values(quantity, test.variant_mean, test.baseline_mean))
    of_plain = f"plain, {plain.n} seeds" if plain.n != moderated.n else "plain"
    p = Cell("p (Holm)", _p_words(moderated.p_holm), "", of_plain, _said(_p_words(plain.p_holm)))
    needed = [one and one.either for one in (test.seeds_if_seen, test.seeds_at_edge)]
    seeds = Cell("seeds needed", _seeds(*needed) or NONE)
    reference = Cell("reference", gain_words(quantity, test.reference_estimate))
    if _said(reference.text):
        reference = reference._replace(values=two_values(quantity, test.reference_variant, test.reference_baseline))
    if beside is not None:
        quantity, words = beside.quantity, QUANTITIES[beside.quantity].words
        estimate = gain_words(quantity, beside.estimate, beside.low, beside.high)
        theirs = _said(gain_words(quantity, beside.reference_estimate))
        values = two_values(quantity, beside.reference_variant, beside.reference_baseline) if theirs else ""
        both = two_values(quantity, beside.variant_mean, beside.baseline_mean)
        gain = gain._replace(beside_words=words, beside=_said(estimate))
        means = means._replace(beside_words=words, beside=_said(both))
        reference = reference._replace(beside_words=words, beside=theirs, beside_values=values)
    return [gain, means, p, seeds, reference]


def verdict_view(verdict: Verdict, study: Study) -> VerdictView:
    """A verdict with its comparisons, ready to be shown."""
    notes = ["One of these comparisons is enough."] * verdict.claim.any_of + [verdict.note] * bool(verdict.note)
    comparisons = [
        ComparisonView(
            test.outcome,
            MARKS[test.outcome],
            QUANTITIES[test.comparison.quantity].words + f", {test.n} seeds" * (test.n != verdict.n),
            _stated(test, study),
            _cells(test),
        )
        for test in verdict.tests
    ]
    return VerdictView(
        key=verdict.claim.key,
        text=verdict.claim.text,
        note=" ".join(notes),
        words=verdict.words,
        mark=MARKS[verdict.words],
        scale=scale_words(verdict.scale),
        seeds=range_words([test.n for test in verdict.tests]),
        plain=_plain_words(verdict) if verdict.words in RESOLVABLE else "",
        seeds_needed=_seeds(verdict.seeds_if_seen, verdict.seeds_at_edge),
        comparisons=comparisons,
    )
