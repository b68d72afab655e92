"""Small runs: a few digits and a small CNN, seconds each."""

import dataclasses
import os
import pwd
import signal
import tempfile
from pathlib import Path

import pytest

from tests.train import runs
from train.config import Config, ModelConfig, OptimizerConfig
from train.run.progress import Progress


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
    """`final_tree(workdir)`: the newest checkpoint as {path: NumPy array}."""
    return runs.final_tree


@pytest.fixture
def assert_same_run():
    """`assert_same_run(first, second)` compares two workdirs."""
    return runs.assert_same_run


@pytest.fixture
def ctrl_c_at(monkeypatch):
    """Sends this process a real SIGINT when the run has made a given number of steps, or the call that makes it."""
    at = []
    step = Progress.step

    def step_and_signal(self, count):
        step(self, count)
        for due in [number for number in at if self._step - count < number <= self._step]:
            at.remove(due)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "step", step_and_signal)
    return at


@pytest.fixture
def ordinary_user():
    """Takes root's rights away for one test, and gives a folder that user can write to.

    What `setpriv --reuid` does to a command, done to this process: root may read anything, an ordinary user may not.
    """
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.fixture
def nobody_home(monkeypatch):
    """A user who has neither HOME nor a passwd entry, as in many containers."""

    def no_entry(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
