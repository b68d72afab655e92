"""create_model: names, options and their errors."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from train.errors import UserError
from train.models import MODELS, create_model


def test_the_names_are_known_without_importing_jax():
    code = "import sys, train.models; assert 'gru' in train.models.MODELS; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_listed_option_is_a_field_of_its_model(name):
    model = create_model(name, num_classes=7)
    assert model.num_classes == 7
    for option in MODELS[name].options:
        value = getattr(model, option)
        assert getattr(create_model(name, num_classes=7, **{option: value}), option) == value


@pytest.mark.parametrize("name", MODELS)
def test_a_models_task_says_what_it_takes_and_gives(name):
    """From 2 images of 73x73 (the smallest that the CNN takes) or 2 texts of 6 tokens to their logits."""
    spec = MODELS[name]
    inputs = jnp.zeros((2, 73, 73, 3)) if spec.task == "image" else jnp.zeros((2, 6), jnp.int32)
    model = create_model(name, num_classes=7)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.PRNGKey(0), inputs)
    logits = jax.eval_shape(functools.partial(model.apply, train=False), variables, inputs)
    assert logits.shape == ((2, 6, 7) if spec.task == "text" else (2, 7))
    assert ("batch_stats" in variables) == spec.batch_stats


def test_an_option_reaches_the_model():
    assert create_model("resnet18", num_classes=10, stem="cifar").stem == "cifar"
    assert create_model("gru", num_classes=10, hidden_size=7).hidden_size == 7


def test_the_axis_name_reaches_models_with_batch_norm_and_no_others():
    assert create_model("cnn", num_classes=2, axis_name="batch").axis_name == "batch"
    assert not hasattr(create_model("gru", num_classes=2, axis_name="batch"), "axis_name")


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"resnet19.*resnet18, cnn, small_cnn, gru, bilstm"):
        create_model("resnet19", num_classes=10)


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'steem'.*resnet18.*stem"):
        create_model("resnet18", num_classes=10, steem="cifar")


def test_an_unknown_stem_is_refused():
    with pytest.raises(UserError, match=r"'resnet'.*'imagenet' or 'cifar'"):
        create_model("resnet18", num_classes=10, stem="resnet")


def test_no_classes_are_refused():
    with pytest.raises(UserError, match="num_classes=0"):
        create_model("cnn", num_classes=0)
