"""What is checked when a run is worked out, before anything of it is compiled."""

import dataclasses
import inspect

import jax
import numpy as np
import optax
import pytest

from train import data
from train.config import Config, ModelConfig, OptimizerConfig, validate
from train.data import Dataset, Split
from train.errors import UserError
from train.experiment import data_settings, make_recipe
from train.registry import MODELS, OPTIMIZERS, Entry
from train.setting import INT32_MAX
from train.step import steps

FLOAT32_MAX = 3.4028234663852886e38


def shape(*sizes, dtype=np.int32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def images(height, width, channels=3, examples=800):
    split = Split(shape(examples, height, width, channels, dtype=np.uint8), shape(examples))
    return Dataset("made up", "image", split, split, 10, "none", (0.0,) * channels, (1.0,) * channels, shuffle=True)


def text(examples=800):
    split = Split(shape(examples, 35), shape(examples, 35))
    return Dataset("made up", "text", split, split, 100, "none", (), (), shuffle=False, vocab_size=100)


def config(model="small_cnn", optimizer=(), model_options=(), **changes):
    settings = {"decay_epochs": ()} | dict(optimizer)
    return Config(
        batch_size=100,
        model=ModelConfig(model, **dict(model_options)),
        optimizer=OptimizerConfig(**settings),
        **changes,
    )


def test_a_run_without_an_update_is_refused_and_one_without_a_sync_is_told(caplog):
    with pytest.raises(UserError, match="accumulate_steps=17 is more than the run's 16 steps, so no update"):
        make_recipe(config(epochs=2, accumulate_steps=17), images(8, 8, 1))
    for sync_period, told in ((5, False), (6, True)):
        lookahead = {"lookahead": True, "sync_period": sync_period}
        make_recipe(config(epochs=2, accumulate_steps=3, optimizer=lookahead), images(8, 8, 1))
        assert ("sync_period=6 is more than the run's 5 updates: Lookahead never syncs" in caplog.text) == told


TOO_SMALL = {
    "digits for the CNN": ("cnn", images(8, 8, 1), "8x8x1"),
    "CIFAR for the CNN": ("cnn", images(32, 32), "32x32x3"),
    "one pixel for the CNN": ("cnn", images(1, 1), "1x1x3"),
    "a strip for the CNN": ("cnn", images(2, 300), "2x300x3"),
}


@pytest.mark.parametrize("case", TOO_SMALL)
def test_a_size_that_the_network_cannot_take_is_one_line(case):
    model, dataset, size = TOO_SMALL[case]
    with pytest.raises(
        UserError, match=rf"config\.model\.name='{model}' cannot take inputs of {size} \(made up\)"
    ) as e:
        make_recipe(config(model), dataset)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("model", "dataset"), [("cnn", images(73, 73)), ("resnet18", images(1, 1)), ("gru", text())])
def test_a_size_that_it_can_take_is_taken(model, dataset):
    make_recipe(config(model), dataset)


@pytest.mark.parametrize("options", [{"hidden_size": 10**6}, {"hidden_size": INT32_MAX}, {"embedding_size": INT32_MAX}])
def test_a_network_larger_than_the_machine_is_one_line(options):
    with pytest.raises(
        UserError, match=r"config\.model\.name='gru' (needs [0-9,]+ GiB .* this machine has|cannot take)"
    ) as caught:
        make_recipe(validate(config("gru", model_options=options)), text())
    assert "\n" not in str(caught.value)


def test_a_fault_in_a_users_own_model_keeps_its_traceback(monkeypatch):
    import flax.linen as nn

    class Broken(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, x, train=False):
            raise TypeError("of the user's own")

    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    MODELS.add(Entry("broken", Broken, task="image"))
    with pytest.raises(TypeError, match="of the user's own") as caught:
        make_recipe(config("broken"), images(8, 8))
    assert not isinstance(caught.value, UserError)


def test_the_shapes_are_worked_out_once(monkeypatch):
    calls = []
    init = steps.init_state
    monkeypatch.setattr(steps, "init_state", lambda recipe, key: calls.append(1) or init(recipe, key))
    recipe = make_recipe(config(), images(8, 8))
    steps.abstract_state(recipe)
    assert len(calls) == 1


# Settings beyond 32 bits, with 8 steps an epoch: changes, and the field that the line names.
TOO_LARGE = {
    "a period": ({"optimizer": {"sync_period": 10**10}}, "optimizer.sync_period"),
    "a delay": ({"optimizer": {"decay_delay": 2**31}}, "optimizer.decay_delay"),
    "epochs": ({"epochs": 2**31}, "epochs"),
    "one of the epochs of a drop": ({"optimizer": {"decay_epochs": (3, 10**12)}}, "optimizer.decay_epochs"),
    "a batch": ({"batch_size": 2**63}, "batch_size"),
    "a number that Python does not print": ({"checkpoint_every": 10**5000}, "checkpoint_every"),
    "a rate beyond float32": ({"optimizer": {"learning_rate": 1e39}}, "optimizer.learning_rate"),
    "a whole number for a rate": ({"optimizer": {"learning_rate": 10**400}}, "optimizer.learning_rate"),
    "steps of all epochs": ({"epochs": 2**28}, "epochs"),
    "steps of all epochs, cosine": ({"epochs": 2**28, "optimizer": {"schedule": "cosine"}}, "epochs"),
    "the step of a drop": ({"optimizer": {"decay_epochs": (2**28,)}}, "optimizer.decay_epochs"),
    "the step of a delayed drop": (
        {"optimizer": {"decay_epochs": (3,), "decay_delay": INT32_MAX}},
        "optimizer.decay_epochs=(3,) with config.optimizer.decay_delay",
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_number_beyond_32_bits_is_one_line_that_names_the_field(case):
    changes, field = TOO_LARGE[case]
    given = dataclasses.replace(
        config(optimizer=changes.get("optimizer", {})),
        **{name: value for name, value in changes.items() if name != "optimizer"},
    )
    with pytest.raises(UserError) as caught:
        make_recipe(validate(given), images(8, 8, examples=800))
    assert str(caught.value).startswith(f"config.{field}")
    assert "must be at most" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "settings",
    [
        {"sync_period": INT32_MAX},
        {"learning_rate": FLOAT32_MAX},
        {"decay_epochs": (INT32_MAX // 8,)},
        {"decay_epochs": (1, 2), "decay_delay": INT32_MAX // 8 - 2},
    ],
)
def test_the_largest_numbers_are_taken(settings):
    given = config(optimizer=settings)
    given.epochs = INT32_MAX // 8
    given.batch_size = 100
    make_recipe(validate(given), images(8, 8, examples=800))


def test_lookahead_around_a_registered_schedule_free_optimizer_is_refused(monkeypatch):
    """By what it is, whatever its name."""
    entries = dict(OPTIMIZERS._entries) | {"mine": Entry("mine", lambda rate, _: optax.contrib.schedule_free_sgd(0.1))}
    monkeypatch.setattr(OPTIMIZERS, "_entries", entries)
    make_recipe(validate(config(optimizer={"name": "mine"})), images(8, 8))
    given = config(optimizer={"name": "mine", "lookahead": True})
    with pytest.raises(UserError, match="cannot be combined with mine, which is Schedule-Free"):
        make_recipe(validate(given), images(8, 8))


def test_every_data_setting_is_an_argument_of_load():
    """So that two variants with other data never count as having the same."""
    assert {"name", *data_settings(Config())} == set(inspect.signature(data.load).parameters)
