"""A full or read-only disk: one clear line, the last checkpoint intact, nothing lost if space comes back."""

import errno
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from train.errors import RunFailed, UserError
from train.files import with_patience, write_atomic
from train.run.checkpointing import Checkpoints
from train.run.loop import train as train_run

ROOT = Path(__file__).resolve().parents[3]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    write_atomic(path, "old")
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_space_that_comes_back_in_time_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr("train.files._RETRY_SECONDS", 0.01)
    attempts = []

    def action():
        attempts.append(1)
        if len(attempts) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    with caplog.at_level(logging.WARNING):
        with_patience(action, seconds=30.0, what="the file")
    assert len(attempts) == 4
    assert "the file cannot be written: No space left on device; trying again" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("... File too large ...")]
)
def test_space_that_does_not_come_back_is_one_line(error):
    def action():
        raise error

    with pytest.raises(RunFailed, match=r"the file could not be written: (No space left|File too large).*make room"):
        with_patience(action, seconds=0.0, what="the file")


def test_other_errors_are_not_waited_for():
    def action():
        raise KeyError("a defect of ours")

    with pytest.raises(KeyError):
        with_patience(action, seconds=60.0, what="the file")


def test_a_read_only_workdir_is_refused(small_config, tmp_path):
    if os.geteuid() == 0:
        target = Path("/proc/lookahead")  # root may write anywhere else
    else:
        target = tmp_path / "closed"
        target.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be used"):
        train_run(small_config, target)


def run_with_file_limit(workdir, limit=None):
    """The command line under a limit on the size of files, in kB, which fails writes as a full disk does."""
    command = [sys.executable, "-m", "train", "--config=configs/digits_cnn.py", f"--workdir={workdir}"]
    command += ["--config.epochs=3", "--config.devices=1", "--config.disk_wait=1", "--config.train_examples=128"]
    if limit is not None:
        command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command]
    # A compilation cache of its own: the limit would cut its entries off as well.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.with_name("cache"))}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.run(command, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True)


def test_a_full_disk_ends_in_one_line_and_loses_nothing(tmp_path, final_tree):
    whole = run_with_file_limit(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    failed = run_with_file_limit(tmp_path / "run", limit=58)
    assert failed.returncode == 1, failed.stderr
    lines = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert "Traceback" not in failed.stderr
    again = run_with_file_limit(tmp_path / "run")
    assert again.returncode == 0, again.stderr
    ours, theirs = final_tree(tmp_path / "run"), final_tree(tmp_path / "whole")
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)


def test_a_checkpoint_that_had_to_wait_for_space_is_whole(small_config, replace, tmp_path, monkeypatch, final_tree):
    train_run(small_config, tmp_path / "whole", quiet=True)
    monkeypatch.setattr("train.files._RETRY_SECONDS", 0.01)
    fail = threading.Event()
    original = Checkpoints._write

    def sometimes_full(self, step, tree, progress):
        if step == 7 and not fail.is_set():
            fail.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, step, tree, progress)

    monkeypatch.setattr(Checkpoints, "_write", sometimes_full)
    train_run(small_config, tmp_path / "waited", quiet=True)
    assert fail.is_set()
    ours, theirs = final_tree(tmp_path / "waited"), final_tree(tmp_path / "whole")
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
