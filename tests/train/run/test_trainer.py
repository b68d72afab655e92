"""What runs on the device: the steady state copies and compiles nothing, and sums are exact."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.experiment import make_experiment
from train.run.loop import train
from train.run.trainer import Trainer
from train.step import evaluation
from train.step.dispatch import Call
from train.step.input_pipeline import slice_batch
from train.step.metrics import Metrics
from train.step.steps import tree_bytes


def train_epoch(trainer, state, metrics):
    order = trainer.order(state)
    for step in range(trainer.recipe.steps_per_epoch):
        state, metrics, _ = trainer.train(
            state, metrics, order, Call(1, last=step == trainer.recipe.steps_per_epoch - 1)
        )
    return state, metrics


def test_the_second_epoch_compiles_nothing_and_copies_nothing_to_the_device(small_config):
    trainer = Trainer(make_experiment(small_config))
    state, _ = train_epoch(trainer, trainer.init(0), trainer.zero_metrics())
    trainer.evaluate(state)
    compiled, fresh = trainer.compilations, trainer.zero_metrics()
    traced = []

    def listen(event, *_, **__):
        traced.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with jax.transfer_guard("disallow"):
            state, _ = train_epoch(trainer, state, fresh)
            trainer.evaluate(state)
            trainer.evaluate(state, slow=True)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert trainer.compilations == compiled
    assert [event for event in traced if "compile" in event] == []
    assert int(state.step) == 14


def test_compiling_ahead_leaves_nothing_to_compile(small_config):
    trainer = Trainer(make_experiment(small_config))
    state, metrics = trainer.init(0), trainer.zero_metrics()
    trainer.compile()
    compiled = trainer.compilations
    state, _ = train_epoch(trainer, state, metrics)
    trainer.evaluate(state, slow=True)
    assert trainer.compilations == compiled


def test_an_epoch_counts_every_sample_once_the_short_batch_included(small_config):
    trainer = Trainer(make_experiment(small_config))
    state, metrics = trainer.init(0), trainer.zero_metrics()
    order, losses = trainer.order(state), []
    for step in range(trainer.recipe.steps_per_epoch):
        last = step == trainer.recipe.steps_per_epoch - 1
        state, metrics, report = trainer.train(state, metrics, order, Call(1, last=last))
        losses.append(float(report["loss"]) * (4 if last else 16))
    assert int(metrics.count) == 100
    np.testing.assert_allclose(metrics.means()[0], math.fsum(losses) / 100, rtol=1e-6)


def test_evaluation_equals_one_pass_over_the_whole_set(small_config):
    # 50 test examples in batches of 16: the last one overlaps, and must not count twice.
    trainer = Trainer(make_experiment(small_config))
    state, _ = train_epoch(trainer, trainer.init(0), trainer.zero_metrics())
    batch = slice_batch(trainer.test_data, 0, 50, trainer.recipe.preprocessing)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = trainer.recipe.model.apply(variables, batch.inputs, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    found = trainer.evaluate(state)
    assert int(found.count) == 50
    assert int(found.correct) == int(jnp.sum(logits.argmax(-1) == batch.targets))
    np.testing.assert_allclose(found.means()[0], float(losses.mean()), rtol=1e-6)


def test_slow_weights_are_evaluated_and_not_the_live_ones(small_config):
    trainer = Trainer(make_experiment(small_config))
    state, _ = train_epoch(trainer, trainer.init(0), trainer.zero_metrics())  # 7 steps: two after the sync
    live, slow = trainer.evaluate(state), trainer.evaluate(state, slow=True)
    assert live.means() != slow.means()
    as_live = state.replace(params=state.opt_state.slow_params)
    assert trainer.evaluate(as_live).means() == slow.means()


def test_variants_of_a_seed_start_alike_and_see_the_same_order(small_config, replace):
    plain = Trainer(make_experiment(replace(small_config, optimizer={"lookahead": False})))
    ours = Trainer(make_experiment(small_config))
    first, second = plain.init(11), ours.init(11)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(plain.order(first), ours.order(second))
    assert not np.array_equal(ours.order(second), ours.order(ours.init(12)))


def test_the_form_of_the_state_is_known_without_computing_it(small_config):
    trainer = Trainer(make_experiment(small_config))
    state, form = trainer.init(0), trainer.abstract_state()
    assert jax.tree.structure(state) == jax.tree.structure(form)
    for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(form), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


def test_eval_step_leaves_out_what_only_fills_the_batch(small_config):
    trainer = Trainer(make_experiment(small_config))
    state = trainer.init(0)
    batch = slice_batch(trainer.test_data, 0, 8, trainer.recipe.preprocessing)
    weights = jnp.arange(8) < 5
    args = (trainer.recipe, state.params, state.batch_stats, Metrics.zeros())
    part = evaluation.eval_step(*args, jax.tree.map(lambda x: x[:5], batch), jnp.ones(5, bool))
    whole = evaluation.eval_step(*args, batch, weights)
    assert int(whole.count) == 5
    assert int(whole.correct) == int(part.correct)
    np.testing.assert_allclose(whole.means()[0], part.means()[0], rtol=1e-6)


@pytest.mark.parametrize(("sync_period", "slow_ones"), [(7, 0), (5, 3)])
def test_slow_weights_that_are_the_live_ones_are_tested_once(
    sync_period, slow_ones, small_config, replace, tmp_path, monkeypatch
):
    """Of three epochs of 7 steps all end on a sync of every 7th step, and none on one of every 5th."""
    evaluate, asked = Trainer.evaluate, []

    def watched(trainer, state, *, slow=False):
        asked.append(slow)
        metrics = evaluate(trainer, state, slow=slow)
        if trainer.slow_scores_are_live_ones(state):
            assert metrics.means() == evaluate(trainer, state, slow=not slow).means()
        return metrics

    monkeypatch.setattr(Trainer, "evaluate", watched)
    config = replace(small_config, optimizer={"sync_period": sync_period})
    rows = train(config, tmp_path, quiet=True).rows
    assert (asked.count(False), asked.count(True)) == (3, slow_ones)
    same = [row["slow_test_loss"] == row["test_loss"] for row in rows]
    assert same == [slow_ones == 0] * 3


def test_the_step_takes_the_buffers_of_the_state_and_the_sums(small_config):
    trainer = Trainer(make_experiment(small_config))
    state, metrics = trainer.abstract_state(), trainer.abstract_metrics()
    order = trainer.parallel.placed(jax.ShapeDtypeStruct((trainer.recipe.train_examples,), np.int32))
    step = trainer.compiled(trainer.train_program(state, metrics, order))
    assert step.memory_analysis().alias_size_in_bytes == tree_bytes((state, metrics))
