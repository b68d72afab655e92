"""Local steps: each device trains alone, and only Lookahead's outer step averages, once every k steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests.train import runs
from train import data
from train.config import Config, ModelConfig, OptimizerConfig, validate
from train.errors import UserError
from train.experiment import make_experiment
from train.export.model import load_model
from train.run.loop import train
from train.run.scores import scores
from train.run.trainer import Trainer
from train.step import steps
from train.step.dispatch import Call

TOKENS = np.random.default_rng(3).integers(0, 30, (20, 2, 6)).astype(np.int32)


def text_trainer(mode, *, devices=4, batch_size=8, sync_period=3, slow_step_size=0.5, inner="sgd", dropout=0.0):
    """A GRU on made-up segments: 20, so that a batch of 8 leaves 4, and one of 7 leaves 6."""
    split = data.Split(TOKENS[:, 0], TOKENS[:, 1])
    dataset = data.Dataset("made-up", "text", split, split, 30, "none", (), (), False, vocab_size=30)
    optimizer = OptimizerConfig(
        name=inner, learning_rate=0.5, lookahead=True, sync_period=sync_period, slow_step_size=slow_step_size
    )
    model = ModelConfig(name="gru", embedding_size=4, hidden_size=4, dropout=dropout)
    of_devices = {"local_steps": True} if mode == "local" else {"parallel": mode}
    config = Config(
        dataset="text", epochs=5, batch_size=batch_size, model=model, optimizer=optimizer, devices=devices, **of_devices
    )
    return Trainer(make_experiment(config, dataset))


def run_steps(trainer, count):
    state, metrics, losses = trainer.init(0), trainer.zero_metrics(), []
    for step in range(count):
        if step % trainer.recipe.steps_per_epoch == 0:
            order = trainer.order(state)
        last = (step + 1) % trainer.recipe.steps_per_epoch == 0
        state, metrics, scalars = trainer.train(state, metrics, order, Call(1, last=last))
        losses.append(float(scalars["loss"]))
    return state, metrics, losses


def assert_close(ours, theirs, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def worker(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


@pytest.mark.parametrize("batch_size", [8, 7])
def test_one_local_step_of_sgd_with_alpha_one_is_data_parallelism(batch_size):
    """In batches of 7 and 6 over four workers their parts differ in size, and one worker has none of the 6."""
    how = {"batch_size": batch_size, "sync_period": 1, "slow_step_size": 1.0}
    state, metrics, losses = run_steps(text_trainer("local", **how), 4)
    expected, expected_metrics, expected_losses = run_steps(text_trainer("single", devices=1, **how), 4)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    assert int(metrics.correct) == int(expected_metrics.correct)
    assert int(metrics.count) == int(expected_metrics.count)
    for index in range(4):
        assert_close(worker(state.params, index), expected.params)
        assert_close(worker(la.slow_params(state.opt_state), index), la.slow_params(expected.opt_state))


def test_workers_are_runs_of_their_own_between_outer_steps():
    """Against a loop written here: each worker's SGD on its part of the batch, and the mean every third step."""
    trainer = text_trainer("local")
    state, _, losses = run_steps(trainer, 5)
    plain = text_trainer("single", devices=1)
    slow = plain.init(0).params
    fast = [slow] * 4

    def loss(params, rows):
        logits = plain.recipe.model.apply({"params": params}, jnp.asarray(TOKENS)[rows, 0], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(TOKENS)[rows, 1]).mean()

    gradient = jax.jit(jax.value_and_grad(loss))
    for step, start in enumerate((0, 8, 16, 0, 8)):
        size = 2 if start < 16 else 1
        found = [gradient(fast[i], np.arange(start + i * size, start + (i + 1) * size)) for i in range(4)]
        np.testing.assert_allclose(losses[step], np.mean([float(value) for value, _ in found]), rtol=1e-5)
        fast = [jax.tree.map(lambda p, g: p - 0.5 * g, p, g) for p, (_, g) in zip(fast, found, strict=True)]
        if step == 2:
            slow = jax.tree.map(lambda s, *p: s + 0.5 * (sum(p) / 4 - s), slow, *fast)
            fast = [slow] * 4
    for i in range(4):
        assert_close(worker(state.params, i), fast[i], 1e-5)
        assert_close(worker(la.slow_params(state.opt_state), i), slow, 1e-5)
    assert not np.allclose(state.params["embedding"][0], state.params["embedding"][1])


CONFIG = Config(
    dataset="digits",
    epochs=2,
    batch_size=25,
    train_examples=60,
    test_examples=20,
    local_steps=True,
    model=ModelConfig(name="small_cnn"),
    optimizer=OptimizerConfig(name="adam", learning_rate=0.01, lookahead=True, sync_period=4),
)


def test_a_run_of_local_steps_resumes_at_every_phase_bit_for_bit(tmp_path, monkeypatch):
    """BatchNorm, batches that do not divide, a worker with no example, k = 4: stopped after each of six steps."""
    train(CONFIG, tmp_path / "whole", quiet=True)
    for _ in range(5):
        assert runs.train_some(CONFIG, tmp_path / "ours", 1, monkeypatch).status == "stopped"
    assert train(CONFIG, tmp_path / "ours", quiet=True).status == "finished"
    runs.assert_same_run(tmp_path / "ours", tmp_path / "whole")
    assert all(np.isfinite(leaf).all() for leaf in runs.final_tree(tmp_path / "ours").values())


def test_a_worker_that_no_batch_reaches_keeps_its_statistics_and_is_told(monkeypatch, caplog):
    """Batches of 4 for three workers are parts of 2, 2 and 0: re-estimated statistics of the third are its own."""
    monkeypatch.setattr("train.experiment.run_devices", lambda count: jax.devices()[:3])
    config = dataclasses.replace(CONFIG, batch_size=4, recalibrate_batch_stats=True)
    trainer = Trainer(make_experiment(config))
    assert "config.batch_size=4 leaves 1 of 3 workers without an example in every batch" in caplog.text
    state, _, _ = run_steps(trainer, 3)
    found = trainer.recalibrated_batch_stats(state, trainer.weights(state, slow=True))
    for ours, own in zip(jax.tree.leaves(found), jax.tree.leaves(state.batch_stats), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours[2], own[2])
        assert not np.array_equal(ours[0], own[0])
    assert all(np.isfinite(value) for value in scores(trainer, state).values())


def test_with_another_number_of_workers_all_start_from_the_slow_weights(tmp_path, monkeypatch, caplog):
    """Each worker of three takes the moments of the same worker of four; then the run goes on."""
    runs.train_some(CONFIG, tmp_path, 5, monkeypatch)
    before = runs.final_tree(tmp_path)
    assert before["['state']['step']"].tolist() == [5] * 4
    assert before["['state']['opt_state']['steps_since_sync']"].tolist() == [1] * 4
    monkeypatch.setattr("train.experiment.run_devices", lambda count: jax.devices()[:3])
    assert runs.train_some(CONFIG, tmp_path, 0, monkeypatch).status == "finished"
    assert "continuing with 3 workers from the slow weights; the checkpoint was saved with 4" in caplog.text
    after = runs.final_tree(tmp_path)
    assert after["['state']['step']"].tolist() == [6] * 3
    assert after["['state']['opt_state']['steps_since_sync']"].tolist() == [1] * 3
    for path in before:
        if "slow_params" in path:
            np.testing.assert_array_equal(after[path], before[path][:3])


def test_a_state_for_other_workers():
    trainer = text_trainer("local", inner="adam")
    state, _, _ = run_steps(trainer, 5)
    found = steps.for_workers(jax.device_get(state), 4, 6)
    for index, old in enumerate((0, 1, 2, 3, 0, 1)):
        slow = worker(la.slow_params(state.opt_state), 0)
        assert_close(worker(found.params, index), slow, 0)
        assert_close(worker(found.opt_state.fast_state, index), worker(state.opt_state.fast_state, old), 0)
    assert found.opt_state.steps_since_sync.tolist() == [0] * 6
    assert state.opt_state.steps_since_sync.tolist() == [2] * 4


def devices(monkeypatch, count):
    monkeypatch.setattr("train.experiment.run_devices", lambda _: jax.devices()[:count])


def test_a_run_of_local_steps_goes_on_with_one_device_and_with_four_again(tmp_path, monkeypatch, caplog):
    runs.train_some(CONFIG, tmp_path, 2, monkeypatch)
    before = runs.final_tree(tmp_path)
    devices(monkeypatch, 1)
    runs.train_some(CONFIG, tmp_path, 1, monkeypatch)
    one = runs.final_tree(tmp_path)
    assert one["['state']['step']"] == 3
    for path in before:
        if "slow_params" in path:
            np.testing.assert_array_equal(one[path], before[path][0])
    devices(monkeypatch, 4)
    assert train(CONFIG, tmp_path, quiet=True).status == "finished"
    assert runs.final_tree(tmp_path)["['state']['step']"].tolist() == [6] * 4
    assert "continuing with 1 workers from the slow weights; the checkpoint was saved with 4" in caplog.text
    assert "continuing with 4 workers from the slow weights; the checkpoint was saved with 1" in caplog.text


def test_the_slow_weights_of_local_steps_can_be_loaded(tmp_path):
    train(CONFIG, tmp_path, quiet=True)
    tree = runs.final_tree(tmp_path)
    loaded = load_model(tmp_path)
    for path, leaf in jax.tree_util.tree_flatten_with_path(loaded.variables["params"])[0]:
        stored = tree[f"['state']['opt_state']['slow_params']{jax.tree_util.keystr(path)}"]
        np.testing.assert_array_equal(leaf, stored[0])
    with pytest.raises(UserError, match=r"weights='live': with config\.local_steps=True each worker has its own"):
        load_model(tmp_path, weights="live")


def test_local_steps_without_lookahead_are_refused():
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(name="sgd"))
    with pytest.raises(UserError, match=r"config\.local_steps=True needs config\.optimizer\.lookahead=True"):
        validate(config)
