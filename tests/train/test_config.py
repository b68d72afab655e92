"""Typed settings: what is refused, what makes another run."""

import dataclasses
import json

import numpy as np
import pytest

from train.config import (
    FORMER,
    Config,
    ModelConfig,
    OptimizerConfig,
    differences,
    from_dict,
    to_dict,
    validate,
)
from train.errors import UserError
from train.setting import leaves


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
        ("optimizer.momentum", 0.9),  # the default optimizer is adam
    ],
)
def test_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"config\.{name}\b"):
        validate(with_field(name, value))


@pytest.mark.parametrize("given", ["resnet18", {"name": "resnet18"}, None, ModelConfig])
def test_a_part_of_another_type_is_refused_by_name(given):
    with pytest.raises(UserError, match=r"config\.model=.* must be ModelConfig\(name=\.\.\.\)"):
        validate(Config(model=given))


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
        "optimizer.decay_epochs was [], is now [30, 48]",
    ]


def test_where_data_lies_makes_no_other_run():
    stored = to_dict(Config())
    assert differences(stored, Config(data_dir="/elsewhere", checkpoint_every=7, resume=False)) == []


def test_a_setting_that_was_not_recorded_is_another_run_unless_its_former_value_is_known(monkeypatch):
    stored = to_dict(Config())
    del stored["model"]["stem"]
    assert differences(stored, Config()) == ["model.stem was not recorded, is now 'imagenet'"]
    monkeypatch.setitem(FORMER, "model.stem", "imagenet")
    assert differences(stored, Config()) == []


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("learning_rate", np.logspace(-3, -2, 2)[0], 0.001),
        ("learning_rate", np.float32(0.5), 0.5),
        ("decay_epochs", (np.int64(3), 4), (3, 4)),
        ("name", np.str_("sgd"), "sgd"),
        ("lookahead", np.bool_(True), True),
        ("sync_period", np.int32(7), 7),
    ],
)
def test_numpys_scalars_become_plain_values(name, value, plain):
    """What is published must read back: str(np.float64(0.001)) is "np.float64(0.001)"."""
    found = getattr(validate(Config(optimizer=OptimizerConfig(**{name: value}))).optimizer, name)
    assert found == plain
    assert type(found) is type(plain)
    if isinstance(plain, tuple):
        assert [type(element) for element in found] == [int, int]


def test_a_config_reads_back_from_what_config_json_holds():
    config = Config(seed=3, optimizer=OptimizerConfig(name="sgd", decay_epochs=(4, 7)))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.pop("epochs"), "config.epochs is missing"),
        (lambda stored: stored.pop("optimizer"), "config.optimizer.name is missing"),
        (lambda stored: stored["model"].update(width=3), "config.model.width is not a setting"),
    ],
)
def test_a_stored_config_that_lacks_a_setting_or_has_another_is_refused(change, message):
    stored = to_dict(Config())
    change(stored)
    with pytest.raises(UserError, match=message):
        from_dict(stored)


def test_configs_are_plain_data():
    config = Config(model=ModelConfig(name="cnn"))
    assert dataclasses.replace(config) == config
