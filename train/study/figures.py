"""Loss and accuracy of a study's variants over the epochs, with the spread over seeds."""

from pathlib import Path

import numpy as np

from train.figures import new_figure, save_figure
from train.study.plan import Study
from train.study.summary import Runs

# Okabe and Ito's palette and line styles: told apart by colour-blind readers, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")


def draw_study(study: Study, runs: Runs, paths: list[Path]) -> None:
    """Draws training loss and test accuracy: mean line, band from the lowest to the highest seed.

    Where a variant has slow weights, its accuracy is theirs: they are what Lookahead is evaluated with.
    """
    figure, axes = new_figure(2, study.title)
    for index, variant in enumerate(study.variants):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)]
        accuracy = "slow_test_accuracy" if variant.config.optimizer.lookahead else "test_accuracy"
        for axis, quantity in zip(axes, ("train_loss", accuracy), strict=True):
            epochs = [row["epoch"] for row in runs[variant.name][0]]
            values = np.array([[row[quantity] for row in rows] for rows in runs[variant.name]], float)
            axis.plot(epochs, values.mean(axis=0), style, color=colour, label=variant.name, linewidth=1.6)
            axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    axes[0].set(xlabel="epoch", ylabel="training loss", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="test accuracy")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[1].legend(frameon=False, loc="lower right")
    for path in paths:
        save_figure(figure, path)
