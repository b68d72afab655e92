"""Two processes of two CPU devices each, over gloo on the loopback: a run of four devices, stopped, killed, resumed."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train import runs
from train.errors import UserError
from train.hosts.launch import Place, take_flags
from train.interface.signals import EXIT_STOPPED
from train.interface.user_code import load_module
from train.run.loop import train

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
import flax.linen as nn
from train import register_model
from train.config import Config, ModelConfig, OptimizerConfig
from train.models.normalization import BatchNorm

@register_model("tiny", task="image")
class Tiny(nn.Module):
    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train, examples=None):
        x = BatchNorm(axis_name=self.axis_name)(x.reshape(x.shape[0], -1), train, examples)
        return nn.Dense(self.num_classes)(x)

def get_config():
    return Config(dataset="digits", epochs=24, batch_size=25, train_examples=60, test_examples=20,
                  model=ModelConfig(name="tiny"),
                  optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, lookahead=True))
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Processes:
    """The run in two processes, and what they say."""

    def __init__(self, folder, *arguments, second=()):
        self.workdir = folder / "run"
        command = [sys.executable, "-m", "train", f"--config={folder / 'config.py'}", f"--workdir={self.workdir}"]
        command += [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2", *arguments]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
        self.said = [folder / f"said{index}" for index in range(2)]
        self.started = []
        for index, said in enumerate(self.said):
            with said.open("w") as output:
                self.started.append(
                    subprocess.Popen(
                        [*command, f"--process_id={index}", *(second if index else ())],
                        cwd=ROOT,
                        env=environment,
                        stdout=output,
                        stderr=output,
                    )
                )

    def wait_for_rows(self, count):
        """Returns once metrics.csv has so many rows."""
        path = self.workdir / "metrics.csv"
        while not path.exists() or path.read_text().count("\n") <= count:
            assert all(process.poll() is None for process in self.started), self.words()
            time.sleep(0.02)

    def ends(self, timeout=300):
        return [process.wait(timeout) for process in self.started]

    def words(self):
        return "\n".join(said.read_text() for said in self.said)


def saved_step(workdir):
    return json.loads((workdir / "run.json").read_text())["step"]


@pytest.mark.slow
def test_a_run_goes_on_over_stops_losses_and_other_numbers_of_devices(tmp_path, monkeypatch):
    """1 x 4 devices, 2 x 2 that stop by a signal to one, 1 x 4, 2 x 2 that lose a process, and 2 x 2 to the end."""
    (tmp_path / "config.py").write_text(CONFIG)
    config = load_module(tmp_path / "config.py", "--config").get_config()
    whole, ours = tmp_path / "whole", tmp_path / "run"
    train(config, whole, quiet=True)

    assert runs.train_some(config, ours, 4, monkeypatch).status == "stopped"
    assert saved_step(ours) == 4

    # A checkpoint of four devices of one process, continued by two processes; a signal to the second stops both.
    two = Processes(tmp_path)
    two.wait_for_rows(3)
    two.started[1].send_signal(signal.SIGTERM)
    assert two.ends() == [EXIT_STOPPED] * 2, two.words()
    stopped_at = saved_step(ours)
    assert stopped_at >= 9
    assert f"stopped after step {stopped_at}, saved" in two.said[0].read_text()

    # Process 0 alone has written: one row an epoch.
    assert runs.train_some(config, ours, 2, monkeypatch).status == "stopped"
    assert saved_step(ours) == stopped_at + 2
    rows = runs.metrics_without_times(ours)
    assert [int(row["step"]) for row in rows] == [3 * (n + 1) for n in range((stopped_at + 2) // 3)]

    # One of the two is killed: the other ends within a minute, and says what happened and how to go on.
    two = Processes(tmp_path)
    two.wait_for_rows(len(rows) + 1)
    two.started[1].kill()
    began = time.monotonic()
    assert two.started[0].wait(60) == EXIT_STOPPED, two.words()
    assert time.monotonic() - began < 60
    assert two.started[1].wait() == -signal.SIGKILL
    last = two.said[0].read_text().strip().splitlines()[-1]
    assert last.startswith(
        "error: process 0 of this run ended because another process of the run was lost; run the same"
    )

    # The same command continues, and ends as one process of four devices does.
    two = Processes(tmp_path)
    assert two.ends() == [0, 0], two.words()
    assert json.loads((ours / "run.json").read_text())["status"] == "finished"
    runs.assert_same_run(ours, whole)
    alone = train(dataclasses.replace(config, epochs=2, devices=1), tmp_path / "alone", quiet=True).rows
    for mine, theirs in zip(runs.metrics_without_times(ours)[:2], alone, strict=True):
        assert float(mine["train_loss"]) == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert float(mine["test_loss"]) == pytest.approx(theirs["test_loss"], rel=1e-5)


@pytest.mark.parametrize("flag", ["--config.optimizer.learning_rate=0.5", "--config.checkpoint_every=2"])
def test_processes_that_were_given_different_settings_all_say_so(flag, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    two = Processes(tmp_path, second=[flag])
    assert two.ends() == [2, 2], two.words()
    for said in two.said:
        assert "the processes of this run differ in their settings, their data or" in said.read_text()
    assert not (two.workdir / "metrics.csv").exists()


@pytest.mark.slow
def test_local_steps_go_on_in_several_processes(tmp_path, monkeypatch):
    """Four workers of one process stop between two outer steps; two processes of two finish their run."""
    (tmp_path / "config.py").write_text(CONFIG)
    config = load_module(tmp_path / "config.py", "--config").get_config()
    config = dataclasses.replace(config, local_steps=True, epochs=3)
    train(config, tmp_path / "whole", quiet=True)
    assert runs.train_some(config, tmp_path / "run", 4, monkeypatch).status == "stopped"
    two = Processes(tmp_path, "--config.local_steps=true", "--config.epochs=3")
    assert two.ends() == [0, 0], two.words()
    found, expected = (runs.final_tree(tmp_path / name) for name in ("run", "whole"))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)
    assert not np.allclose(*expected["['state']['params']['Dense_0']['kernel']"][:2])  # workers of their own


def test_the_signals_that_a_site_chose_reach_the_process_that_trains():
    code = (
        "import os, signal, sys, time\n"
        "from train.hosts.launch import Place, split\n"
        "status = split(Place('a:1', 1, 0))\n"
        "if status is not None: sys.exit(status)\n"
        "signal.signal(signal.SIGXCPU, lambda *_: os._exit(75))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
        "os._exit(1)"
    )
    environment = os.environ | {"TRAIN_STOP_SIGNALS": "XCPU"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGXCPU)
        assert process.wait(30) == EXIT_STOPPED


BAD = {
    "one missing": (["--num_processes=2", "--process_id=0"], "--coordinator_address is missing; each process needs"),
    "no port": (["--coordinator_address=here", "--num_processes=2", "--process_id=0"], "must be HOST:PORT"),
    "no number": (["--coordinator_address=a:1", "--num_processes=two", "--process_id=0"], "must be a whole number"),
    "too large": (["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"], "must be from 0 to 1"),
    "both ways": (["--distributed", "--process_id=0"], "cannot be combined with --coordinator_address"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_flag_about_processes_is_one_line(case):
    arguments, words = BAD[case]
    with pytest.raises(UserError, match=words) as caught:
        take_flags(arguments)
    assert "\n" not in str(caught.value)


def test_the_flags_about_processes_are_taken_out_of_the_others():
    place, rest = take_flags(["--config=a.py", "--coordinator-address=[::1]:80", "--num_processes=2", "--process_id=1"])
    assert (place, rest) == (Place("[::1]:80", 2, 1), ["--config=a.py"])
    apart = ["--coordinator_address", "a:1", "--workdir", "w", "--num-processes", "2", "--process_id", "0"]
    assert take_flags(apart) == (Place("a:1", 2, 0), ["--workdir", "w"])
    assert take_flags(["--distributed", "--workdir=w"]) == (Place(), ["--workdir=w"])
    assert take_flags(["--workdir=w"]) == (None, ["--workdir=w"])
