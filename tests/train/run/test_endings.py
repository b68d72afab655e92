"""However a run ends it says so: in run.json, in one line; and a command that is refused leaves nothing behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from train.errors import RunFailed, UserError
from train.files import csv_text, read_csv, write_json
from train.interface.signals import StopRequest
from train.run import workdir as workdir_module
from train.run.loop import train
from train.run.records import MetricsFile, read_rows
from train.run.trainer import Trainer
from train.run.workdir import open_workdir
from train.step import runtime

ROOT = Path(__file__).resolve().parents[3]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def status(workdir):
    return json.loads((workdir / "run.json").read_text())


def everything(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def at_once():
    stop = StopRequest()
    stop.ask()
    return stop


@pytest.fixture
def fails(monkeypatch):
    """`fails("compile", error)`: that method of the trainer raises."""

    def make(method, error):
        def fail(*arguments, **keywords):
            raise error

        monkeypatch.setattr(Trainer, method, fail)

    return make


# Before the first epoch is done


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS=cuda"),
        ("JAX_DEFAULT_PRNG_IMPL", "bogus", "bogus"),
        ("JAX_TRANSFER_GUARD", "disallow", "Disallowed host-to-device transfer"),
        ("JAX_ENABLE_X64", "perhaps", "invalid truth value 'perhaps'"),
    ],
)
def test_what_jax_refuses_is_one_line_and_recorded(variable, value, words, tmp_path):
    workdir = tmp_path / "run"
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("JAX_", "XLA_"))} | {variable: value}
    command = [sys.executable, "-m", "train", "--config=configs/digits_cnn.py", f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING", "compiling"))]
    assert done.returncode == 1
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: the run failed before it finished its first epoch: ")
    assert words in errors[0]
    assert status(workdir)["status"] == "failed"
    assert "Traceback" in status(workdir)["traceback"]


ERRORS = [
    ("compile", RuntimeError("XLA ran out of memory\nallocating\na tensor")),
    ("abstract_state", ValueError("an optimizer of one's own")),
    ("abstract_state", MemoryError()),
    ("abstract_state", OSError(5, "Input/output error")),
]


@pytest.mark.parametrize(("method", "error"), ERRORS)
def test_an_error_before_the_first_row_is_one_line_and_recorded(method, error, small_config, tmp_path, fails):
    fails(method, error)
    with pytest.raises(RunFailed) as raised:
        train(small_config, tmp_path, quiet=True)
    assert "\n" not in str(raised.value)
    assert type(error).__name__ in str(raised.value)
    assert raised.value.__cause__ is error
    facts = status(tmp_path)
    assert facts["status"] == "failed"
    assert facts["error"].startswith(type(error).__name__)
    assert "in fail" in facts["traceback"]


def test_an_error_after_the_first_epoch_is_itself_and_recorded(small_config, tmp_path, monkeypatch):
    order, calls = Trainer.order, []

    def fail_later(self, state):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("a defect")
        return order(self, state)

    monkeypatch.setattr(Trainer, "order", fail_later)
    with pytest.raises(ValueError, match="a defect"):
        train(small_config, tmp_path, quiet=True)
    assert status(tmp_path)["error"] == "ValueError: a defect"
    assert status(tmp_path)["epoch"] == 1


def test_an_interrupt_is_recorded(small_config, tmp_path, fails):
    fails("compile", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(small_config, tmp_path, quiet=True)
    assert status(tmp_path)["status"] == "failed"


# Refused


REFUSED = {
    "more examples than there are": {"train_examples": 200_000},
    "a batch that is too large": {"batch_size": 5000},
    "more devices than there are": {"devices": 64},
    "no such data": {"dataset": "text", "data_dir": "/nonexistent"},
    "a model for other data": {"model": {"name": "gru"}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_command_leaves_nothing_and_the_corrected_one_runs(case, small_config, replace, tmp_path, at_once):
    workdir = tmp_path / "a" / "b"
    with pytest.raises(UserError):
        train(replace(small_config, **REFUSED[case]), workdir, quiet=True)
    assert everything(tmp_path) == {}
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        train(replace(small_config, **REFUSED[case]), tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["notes.txt"]


@pytest.mark.parametrize(
    "left",
    [{}, {"run.json": "[]"}, {"run.json": '{"status": "failed"}'}, {"run.json": '{"status": "failed", "starts": 1}'}],
)
def test_a_workdir_in_which_no_run_came_to_anything_belongs_to_nobody(left, small_config, replace, tmp_path):
    write_json(tmp_path / "config.json", {"batch_size": 5000})
    for name, text in left.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "checkpoints").mkdir()
    with open_workdir(tmp_path, replace(small_config, resume=False)) as workdir:
        workdir.start(["cpu:0 cpu"], model={})
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == small_config.batch_size
    # Now one has started.
    with pytest.raises(UserError, match="of another config"), open_workdir(tmp_path, replace(small_config, seed=8)):
        pass


# A full disk


@pytest.mark.parametrize("call", [0, 1, 2])  # config.json, run.json at the start, run.json at the end
def test_a_disk_that_is_full_for_a_while_ends_nothing(call, small_config, replace, tmp_path, monkeypatch):
    calls = []

    def write(path, value):
        calls.append(path.name)
        if call <= len(calls) - 1 < call + 2:
            raise FULL
        write_json(path, value)

    monkeypatch.setattr(workdir_module, "write_json", write)
    monkeypatch.setattr("train.files._RETRY_SECONDS", 0.0)
    with open_workdir(tmp_path, replace(small_config, disk_wait=60.0)) as workdir:
        workdir.start(["cpu:0 cpu"], model={})
        workdir.record("finished", patient=True)
    assert status(tmp_path)["status"] == "finished"
    assert (tmp_path / "config.json").exists()


def test_a_disk_that_is_full_when_the_workdir_is_made_is_waited_for(small_config, tmp_path, monkeypatch):
    mkdir, calls = Path.mkdir, []

    def full_twice(self, *arguments, **keywords):
        calls.append(self)
        if len(calls) <= 2:
            raise FULL
        mkdir(self, *arguments, **keywords)

    monkeypatch.setattr("train.files._RETRY_SECONDS", 0.0)
    monkeypatch.setattr(Path, "mkdir", full_twice)
    with open_workdir(tmp_path / "run", small_config):
        assert len(calls) == 3


@pytest.mark.parametrize("error", [RuntimeError("no device"), ValueError("a size"), OSError(5, "Input/output error")])
def test_a_disk_that_stays_full_hides_no_error(error, small_config, replace, tmp_path, monkeypatch):
    def full_from_then_on(self):
        monkeypatch.setattr(workdir_module, "write_json", lambda path, value: (_ for _ in ()).throw(FULL))
        raise error

    monkeypatch.setattr(Trainer, "abstract_state", full_from_then_on)
    with pytest.raises(RunFailed) as raised:
        train(replace(small_config, disk_wait=0.0), tmp_path, quiet=True)
    assert raised.value.__cause__ is error
    assert error.__context__ is None


def test_a_full_disk_at_the_start_is_one_error(small_config, replace, tmp_path, monkeypatch):
    monkeypatch.setattr(workdir_module, "write_json", lambda path, value: (_ for _ in ()).throw(FULL))
    with pytest.raises(RunFailed, match=r"config.json could not be written: No space left on device.* make room"):
        train(replace(small_config, disk_wait=0.0), tmp_path / "run", quiet=True)


# What is there, and what has been taken away


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A workdir with two epochs of three, as a kill leaves it."""
    from train.config import Config, ModelConfig, OptimizerConfig

    optimizer = OptimizerConfig(name="adam", learning_rate=0.01, decay_epochs=(2,), decay_delay=0, sync_period=5)
    config = Config(
        dataset="digits",
        epochs=3,
        batch_size=16,
        train_examples=100,
        test_examples=50,
        seed=7,
        devices=1,
        model=ModelConfig(name="small_cnn"),
        optimizer=optimizer,
    )
    folder = tmp_path_factory.mktemp("run")
    evaluate, stop = Trainer.evaluate, StopRequest()

    def ask_in_the_second(self, state, **keywords):
        if int(state.step) >= 14:
            stop.ask()
        return evaluate(self, state, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "evaluate", ask_in_the_second)
        assert train(config, folder, stop=stop, quiet=True).status == "stopped"
    return config, folder


@pytest.fixture
def copied(stopped, tmp_path):
    config, folder = stopped
    shutil.copytree(folder, tmp_path / "run")
    return config, tmp_path / "run"


def empty(folder):
    for path in folder.iterdir():
        shutil.rmtree(path)


GONE = {
    "deleted": lambda workdir: shutil.rmtree(workdir / "checkpoints"),
    "deleted, run.json as well": lambda workdir: (
        shutil.rmtree(workdir / "checkpoints"),
        (workdir / "run.json").unlink(),
    ),
    "emptied": lambda workdir: empty(workdir / "checkpoints"),
    "moved away": lambda workdir: (workdir / "checkpoints").rename(workdir / "old_checkpoints"),
}


@pytest.mark.parametrize("case", GONE)
def test_checkpoints_that_are_gone_do_not_cost_the_rows(case, copied, at_once):
    config, workdir = copied
    GONE[case](workdir)
    rows = (workdir / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=r"has 2 rows, but the checkpoints in .* are gone; restore them, or delete"):
        train(config, workdir, stop=at_once, quiet=True)
    assert (workdir / "metrics.csv").read_bytes() == rows


def test_a_run_killed_before_its_first_checkpoint_goes_on(copied, at_once):
    config, workdir = copied
    empty(workdir / "checkpoints")
    facts = status(workdir)
    del facts["checkpoint"]
    write_json(workdir / "run.json", facts | {"status": "running"})
    assert train(config, workdir, stop=at_once, quiet=True).rows == []


@pytest.mark.parametrize(
    ("name", "cells", "place"),
    [
        ("note", ["=a", 'good, "very"'], None),
        ("minutes", ["1.50", ""], 0),
        ("复", ["1e3", "nan"], 5),
        ("comment", ["two\nlines", "'"], 3),
    ],
)
def test_columns_of_the_users_own_are_kept(name, cells, place, tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    for epoch in (1, 2):
        metrics.append({"epoch": epoch, "step": 7 * epoch, "train_loss": 1.0 / epoch})
    columns, rows = read_csv(tmp_path / "metrics.csv")
    columns = [*columns[:place], name, *columns[place:]] if place is not None else [*columns, name]
    rows = [row | {name: cell} for row, cell in zip(rows, cells, strict=True)]
    (tmp_path / "metrics.csv").write_text(csv_text(columns, rows))
    # As a resume from the first epoch does.
    again = MetricsFile(tmp_path / "metrics.csv")
    again.keep_until(7)
    again.append({"epoch": 2, "step": 14, "train_loss": 0.25})
    found, after = read_csv(tmp_path / "metrics.csv")
    assert list(found) == columns
    assert after[0] == rows[0]
    assert after[1][name] == ""
    assert [row["train_loss"] for row in read_rows(tmp_path / "metrics.csv")] == [1.0, 0.25]


# Permissions: as an ordinary user


@pytest.fixture
def ordinary_user(copied):
    """Becomes one for the length of a test, who owns the workdir."""
    if os.geteuid():
        yield copied
        return
    config, workdir = copied
    for path in (workdir, *workdir.rglob("*")):
        os.chown(path, 65534, 65534)
    for path in workdir.parents:
        if path.stat().st_mode & 0o005 != 0o005 and path.is_relative_to(Path("/tmp")):
            path.chmod(path.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield config, workdir
    finally:
        os.seteuid(0)


CLOSED = {
    "metrics.csv": (0o000, "metrics.csv"),
    "checkpoints": (0o000, "checkpoints"),
    "config.json": (0o000, "config.json"),
    "checkpoints/14": (0o000, "SHA256SUMS is missing or cannot be read"),
    "checkpoints/14/SHA256SUMS": (0o000, "SHA256SUMS is missing or cannot be read"),
    ".lock": (0o400, "cannot be used: Permission denied"),
    ".": (0o500, "Permission denied"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_what_may_not_be_read_or_written_is_one_line_that_names_it(name, ordinary_user, at_once):
    config, workdir = ordinary_user
    mode, words = CLOSED[name]
    if name.startswith("checkpoints/14"):  # else the one before is taken
        shutil.rmtree(workdir / "checkpoints" / "7")
    (workdir / name).chmod(mode)
    try:
        with pytest.raises((UserError, RunFailed)) as raised:
            train(config, workdir, stop=at_once, quiet=True)
    finally:
        (workdir / name).chmod(0o700)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("Could not determine home directory."), PermissionError(13, "Permission denied")]
)
def test_a_user_without_a_home_compiles_each_time(error, monkeypatch):
    def no_home():
        raise error

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    runtime.enable_compilation_cache()


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002, 0o000])
def test_files_are_as_the_umask_says(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "run.json", {})
        write_json(tmp_path / "run.json", {"again": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o666 & ~umask
