"""python -m train --dry_run: what a run would do, worked out without training, compiling or writing anything."""

import json

import pytest

from train.__main__ import main, runs_of
from train.config import to_dict
from train.errors import UserError
from train.run import dry_run as command
from train.run.records import MetricsFile


def dry_run(config, workdir):
    return command.dry_run(config, runs_of(config, workdir))


def lines_of(text):
    return {line.split()[0]: line for line in text.splitlines() if line and not line.startswith(" ")}


def test_it_counts_what_the_run_will_have(small_config, tmp_path):
    found = lines_of(dry_run(small_config, tmp_path / "new"))
    assert "100 training examples, 50 test examples" in found["data"]
    assert "21: 3 epochs of 7" in found["steps"]
    # By hand: three 3x3 convolutions of 32 channels with BatchNorm, and a dense layer on a map of 2x2.
    assert f"{9 * 32 * (1 + 32 + 32) + 3 * 2 * 32 + (4 * 32 + 1) * 10:,}" == found["parameters"].split()[1]
    assert "start from the beginning" in found["workdir"]
    assert not (tmp_path / "new").exists()


def test_it_says_where_a_run_would_go_on_and_how_long_it_takes(small_config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(small_config)))
    file = MetricsFile(tmp_path / "metrics.csv")
    for epoch, seconds in ((1, 100.0), (2, 20.0)):  # the first one waited for the compiler
        file.append({"epoch": epoch, "step": 7 * epoch, "seconds": seconds, "train_loss": 1.0})
    (tmp_path / "checkpoints").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert "start from the beginning" in dry_run(small_config, tmp_path)
    (tmp_path / "checkpoints" / "14").mkdir()
    assert "resume from step 14, after 2 of 3 epochs" in dry_run(small_config, tmp_path)  # even without a run.json
    (tmp_path / "run.json").write_text(json.dumps({"status": "stopped", "checkpoint": 14}))
    found = lines_of(dry_run(small_config, tmp_path))
    assert "resume from step 14, after 2 of 3 epochs" in found["workdir"]
    assert "about 20 s left, 20 s an epoch" in found["time"]
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "checkpoint": 21}))
    assert "nothing would be done" in dry_run(small_config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*before, "run.json"]


def test_a_workdir_whose_checkpoints_are_gone_is_refused_as_the_run_would_be(small_config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(small_config)))
    (tmp_path / "run.json").write_text(json.dumps({"status": "stopped", "checkpoint": 7}))
    MetricsFile(tmp_path / "metrics.csv").append({"epoch": 1, "step": 7, "seconds": 1.0, "train_loss": 1.0})
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"metrics.csv has 1 rows, but the checkpoints in .* are gone"):
        dry_run(small_config, tmp_path)


def test_a_workdir_of_another_config_is_refused_as_the_run_would_be(small_config, replace, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(replace(small_config, batch_size=8))))
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(UserError, match="batch_size was 8, is now 16"):
        dry_run(small_config, tmp_path)


def test_a_finished_run_with_more_epochs_would_go_on_as_the_run_does(small_config, replace, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(small_config)))
    (tmp_path / "checkpoints" / "21").mkdir(parents=True)
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "checkpoint": 21, "epoch": 3}))
    assert "nothing would be done" in dry_run(small_config, tmp_path)
    assert "resume from step 21" in dry_run(replace(small_config, epochs=5), tmp_path)


def test_each_seed_of_one_program_has_a_line_of_its_own(small_config, replace, tmp_path):
    config = replace(small_config, seed=0, seeds_per_program=3)
    done = tmp_path / "seed1"
    done.mkdir()
    (done / "config.json").write_text(json.dumps(to_dict(replace(small_config, seed=1))))
    (done / "run.json").write_text(json.dumps({"status": "finished", "checkpoint": 21, "epoch": 3}))
    said = dry_run(config, tmp_path)
    standing = [line for line in said.splitlines() if line.startswith("workdir")]
    assert [line.split("/")[-1] for line in standing] == [
        "seed0: the run would start from the beginning",
        "seed1: the run is finished; nothing would be done",
        "seed2: the run would start from the beginning",
    ]
    one, three = lines_of(dry_run(small_config, tmp_path / "one")), lines_of(said)
    held = [float(found["memory"].split()[1]) for found in (one, three)]
    assert held[1] == pytest.approx(3 * held[0], abs=0.2)  # both are rounded


def test_what_the_run_would_refuse_is_refused(small_config, replace, tmp_path):
    with pytest.raises(UserError, match=r"config\.devices=64, but this machine has"):
        dry_run(replace(small_config, devices=64), tmp_path)
    with pytest.raises(UserError, match="seeds_per_program is not for local steps"):
        dry_run(replace(small_config, seeds_per_program=2, local_steps=True), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(small_config)))
    facts = {"status": "stopped", "checkpoint": 7, "data": {"source": "other digits", "digest": "0" * 64}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"the data of workdir .* has changed .*it was other digits"):
        dry_run(small_config, tmp_path)


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run", "-dry_run", "--dry_run=true"])
def test_the_command_takes_both_spellings_and_writes_nothing(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(
        "from train.config import *\n"
        "def get_config(): return Config(dataset='digits', epochs=2, model=ModelConfig(name='small_cnn'))\n"
    )
    assert main(["--config=config.py", "--workdir=run", flag, "--config.batch_size=100"]) == 0
    said = capsys.readouterr().out
    assert "batch_size = 100" in said
    assert "28: 2 epochs of 14" in said
    assert not (tmp_path / "run").exists()
