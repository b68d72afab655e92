"""Runs with a moving average, Schedule-Free, accumulation and bfloat16: what is evaluated, resumed and computed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.step.test_parallel import assert_trees_close, config_of, run_steps
from train.config import OptimizerConfig
from train.experiment import load_dataset, make_experiment
from train.models import create_model
from train.run.loop import train
from train.run.records import read_rows
from train.run.trainer import Trainer


def mean_loss(config, params, batch_stats, split="test"):
    """Of a network over the test or validation set, by Flax and Optax alone."""
    dataset = load_dataset(config)
    examples = getattr(dataset, split)
    images = (examples.inputs - np.float32(dataset.mean)) / np.float32(dataset.std)
    model = create_model(config.model.name, num_classes=10)
    logits = model.apply({"params": params, "batch_stats": batch_stats}, jnp.asarray(images), train=False)
    return float(optax.softmax_cross_entropy_with_integer_labels(logits, examples.targets).mean())


def nested(tree, prefix):
    """The part of `final_tree`'s flat dictionary below a path, as nested dictionaries again."""
    found = {}
    for path, leaf in tree.items():
        if path.startswith(prefix):
            *nest, last = [part.strip("'") for part in path[len(prefix) + 1 : -1].split("][")]
            inner = found
            for part in nest:
                inner = inner.setdefault(part, {})
            inner[last] = jnp.asarray(leaf)
    return found


def test_the_moving_average_is_evaluated_and_resumed(
    small_config, replace, tmp_path, ctrl_c_at, assert_same_run, final_tree
):
    config = replace(small_config, ema_decay=0.9, accumulate_steps=2, validation_examples=30)
    train(config, tmp_path / "whole", quiet=True)
    ctrl_c_at.extend([4, 9, 14])  # in the middle of an update, after one, and at the end of an epoch
    while train(config, tmp_path / "stopped", quiet=True).status == "stopped":
        pass
    assert not ctrl_c_at
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")

    row, tree = read_rows(tmp_path / "whole" / "metrics.csv")[-1], final_tree(tmp_path / "whole")
    count = int(tree["['state']['opt_state']['average']['count']"])
    assert count == 21 // 2
    total = nested(tree, "['state']['opt_state']['average']['ema']")
    average = jax.tree.map(lambda x: x / (1 - 0.9**count), total)
    batch_stats = nested(tree, "['state']['batch_stats']")
    assert row["ema_test_loss"] == pytest.approx(mean_loss(config, average, batch_stats), rel=1e-5)
    assert row["test_loss"] == pytest.approx(
        mean_loss(config, nested(tree, "['state']['params']"), batch_stats), rel=1e-5
    )
    slow = nested(tree, "['state']['opt_state']['inner_state']['slow_params']")
    for name, params in (("ema_", average), ("slow_", slow), ("", nested(tree, "['state']['params']"))):
        expected = mean_loss(config, params, batch_stats, "validation")
        assert row[f"{name}validation_loss"] == pytest.approx(expected, rel=1e-5)
    # What retention takes for the best is the slow weights' accuracy on the validation set.
    progress = json.loads((tmp_path / "whole" / "checkpoints" / "21" / "progress.json").read_text())
    assert progress["score"] == pytest.approx(row["slow_validation_accuracy"], rel=1e-6)
    assert row["ema_test_loss"] != pytest.approx(row["test_loss"], rel=1e-3)
    assert row["ema_test_loss"] != pytest.approx(row["slow_test_loss"], rel=1e-3)


def test_schedule_free_is_evaluated_at_its_average(small_config, tmp_path, final_tree):
    config = dataclasses.replace(
        small_config, epochs=1, optimizer=OptimizerConfig(name="schedule_free_adamw", learning_rate=0.05)
    )
    row, tree = train(config, tmp_path, quiet=True).rows[-1], final_tree(tmp_path)
    # Without a validation set nothing is the best.
    assert json.loads((tmp_path / "checkpoints" / "7" / "progress.json").read_text())["score"] is None
    y, z = nested(tree, "['state']['params']"), nested(tree, "['state']['opt_state']['z']")
    x = jax.tree.map(lambda y, z: (y - 0.1 * z) / 0.9, y, z)
    batch_stats = nested(tree, "['state']['batch_stats']")
    assert row["test_loss"] == pytest.approx(mean_loss(config, x, batch_stats), rel=1e-5)
    assert row["test_loss"] != pytest.approx(mean_loss(config, y, batch_stats), rel=1e-3)


def test_averaged_weights_get_statistics_of_their_own_if_asked_for(small_config, replace):
    trainer = Trainer(make_experiment(replace(small_config, ema_decay=0.9, recalibrate_batch_stats=True)))
    state = run_steps(trainer, trainer.init(0), 4)[0]
    average = trainer.weights(state, ema=True)
    own = state.replace(params=average, batch_stats=trainer.recalibrated_batch_stats(state, average))
    assert trainer.evaluate(state, ema=True).means() == trainer.evaluate(own).means()
    assert trainer.evaluate(state.replace(params=average)).means() != trainer.evaluate(own).means()


def test_accumulation_clipping_and_average_on_four_devices_equal_one():
    """8 batches to 2 updates and 2 gradients more, the short batch of 8 among them."""
    optimizer = OptimizerConfig(
        name="sgd", learning_rate=0.05, weight_decay=5e-4, lookahead=True, sync_period=2, clip_norm=0.5
    )
    settings = {"train_examples": 104, "batch_size": 16, "accumulate_steps": 3, "ema_decay": 0.5, "epochs": 2}
    states = []
    for devices in (1, 4):
        trainer = Trainer(make_experiment(config_of(optimizer=optimizer, devices=devices, **settings)))
        states.append(run_steps(trainer, trainer.init(0), 8)[0])
    assert_trees_close(states[1], states[0], 1e-5)
    lookahead = states[0].opt_state.inner_state
    assert (int(lookahead.sync_count), int(lookahead.steps_since_sync)) == (1, 0)
    assert (int(lookahead.fast_state.mini_step), int(lookahead.fast_state.gradient_step)) == (2, 2)


def primitives(jaxpr):
    """(name, dtypes of the operands) of every operation, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, {str(v.aval.dtype) for v in equation.invars if hasattr(v.aval, "dtype")}
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def test_bfloat16_computes_in_it_and_keeps_everything_in_float32(small_config, replace):
    losses, states = [], []
    for dtype in ("float32", "bfloat16"):
        trainer = Trainer(make_experiment(replace(small_config, dtype=dtype)))
        state, _, found = run_steps(trainer, trainer.init(0), 7)
        losses.append(found)
        states.append(state)
    kinds = {x.dtype for x in jax.tree.leaves(states[1]) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert kinds == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[1] != losses[0]
    program = trainer.train_program(state, trainer.zero_metrics(), trainer.order(state))
    operations = list(primitives(jax.make_jaxpr(program.function)(*program.args).jaxpr))
    heavy = [dtypes for name, dtypes in operations if name in ("dot_general", "conv_general_dilated")]
    assert len(heavy) > 8
    assert all(dtypes == {"bfloat16"} for dtypes in heavy)


def test_bfloat16_gradients_are_those_of_a_network_cast_by_hand(small_config, replace):
    """Forward and backward in bfloat16 by `dtype=` of Flax's own layers, on the same weights and images."""
    import flax.linen as nn

    trainer = Trainer(make_experiment(replace(small_config, dtype="bfloat16")))
    state = trainer.init(0)

    class ByHand(nn.Module):
        @nn.compact
        def __call__(self, x):
            from train.models.normalization import BatchNorm

            for layer, stride in ((1, 1), (2, 2), (3, 2)):
                conv = nn.Conv(32, (3, 3), stride, padding=1, use_bias=False, dtype=jnp.bfloat16, name=f"conv{layer}")
                x = nn.relu(BatchNorm(name=f"norm{layer}")(conv(x), True))
            return nn.Dense(10, dtype=jnp.bfloat16, name="fc")(x.reshape(x.shape[0], -1)).astype(jnp.float32)

    images, targets = jax.random.normal(jax.random.PRNGKey(1), (16, 8, 8, 1)), jnp.arange(16) % 10
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def loss(apply, params, **how):
        logits, _ = apply({**variables, "params": params}, images, mutable=["batch_stats"], **how)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    ours = jax.grad(lambda params: loss(trainer.recipe.model.apply, params, train=True))(state.params)
    theirs = jax.grad(lambda params: loss(ByHand().apply, params))(state.params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == jnp.float32
        # 8 bits of mantissa: other orders of summation differ by some hundredths of the largest.
        np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.max(jnp.abs(b))))
