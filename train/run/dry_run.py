"""`python -m train ... --dry_run`: what a command would do. Nothing is compiled, trained or written."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax

from train.config import Config
from train.experiment import load_dataset, make_recipe
from train.interface.words import duration_words
from train.run.checkpointing import saved_steps
from train.run.records import Row, read_rows, seconds_per_epoch
from train.run.recovery import check_not_lost
from train.run.workdir import Workdir
from train.setting import leaves
from train.step.parallel import Parallel, run_devices
from train.step.steps import abstract_state, tree_bytes

__all__ = ["dry_run"]


def dry_run(config: Config, runs: Sequence[tuple[Config, Path]]) -> str:
    """Works a command out from its config, its data and its workdirs, and says what would happen.

    Args:
      config: validated.
      runs: what the command would train: the config and its workdir, or with `seeds_per_program` those of each seed.
        A workdir need not exist.

    Returns:
      Lines for people.

    Raises:
      UserError: the run would be refused.
    """
    standing = [_standing(run, directory) for run, directory in runs]
    parallel = Parallel.of(run_devices(config.devices), "local" if config.local_steps else config.parallel)
    dataset = load_dataset(config)
    for directory, _, _ in standing:
        directory.check_data(dataset.source, dataset.digest, None)
    recipe = make_recipe(config, dataset, parallel.share)
    alone = make_recipe(config, dataset) if config.local_steps else recipe  # the state of one worker
    state = abstract_state(alone)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    held = [tree_bytes(split) for split in (recipe.train_data, recipe.test_data, recipe.validation_data) if split]
    seeds = len(runs)
    lines = ["settings"]
    lines += [f"  {name} = {value!r}" for name, value, _ in leaves(config)]
    lines += [
        "",
        f"data        {dataset.source or dataset.name}: {len(dataset.train):,} training examples, "
        f"{len(dataset.test):,} test examples",
        f"devices     {len(parallel.devices)}: {parallel.devices[0].device_kind}",
        f"parameters  {parameters:,}{f' for each of {seeds} seeds' * (seeds > 1)}",
        f"steps       {recipe.total_steps:,}: {config.epochs} epochs of {recipe.steps_per_epoch:,}",
        f"memory      {_megabytes(seeds * tree_bytes(state))} on each device for weights and optimizer state, "
        f"{_megabytes(sum(held))} for data; gradients and activations come on top",
        f"checkpoint  {_megabytes(tree_bytes(state))} each{', for each seed' * (seeds > 1)}",
    ]
    for directory, progress, rows in standing:
        lines += [f"time        {_time_left(config, rows)}", f"workdir     {directory.path}: {progress}"]
    return "\n".join(lines)


def _standing(config: Config, workdir: Path) -> tuple[Workdir, str, list[Row]]:
    """The workdir; what it holds of this run, in words; and the rows of its metrics.csv."""
    directory = Workdir(workdir, config)
    directory.load()
    return directory, *_progress(directory, config)


def _progress(directory: Workdir, config: Config) -> tuple[str, list[Row]]:
    if not directory.has_run:
        return "the run would start from the beginning", []
    directory.check_settings()
    rows = read_rows(directory.metrics) if directory.metrics.exists() else []
    if directory.finished():
        return "the run is finished; nothing would be done", rows
    steps = saved_steps(directory.checkpoints)
    if not steps:
        check_not_lost(directory, len(rows))
        return "a run without a checkpoint is there; it would start from the beginning", rows
    kept = [row for row in rows if row["step"] <= steps[-1]]
    return f"the run would resume from step {steps[-1]:,}, after {len(kept)} of {config.epochs} epochs", kept


def _time_left(config: Config, rows: list[Row]) -> str:
    epoch = seconds_per_epoch(rows)
    if epoch is None:
        return "not known before an epoch of this run is done"
    left = duration_words(epoch * (config.epochs - len(rows)))
    return f"about {left} left, {duration_words(epoch)} an epoch so far"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"
