"""A run that was stopped and started again is the run that was not: every bit of its state and of its metrics."""

import gc
import shutil
import signal
import subprocess
import sys
import time

import pytest

import train.run
import train.run.loop
from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError


def test_stopped_at_every_phase_of_the_sync_period(small_config, tmp_path, ctrl_c_at, assert_same_run):
    train.run.loop.train(small_config, tmp_path / "whole", quiet=True)
    # Epoch 2 is steps 8 to 14; 14 is its last step, and 15 the first of epoch 3.
    ctrl_c_at.extend([8, 9, 10, 11, 12, 14, 15])
    starts = 0
    while train.run.loop.train(small_config, tmp_path / "stopped", quiet=True).status == "stopped":
        starts += 1
    assert starts == 7
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("name", ["sgd", "radam"])
def test_stopped_runs_of_other_optimizers(small_config, replace, tmp_path, ctrl_c_at, assert_same_run, name):
    config = replace(small_config, optimizer={"name": name, "learning_rate": 0.05})
    train.run.loop.train(config, tmp_path / "whole", quiet=True)
    ctrl_c_at.append(10)
    assert train.run.loop.train(config, tmp_path / "stopped", quiet=True).status == "stopped"
    assert train.run.loop.train(config, tmp_path / "stopped", quiet=True).status == "finished"
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_rows_after_the_checkpoint_are_trained_again_and_written_once(small_config, replace, tmp_path, assert_same_run):
    config = replace(small_config, checkpoint_every=2)
    train.run.loop.train(config, tmp_path / "whole", quiet=True)
    train.run.loop.train(config, tmp_path / "killed", quiet=True)
    # As after a kill behind the row of epoch 3: the checkpoint of epoch 2 is the newest.
    (tmp_path / "killed" / "checkpoints" / "21").rename(tmp_path / "21")
    (tmp_path / "killed" / "run.json").unlink()
    train.run.loop.train(config, tmp_path / "killed", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_is_left_alone_and_says_so(small_config, tmp_path, capsys):
    train.run.loop.train(small_config, tmp_path, quiet=True)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != ".lock"}
    assert capsys.readouterr().out == ""
    outcome = train.run.loop.train(small_config, tmp_path)
    assert capsys.readouterr().out == f"{tmp_path} is finished; choose another workdir to train again\n"
    assert outcome.status == "finished"
    assert [row["epoch"] for row in outcome.rows] == [1, 2, 3]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != ".lock"} == before


def test_another_config_is_refused_and_changes_nothing(small_config, replace, tmp_path):
    train.run.loop.train(small_config, tmp_path, quiet=True)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"optimizer\.sync_period was 5, is now 6"):
        train.run.loop.train(replace(small_config, optimizer={"sync_period": 6}), tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_resume_false_refuses_a_workdir_with_a_run(small_config, replace, tmp_path):
    train.run.loop.train(small_config, tmp_path, quiet=True)
    with pytest.raises(UserError, match="resume"):
        train.run.loop.train(replace(small_config, resume=False), tmp_path)


def test_a_workdir_in_use_is_refused(small_config, tmp_path):
    with train.run.workdir.open_workdir(tmp_path, small_config), pytest.raises(UserError, match="in use"):
        train.run.loop.train(small_config, tmp_path)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_saves_and_exits_with_75(number, tmp_path, final_tree):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "train", "--config=configs/digits_cnn.py", f"--workdir={workdir}"]
    command += ["--config.devices=1", "--config.epochs=200", "--config.checkpoint_every=1000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (workdir / "metrics.csv").exists(), process)
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 75
    assert f"stopped by {number.name} after step" in stderr
    assert "run the same command again" in stderr
    assert int(final_tree(workdir)["['state']['step']"]) > 0


@pytest.mark.slow
@pytest.mark.data
def test_resnet18_on_cifar_stopped_between_and_at_a_sync(cifar10_dir, tmp_path, ctrl_c_at, assert_same_run):
    config = Config(
        dataset="cifar10",
        data_dir=str(cifar10_dir),
        epochs=2,
        batch_size=16,
        train_examples=128,
        test_examples=64,
        devices=1,
        model=ModelConfig(name="resnet18"),
        optimizer=OptimizerConfig(name="adam", learning_rate=0.001, lookahead=True, sync_period=5),
    )
    train.run.loop.train(config, tmp_path / "whole", quiet=True)
    # The same run as a kill at the end of epoch 1 would leave it: no need to train that epoch twice.
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "16")
    (tmp_path / "stopped" / "run.json").unlink()
    # 8 steps an epoch: in epoch 2, between two syncs and at one; every phase is tried above.
    ctrl_c_at.extend([10, 12])
    while train.run.loop.train(config, tmp_path / "stopped", quiet=True).status == "stopped":
        gc.collect()  # else the state of each start stays in memory
    assert not ctrl_c_at
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
