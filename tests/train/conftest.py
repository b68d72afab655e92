"""Small runs: a few digits and a small CNN, seconds each."""

import csv
import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

import train.run
from train.checkpointing import Checkpoints
from train.config import Config, ModelConfig, OptimizerConfig
from train.metrics import TIMING_COLUMNS


@pytest.fixture
def small_config():
    """Digits, 3 epochs of 7 steps, the last of them with 4 examples; Lookahead(Adam) with k = 5, prime to 7."""
    return Config(
        dataset="digits",
        epochs=3,
        batch_size=16,
        train_examples=100,
        test_examples=50,
        seed=7,
        devices=1,
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig(
            name="adam", learning_rate=0.01, decay_epochs=(2,), decay_delay=0, lookahead=True, sync_period=5
        ),
    )


@pytest.fixture
def replace():
    """`replace(config, batch_size=8, optimizer=dict(name="sgd"))`: a changed copy of a config."""

    def change(config, **changes):
        nested = {
            name: dataclasses.replace(getattr(config, name), **value)
            for name, value in changes.items()
            if isinstance(value, dict)
        }
        return dataclasses.replace(config, **{**changes, **nested})

    return change


@pytest.fixture
def final_tree():
    """Reads the newest checkpoint of a workdir as {path: NumPy array}, exactly as stored."""

    def read(workdir):
        checkpoints = Checkpoints(workdir / "checkpoints")
        step = max(checkpoints.steps())
        directory = (workdir / "checkpoints" / str(step) / "state").absolute()
        tree = checkpoints._checkpointer.restore(directory)
        checkpoints.close()
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    return read


def metrics_without_times(workdir):
    with (workdir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in rows]


@pytest.fixture
def assert_same_run(final_tree):
    """Compares two workdirs: every bit of the last checkpoint, every row of metrics.csv but its times."""

    def compare(first, second):
        assert metrics_without_times(first) == metrics_without_times(second)
        ours, theirs = final_tree(first), final_tree(second)
        assert ours.keys() == theirs.keys()
        for path, array in ours.items():
            assert array.dtype == theirs[path].dtype, path
            np.testing.assert_array_equal(array, theirs[path], err_msg=path)

    return compare


@pytest.fixture
def ctrl_c_at(monkeypatch):
    """Sends this process a real SIGINT when the run has made a given number of steps."""
    at = []
    step = train.run.Progress.step

    def step_and_signal(self):
        step(self)
        if self._step in at:
            at.remove(self._step)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train.run.Progress, "step", step_and_signal)
    return at
