"""What the page says in words and tables: verdicts, final figures, settings, runs. None of it needs a script."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from train.config import Config, leaves
from train.metrics import Row
from train.study.figures import DATASET_TITLES, LABELS, report_rows
from train.study.markup import Child, Element, link, table, tag
from train.study.page_data import section_id, test_quantities, train_quantity
from train.study.plan import Section, Study
from train.study.quantities import QUANTITIES, per_cent_lower
from train.study.results import ComparisonResult, RunRecord, StudyResults, Verdict

MARKS = {"supported": "✓", "contradicted": "✗", "not resolved": "?"}

NONE = "–"


def scale_words(scale: str) -> str:
    """The scale of a verdict, to be read behind it."""
    return f"at {scale} scale" if scale else "at the study's own budget"


# Verdicts


def _number(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else format(value, ".4g")


def _is_accuracy(quantity: str) -> bool:
    return "accuracy" in quantity


def _gain(test: ComparisonResult, value: float) -> str:
    """A gain with its sign and without its unit."""
    if test.relative:
        text = f"{per_cent_lower(value):+.1f}"
    elif _is_accuracy(test.comparison.quantity):
        text = f"{100 * value:+.2f}"
    else:
        text = f"{value:+.4g}"
    return text.replace("-", "−")


def _unit(test: ComparisonResult) -> str:
    if test.relative:
        return " %"
    return " points" if _is_accuracy(test.comparison.quantity) else ""


def _values(test: ComparisonResult, first: float | None, second: float | None) -> str:
    """Two values of the quantity with their unit."""
    if first is None or second is None:
        return NONE
    if _is_accuracy(test.comparison.quantity):
        return f"{100 * first:.2f} / {100 * second:.2f} %"
    return f"{_number(first)} / {_number(second)}"


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
    margin = _gain(test, comparison.margin).lstrip("+") + _unit(test)
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
    gain = report = NONE
    if test.estimate is not None:
        gain = _gain(test, test.estimate)
        if test.low is not None and test.high is not None:
            gain += f" [{_gain(test, test.low)}, {_gain(test, test.high)}]"
        gain += _unit(test)
    means = _values(test, test.variant_mean, test.baseline_mean)
    theirs: list[Child] = []
    if test.report_estimate is not None:
        report = _gain(test, test.report_estimate) + _unit(test)
        if test.report_variant is not None:
            theirs = [" ", tag("span", f"({_values(test, test.report_variant, test.report_baseline)})", class_="part")]
    p = NONE if test.p_holm is None else ("< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}")
    what = tag(
        "td",
        tag("span", MARKS[test.outcome], class_="mark", title=test.outcome),
        f" {QUANTITIES[test.comparison.quantity].words}: ",
        tag("span", *_stated(test, place), class_="test"),
        class_="comparison",
    )
    cells = [what]
    for label, text, more in (
        ("gain [95 %]", gain, []),
        ("means", means, []),
        ("p (Holm)", p, []),
        ("report", report, theirs),
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


# Final figures of a section


def _last(runs: Sequence[RunRecord], quantity: str) -> str:
    values = [run.rows[-1].get(quantity) for run in runs]
    numbers = np.array([value for value in values if value is not None], float)
    return _mean(numbers, quantity) if len(numbers) else NONE


def _mean(numbers: np.ndarray, quantity: str) -> str:
    factor, digits = (100, ".2f") if "accuracy" in quantity else (1, ".4g")
    mean = format(factor * numbers.mean(), digits)
    return mean if len(numbers) < 2 else f"{mean} ± {format(factor * numbers.std(ddof=1), '.2g')}"


def _report_last(rows: Sequence[Row], quantity: str) -> str:
    value = rows[-1].get(quantity) if rows else None
    return NONE if value is None else _mean(np.array([value], float), quantity)


def final_table(section: Section, results: StudyResults) -> Element:
    """The last epoch of each variant: mean and standard deviation over the seeds."""
    test = test_quantities(section)[0]
    quantities = [train_quantity(section), *test_quantities(section), f"slow_{test}"]
    headings: list[Child] = ["variant", "seeds", *(_label(quantity) for quantity in quantities)]
    if section.report_budget:
        headings += [f"the report's {LABELS[test]}"]
    rows: list[list[Child]] = []
    for variant in section.variants:
        runs = results.by_variant(section, variant.name)
        cells: list[Child] = [variant.label, str(len(runs)), *(_last(runs, quantity) for quantity in quantities)]
        if section.report_budget:
            cells.append(_report_last(report_rows(section, variant), test))
        rows.append(cells)
    label = f"{section.title}: last epoch"
    return table(headings, rows, label, numbers=tuple(range(1, len(headings))))


def _label(quantity: str) -> str:
    return ("slow weights' " if quantity.startswith("slow_") else "") + LABELS[quantity.removeprefix("slow_")]


# Settings and runs of a section


def _settings(config: Config) -> dict[str, str]:
    found = {}
    for name, value, field in leaves(config):
        if field.metadata["identity"] and name != "seed":
            found[name] = (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
    return found


def settings(section: Section) -> Element:
    """What tells the variants apart, and what they have in common."""
    by_variant = {variant.label: _settings(variant.config) for variant in section.variants}
    names = list(next(iter(by_variant.values())))
    differing = [name for name in names if len({given[name] for given in by_variant.values()}) > 1]
    rows: list[list[Child]] = [[label, *(given[name] for name in differing)] for label, given in by_variant.items()]
    common = next(iter(by_variant.values()))
    items = [tag("div", tag("dt", name), tag("dd", common[name])) for name in names if name not in differing]
    words = f"they differ in {', '.join(differing)}" if differing else "all the same"
    made = tag("details", tag("summary", f"Settings: {words}"))
    if differing:
        made.append(table(["variant", *differing], rows, f"{section.title}: settings that differ"))
    made.append(tag("h4", f"{len(items)} in common"))
    made.append(tag("dl", *items))
    return made


def runs_table(section: Section, results: StudyResults) -> Element:
    """Every run of the section with its log."""
    train, test = train_quantity(section), test_quantities(section)[0]
    rows: list[list[Child]] = []
    for variant in section.variants:
        runs = sorted((r for r in results.runs.values() if r.variant_id == variant.id), key=lambda r: r.seed)
        for run in runs:
            finished = [run] if run.rows else []
            rows.append(
                [
                    variant.label,
                    str(run.seed),
                    run.status,
                    str(len(run.rows)) if run.rows else NONE,
                    *(_last(finished, quantity) for quantity in (train, test, f"slow_{test}")),
                    f"{run.seconds / 60:.1f}" if run.seconds else NONE,
                    run.provenance.get("date", NONE)[:16],
                    tag("code", run.id),
                    link(run.log, "log") if run.log else NONE,
                ]
            )
    done = sum(row[2] == "finished" for row in rows)
    headings: list[Child] = ["variant", "seed", "status", "epochs", *map(_label, (train, test, f"slow_{test}"))]
    headings += ["minutes", "date", "run", "log"]
    label = f"{section.title}: runs"
    return tag(
        "details",
        tag("summary", f"Runs: {done} of {len(rows)} finished"),
        table(headings, rows, label, numbers=(1, 3, 4, 5, 6, 7)),
    )
