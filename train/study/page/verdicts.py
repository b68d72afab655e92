"""The page's tables of verdicts: a group of rows a claim, a row a comparison, the reference's figures beside."""

from collections import Counter
from collections.abc import Sequence

from train.study.page.data import section_id
from train.study.page.figures import DATASET_TITLES
from train.study.page.markup import Child, Element, tag
from train.study.plan import Study
from train.study.plan.quantities import QUANTITIES
from train.study.results.records import Beside, ComparisonResult, Verdict
from train.study.verdicts.measurements import names_of
from train.study.verdicts.wording import NONE, gain_words, seeds_words, two_values

MARKS = {"supported": "✓", "contradicted": "✗", "not resolved": "?", "partly run": "…", "not run": NONE}


def scale_words(scale: str) -> str:
    """The scale of a verdict, to be read behind it."""
    return f"at {scale} scale" if scale else "at the study's own budget"


class SectionLinks:
    """Links to the sections of a study, by reference."""

    def __init__(self, study: Study):
        self._ids = {section.ref: section_id(index) for index, section in enumerate(study.sections)}
        self._study = study

    def __call__(self, ref: str) -> Element:
        """ "2.1 CIFAR-10", going there."""
        section = self._study.section(ref)
        return tag(
            "a",
            f"{section.key} {DATASET_TITLES.get(section.dataset, section.dataset)}",
            href=f"#{self._ids[ref]}",
            class_="part",
        )


def _stated(test: ComparisonResult, place: SectionLinks) -> list[Child]:
    """What a comparison says, as "A better than B, 2.1 CIFAR-10"."""
    comparison, than = test.comparison, test.comparison.than
    margin = gain_words(comparison.quantity, comparison.margin).lstrip("+")
    kind = {
        "better": "better than",
        "worse": "worse than",
        "not_better": f"not better, by {margin} or more, than",
        "not_worse": f"not worse, by {margin} or more, than",
        "equal": f"equal, within {margin}, to",
        "differs": "different from",
    }[comparison.kind]
    there = place(comparison.pair.section)
    if than is not None:
        gain = f" {kind} that of {' or '.join(names_of(than.variant))} over {' or '.join(names_of(than.baseline))}, "
        return [f"gain of {test.variant} over {test.baseline}, ", there, gain, place(than.section)]
    words = f"{test.variant} {kind} {test.baseline}"
    if comparison.baseline_quantity not in ("", comparison.quantity):
        words += f" ({QUANTITIES[comparison.baseline_quantity].words})"
    return [f"{words}, ", there]


def _p_words(p: float | None) -> str:
    return NONE if p is None else "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def _logged(quantity: str, found: ComparisonResult | Beside) -> list[Child]:
    """The reference's two values, behind its gain."""
    if found.reference_estimate is None or found.reference_variant is None:
        return []
    both = two_values(quantity, found.reference_variant, found.reference_baseline)
    return [" ", tag("span", f"({both})", class_="part")]


def _seeds_part(if_seen: int | None, at_edge: int | None) -> str:
    return NONE if if_seen is None else f"{seeds_words(if_seen)} / {seeds_words(at_edge)}".replace(" ", "\u00a0")


def _beside_lines(beside: Beside | None) -> tuple[list[Child], list[Child], list[Child]]:
    """What stands beside the gain, the means and the reference's gain: a line each, where there is something to say."""
    if beside is None:
        return [], [], []
    quantity, words = beside.quantity, QUANTITIES[beside.quantity].words
    gain = gain_words(quantity, beside.estimate, beside.low, beside.high)
    means = two_values(quantity, beside.variant_mean, beside.baseline_mean)
    theirs = gain_words(quantity, beside.reference_estimate)
    lines: list[list[Child]] = [
        [tag("span", f"{words}: ", tag("span", text, class_="part"), *more, class_="beside")] if text != NONE else []
        for text, more in ((gain, []), (means, []), (theirs, _logged(quantity, beside)))
    ]
    return lines[0], lines[1], lines[2]


def _test_cells(test: ComparisonResult, place: SectionLinks) -> list[Element]:
    quantity, moderated, plain = test.comparison.quantity, test.moderated, test.plain
    what = tag(
        "td",
        tag("span", MARKS[test.outcome], class_="mark", title=test.outcome),
        f" {QUANTITIES[quantity].words}: ",
        tag("span", *_stated(test, place), class_="test"),
        class_="comparison",
    )
    gain_beside, means_beside, reference_beside = _beside_lines(test.beside)
    by_plain = tag("span", "plain: ", tag("span", _p_words(plain.p_holm), class_="part"), class_="beside")
    cells = [what]
    for label, text, more in (
        ("gain [95 %]", gain_words(quantity, test.estimate, moderated.low, moderated.high), gain_beside),
        ("means", two_values(quantity, test.variant_mean, test.baseline_mean), means_beside),
        ("p (Holm)", _p_words(moderated.p_holm), [by_plain] if plain.p_holm is not None else []),
        ("seeds needed", _seeds_part(test.seeds_if_seen, test.seeds_at_edge), []),
        ("reference", gain_words(quantity, test.reference_estimate), [*_logged(quantity, test), *reference_beside]),
    ):
        value = tag("span", tag("span", text, class_="part"), *more)
        cells.append(tag("td", value, class_="number", data_label=label))
    return cells


def _verdict_body(verdict: Verdict, place: SectionLinks) -> Element:
    seeds = tag("span", f"n = {verdict.n} seed{'s' * (verdict.n != 1)}", class_="part")
    span = str(len(verdict.tests))
    claim = tag("th", tag("span", verdict.claim.key, class_="key"), verdict.claim.text, scope="rowgroup", rowspan=span)
    claim.set("class", "claim")
    notes = ["One of these comparisons is enough."] * verdict.claim.any_of + [verdict.note] * bool(verdict.note)
    if notes:
        claim.append(tag("span", " ".join(notes), class_="note"))
    badge = tag("span", f"{MARKS[verdict.words]} {verdict.words}", class_=f"badge {_class(verdict.words)}")
    said = tag("td", badge, tag("span", f"{scale_words(verdict.scale)}, ", seeds, class_="at"), rowspan=span)
    if verdict.words in ("supported", "contradicted", "not resolved"):
        said.append(tag("span", f"plain t-test: {verdict.plain}", class_="at"))
    if verdict.seeds_if_seen is not None:
        wanted = _seeds_part(verdict.seeds_if_seen, verdict.seeds_at_edge)
        said.append(tag("span", f"seeds needed: {wanted}", class_="at"))
    body = tag("tbody")
    for index, test in enumerate(verdict.tests):
        body.append(tag("tr", *([claim, said] if index == 0 else []), *_test_cells(test, place)))
    return body


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def verdict_counts(verdicts: Sequence[Verdict]) -> Element:
    """How many claims were supported, contradicted, not resolved; and how many were run in part, or not at all."""
    found = Counter(verdict.words for verdict in verdicts)
    always = ("supported", "contradicted", "not resolved")
    items = [
        tag("li", f"{mark} {found[words]} {words}", class_=_class(words) if found[words] else "nowhere")
        for words, mark in MARKS.items()
        if words in always or found[words]
    ]
    return tag("ul", *items, class_="counts")


def verdict_table(verdicts: Sequence[Verdict], study: Study) -> Element:
    """All verdicts of a source: a group of rows a claim, a row a comparison."""
    headings = ("Claim", "Verdict", "Comparison", "Gain [95 % interval]", "Means", "p (Holm)", "Seeds needed")
    headings += (study.reference[:1].upper() + study.reference[1:],)
    made = tag("table", tag("thead", tag("tr", *(tag("th", text, scope="col") for text in headings))))
    made.set("class", "verdicts")
    for index, heading in enumerate(made[0][0]):
        if index > 2:
            heading.set("class", "number")
    made.extend(_verdict_body(verdict, SectionLinks(study)) for verdict in verdicts)
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label="Verdicts")
