"""The figures of a study's runs: a line for each variant, a band over its seeds.

Each section draws two files of each kind: `<stem>_loss` and `<stem>_acc`, for language models `<stem>_train` and
`<stem>_test` (perplexity). The line is the mean over seeds, the band reaches from the lowest seed to the highest.
The live weights are tested; where a variant has slow weights, a diamond behind its last epoch
says where those end. A reference is a thin dashed line where it has the section's budget.

Drawn again from the same numbers, the files are the same byte for byte, so that a repository can hold them.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.interface.output import Extras
from train.run.figures import own_style, plain, save_figure
from train.run.records import Row
from train.study.plan import Section, Variant
from train.study.results.records import RunRecord, StudyResults

# Okabe and Ito's palette, the ones with most contrast to white first, and a grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7F7F7F")
# Those of variants with Lookahead, and of the others.
SOLID, DASHED = (0, 1, 2), (3, 4, 5)
DASHES = ("-", (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (4, 2)), (0, (6, 2, 1.5, 2, 1.5, 2)), (0, (9, 3)))
MARKERS = ("o", "s", "^", "D", "v")

LABELS = {
    "train_loss": "training loss",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy, %",
    "train_perplexity": "training perplexity",
    "test_perplexity": "test perplexity",
}


class LineStyle(NamedTuple):
    """How a variant is drawn, in figures and on the page: positions in COLOURS, DASHES and MARKERS."""

    colour: int
    dash: int
    marker: int


def line_styles(section: Section) -> list[LineStyle]:
    """A style for each variant, told apart in colour and in grey.

    The first with Lookahead is solid, the first without it dashed. A variant that names a baseline of its own shares
    that one's colour; others have a colour each, with dashes and markers that repeat at other intervals.
    """
    pairs = any(variant.against for variant in section.variants)
    alone = [variant.name for variant in section.variants if not variant.against]
    seen = {True: 0, False: 0}
    styles = []
    for index, variant in enumerate(section.variants):
        head = variant
        while head.against:
            head = section.variant(head.against)
        place = alone.index(head.name)
        lookahead = variant.config.optimizer.lookahead
        dashes = SOLID if lookahead else DASHED
        dash = dashes[0 if pairs else seen[lookahead] % len(dashes)]
        seen[lookahead] += 1
        styles.append(LineStyle(place % len(COLOURS), dash, index % len(MARKERS)))
    return styles


class Curve(NamedTuple):
    """A quantity of a variant over its epochs: arrays [epochs].

    Attributes:
      epochs: their numbers.
      mean: over the seeds; NaN where a seed has no finite value.
      low: the lowest seed.
      high: the highest seed.
      seeds: how many there are.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def values(rows: Sequence[Row], quantity: str) -> np.ndarray:
    """A column as float64 [epochs], NaN where it is empty or infinite; accuracies in percent."""
    column = np.array([np.nan if row.get(quantity) is None else row[quantity] for row in rows], float)
    column[~np.isfinite(column)] = np.nan
    return 100 * column if quantity.endswith("accuracy") else column


def curve(runs: Sequence[RunRecord], quantity: str) -> Curve | None:
    """Mean and reach of a variant's finished runs; None where there are none, or none has the quantity."""
    if not runs:
        return None
    length = min(len(run.rows) for run in runs)
    columns = np.stack([values(run.rows[:length], quantity) for run in runs])
    if np.isnan(columns).all():
        return None
    epochs = np.array([row["epoch"] for row in runs[0].rows[:length]])
    return Curve(epochs, columns.mean(axis=0), columns.min(axis=0), columns.max(axis=0), len(runs))


def reference_rows(section: Section, variant: Variant) -> Sequence[Row]:
    """The epochs of a variant's reference; none where it has no reference, or one of another budget."""
    return variant.reference.rows if variant.reference and section.same_budget else ()


def save_both(figure: Any, folder: Path, stem: str) -> list[Path]:
    """Writes stem.png and stem.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        save_figure(figure, path, dpi=120)
    return paths


def _draw_variant(axis: Any, style: LineStyle, label: str, found: Curve) -> None:
    colour = COLOURS[style.colour]
    # Markers are set apart from each other, so that overlapping lines can be followed.
    every = max(1, len(found.epochs) // 10)
    axis.plot(
        found.epochs,
        found.mean,
        linestyle=DASHES[style.dash],
        color=colour,
        linewidth=1.6,
        marker=MARKERS[style.marker],
        markersize=4,
        markevery=(style.marker * every // len(MARKERS), every),
        label=plain(f"{label}, {found.seeds} seed{'s' * (found.seeds > 1)}"),
    )
    if found.seeds > 1:
        axis.fill_between(found.epochs, found.low, found.high, color=colour, alpha=0.18, linewidth=0)


def _log_axis(axis: Any) -> None:
    """A logarithmic axis with plain numbers: 1, 2, 5 of each decade, more of them where the axis is short."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    ticks = np.array([])
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = np.outer(decades, digits).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) > 3:
            break
    else:
        ticks = np.asarray(MaxNLocator(6).tick_values(low, high))
    axis.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylim(low, high)


def _draw(section: Section, results: StudyResults, quantity: str) -> Any:
    """The figure of one quantity; None where no variant has it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    many = len(section.variants) > 6
    figure = Figure(figsize=(9.2 if many else 6.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    several, slow_weights, logged = False, False, False
    for variant, style in zip(section.variants, line_styles(section), strict=True):
        records = results.by_variant(section, variant.name)
        found = curve(records, quantity)
        if found is None:
            continue
        _draw_variant(axis, style, variant.label, found)
        several |= found.seeds > 1
        colour = COLOURS[style.colour]
        if rows := reference_rows(section, variant):
            logged = True
            epochs = [row["epoch"] for row in rows]
            axis.plot(epochs, values(rows, quantity), linestyle=(0, (4, 2)), color=colour, linewidth=0.7, alpha=0.9)
        slow = curve(records, f"slow_{quantity}") if quantity.startswith("test_") else None
        if slow is not None:
            slow_weights = True
            beyond = slow.epochs[-1] * 1.02 + 0.15
            error = [[slow.mean[-1] - slow.low[-1]], [slow.high[-1] - slow.mean[-1]]]
            how = {"color": colour, "markeredgecolor": "black", "markeredgewidth": 0.6, "markersize": 6}
            axis.errorbar([beyond], [slow.mean[-1]], yerr=error, fmt="D", linewidth=1, **how)
    if not axis.lines:
        return None
    axis.set(xlabel="epoch", ylabel=LABELS[quantity])
    if "accuracy" not in quantity:
        _log_axis(axis)
    axis.grid(alpha=0.3, which="both")
    said = ["line: mean over seeds", "band: lowest to highest"] if several else ["one seed each"]
    said += ["diamond: slow weights at the end"] if slow_weights else []
    said += [f"thin dashed: {results.study.reference}'s run"] if logged else []
    axis.set_title(plain("\n".join(filter(None, (section.budget, "; ".join(said))))), fontsize=7.5, color="#444444")
    figure.suptitle(plain(f"{section.key}  {section.title}"), fontsize=11)
    if many:
        figure.legend(frameon=False, fontsize=8, handlelength=3.4, loc="outside right center")
    else:
        axis.legend(frameon=False, fontsize=8, handlelength=3.4, loc="best")
    return figure


def draw_section(section: Section, results: StudyResults, folder: Path) -> list[Path]:
    """Draws the figures of one section; none where no run of it has finished."""
    if section.language_model:
        wanted = {"train": "train_perplexity", "test": "test_perplexity"}
    else:
        wanted = {"loss": "train_loss", "acc": "test_accuracy"}
    paths: list[Path] = []
    for ending, quantity in wanted.items():
        figure = _draw(section, results, quantity)
        if figure is not None:
            paths += save_both(figure, folder, f"{section.figure}_{ending}")
    return paths


def draw_all(results: StudyResults, folder: Path, extras: Extras | None = None) -> list[Path]:
    """Draws the figures of every section that has finished runs.

    Args:
      results: what to draw.
      folder: where the files go.
      extras: where the error of a section that cannot be drawn ends, while the others are drawn; raised if None.

    Returns:
      The files written, PNG and SVG of each figure.
    """
    paths: list[Path] = []
    for section in results.study.sections:
        effort = extras.best_effort(f"the figures of section {section.ref}") if extras else contextlib.nullcontext()
        with effort, own_style():
            paths += draw_section(section, results, folder)
    return paths
