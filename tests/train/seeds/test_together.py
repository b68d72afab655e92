"""Several seeds in one program end as separate runs do, each in its workdir, whatever becomes of the others."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import runs
from train.__main__ import main
from train.config import Config, ModelConfig, OptimizerConfig, validate
from train.errors import InUse, RunFailed, UserError
from train.experiment import make_experiment
from train.interface.signals import StopRequest
from train.run.loop import train
from train.run.trainer import Trainer
from train.run.workdir import open_workdir
from train.seeds.lanes import Lanes
from train.seeds.together import seed_runs, train_together
from train.step import input_pipeline

SEEDS = (7, 8)


def config_of(**changes):
    """Two epochs of seven steps, the last with 4 examples; k = 5, so that slow and live weights differ at the ends."""
    config = Config(
        dataset="digits",
        epochs=2,
        batch_size=16,
        train_examples=100,
        test_examples=50,
        seed=7,
        devices=1,
        seeds_per_program=2,
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, lookahead=True),
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    """The folder in which each seed was trained by itself."""
    folder = tmp_path_factory.mktemp("separate")
    for config, workdir in seed_runs(config_of(), folder):
        train(config, workdir, quiet=True)
    return folder


def assert_close_runs(ours, theirs):
    """The same rows and the same final state to 1e-5."""
    for found, expected in zip(runs.metrics_without_times(ours), runs.metrics_without_times(theirs), strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert (found[name] == "") == (value == "")
            np.testing.assert_allclose(float(found[name] or 0), float(value or 0), rtol=1e-5, err_msg=name)
    found, expected = runs.final_tree(ours), runs.final_tree(theirs)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-5, atol=1e-5, err_msg=path)


def test_seeds_in_one_program_equal_separate_runs(separate, tmp_path, monkeypatch):
    together = []
    step = Lanes.train
    monkeypatch.setattr(Lanes, "train", lambda *args, **kwargs: together.append(1) or step(*args, **kwargs))
    results = train_together(seed_runs(config_of(), tmp_path), quiet=True)
    assert [result.status for result in results] == ["finished"] * 2
    assert len(together) == 14  # steps, each of both seeds
    for seed in SEEDS:
        assert_close_runs(tmp_path / f"seed{seed}", separate / f"seed{seed}")
        # It is the workdir of an ordinary run, which finds it finished.
        assert train(config_of(seed=seed, seeds_per_program=1), tmp_path / f"seed{seed}", quiet=True).rows
    assert runs.metrics_without_times(tmp_path / "seed7") != runs.metrics_without_times(tmp_path / "seed8")


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"ema_decay": 0.5}, {"ema": True}),
        ({"optimizer": OptimizerConfig(name="schedule_free_adamw", learning_rate=0.05)}, {}),
    ],
    ids=["moving average", "Schedule-Free"],
)
def test_averaged_weights_are_scored_for_each_lane(changes, which):
    trainer = Trainer(make_experiment(validate(config_of(**changes))))
    lanes = Lanes(trainer, len(SEEDS))
    states = lanes.stack([trainer.init(seed) for seed in SEEDS])
    metrics = lanes.stack([trainer.zero_metrics()] * len(SEEDS))
    for _ in range(3):
        states, metrics, _ = lanes.train(states, metrics, lanes.order(states))
    for state, score in zip(lanes.apart(states), lanes.evaluate(states, **which), strict=True):
        weights = trainer.weights(state, **which)
        assert score == pytest.approx(trainer.evaluate(state, **which).means(), rel=1e-5)
        assert not np.allclose(weights["fc"]["kernel"], state.params["fc"]["kernel"], rtol=1e-3)


def test_a_stop_saves_all_seeds_and_each_resumes_alone_or_with_the_others(separate, tmp_path, monkeypatch):
    stop, step = StopRequest(), Lanes.train
    asked = []

    def asking(*args, **kwargs):
        asked.append(1)
        if len(asked) == 10:
            stop.ask()
        return step(*args, **kwargs)

    monkeypatch.setattr(Lanes, "train", asking)
    together = seed_runs(config_of(), tmp_path)
    results = train_together(together, stop=stop, quiet=True)
    assert [result.status for result in results] == ["stopped"] * 2
    assert [json.loads((workdir / "run.json").read_text())["step"] for _, workdir in together] == [10, 10]
    # Seed 7 goes on alone for two steps: the two are at different steps of the epoch then.
    alone, calls = StopRequest(), []
    monkeypatch.setattr(
        "train.run.progress.Progress.step", lambda self, count: calls.append(1) or len(calls) < 2 or alone.ask()
    )
    assert train(*together[0], stop=alone, quiet=True).status == "stopped"
    monkeypatch.undo()
    results = train_together(together, quiet=True)
    assert [result.status for result in results] == ["finished"] * 2
    for seed in SEEDS:
        assert_close_runs(tmp_path / f"seed{seed}", separate / f"seed{seed}")


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_a_seed_whose_numbers_are_not_finite_stops_no_other(on_nonfinite, separate, tmp_path, monkeypatch):
    """Batches that begin with a certain example are infinite; only seed 8 has one, at step 3."""
    config = config_of(on_nonfinite=on_nonfinite)
    trainer = Trainer(make_experiment(config))
    orders = [np.asarray(trainer.order(trainer.init(seed))) for seed in SEEDS]
    poisoned = orders[1][2 * 16]
    assert poisoned not in orders[0][::16]
    load = input_pipeline.load

    def poison(split, drawn, *args):
        batch = load(split, drawn, *args)
        return batch._replace(inputs=jnp.where(drawn.index[0] == poisoned, jnp.inf, batch.inputs))

    monkeypatch.setattr(input_pipeline, "load", poison)
    config = dataclasses.replace(config, epochs=1)
    expected = seed_runs(config, tmp_path / "alone")[1]
    results = train_together(seed_runs(config, tmp_path), quiet=True)
    assert results[0].status == "finished"
    assert runs.metrics_without_times(tmp_path / "seed7")[0]["step"] == "7"
    ours, theirs = (runs.metrics_without_times(path / "seed7")[0] for path in (tmp_path, separate))
    np.testing.assert_allclose(float(ours["train_loss"]), float(theirs["train_loss"]), rtol=1e-5)
    if on_nonfinite == "stop":
        assert isinstance(results[1], RunFailed)
        assert "after step 3 (epoch 1) a loss" in str(results[1])
        assert json.loads((tmp_path / "seed8" / "run.json").read_text())["status"] == "failed"
        assert int(runs.final_tree(tmp_path / "seed8")["['state']['step']"]) == 2
    else:
        assert results[1].status == "finished"
        assert json.loads((tmp_path / "seed8" / "run.json").read_text())["skipped_steps"] == [3]
        train(*expected, quiet=True)
        assert_close_runs(tmp_path / "seed8", expected[1])


def test_a_workdir_that_cannot_be_had_concerns_its_seed_alone(tmp_path):
    together = seed_runs(config_of(epochs=1), tmp_path)
    with open_workdir(together[0][1], together[0][0]):
        busy, done = train_together(together, quiet=True)
    assert isinstance(busy, InUse)
    assert done.status == "finished"


def test_configs_that_differ_in_more_than_the_seed_are_refused(tmp_path):
    config = config_of(seeds_per_program=1)
    others = [(config, tmp_path / "a"), (dataclasses.replace(config, seed=9, epochs=3), tmp_path / "b")]
    with pytest.raises(UserError, match="may differ in their seeds alone, but epochs was 2, is now 3"):
        train_together(others)


def test_the_command_trains_seeds_in_folders_of_the_workdir(tmp_path, capsys):
    arguments = ["--config=configs/digits_cnn.py", f"--workdir={tmp_path}", "--config.seeds_per_program=2"]
    arguments += ["--config.epochs=1", "--config.train_examples=100", "--config.test_examples=50", "--config.devices=1"]
    assert main([*arguments, "--config.seed=3"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed3", "seed4"]
    (tmp_path / "seed4" / "config.json").unlink()
    assert main([*arguments, "--config.seed=3"]) == 2
    assert "error: seed 4: workdir" in capsys.readouterr().err
