"""A run keeps what computed its convolutions when it began: oneDNN, or XLA and our lowerings."""

import json
import subprocess
import sys

import pytest

import train.run.loop
from tests.train.runs import assert_same_run, final_tree, train_some
from train.errors import UserError
from train.models.cpu import native, onednn
from train.models.cpu.geometry import Geometry

fast = pytest.mark.skipif(
    not onednn.is_fast(Geometry((2, 8, 8, 32), (3, 3, 32, 32), (2, 2), ((1, 1), (1, 1)))),
    reason="oneDNN, a compiler or AVX-512 is missing (extra onednn)",
)


@pytest.fixture
def remove_onednn(monkeypatch):
    """Makes oneDNN unavailable until the end of the test."""

    def load():
        raise native.NotInstalled("onednn-cpu-gomp is not installed")

    def forget():
        onednn._library.cache_clear()
        onednn.implementation.cache_clear()

    def remove():
        monkeypatch.setattr(native, "load", load)
        forget()

    yield remove
    monkeypatch.undo()
    forget()


def convolutions(workdir):
    return json.loads((workdir / "run.json").read_text())["convolutions"]


@fast
def test_two_processes_with_onednn_train_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "train", "--config=configs/digits_cnn.py", "--config.epochs=2"]
    command += ["--config.train_examples=640", "--config.batch_size=64", "--config.test_examples=64"]
    for name in ("one", "two"):
        subprocess.run([*command, f"--workdir={tmp_path / name}"], check=True, capture_output=True, timeout=300)
        assert convolutions(tmp_path / name) == onednn.version()
    assert_same_run(tmp_path / "one", tmp_path / "two")


@fast
def test_a_run_that_began_with_onednn_is_refused_without_it(small_config, tmp_path, monkeypatch, remove_onednn):
    train_some(small_config, tmp_path, 3, monkeypatch)
    version, before = onednn.version(), final_tree(tmp_path)
    assert convolutions(tmp_path) == version
    remove_onednn()
    with pytest.raises(UserError, match=rf"whose convolutions were computed by {version}; here XLA would.*\[onednn\]"):
        train.run.loop.train(small_config, tmp_path, quiet=True)
    assert convolutions(tmp_path) == version
    assert final_tree(tmp_path).keys() == before.keys()


@fast
def test_a_run_that_began_without_onednn_goes_on_without_it(small_config, tmp_path, monkeypatch, remove_onednn):
    remove_onednn()
    for name, steps in (("whole", 10**6), ("stopped", 3)):
        train_some(small_config, tmp_path / name, steps, monkeypatch)
    (run := json.loads((tmp_path / "stopped" / "run.json").read_text())).pop("convolutions")
    (tmp_path / "stopped" / "run.json").write_text(json.dumps(run))  # as runs from before there was a choice have it
    monkeypatch.undo()
    onednn._library.cache_clear()
    onednn.implementation.cache_clear()
    assert onednn.version() is not None
    train.run.loop.train(small_config, tmp_path / "stopped", quiet=True)
    assert convolutions(tmp_path / "stopped") == "XLA"
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
