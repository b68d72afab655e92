"""Typed settings: what is refused, what makes another run."""

import dataclasses

import pytest

from train.config import Config, ModelConfig, OptimizerConfig, differences, leaves, to_dict, validate
from train.errors import UserError


def with_field(name, value):
    config = Config()
    *parents, field = name.split(".")
    target = config
    for parent in parents:
        target = getattr(target, parent)
    setattr(target, field, value)
    return config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch_size", 0),
        ("batch_size", -128),
        ("seed", -1),
        ("seed", 2**32),
        ("train_examples", -1),
        ("parallel", "ddp"),
        ("resume", 1),
        ("dataset", None),
        ("label_smoothing", 1.0),
        ("model.stem", "vgg"),
        ("model.dropout", -0.1),
        ("optimizer.name", "lamb"),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", float("nan")),
        ("optimizer.learning_rate", "fast"),
        ("optimizer.weight_decay", -1e-4),
        ("optimizer.decay_epochs", (60, 60)),
        ("optimizer.decay_epochs", (60, 1.5)),
        ("optimizer.decay_epochs", ("",)),
        ("optimizer.decay_epochs", (0, 10)),
        ("optimizer.decay_factor", 1.5),
        ("optimizer.sync_period", 0),
        ("optimizer.slow_step_size", 1.2),
        ("optimizer.nesterov", True),
        ("optimizer.momentum", 0.9),  # the default optimizer is radam
    ],
)
def test_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"config\.{name}\b"):
        validate(with_field(name, value))


def test_every_field_states_its_rules():
    for name, _, field in leaves(Config()):
        assert "identity" in field.metadata, name


def test_default_config_is_valid():
    assert validate(Config()) == Config()


def test_whole_numbers_are_floats_too():
    validate(with_field("optimizer.learning_rate", 1))


def test_differences_name_both_values():
    stored = to_dict(Config())
    changed = Config(seed=3, optimizer=OptimizerConfig(decay_epochs=(30, 48)))
    assert differences(stored, changed) == [
        "seed was 0, is now 3",
        "optimizer.decay_epochs was [60, 120, 160], is now [30, 48]",
    ]


def test_where_data_lies_makes_no_other_run():
    stored = to_dict(Config())
    assert differences(stored, Config(data_dir="/elsewhere", checkpoint_every=7, resume=False)) == []


def test_a_field_that_the_stored_config_lacks_counts_with_its_default():
    stored = to_dict(Config())
    del stored["model"]["stem"], stored["optimizer"]
    assert differences(stored, Config()) == []
    changed = Config(model=ModelConfig(stem="cifar"))
    assert differences(stored, changed) == ["model.stem was 'imagenet', is now 'cifar'"]


def test_configs_are_plain_data():
    config = Config(model=ModelConfig(name="cnn"))
    assert dataclasses.replace(config) == config
