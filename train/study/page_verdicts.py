"""The page's tables of verdicts: a group of rows a claim, a row a comparison, the report's own figures beside."""

from collections import Counter
from collections.abc import Sequence

from train.study.figures import DATASET_TITLES
from train.study.markup import Child, Element, tag
from train.study.page_data import section_id
from train.study.plan import Study
from train.study.quantities import QUANTITIES
from train.study.results import ComparisonResult, Verdict
from train.study.wording import NONE, gain_words, two_values

MARKS = {"supported": "✓", "contradicted": "✗", "not resolved": "?"}


def scale_words(scale: str) -> str:
    """The scale of a verdict, to be read behind it."""
    return f"at {scale} scale" if scale else "at the study's own budget"


def _names(names: str | tuple[str, ...]) -> str:
    return names if isinstance(names, str) else " or ".join(names)


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
        gain = f" {kind} that of {_names(than.variant)} over {_names(than.baseline)}, "
        return [f"gain of {test.variant} over {test.baseline}, ", there, gain, place(than.section)]
    words = f"{test.variant} {kind} {test.baseline}"
    if comparison.baseline_quantity not in ("", comparison.quantity):
        words += f" ({QUANTITIES[comparison.baseline_quantity].words})"
    return [f"{words}, ", there]


def _test_cells(test: ComparisonResult, place: SectionLinks) -> list[Element]:
    quantity = test.comparison.quantity
    theirs: list[Child] = []
    if test.report_estimate is not None and test.report_variant is not None:
        both = two_values(quantity, test.report_variant, test.report_baseline)
        theirs = [" ", tag("span", f"({both})", class_="part")]
    p = NONE if test.p_holm is None else ("< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}")
    what = tag(
        "td",
        tag("span", MARKS[test.outcome], class_="mark", title=test.outcome),
        f" {QUANTITIES[quantity].words}: ",
        tag("span", *_stated(test, place), class_="test"),
        class_="comparison",
    )
    cells = [what]
    for label, text, more in (
        ("gain [95 %]", gain_words(quantity, test.estimate, test.low, test.high), []),
        ("means", two_values(quantity, test.variant_mean, test.baseline_mean), []),
        ("p (Holm)", p, []),
        ("report", gain_words(quantity, test.report_estimate), theirs),
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
    badge = tag("span", f"{MARKS[verdict.verdict]} {verdict.verdict}", class_=f"badge {_class(verdict.verdict)}")
    said = tag("td", badge, tag("span", f"{scale_words(verdict.scale)}, ", seeds, class_="at"), rowspan=span)
    body = tag("tbody")
    for index, test in enumerate(verdict.tests):
        body.append(tag("tr", *([claim, said] if index == 0 else []), *_test_cells(test, place)))
    return body


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def verdict_counts(verdicts: Sequence[Verdict]) -> Element:
    """How many claims were supported, contradicted, not resolved; and how many were not run yet."""
    found = Counter(verdict.verdict for verdict in verdicts if not verdict.waits)
    items = [tag("li", f"{MARKS[o]} {found[o]} {o}", class_=_class(o) if found[o] else "nowhere") for o in MARKS]
    if waiting := sum(verdict.waits for verdict in verdicts):
        items.append(tag("li", f"{NONE} {waiting} not run yet", class_="nowhere"))
    return tag("ul", *items, class_="counts")


def verdict_table(verdicts: Sequence[Verdict], study: Study) -> Element:
    """All verdicts of a source: a group of rows a claim, a row a comparison."""
    headings = ("Claim", "Verdict", "Comparison", "Gain [95 % interval]", "Means", "p (Holm)", "The report's own")
    made = tag("table", tag("thead", tag("tr", *(tag("th", text, scope="col") for text in headings))))
    made.set("class", "verdicts")
    for index, heading in enumerate(made[0][0]):
        if index > 2:
            heading.set("class", "number")
    made.extend(_verdict_body(verdict, SectionLinks(study)) for verdict in verdicts)
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label="Verdicts")
