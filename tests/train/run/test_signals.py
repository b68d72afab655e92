"""Which signals stop a run, where handlers are allowed, and what Ctrl-C does before there is a run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from train.errors import UserError
from train.interface.signals import STOP_SIGNALS, VARIABLE, StopRequest, stop_signals
from train.run.loop import train

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", STOP_SIGNALS)
def test_each_stop_signal_asks_and_is_put_back(name):
    number = signal.Signals[f"SIG{name}"]
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop
        assert signal.getsignal(number) != before
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("given", "names"),
    [("USR2", ["USR2"]), ("SIGUSR2, term", ["USR2", "TERM"]), ("ALRM,XCPU", ["ALRM", "XCPU"]), ("", [])],
)
def test_the_set_of_signals_can_be_chosen(given, names, monkeypatch):
    monkeypatch.setenv(VARIABLE, given)
    assert [number.name.removeprefix("SIG") for number in stop_signals()] == names
    with StopRequest():
        for name in ("HUP", "USR1"):
            assert signal.getsignal(signal.Signals[f"SIG{name}"]) == signal.SIG_DFL


def test_a_studys_worker_hears_its_study_whatever_signals_are_chosen(monkeypatch):
    monkeypatch.setenv(VARIABLE, "USR2")
    with StopRequest(signal.SIGTERM) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop


@pytest.mark.parametrize("given", ["KILL", "STOP", "NOPE", "USR2;TERM", "15"])
def test_what_is_no_signal_to_catch_is_refused(given):
    with pytest.raises(UserError, match=f"{VARIABLE}={given}: .* is not a signal that can be caught"):
        stop_signals({VARIABLE: given})


def test_under_nohup_a_lost_terminal_is_no_reason_to_stop():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_that_python_did_not_set_is_no_error(monkeypatch):
    monkeypatch.setattr("train.interface.signals.signal.getsignal", lambda number: None)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in stop_signals()}
    try:
        with StopRequest():
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_a_thread(function):
    """The function's result in another thread than Python's main one."""
    found = []

    def run():
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_a_run_in_a_thread_works_and_can_be_asked_to_stop(small_config, tmp_path, assert_same_run):
    stop = StopRequest()
    stop.ask()
    assert in_a_thread(lambda: train(small_config, tmp_path / "thread", stop=stop, quiet=True)).status == "stopped"
    assert in_a_thread(lambda: train(small_config, tmp_path / "thread", quiet=True)).status == "finished"
    train(small_config, tmp_path / "whole", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "thread")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["train", "--config=configs/digits_cnn.py"], "jax._src.config"),
        (["train", "--config=configs/digits_cnn.py"], "ml_collections"),
        (["train.study", "--study=configs/studies/quick.py"], "numpy"),
    ],
)
def test_ctrl_c_while_the_command_starts_is_one_line_and_status_130(command, module, tmp_path):
    place = {"train": "--workdir", "train.study": "--out"}[command[0]]
    arguments = [sys.executable, "-X", "importtime", "-m", *command, f"{place}={tmp_path / 'run'}"]
    said = []
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("import time:"):
                if line.split("|")[-1].strip().startswith(module) and not said:
                    said.append("")
                    process.send_signal(signal.SIGINT)
            else:
                said.append(line)
    assert said == ["", "interrupted before anything ran\n"]
    assert process.returncode == 130
    assert not (tmp_path / "run").exists()


@pytest.mark.optimized  # so that compiling takes longer than the signal
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_compilation_ends_the_run_at_once_and_loses_nothing(number, tmp_path):
    workdir = tmp_path / "run"
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": "", "JAX_PLATFORMS": "cpu"}
    settings = ["--config.model.name=resnet18", "--config.train_examples=64", "--config.epochs=1"]
    command = [sys.executable, "-m", "train", "--config=configs/digits_cnn.py", f"--workdir={workdir}", *settings]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if line == "compiling ...\n":
                break
        process.send_signal(number)
        began = time.monotonic()
        status = process.wait()
        seconds = time.monotonic() - began
    assert status == 75
    assert seconds < 8, "it waited for the compiler"
    assert not list((workdir / "checkpoints").iterdir())
    assert json.loads((workdir / "run.json").read_text())["signal"] == number.name
