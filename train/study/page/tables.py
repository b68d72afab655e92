"""What the page says of a section in tables: last epochs, gains, settings, runs; for `templates/macros.html`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from train.config import Config
from train.run.records import Row
from train.setting import leaves
from train.study.page.data import test_quantities, train_quantity
from train.study.page.figures import LABELS, reference_rows
from train.study.page.summary import Summary
from train.study.plan import Section
from train.study.plan.quantities import QUANTITIES
from train.study.results.records import RunRecord, StudyResults
from train.study.verdicts.wording import NONE, gain_words, is_accuracy


class Table(NamedTuple):
    """A table; its first column heads the rows.

    Attributes:
      label: for readers who cannot see it.
      headings: a cell for each column.
      rows: cells, text or markup.
      numbers: columns that are aligned as numbers.
    """

    label: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: tuple[int, ...] = ()


# Final figures of a section


def _last(runs: Sequence[RunRecord], quantity: str) -> str:
    values = [run.rows[-1].get(quantity) for run in runs]
    numbers = np.array([value for value in values if value is not None], float)
    return _mean(numbers, quantity) if len(numbers) else NONE


def _mean(numbers: np.ndarray, quantity: str) -> str:
    factor, digits = (100, ".2f") if is_accuracy(quantity) else (1, ".4g")
    mean = format(factor * numbers.mean(), digits)
    return mean if len(numbers) < 2 else f"{mean} ± {format(factor * numbers.std(ddof=1), '.2g')}"


def _reference_last(rows: Sequence[Row], quantity: str) -> str:
    value = rows[-1].get(quantity) if rows else None
    return NONE if value is None else _mean(np.array([value], float), quantity)


def final_table(section: Section, results: StudyResults) -> Table:
    """The last epoch of each variant: mean and standard deviation over the seeds."""
    test = test_quantities(section)[0]
    quantities = [train_quantity(section), *test_quantities(section), f"slow_{test}"]
    headings = ["variant", "seeds", *(_label(quantity) for quantity in quantities)]
    if section.same_budget:
        headings += [f"{results.study.reference}'s {LABELS[test]}"]
    rows: list[list[str]] = []
    for variant in section.variants:
        runs = results.by_variant(section, variant.name)
        cells = [variant.label, str(len(runs)), *(_last(runs, quantity) for quantity in quantities)]
        if section.same_budget:
            cells.append(_reference_last(reference_rows(section, variant), test))
        rows.append(cells)
    return Table(f"{section.title}: last epoch", headings, rows, tuple(range(1, len(headings))))


def _label(quantity: str) -> str:
    return ("slow weights' " if quantity.startswith("slow_") else "") + LABELS[quantity.removeprefix("slow_")]


# Gains over the baseline

IMAGE_GAINS = ("late_accuracy", "final_accuracy", "slow_final_accuracy", "loss_area", "epochs_to_loss")
TEXT_GAINS = ("late_perplexity", "perplexity", "slow_perplexity", "loss_area", "epochs_to_loss")


def gains_table(section: Section, records: Mapping[tuple[str, str, str], Summary]) -> Table | None:
    """Gains over what each variant is held against, paired by seed; None where nothing has a pair.

    Args:
      section: the section.
      records: of `summarise`, by section, variant and quantity.
    """
    quantities = TEXT_GAINS if section.language_model else IMAGE_GAINS
    rows: list[list[str]] = []
    for variant in section.variants:
        found = [records.get((section.ref, variant.name, quantity)) for quantity in quantities]
        pairs = max((record.pairs for record in found if record), default=0)
        if not pairs:
            continue
        gains = [NONE if r is None else gain_words(r.quantity, r.gain, r.gain_low, r.gain_high) for r in found]
        rows.append([variant.label, section.against(variant).label, str(pairs), *gains])
    if not rows:
        return None
    headings = ["variant", "against", "seeds", *(QUANTITIES[quantity].words for quantity in quantities)]
    return Table(f"{section.title}: gains", headings, rows, tuple(range(2, len(headings))))


# Settings and runs of a section


def _settings(config: Config) -> dict[str, str]:
    found = {}
    for name, value, field in leaves(config):
        if field.metadata["identity"] and name != "seed":
            found[name] = (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
    return found


def settings(section: Section) -> dict[str, Any]:
    """What tells the variants apart ("differing", "table"), and what they have in common ("common")."""
    found = {variant.label: _settings(variant.config) for variant in section.variants}
    names = dict.fromkeys(name for given in found.values() for name in given)  # options are not the same for all
    by_variant = {label: {name: given.get(name, NONE) for name in names} for label, given in found.items()}
    common = next(iter(by_variant.values()))
    differing = [name for name in common if len({given[name] for given in by_variant.values()}) > 1]
    rows = [[label, *(given[name] for name in differing)] for label, given in by_variant.items()]
    return {
        "differing": differing,
        "table": Table(f"{section.title}: settings that differ", ["variant", *differing], rows),
        "common": {name: value for name, value in common.items() if name not in differing},
    }


def runs_table(section: Section, results: StudyResults) -> Table:
    """Every run of the section with its log."""
    train, test = train_quantity(section), test_quantities(section)[0]
    rows: list[list[str]] = []
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
                    Markup("<code>{}</code>").format(run.id),
                    Markup('<a href="./{}">log</a>').format(quote(run.log)) if run.log else NONE,
                ]
            )
    headings = ["variant", "seed", "status", "epochs", *map(_label, (train, test, f"slow_{test}"))]
    headings += ["minutes", "date", "run", "log"]
    return Table(f"{section.title}: runs", headings, rows, (1, 3, 4, 5, 6, 7))
