"""The curves of a study as the page's script reads them: compact JSON, a curve that several sections share once."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.run.records import Row
from train.study.page.figures import LABELS, curve, line_styles, reference_rows, values
from train.study.plan import Section, Variant
from train.study.results.records import RunRecord, StudyResults

HINT = (
    "Point at a curve for its values, or focus a chart and use the arrow keys. Drag to zoom, double-click to zoom out. "
    "Lines are means over the seeds; bands extend from the lowest seed to the highest."
)


def train_quantity(section: Section) -> str:
    """What the chart of the training shows."""
    return "train_perplexity" if section.language_model else "train_loss"


def test_quantities(section: Section) -> list[str]:
    """What the chart of the test can show; the first one to begin with."""
    return ["test_perplexity"] if section.language_model else ["test_accuracy", "test_loss"]


def _shown(section: Section) -> list[str]:
    tests = test_quantities(section)
    return [train_quantity(section), *tests, *(f"slow_{quantity}" for quantity in tests)]


def rounded(column: np.ndarray, digits: int = 5) -> list[float | int | None]:
    """Numbers to so many significant digits, whole ones as such; None where there is none."""
    found: list[float | int | None] = []
    for value in column.tolist():
        short = float(f"{value:.{digits}g}") if np.isfinite(value) else None
        found.append(int(short) if short is not None and short.is_integer() else short)
    return found


def _curve_json(section: Section, runs: Sequence[RunRecord]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for quantity in _shown(section):
        found = curve(runs, quantity)
        if found is not None:
            made[quantity] = {"mean": rounded(found.mean)}
            if found.seeds > 1:
                # As distances from the mean, two digits are a hundredth of the band, and a sixth less to store.
                below, above = found.mean - found.low, found.high - found.mean
                made[quantity] |= {"below": rounded(below, 2), "above": rounded(above, 2)}
    return made


def _reference_json(section: Section, rows: Sequence[Row]) -> dict[str, Any]:
    columns = {quantity: values(rows, quantity) for quantity in _shown(section)}
    return {name: rounded(column) for name, column in columns.items() if np.isfinite(column).any()}


class _Shared:
    """Values of a JSON array, each once by its key."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._index: dict[Any, int] = {}

    def index(self, key: Any, make: Any) -> int | None:
        """Where the value of the key is; None where it is empty."""
        if key not in self._index:
            made = make()
            if not made:
                return None
            self._index[key] = len(self.items)
            self.items.append(made)
        return self._index[key]


def page_data(results: StudyResults) -> dict[str, Any]:
    """What page.js draws: curves by section and variant, with means over the seeds."""
    curves, references = _Shared(), _Shared()

    def of(section: Section, variant: Variant) -> tuple[int | None, int | None]:
        runs, rows = results.by_variant(section, variant.name), reference_rows(section, variant)
        kind, name = section.language_model, variant.reference and variant.reference.name
        return (
            curves.index((variant.id, kind), lambda: _curve_json(section, runs)),
            references.index((name, kind), lambda: _reference_json(section, rows)) if rows else None,
        )

    sections = []
    for index, section in enumerate(results.study.sections):
        variants = []
        for variant, style in zip(section.variants, line_styles(section), strict=True):
            ours, logged = of(section, variant)
            look = {"colour": style.colour, "dash": style.dash}
            variants.append({"label": variant.label, "curve": ours, "reference": logged, **look})
        if any(v["curve"] is not None for v in variants):
            sections.append(
                {
                    "id": section_id(index),
                    "train": train_quantity(section),
                    "test": test_quantities(section),
                    "variants": variants,
                }
            )
    labels = LABELS | {f"slow_{q}": f"{text}: slow weights" for q, text in LABELS.items() if q.startswith("test_")}
    return {
        "labels": labels,
        "hint": HINT,
        "curves": curves.items,
        "references": references.items,
        "reference": results.study.reference.removeprefix("the "),
        "sections": sections,
    }


def section_id(index: int) -> str:
    """The section's id in the page."""
    return f"section-{index + 1}"


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end that."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
