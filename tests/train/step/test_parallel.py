"""Four CPU devices train as one does on the same global batch: by pmap, and by jit over a sharded batch."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lookahead_jax as la
from train import data
from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError
from train.experiment import XLA, make_experiment
from train.models import create_model
from train.registry import MODELS, Entry
from train.run.checkpointing import Checkpoints
from train.run.recovery import Position
from train.run.trainer import Trainer
from train.step.dispatch import Call
from train.step.parallel import Parallel, run_devices

STEPS = 20
# With seed 0 an activation of step 2 is within rounding of 0, and ReLU passes it on or not by the number of devices.
SEED = 1


def config_of(**changes):
    defaults = {
        "dataset": "digits",
        "epochs": 2,
        "batch_size": 64,
        "train_examples": 1000,
        "test_examples": 202,
        "model": ModelConfig(name="small_cnn"),
        "optimizer": OptimizerConfig(name="sgd", learning_rate=0.05, weight_decay=5e-4, lookahead=True),
    }
    return Config(**{**defaults, **changes})


def run_steps(trainer, state, steps=STEPS):
    """20 updates, over the ends of epochs; returns state, metrics of all, losses."""
    metrics, losses = trainer.zero_metrics(), []
    for step in range(steps):
        if step % trainer.recipe.steps_per_epoch == 0:
            order = trainer.order(state)
        last = step % trainer.recipe.steps_per_epoch == trainer.recipe.steps_per_epoch - 1
        state, metrics, report = trainer.train(state, metrics, order, Call(1, last=last))
        losses.append(float(report["loss"]))
    return state, metrics, losses


def assert_trees_close(ours, theirs, tolerance):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def one_device():
    trainer = Trainer(make_experiment(config_of(devices=1)))
    return trainer, run_steps(trainer, trainer.init(SEED))


@pytest.mark.optimized  # 20 steps to 1e-5: rounding as users have it
@pytest.mark.parametrize("mode", ["pmap", "jit"])
def test_four_devices_equal_one(one_device, mode):
    trainer = Trainer(make_experiment(config_of(devices=4, parallel=mode)))
    assert len(trainer.parallel.devices) == 4
    # 1000 = 15 * 64 + 40: the short batch is among the steps.
    assert (trainer.recipe.steps_per_epoch, trainer.recipe.last_batch_size) == (16, 40)
    single, (state, metrics, losses) = one_device
    state4, metrics4, losses4 = run_steps(trainer, trainer.init(SEED))
    np.testing.assert_allclose(losses4, losses, rtol=1e-5, atol=1e-5)
    assert_trees_close(state4, state, 1e-5)
    assert int(metrics4.count) == int(metrics.count) == 1000 + 4 * 64
    assert int(metrics4.correct) == int(metrics.correct)
    np.testing.assert_allclose(metrics4.means()[0], metrics.means()[0], rtol=1e-6)
    for slow in (False, True):
        ours, theirs = trainer.evaluate(state4, slow=slow), single.evaluate(state, slow=slow)
        assert int(ours.count) == int(theirs.count) == 202
        assert int(ours.correct) == int(theirs.correct)
        np.testing.assert_allclose(ours.means()[0], theirs.means()[0], rtol=1e-5)


@pytest.mark.optimized  # float64 convolutions are LLVM's own loops
def test_resnet18_on_four_devices_equals_one_in_float64(x64):
    """In float64, since ten steps of a ResNet amplify float32's last digit beyond any useful tolerance.

    A quarter of the filters, and an epoch of 11 steps, so that its last one, a program of its own, is not compiled.
    """
    rng = np.random.default_rng(0)
    split = data.Split(rng.integers(0, 256, (176, 32, 32, 3), np.uint8), rng.integers(0, 10, 176).astype(np.int32))
    mean = (125.3, 123.0, 113.9)
    dataset = data.Dataset("made-up", "image", split, split, 10, "pad_crop_flip", mean, (63.0, 62.1, 66.7), True)
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.001, weight_decay=5e-4, lookahead=True)
    model = ModelConfig(name="resnet18", stem="imagenet")
    config = Config(dataset="cifar10", epochs=1, batch_size=16, model=model, optimizer=optimizer)

    def trainer(devices, mode):
        on = dataclasses.replace(config, devices=devices, parallel=mode)
        return narrow_trainer(on, dataset, num_filters=16)

    def run(made):
        state = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, made.init(0))
        return run_steps(made, state, steps=10)

    state, metrics, losses = run(trainer(1, "single"))
    state2, metrics2, losses2 = run(trainer(4, "pmap"))
    np.testing.assert_allclose(losses2, losses, rtol=1e-5)
    assert_trees_close(state2, state, 1e-5)
    assert int(metrics2.count) == int(metrics.count) == 10 * 16
    assert int(metrics2.correct) == int(metrics.correct)


def narrow_trainer(config, dataset, **fewer):
    """A trainer whose model has fewer features than a config can say."""
    experiment = make_experiment(config, dataset, convolutions=XLA)
    recipe = experiment.recipe
    recipe = dataclasses.replace(recipe, model=recipe.model.clone(**fewer))
    return Trainer(dataclasses.replace(experiment, recipe=recipe))


def modern_trainer(devices, mode, cutout=12):
    """The small CNN on images of one colour each: crops, flips, cutout, and statistics of the slow weights' own."""
    rng = np.random.default_rng(1)
    images = np.broadcast_to(rng.integers(0, 256, (56, 1, 1, 3), np.uint8), (56, 32, 32, 3))
    split = data.Split(images, rng.integers(0, 10, 56).astype(np.int32))
    mean = (125.3, 123.0, 113.9)
    dataset = data.Dataset("made-up", "image", split, split, 10, "pad_crop_flip", mean, (63.0, 62.1, 66.7), True)
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.02, weight_decay=5e-4, lookahead=True)
    config = config_of(
        epochs=5,
        batch_size=16,
        cutout=cutout,
        recalibrate_batch_stats=True,
        optimizer=optimizer,
        devices=devices,
        parallel=mode,
    )
    return narrow_trainer(config, dataset, features=8)


@pytest.fixture(scope="module")
def modern_on_one_device():
    trainer = modern_trainer(1, "single")
    return trainer, run_steps(trainer, trainer.init(0), steps=7)


def test_cutout_takes_part_in_what_is_compared_below(modern_on_one_device):
    plain = modern_trainer(1, "single", cutout=0)
    *_, losses = run_steps(plain, plain.init(0), steps=1)
    assert abs(losses[0] - modern_on_one_device[1][2][0]) > 1e-3


@pytest.mark.parametrize("mode", ["pmap", "jit"])
def test_cutout_and_recalibration_on_four_devices_equal_one(modern_on_one_device, mode):
    """Seven steps, the short batch of 8 among them, two of them after the sync: slow weights are not the live ones."""
    single, (state, _, losses) = modern_on_one_device
    trainer = modern_trainer(4, mode)
    state4, _, losses4 = run_steps(trainer, trainer.init(0), steps=7)
    np.testing.assert_allclose(losses4, losses, rtol=1e-5)
    assert_trees_close(state4, state, 1e-5)
    ours, theirs = (
        trainer.recalibrated_batch_stats(state4, la.slow_params(state4.opt_state)),
        single.recalibrated_batch_stats(state, la.slow_params(state.opt_state)),
    )
    assert_trees_close(ours, theirs, 1e-5)
    # Of all devices alike, and not the running statistics.
    for leaf in jax.tree.leaves(ours):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4
        for shard in shards:
            np.testing.assert_array_equal(shard, shards[0])
    assert not np.allclose(ours["norm3"]["mean"], state4.batch_stats["norm3"]["mean"], rtol=1e-2)
    found, expected = trainer.evaluate(state4, slow=True), single.evaluate(state, slow=True)
    assert int(found.count) == int(expected.count) == 56
    assert int(found.correct) == int(expected.correct)
    np.testing.assert_allclose(found.means()[0], expected.means()[0], rtol=1e-5)


def odd_images(devices, mode, batch_size, tests, statistics):
    """Digits through a narrow CNN with BatchNorm; seven of 20 examples are left for the last batch."""
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 17, (20, 8, 8, 1), np.uint8), rng.integers(0, 10, 20).astype(np.int32)
    split, test = data.Split(images, labels), data.Split(images[:tests], labels[:tests])
    dataset = data.Dataset("made-up", "image", split, test, 10, "pad_crop_flip", (8.0,), (6.0,), True)
    config = config_of(batch_size=batch_size, recalibrate_batch_stats=statistics, devices=devices, parallel=mode)
    return narrow_trainer(config, dataset, features=4)


def odd_text(devices, mode, batch_size, tests, statistics):
    """Segments through a GRU with dropout, with label smoothing."""
    del statistics
    tokens = np.random.default_rng(3).integers(0, 30, (20, 2, 6)).astype(np.int32)
    split, test = data.Split(tokens[:, 0], tokens[:, 1]), data.Split(tokens[:tests, 0], tokens[:tests, 1])
    dataset = data.Dataset("made-up", "text", split, test, 30, "none", (), (), False, vocab_size=30)
    model = ModelConfig(name="gru", embedding_size=4, hidden_size=4)
    config = config_of(batch_size=batch_size, label_smoothing=0.1, model=model, devices=devices, parallel=mode)
    return Trainer(make_experiment(config, dataset))


ODD = {
    "images, 13 and 7 on 3": (odd_images, 13, 20, 3),
    "images, 3 and 2 on 4, tests 3": (odd_images, 3, 3, 4),
    "text, 7 and 6 on 4, tests 3": (odd_text, 7, 3, 4),
}


@functools.cache
def odd_on_one_device(make, batch_size, tests):
    trainer = make(1, "single", batch_size, tests, make is odd_images)
    return trainer, run_steps(trainer, trainer.init(0), steps=trainer.recipe.steps_per_epoch + 1)


@pytest.mark.optimized  # to 1e-6: rounding as users have it
@pytest.mark.parametrize("mode", ["pmap", "jit"])
@pytest.mark.parametrize("case", ODD)
def test_a_batch_that_does_not_divide_trains_as_on_one_device(case, mode):
    """Sums, gradients, BatchNorm statistics and dropout are those of the real examples alone."""
    make, batch_size, tests, devices = ODD[case]
    single, (state, metrics, losses) = odd_on_one_device(make, batch_size, tests)
    trainer = make(devices, mode, batch_size, tests, make is odd_images)
    assert trainer.recipe.share.padded(batch_size) > batch_size
    found, found_metrics, found_losses = run_steps(trainer, trainer.init(0), steps=len(losses))
    np.testing.assert_allclose(found_losses, losses, rtol=1e-6)
    assert_trees_close(found, state, 1e-6)
    assert int(found_metrics.count) == int(metrics.count)
    assert int(found_metrics.correct) == int(metrics.correct)
    for slow in (False, True):
        ours, theirs = trainer.evaluate(found, slow=slow), single.evaluate(state, slow=slow)
        assert int(ours.count) == int(theirs.count) == tests * single.recipe.samples_per_example
        assert int(ours.correct) == int(theirs.correct)
        np.testing.assert_allclose(ours.means()[0], theirs.means()[0], rtol=1e-6)
    if make is odd_images:
        assert_trees_close(
            trainer.recalibrated_batch_stats(found, la.slow_params(found.opt_state)),
            single.recalibrated_batch_stats(state, la.slow_params(state.opt_state)),
            1e-6,
        )


def test_a_model_that_would_count_padding_in_its_statistics_is_refused(monkeypatch):
    class Plain(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train)(x.reshape(x.shape[0], -1).astype(np.float32))
            return nn.Dense(self.num_classes)(x)

    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    MODELS.add(Entry("plain", Plain, task="image"))
    config = config_of(batch_size=30, train_examples=120, devices=4, model=ModelConfig(name="plain"))
    with pytest.raises(
        UserError, match=r"config\.batch_size of 30 does not divide over 4 devices, and the model plain"
    ):
        Trainer(make_experiment(config))
    Trainer(make_experiment(dataclasses.replace(config, batch_size=40)))


def test_a_checkpoint_is_the_same_bits_on_any_number_of_devices(tmp_path):
    """From one device to four, to three, and back."""
    made = {devices: odd_images(devices, "pmap", 13, 20, False) for devices in (1, 4, 3)}
    position = Position(made[1].init(5), made[1].zero_metrics(), step=0)
    first = jax.device_get(position.state)
    for step, devices in enumerate((4, 3, 1)):
        checkpoints = Checkpoints(tmp_path, run="a run")
        position.step = step
        position.save(checkpoints)
        checkpoints.wait()
        position = Position.load(made[devices], checkpoints)
        checkpoints.close()
        assert position.step == step
        assert all(len(leaf.devices()) == devices for leaf in jax.tree.leaves(position.state))
        for ours, theirs in zip(jax.tree.leaves(position.state), jax.tree.leaves(first), strict=True):
            np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"config\.devices=99, but this machine has 4"):
        run_devices(99)


def test_batch_larger_than_the_set_is_refused():
    with pytest.raises(UserError, match=r"config\.batch_size=2000 is larger than the 1000 training examples"):
        Trainer(make_experiment(config_of(batch_size=2000)))


INPUTS = {"resnet18": jnp.zeros((1, 32, 32, 3)), "gru": jnp.zeros((1, 5), int), "bilstm": jnp.zeros((1, 5), int)}


@pytest.mark.optimized
@pytest.mark.parametrize("name", INPUTS)
def test_the_initial_state_has_the_same_bits_however_fast_it_is_compiled(name):
    options = {"vocabulary_size": 100} if name == "bilstm" else {}
    model, key = create_model(name, num_classes=10, **options), jax.random.PRNGKey(3)
    parallel = Parallel.of(run_devices(1), "pmap")
    states = []
    for once in (False, True):
        init = parallel.compile(lambda key: model.init(key, INPUTS[name], train=False), (key,), once=once)
        states.append(jax.tree.map(np.asarray, init(key)))
    assert parallel.compiler_options(once=True) != parallel.compiler_options()
    jax.tree.map(np.testing.assert_array_equal, *states)
