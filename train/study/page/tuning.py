"""The tuning of a study in figures and tables: sensitivity, best score so far, time to target, performance profiles.

For each tuned section `<stem>_tuning`: the score of every trial against each tuned value, the chosen ones marked, and
the best score so far against the number of trials. For a study of several tuned sections `performance_profiles`.
Scores are those of the validation set after the last epoch.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from train.interface.output import Extras
from train.run.figures import new_figure, own_style, plain
from train.study.page.figures import COLOURS, DASHES, MARKERS, line_styles, save_both
from train.study.page.tables import Table
from train.study.plan import Section, Variant
from train.study.results.records import StudyResults
from train.study.results.tuning import (
    Trial,
    best_of,
    best_so_far,
    epochs_to_target,
    mean_scores,
    performance_profile,
    target_of,
    trials_of,
)
from train.study.verdicts.wording import NONE

PROFILES = "performance_profiles"


def _trials(section: Section, results: StudyResults) -> dict[str, list[Trial]]:
    return {variant.name: trials_of(section, variant, results.trials) for variant in section.variants}


def _shown(section: Section, scores: Any) -> Any:
    """Scores as people read them: per cent, or for language models the loss."""
    values = np.array([np.nan if score is None else score for score in scores], float)
    return -values if section.language_model else 100 * values


def _score_label(section: Section) -> str:
    return "validation loss" if section.language_model else "validation accuracy, %"


def _short(name: str) -> str:
    return name.removeprefix("optimizer.").removeprefix("options.").replace("_", " ")


def draw_tuning(section: Section, results: StudyResults, folder: Path) -> list[Path]:
    """Draws a tuned section's trials; nothing where none has a score."""
    found = _trials(section, results)
    if not any(trial.score is not None for trials in found.values() for trial in trials):
        return []
    # Settings that only some variants tune have a panel, too.
    names = list(dict.fromkeys(name for trials in found.values() for trial in trials for name in trial.values))
    ranges = {_short(name): r for v in section.variants for name, r in section.ranges(v).items()}
    figure, axes = new_figure(len(names) + 1, f"{section.key}  {section.title}: {section.trials} trials each")
    for variant, style in zip(section.variants, line_styles(section), strict=True):
        trials, best = found[variant.name], best_of(found[variant.name])
        look: dict[str, Any] = {"color": COLOURS[style.colour], "label": plain(variant.label)}
        for axis, name in zip(axes, names, strict=False):
            there = sorted((trial for trial in trials if name in trial.values), key=lambda t: t.values[name])
            values = [trial.values[name] for trial in there]
            scores = _shown(section, [trial.score for trial in there])
            axis.plot(values, scores, linestyle=DASHES[style.dash], linewidth=0.8, alpha=0.6, color=look["color"])
            axis.plot(values, scores, MARKERS[style.marker], markersize=5, **look)
            if best and name in best.values:
                at = _shown(section, [best.score])
                axis.plot([best.values[name]], at, "o", markersize=13, fillstyle="none", color=look["color"])
        so_far = _shown(section, best_so_far(trials))
        axes[-1].step(range(1, len(so_far) + 1), so_far, where="post", linestyle=DASHES[style.dash], **look)
    for axis, name in zip(axes, names, strict=False):
        axis.set(xlabel=_short(name), ylabel=_score_label(section))
        if ranges[_short(name)].log:
            axis.set_xscale("log")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set(xlabel="trials", ylabel=f"best {_score_label(section)}, so far")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].legend(frameon=False, fontsize=8)
    axes[0].set_title("ring: chosen; a trial without a point failed", fontsize=7.5, color="#444444")
    return save_both(figure, folder, f"{section.figure}_tuning")


def _times(section: Section, results: StudyResults) -> tuple[float | None, dict[str, int | None]]:
    """The section's target, and the epochs that each variant takes to it."""
    runs = {variant.name: results.by_variant(section, variant.name) for variant in section.variants}
    target = target_of(section, runs)
    return target, {name: epochs_to_target(mean_scores(found), target) for name, found in runs.items()}


def draw_profiles(results: StudyResults, folder: Path) -> list[Path]:
    """Draws the performance profiles of the variants that several tuned sections have in common."""
    tasks = [section for section in results.study.sections if section.trials]
    times = [_times(section, results)[1] for section in tasks]
    names = [v.name for v in tasks[0].variants if all(v.name in task for task in times)] if len(tasks) > 1 else []
    if not names or not any(time is not None for task in times for time in task.values()):
        return []
    ratios = np.geomspace(1, 4, 200)
    figure, (axis,) = new_figure(1, "Performance profiles")
    for variant, style in zip(tasks[0].variants, line_styles(tasks[0]), strict=True):
        if variant.name in names:
            share = performance_profile(times, variant.name, ratios.tolist())
            look = {"linestyle": DASHES[style.dash], "color": COLOURS[style.colour], "label": plain(variant.label)}
            axis.step(ratios, share, where="post", **look)
    axis.set(xlabel="time to target, over the fastest's", ylabel=f"part of the {len(tasks)} tasks", ylim=(-0.03, 1.03))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return save_both(figure, folder, PROFILES)


def draw_all_tuning(results: StudyResults, folder: Path, extras: Extras | None = None) -> list[Path]:
    """Draws what there is of tuning; arguments and result as of `train.study.page.figures.draw_all`."""
    paths: list[Path] = []
    drawings: list[Any] = [
        (f"of section {s.ref}'s tuning", draw_tuning, (s, results)) for s in results.study.sections if s.trials
    ]
    if drawings:
        drawings.append(("of the performance profiles", draw_profiles, (results,)))
    for what, draw, what_of in drawings:
        effort = extras.best_effort(f"the figure {what}") if extras else contextlib.nullcontext()
        with effort, own_style():
            paths += draw(*what_of, folder)
    return paths


def tuning_table(section: Section, results: StudyResults) -> Table:
    """What was chosen for each variant, what it scored, and how long the variant takes to the target."""
    found, (target, times) = _trials(section, results), _times(section, results)
    names = list(dict.fromkeys(name for trials in found.values() for trial in trials for name in trial.values))

    def row(variant: Variant) -> list[str]:
        trials, best = found[variant.name], best_of(found[variant.name])
        failed = sum(trial.status == "failed" for trial in trials)
        values = [f"{best.values[name]:g}" if best and name in best.values else NONE for name in names]
        score = f"{_shown(section, [best.score])[0]:.4g}" if best else NONE
        time = times[variant.name]
        return [variant.label, *values, str(best.number) if best else NONE, score, str(failed), str(time or NONE)]

    said = NONE if target is None else f"{_shown(section, [target])[0]:.4g}"
    headings = ["variant", *map(_short, names), "trial", _score_label(section), "failed", f"epochs to {said}"]
    rows = [row(variant) for variant in section.variants]
    return Table(f"{section.title}: tuning", headings, rows, tuple(range(1, len(headings))))
