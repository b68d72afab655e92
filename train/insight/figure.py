"""Draws the picture of `train.insight` from its numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from train.data import TITLES
from train.insight.points import STEM, Insight, Point, read
from train.run.figures import own_style, plain
from train.study.page.figures import save_both

# Distinguishable on a surface from dark blue to yellow, and in greyscale by line style and marker.
WITHOUT, WITH, SLOW, BLUE = "#D55E00", "#FFFFFF", "#CC79A7", "#0072B2"


def _title(facts: dict[str, Any]) -> str:
    optimizer = facts["optimizer"]
    name = {"sgd": "SGD", "adam": "Adam", "radam": "RAdam"}.get(optimizer["name"], optimizer["name"])
    return (
        f"{TITLES.get(facts['dataset'], facts['dataset'])}, {facts['model']}: Lookahead "
        f"(k = {optimizer['sync_period']}, α = {optimizer['slow_step_size']:g}) around {name}, "
        f"rate {facts['learning_rate']:g}, from epoch {facts['epoch']:g} of one run"
    )


def _caveat(insight: Insight) -> str:
    """The picture's limits: how far from the plane the weights are, and how precise an accuracy is."""
    facts, period = insight.facts, insight.facts["optimizer"]["sync_period"]
    paths = [point for point in insight.points if point.kind not in ("grid", "line")]
    first = max(point.off_plane for point in paths if point.step <= period)
    later = max((point.off_plane for point in paths if point.step > period), default=0.0)
    accuracy = np.mean([point.test_accuracy for point in paths])
    error = 100 * np.sqrt(accuracy * (1 - accuracy) / facts["test_examples"])
    said = f"projected onto the plane: the first cycle is at most {first:.2g} off it"
    said += f", later weights up to {later:.2g}" if later else ""
    return f"{said}; {facts['test_examples']:,} test examples: standard error {error:.1f} points"


def _surface(figure, axis, insight: Insight) -> None:
    grid = insight.of("grid")
    xs, ys = sorted({p.x for p in grid}), sorted({p.y for p in grid})
    accuracy = np.array([p.test_accuracy for p in grid]).reshape(len(ys), len(xs)) * 100
    filled = axis.contourf(xs, ys, accuracy, levels=14, cmap="viridis")
    lines = axis.contour(xs, ys, accuracy, levels=filled.levels[::2], colors="black", linewidths=0.5, alpha=0.6)
    axis.clabel(lines, fmt=lambda level: f"{level:g} %", fontsize=7)
    figure.colorbar(filled, ax=axis, label="test accuracy, %", pad=0.02)
    axis.set(xlabel="along the first cycle's fast weights", ylabel="at right angles")


def _paths(axis, insight: Insight) -> None:
    from matplotlib import patheffects

    period = insight.facts["optimizer"]["sync_period"]
    outlined = [patheffects.Stroke(linewidth=3.4, foreground="black"), patheffects.Normal()]
    without, with_, slow = insight.of("without"), insight.of("with"), insight.of("slow")

    def line(points: list[Point], style: str, colour: str, label: str, **how) -> None:
        axis.plot(
            [p.x for p in points],
            [p.y for p in points],
            style,
            color=colour,
            label=label,
            markersize=4,
            path_effects=outlined,
            **how,
        )

    line(without[period:], "--s", WITHOUT, "continued without Lookahead", linewidth=1.6)
    line(with_, "-o", WITH, "with Lookahead: fast weights", linewidth=1.6)
    line(slow, "-D", SLOW, "slow weights", linewidth=2.2)
    axis.plot(slow[0].x, slow[0].y, "*", color="white", markeredgecolor="black", markersize=15)
    alpha = insight.facts["optimizer"]["slow_step_size"]
    for point, text, place in (
        (slow[0], "start: slow and fast weights", (8, -16)),
        (without[period], f"fast weights after {period} steps", (8, 12)),
        (slow[1], f"slow weights after the sync (α = {alpha:g})", (-20, -30)),
    ):
        axis.annotate(
            text,
            (point.x, point.y),
            xytext=place,
            textcoords="offset points",
            color="white",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "white", "linewidth": 0.8},
            path_effects=[patheffects.Stroke(linewidth=2, foreground="black"), patheffects.Normal()],
        )
    axis.legend(loc="upper right", fontsize=8, facecolor="#BBBBBB", framealpha=0.85)


def _line(axis, insight: Insight) -> None:
    """The loss on the line of the first sync, on which the slow step size chooses a point."""
    period, alpha = insight.facts["optimizer"]["sync_period"], insight.facts["optimizer"]["slow_step_size"]
    length = insight.of("without")[period].x
    points = insight.of("line")
    axis.plot([p.x / length for p in points], [p.test_loss for p in points], "-", color=BLUE)
    lowest = min(points, key=lambda point: point.test_loss)
    for x, text in ((0.0, "slow"), (alpha, f"α = {alpha:g}"), (1.0, "fast")):
        axis.axvline(x, color="grey", linewidth=0.8, linestyle=":")
        axis.text(x, 1.01, text, transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
    axis.plot(lowest.x / length, lowest.test_loss, "v", color=WITHOUT, label=f"lowest: {lowest.x / length:.2f}")
    axis.set(xlabel="slow step size: from the slow weights to the fast ones", ylabel="test loss")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)


def _steps(axis, insight: Insight) -> None:
    """The accuracy of the weights themselves, not of their projections."""
    for kind, style, colour, label in (
        ("without", "--s", WITHOUT, "without Lookahead"),
        ("with", "-o", BLUE, "with Lookahead: fast weights"),
        ("slow", "D", SLOW, "slow weights"),
    ):
        points = insight.of(kind)
        steps, accuracy = [p.step for p in points], [100 * p.test_accuracy for p in points]
        axis.plot(steps, accuracy, style, color=colour, label=label, markersize=7 if kind == "slow" else 4)
    for step in {p.step for p in insight.of("slow")} - {0}:
        axis.axvline(step, color="grey", linewidth=0.6, linestyle=":")
    axis.set(xlabel="steps from the start (dotted: syncs)", ylabel="test accuracy, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)


@own_style()
def draw_insight(folder: Path) -> list[Path]:
    """Draws insight.png and insight.svg from insight.csv and insight.json in the same folder.

    Raises:
      UserError: the numbers are missing or cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    insight = read(folder)
    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain(f"{_title(insight.facts)}\n{_caveat(insight)}"), fontsize=10)
    axes = figure.subplot_mosaic([["surface", "line"], ["surface", "steps"]], width_ratios=(1.6, 1))
    _surface(figure, axes["surface"], insight)
    _paths(axes["surface"], insight)
    _line(axes["line"], insight)
    _steps(axes["steps"], insight)
    return save_both(figure, folder, STEM)
