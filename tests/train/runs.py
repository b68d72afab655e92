"""Reading and comparing the workdirs of two runs: for the tests of resume, and for the runs that are killed."""

import csv

import jax
import numpy as np

from train.interface.signals import StopRequest
from train.run.checkpointing import Checkpoints
from train.run.loop import train
from train.run.progress import Progress
from train.run.records import TIMING_COLUMNS


def final_tree(workdir):
    """The newest checkpoint as {path: NumPy array}, exactly as stored."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    step = max(checkpoints.steps())
    directory = (workdir / "checkpoints" / str(step) / "state").absolute()
    tree = checkpoints._checkpointer.restore(directory)
    checkpoints.close()
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def metrics_without_times(workdir):
    """The rows of metrics.csv as text, but for the columns that say how fast the machine was."""
    with (workdir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in rows]


def assert_same_run(first, second):
    """Every bit of the last checkpoint, every row of metrics.csv but its times."""
    assert metrics_without_times(first) == metrics_without_times(second)
    ours, theirs = final_tree(first), final_tree(second)
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        assert array.dtype == theirs[path].dtype, path
        np.testing.assert_array_equal(array, theirs[path], err_msg=path)


def train_some(config, workdir, wanted, monkeypatch):
    """Trains `wanted` steps in this process, then asks the run to stop; returns its outcome."""
    stop, made, step = StopRequest(), [], Progress.step

    def counted(self, count):
        step(self, count)
        made.append(1)
        if len(made) == wanted:
            stop.ask()

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "step", counted)
        return train(config, workdir, stop=stop, quiet=True)
