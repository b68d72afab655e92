"""Numbers that are not finite: the run stops, skips or goes back, and never saves them."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train import runs
from tests.train.run.test_extras import epochs_shown
from train.errors import RunFailed
from train.experiment import make_experiment
from train.registry import OPTIMIZERS, register_optimizer
from train.run.loop import train
from train.run.records import read_rows
from train.run.trainer import Trainer
from train.step import input_pipeline
from train.step.dispatch import Call

POISONED = 17


def poison_batches(monkeypatch, *examples):
    """Makes every batch that holds one of the examples (17 if none are given) infinite, in trainers compiled later."""
    load = input_pipeline.load

    def poisoned(split, drawn, *args):
        batch = load(split, drawn, *args)
        bad = jnp.isin(drawn.index, jnp.asarray(examples or (POISONED,)))
        return batch._replace(inputs=jnp.where(jnp.any(bad), jnp.inf, batch.inputs))

    monkeypatch.setattr(input_pipeline, "load", poisoned)


def bad_step_of_epoch(trainer, state):
    """Which step of the state's epoch, from 1, draws the poisoned example."""
    position = int(np.flatnonzero(np.asarray(trainer.order(state)) == POISONED)[0])
    return position // 16 + 1


def test_stop_names_the_step_and_saves_the_state_before_it(small_config, monkeypatch, tmp_path, final_tree):
    poison_batches(monkeypatch)
    trainer = Trainer(make_experiment(small_config))
    bad = bad_step_of_epoch(trainer, trainer.init(small_config.seed))
    with pytest.raises(RunFailed, match=rf"after step {bad} \(epoch 1\) a loss.*checkpoint {bad - 1} .*learning_rate"):
        train(small_config, tmp_path, quiet=True)
    saved = final_tree(tmp_path)
    assert int(saved["['state']['step']"]) == bad - 1
    for path, array in saved.items():
        assert np.all(np.isfinite(array)), path
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"
    # The same command meets the same batch and says the same.
    with pytest.raises(RunFailed, match=f"step {bad} "):
        train(small_config, tmp_path, quiet=True)


@pytest.mark.optimized  # the same bits from two programs
def test_skip_trains_on_as_if_the_batch_were_not_there(small_config, replace, tmp_path, monkeypatch, final_tree):
    config = replace(small_config, on_nonfinite="skip", epochs=2)
    trainer = Trainer(make_experiment(config))
    state, skipped = trainer.init(config.seed), []
    for epoch in range(2):
        bad, order = bad_step_of_epoch(trainer, state), trainer.order(state)
        skipped.append(epoch * 7 + bad)
        for step in range(1, 8):
            if step == bad:
                state = state.replace(step=state.step + 1)
            else:
                state, _, _ = trainer.train(state, trainer.zero_metrics(), order, Call(1, last=step == 7))
    expected = {
        jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_flatten_with_path(state.params)[0]
    }

    poison_batches(monkeypatch)
    train(config, tmp_path, quiet=True)
    saved = final_tree(tmp_path)
    for path, array in expected.items():
        np.testing.assert_array_equal(saved[f"['state']['params']{path}"], array, err_msg=path)
    assert json.loads((tmp_path / "run.json").read_text())["skipped_steps"] == skipped
    assert all(np.isfinite(row["train_loss"]) for row in read_rows(tmp_path / "metrics.csv"))


def test_restore_goes_back_to_the_checkpoint_and_behind_the_batch(small_config, replace, monkeypatch, tmp_path, caplog):
    poison_batches(monkeypatch)
    config = replace(small_config, on_nonfinite="restore")
    with caplog.at_level(logging.WARNING):
        outcome = train(config, tmp_path, quiet=True)
    assert outcome.status == "finished"
    assert "went back to the weights of step 7" in caplog.text  # epoch 2's bad batch: back to the end of epoch 1
    assert all(np.isfinite(row["train_loss"]) for row in outcome.rows)


def first_order(config):
    trainer = Trainer(make_experiment(config))
    return np.asarray(trainer.order(trainer.init(config.seed)))


@pytest.mark.parametrize("how", ["skip", "restore"])
@pytest.mark.parametrize("ends", [False, True])
def test_two_bad_batches_of_one_epoch_are_skipped(how, ends, small_config, replace, monkeypatch, tmp_path):
    """The third and the fifth of seven; or the first and the last, after which no step is left to take."""
    config = replace(small_config, on_nonfinite=how, epochs=1)
    first, second = (1, 7) if ends else (3, 5)
    order = first_order(config)
    poison_batches(monkeypatch, *(int(order[(step - 1) * 16]) for step in (first, second)))
    outcome = train(config, tmp_path, quiet=True)
    assert outcome.status == "finished"
    assert json.loads((tmp_path / "run.json").read_text())["skipped_steps"] == [first, second]
    (row,) = outcome.rows
    assert row["step"] == 7
    assert np.isfinite([row["train_loss"], row["test_loss"]]).all()
    assert 0 < row["examples_per_second"] < np.inf


def test_an_epoch_whose_only_batch_is_bad_has_no_training_loss(small_config, replace, monkeypatch, tmp_path):
    config = replace(small_config, on_nonfinite="skip", epochs=2, batch_size=100)
    poison_batches(monkeypatch)
    outcome = train(config, tmp_path, quiet=True)
    assert outcome.status == "finished"
    assert np.isnan([row["train_loss"] for row in outcome.rows]).all()
    assert np.isfinite([row["test_loss"] for row in outcome.rows]).all()


def test_an_infinity_that_an_optimizer_starts_with_is_no_bad_step(small_config, replace, monkeypatch, tmp_path):
    """Only the bad batches are skipped, also where the last checkpoint lies before the epoch; no row is there twice."""
    monkeypatch.setattr(OPTIMIZERS, "_entries", dict(OPTIMIZERS._entries))
    plateau = optax.contrib.reduce_on_plateau(patience=100)  # its best value is infinite; it sees no losses here

    @register_optimizer("with_an_infinity")
    def make(learning_rate, config):
        return optax.chain(optax.sgd(learning_rate), optax.GradientTransformation(plateau.init, lambda u, s, p: (u, s)))

    config = replace(
        small_config,
        on_nonfinite="skip",
        checkpoint_every=3,
        optimizer={"name": "with_an_infinity", "lookahead": False, "decay_epochs": ()},
    )
    poison_batches(monkeypatch)
    outcome = train(config, tmp_path, quiet=True)
    skipped = json.loads((tmp_path / "run.json").read_text())["skipped_steps"]
    assert [(step - 1) // 7 for step in skipped] == [0, 1, 2]  # the poisoned example's batch of each epoch
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.csv")] == [1, 2, 3]
    assert np.isfinite([row["train_loss"] for row in outcome.rows]).all()
    assert epochs_shown(tmp_path / "tensorboard") == [1, 2, 3]


def test_skipped_steps_are_known_after_a_resume(small_config, replace, monkeypatch, tmp_path):
    config = replace(small_config, on_nonfinite="skip", epochs=2)
    bad = int(np.flatnonzero(first_order(config) == POISONED)[0]) // 16 + 1
    poison_batches(monkeypatch)
    runs.train_some(config, tmp_path, 7, monkeypatch)
    train(config, tmp_path, quiet=True)
    skipped = json.loads((tmp_path / "run.json").read_text())["skipped_steps"]
    assert (len(skipped), skipped[0]) == (2, bad)


def test_a_rate_that_explodes_is_not_skipped_for_ever(small_config, replace, tmp_path):
    config = replace(small_config, on_nonfinite="skip", epochs=9, optimizer={"name": "sgd", "learning_rate": 1e38})
    with pytest.raises(RunFailed, match=r"lower config\.optimizer\.learning_rate"):
        train(config, tmp_path, quiet=True)
