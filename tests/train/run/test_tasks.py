"""Each task of the report from its config to its files, on made-up data: small sizes, seconds each."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import lookahead_jax as la
import train.run.loop
from train.config import Config, ModelConfig, OptimizerConfig
from train.data.imdb import prepare_imdb
from train.errors import UserError
from train.experiment import load_dataset, make_experiment
from train.models.normalization import BatchNorm
from train.run.records import validation_score
from train.run.trainer import Trainer
from train.step.dispatch import Call
from train.step.input_pipeline import draw, load, slice_batch

ROWS, LENGTH, VOCABULARY = 8, 5, 30


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory):
    """2,000 and 600 words of a language where the next word follows from the last nine times in ten."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)

    def lines(words):
        word, found = 0, []
        for _ in range(words):
            word = (3 * word + 1) % (VOCABULARY - 1) if rng.random() < 0.9 else int(rng.integers(VOCABULARY - 1))
            found.append(f"w{word}")
        return "\n".join(" ".join(found[i : i + 20]) for i in range(0, words, 20)) + "\n"

    (folder / "train.txt").write_text(lines(2000))
    (folder / "valid.txt").write_text(lines(600))
    return folder


@pytest.fixture(scope="module")
def images_dir(tmp_path_factory):
    """Three classes of one colour each, with noise, 12 and 5 images of differing sizes; one test image is grey."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for split, count in (("train", 12), ("valid", 5)):
        for label, colour in enumerate(((200, 60, 60), (60, 200, 60), (60, 60, 200))):
            made = folder / split / f"class{label}"
            made.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(75, 110, 2)
                pixels = np.clip(colour + 40 * rng.normal(size=(height, width, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(made / f"{i}.png")
    Image.fromarray(np.full((90, 80), 120, np.uint8)).save(folder / "valid" / "class0" / "0.png")
    return folder


@pytest.fixture(scope="module")
def reviews_dir(tmp_path_factory):
    """Reviews whose class is told by one word in three."""
    folder = tmp_path_factory.mktemp("reviews")
    rng = np.random.default_rng(2)
    for split, count in (("train", 40), ("test", 15)):
        for group, word in (("neg", "bad"), ("pos", "good")):
            made = folder / "aclImdb" / split / group
            made.mkdir(parents=True)
            for i in range(count):
                words = rng.choice([word, "film", "plot"], rng.integers(3, 12))
                (made / f"{i}_1.txt").write_text(" ".join([word, *words]))
    prepare_imdb(str(folder / "tfds"), from_dir=str(folder), report=lambda line: None)
    return folder / "tfds"


RADAM = OptimizerConfig(name="radam", learning_rate=0.01, lookahead=True, sync_period=5)


@pytest.fixture
def text_config(text_dir):
    return Config(
        dataset="text",
        data_dir=str(text_dir),
        epochs=2,
        batch_size=ROWS,
        test_batch_size=4,
        sequence_length=LENGTH,
        seed=3,
        devices=1,
        model=ModelConfig(name="gru", embedding_size=8, hidden_size=12, dropout=0.3),
        optimizer=dataclasses.replace(RADAM, name="adam", learning_rate=0.03),
    )


@pytest.fixture
def image_config(images_dir):
    return Config(
        dataset="imagefolder",
        data_dir=str(images_dir),
        epochs=3,
        batch_size=12,
        image_size=16,
        devices=1,
        model=ModelConfig(name="small_cnn"),
        optimizer=RADAM,
    )


@pytest.fixture
def review_config(reviews_dir):
    return Config(
        dataset="imdb_reviews",
        data_dir=str(reviews_dir),
        epochs=6,
        batch_size=16,
        sequence_length=10,
        devices=1,
        model=ModelConfig(name="bilstm", embedding_size=6, hidden_size=5, dropout=0.2),
        optimizer=dataclasses.replace(RADAM, name="adam", learning_rate=0.05),
    )


def run_epochs(trainer, state, epochs):
    """Trains whole epochs; returns the state and each epoch's mean loss and accuracy."""
    found = []
    for _ in range(epochs):
        metrics, order = trainer.zero_metrics(), trainer.order(state)
        for step in range(trainer.recipe.steps_per_epoch):
            state, metrics, _ = trainer.train(
                state, metrics, order, Call(1, last=step == trainer.recipe.steps_per_epoch - 1)
            )
        found.append(metrics.means())
    return state, found


def test_the_cnn_learns_an_image_folder(image_config):
    config = dataclasses.replace(
        image_config,
        image_size=73,  # the smallest that leaves the CNN a map
        model=ModelConfig(name="cnn"),
        optimizer=dataclasses.replace(RADAM, learning_rate=1e-3),
    )
    trainer = Trainer(make_experiment(config))
    state, epochs = run_epochs(trainer, trainer.init(0), 3)
    assert epochs[-1][0] < 0.5 * epochs[0][0]
    assert int(trainer.evaluate(state).count) == 15
    slow = trainer.evaluate(state, slow=True)
    assert math.isfinite(slow.means()[0])


def test_the_bilstm_learns_reviews_and_its_vocabulary_is_the_sets(review_config):
    trainer = Trainer(make_experiment(review_config))
    state = trainer.init(0)
    # The four special ids, good, bad, film, plot.
    assert state.params["embedding"].shape == (8, 6)
    state, epochs = run_epochs(trainer, state, 6)
    assert epochs[-1][0] < 0.5 * epochs[0][0]
    test = trainer.evaluate(state)
    assert int(test.count) == 30
    assert test.means()[1] > 0.9


def test_the_language_model_learns_and_its_metrics_count_tokens(text_config, tmp_path):
    config = dataclasses.replace(text_config, epochs=4, validation_examples=16)
    outcome = train.run.loop.train(config, tmp_path, quiet=True)
    first, last = outcome.rows[0], outcome.rows[-1]
    assert last["train_loss"] < first["train_loss"]
    assert validation_score(last) == -last["slow_validation_loss"]
    for prefix in ("train", "test", "slow_test", "validation", "slow_validation"):
        assert last[f"{prefix}_perplexity"] == pytest.approx(math.exp(last[f"{prefix}_loss"]), rel=1e-5)
    # Random words would cost ln 30; nine in ten are given by the last one.
    assert last["test_perplexity"] < 0.75 * VOCABULARY


def test_the_untrained_language_model_finds_every_word_as_likely(text_config):
    trainer = Trainer(make_experiment(text_config))
    perplexity = math.exp(trainer.evaluate(trainer.init(0)).means()[0])
    assert perplexity == pytest.approx(VOCABULARY, rel=0.02)


def test_batches_of_text_are_the_next_segments_of_each_row(text_config, text_dir):
    trainer = Trainer(make_experiment(text_config))
    words = (text_dir / "train.txt").read_text().replace("\n", " <eos> ").split()
    names = load_dataset(text_config).class_names
    table = np.array([names.index(word) for word in words])[: len(words) // ROWS * ROWS].reshape(ROWS, -1)
    state = trainer.init(0)
    for step in (0, 1, trainer.recipe.steps_per_epoch - 1, trainer.recipe.steps_per_epoch):
        drawn = draw(
            state.key,
            jnp.int32(step),
            trainer.order(state),
            start=step % trainer.recipe.steps_per_epoch * ROWS,
            batch_size=ROWS,
            preprocessing=trainer.recipe.preprocessing,
        )
        batch = load(trainer.train_data, drawn, trainer.recipe.preprocessing)
        start = step % trainer.recipe.steps_per_epoch * LENGTH
        np.testing.assert_array_equal(batch.inputs, table[:, start : start + LENGTH])
        np.testing.assert_array_equal(batch.targets, table[:, start + 1 : start + LENGTH + 1])


def test_evaluation_of_text_is_the_mean_over_every_token(text_config):
    # 24 segments in batches of 5: the last batch overlaps, and must not count twice.
    trainer = Trainer(make_experiment(dataclasses.replace(text_config, test_examples=24)))
    trainer.recipe = dataclasses.replace(trainer.recipe, test_batch_size=5)
    state, _ = run_epochs(trainer, trainer.init(0), 1)
    batch = slice_batch(trainer.test_data, 0, 24, trainer.recipe.preprocessing)
    logits = trainer.recipe.model.apply({"params": state.params}, batch.inputs, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    found = trainer.evaluate(state)
    assert int(found.count) == 24 * LENGTH
    assert int(found.correct) == int(jnp.sum(logits.argmax(-1) == batch.targets))
    np.testing.assert_allclose(found.means()[0], np.mean(np.asarray(losses, np.float64)), rtol=1e-6)


# One mode each: test_parallel.py has both, on one task.
@pytest.mark.parametrize(("task", "mode"), [("text", "pmap"), ("image", "pmap"), ("image", "jit")])
def test_four_devices_equal_one(task, mode, text_config, image_config):
    """The GRU without dropout; the CNN on random resized crops, its short batch of 4 included."""
    if task == "text":
        model = dataclasses.replace(text_config.model, dropout=0.0)
        config = dataclasses.replace(text_config, model=model, train_examples=10 * ROWS)
    else:
        config = dataclasses.replace(image_config, batch_size=16, test_batch_size=8)
    # SGD: an adaptive rule would divide two roundings of a near-zero gradient by each other.
    config.optimizer = OptimizerConfig(name="sgd", learning_rate=0.02, lookahead=True)
    ours, single = (Trainer(make_experiment(dataclasses.replace(config, devices=n, parallel=mode))) for n in (4, 1))
    (state4, epochs4), (state1, epochs1) = (run_epochs(p, p.init(0), 1) for p in (ours, single))
    np.testing.assert_allclose(epochs4, epochs1, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(state4), jax.tree.leaves(state1), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-4)
    found, expected = ours.evaluate(state4), single.evaluate(state1)
    assert int(found.count) == int(expected.count)
    np.testing.assert_allclose(found.means()[0], expected.means()[0], rtol=1e-3)


@pytest.mark.parametrize("task", ["text", "image"])
def test_a_stopped_run_of_each_task_is_the_run_that_was_not(task, request, tmp_path, ctrl_c_at, assert_same_run):
    """Dropout and random resized crops included: all their random numbers follow from the state."""
    config = request.getfixturevalue(f"{task}_config")
    config = dataclasses.replace(config, epochs=2, train_examples=3 * ROWS if task == "text" else 36)
    train.run.loop.train(config, tmp_path / "whole", quiet=True)
    ctrl_c_at.append(4)  # of 6 steps, one before the sync
    assert train.run.loop.train(config, tmp_path / "stopped", quiet=True).status == "stopped"
    assert train.run.loop.train(config, tmp_path / "stopped", quiet=True).status == "finished"
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_dropout_differs_from_step_to_step_and_from_seed_to_seed(text_config):
    trainer = Trainer(make_experiment(text_config))
    state = trainer.init(0)
    state = jax.tree.map(lambda x: 5 * x if x.dtype == jnp.float32 else x, state)

    def loss(state, step):
        state = jax.tree.map(jnp.array, state.replace(step=jnp.int32(step)))
        return float(trainer.train(state, trainer.zero_metrics(), trainer.order(state))[2]["loss"])

    # The same batch, since an epoch later: only dropout is another.
    same = {loss(state, step * trainer.recipe.steps_per_epoch) for step in range(3)}
    other_seed = loss(state.replace(key=jax.random.PRNGKey(9)), 0)
    assert len(same | {other_seed}) == 4
    assert loss(state, 0) == loss(state, 0)


def batch_norm_statistics(model, params, batch_stats, batches):
    """Mean and unbiased variance of what enters each BatchNorm, batch by batch, averaged: by NumPy in float64."""
    found = []

    def record(next_function, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            x = np.asarray(args[0], np.float64).reshape(-1, args[0].shape[-1])
            found[-1][context.module.path] = {"mean": x.mean(0), "var": x.var(0, ddof=1)}
        return next_function(*args, **kwargs)

    for inputs in batches:
        found.append({})
        with nn.intercept_methods(record):
            model.apply({"params": params, "batch_stats": batch_stats}, inputs, train=True, mutable=["batch_stats"])
    return {
        path: {name: np.mean([batch[path][name] for batch in found], axis=0) for name in ("mean", "var")}
        for path in found[0]
    }


def with_other_slow_weights(state):
    return state.replace(opt_state=state.opt_state._replace(slow_params=jax.tree.map(lambda x: 1.5 * x, state.params)))


@pytest.mark.parametrize(("devices", "mode"), [(1, "pmap"), (4, "pmap"), (4, "jit")])
def test_recalibrated_statistics_are_those_of_the_slow_weights_over_training_batches(image_config, devices, mode):
    config = dataclasses.replace(
        image_config, batch_size=8, recalibrate_batch_stats=True, devices=devices, parallel=mode
    )
    trainer = Trainer(make_experiment(config))
    trainer.recipe = dataclasses.replace(trainer.recipe, recalibration_batches=3)
    # In the second epoch, to see that its order is taken; of its four full batches the first three.
    state = with_other_slow_weights(trainer.init(0).replace(step=trainer.parallel.put(jnp.int32(5))))
    order, draw_key = trainer.order(state), jax.random.split(state.key, 3)[1]
    preprocessing = trainer.recipe.preprocessing

    def inputs(step):
        drawn = draw(draw_key, step, order, start=(step - 5) * 8, batch_size=8, preprocessing=preprocessing)
        return load(trainer.train_data, drawn, preprocessing).inputs

    expected = batch_norm_statistics(
        trainer.recipe.model.clone(axis_name=None),
        state.opt_state.slow_params,
        state.batch_stats,
        [inputs(jnp.int32(5 + i)) for i in range(3)],
    )
    found = trainer.recalibrated_batch_stats(state, la.slow_params(state.opt_state))
    assert {(name,) for name in found} == set(expected)
    for (name,), statistics in expected.items():
        for kind, values in statistics.items():
            np.testing.assert_allclose(found[name][kind], values, rtol=1e-4, atol=1e-5)


def test_recalibration_leaves_out_the_short_batch_and_is_for_the_slow_weights_alone(small_config):
    config = dataclasses.replace(small_config, recalibrate_batch_stats=True, train_examples=20)
    trainer, plain = (
        Trainer(make_experiment(config)),
        Trainer(make_experiment(dataclasses.replace(config, recalibrate_batch_stats=False))),
    )
    state = with_other_slow_weights(trainer.init(0))
    trainer.compile()
    compiled = trainer.compilations
    found = trainer.evaluate(state, slow=True).means()
    as_live = state.replace(
        params=state.opt_state.slow_params,
        batch_stats=trainer.recalibrated_batch_stats(state, la.slow_params(state.opt_state)),
    )
    assert trainer.evaluate(as_live).means() == found
    assert trainer.compilations == compiled
    assert plain.evaluate(state, slow=True).means() != found
    assert plain.evaluate(state).means() == trainer.evaluate(state).means()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ModelConfig(name="resnet18")}, "model.name='resnet18' is for images.* for language models"),
        ({"model": ModelConfig(name="bilstm")}, "is for text classification"),
        ({"model": ModelConfig(name="lstm")}, "unknown model 'lstm'; choose one of resnet18"),
        ({"recalibrate_batch_stats": True}, "model gru has no BatchNorm"),
        ({"cutout": 4}, "cutout=4 is for the CIFAR sets"),
        ({"dataset": "digits"}, "model.name='gru' is for language models.*dataset='digits' is for images"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_words(text_config, changes, message):
    with pytest.raises(UserError, match=message):
        Trainer(make_experiment(dataclasses.replace(text_config, **changes)))
