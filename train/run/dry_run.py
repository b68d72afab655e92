"""`python -m train ... --dry_run`: what a command would do. Nothing is compiled, trained or written."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import jax

from train.config import Config, differences, leaves
from train.errors import UserError
from train.experiment import load_dataset, make_recipe
from train.files import read_json
from train.run.records import Row, read_rows
from train.step.steps import abstract_state

__all__ = ["dry_run"]


def dry_run(config: Config, workdir: Path) -> str:
    """Works a run out from its config, its data and its workdir, and says what would happen.

    Args:
      config: validated.
      workdir: where it would be trained; it need not exist.

    Returns:
      Lines for people.

    Raises:
      UserError: the run would be refused.
    """
    progress, rows = _standing(config, workdir)
    dataset = load_dataset(config)
    recipe = make_recipe(config, dataset)
    state = abstract_state(recipe)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    held = [split.inputs.nbytes + split.targets.nbytes for split in (dataset.train, dataset.test)]
    lines = ["settings"]
    lines += [f"  {name} = {value!r}" for name, value, _ in leaves(config)]
    lines += [
        "",
        f"data        {dataset.source or dataset.name}: {len(dataset.train):,} training examples, "
        f"{len(dataset.test):,} test examples",
        f"parameters  {parameters:,}",
        f"steps       {recipe.total_steps:,}: {config.epochs} epochs of {recipe.steps_per_epoch:,}",
        f"memory      {_megabytes(_bytes(state))} on each device for weights and optimizer state, "
        f"{_megabytes(sum(held))} for data; gradients and activations come on top",
        f"checkpoint  {_megabytes(_bytes(state))} each",
        f"time        {_time_left(config, rows)}",
        f"workdir     {workdir}: {progress}",
    ]
    return "\n".join(lines)


def _standing(config: Config, workdir: Path) -> tuple[str, list[Row]]:
    """What the workdir holds of this run, in words, and the rows of its metrics.csv."""
    if not (workdir / "metrics.csv").exists() and not (workdir / "checkpoints").exists():
        return "the run would start from the beginning", []
    try:
        found = differences(read_json(workdir / "config.json"), config)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{workdir / 'config.json'} cannot be read ({error}); choose another workdir") from error
    if found:
        raise UserError(f"workdir {workdir} holds a run of another config: {'; '.join(found)}; choose another workdir")
    facts: Any = {}
    with contextlib.suppress(OSError, json.JSONDecodeError, UserError):
        facts = read_json(workdir / "run.json")
    rows = read_rows(workdir / "metrics.csv") if (workdir / "metrics.csv").exists() else []
    if not isinstance(facts, dict) or not facts.get("checkpoint"):
        return "a run without a checkpoint is there; it would start from the beginning", rows
    if facts.get("status") == "finished":
        return "the run is finished; nothing would be done", rows
    return f"the run would resume from step {facts['checkpoint']:,}, after {len(rows)} of {config.epochs} epochs", rows


def _time_left(config: Config, rows: list[Row]) -> str:
    """By the epochs that are done, the first left out where there are more: it may have waited for the compiler."""
    seconds = [row["seconds"] for row in rows[1:] or rows if row["seconds"]]
    if not seconds:
        return "not known before an epoch of this run is done"
    epoch = sum(seconds) / len(seconds)
    return f"about {_words(epoch * (config.epochs - len(rows)))} left, {_words(epoch)} an epoch so far"


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"
