"""Optimizers, models and data sets by name: the project's own and a user's, options, and errors."""

import dataclasses
import functools
import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train
from train import data
from train.config import Config, ModelConfig, OptimizerConfig, differences, from_dict, to_dict, validate
from train.errors import UserError
from train.experiment import make_recipe
from train.flags import parse
from train.identity import run_id
from train.models import MODELS, create_model
from train.optimizer_options import Lion
from train.optimizers import make_inner_optimizer
from train.registry import DATASETS, OPTIMIZERS
from train.run.loop import train as train_run
from train.setting import leaves
from train.study.results import published
from train.study.results.cells import exact


def test_the_names_are_known_without_importing_jax():
    code = "import sys, train.models; assert 'gru' in train.models.MODELS; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", MODELS)
def test_a_models_task_says_what_it_takes_and_gives(name):
    """From 2 images of 73x73 (the smallest that the CNN takes) or 2 texts of 6 tokens to their logits."""
    spec = MODELS[name]
    inputs = jnp.zeros((2, 73, 73, 3)) if spec.task == "image" else jnp.zeros((2, 6), jnp.int32)
    model = create_model(name, num_classes=7)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.PRNGKey(0), inputs)
    logits = jax.eval_shape(functools.partial(model.apply, train=False), variables, inputs)
    assert logits.shape == ((2, 6, 7) if spec.task == "text" else (2, 7))
    # Batch statistics and dropout need to know over which axis the batch is split.
    assert ("batch_stats" in variables or "dropout" in spec.parameters()) == ("axis_name" in spec.parameters())


def test_an_option_reaches_the_model():
    assert create_model("resnet18", num_classes=10, stem="cifar").stem == "cifar"
    assert create_model("gru", num_classes=10, hidden_size=7).hidden_size == 7


@pytest.mark.parametrize("name", [name for name in MODELS if "axis_name" in MODELS[name].parameters()])
def test_the_axis_name_reaches_models(name):
    assert create_model(name, num_classes=2, axis_name="batch").axis_name == "batch"


def test_a_model_without_an_axis_name_is_given_none(monkeypatch):
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))

    @train.register_model("plain", task="image")
    class Plain(nn.Module):
        num_classes: int

    assert not hasattr(create_model("plain", num_classes=2, axis_name="batch"), "axis_name")


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"resnet19.*resnet18, .*bilstm"):
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


# What a user registers


@dataclasses.dataclass
class LionOptions:
    b2: float = 0.99
    nesterov: bool = False


@pytest.fixture
def lion(monkeypatch):
    """An optimizer with options, registered for one test."""
    for registry in (OPTIMIZERS, MODELS, DATASETS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @train.register_optimizer("my_lion")
    def make(learning_rate, config, options: LionOptions):
        return optax.lion(learning_rate, b2=options.b2, weight_decay=config.weight_decay)

    return make


def with_lion(**options):
    return validate(
        Config(optimizer=OptimizerConfig(name="my_lion", options=LionOptions(**options) if options else None))
    )


def one_update(tx):
    params = jnp.array([1.0, -2.0])
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jnp.array([0.5, 0.1]), state, params)
    return updates, state


def test_options_reach_a_registered_optimizer_and_have_defaults(lion):
    for config, b2 in ((with_lion(), 0.99), (with_lion(b2=0.5), 0.5)):
        ours = one_update(make_inner_optimizer(config.optimizer, optax.constant_schedule(0.1)))
        theirs = one_update(optax.lion(optax.constant_schedule(0.1), b2=b2, weight_decay=config.optimizer.weight_decay))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(a, b)


def test_options_are_part_of_a_runs_identity(lion):
    plain, other = with_lion(), with_lion(b2=0.5)
    assert run_id(plain, "data") == run_id(with_lion(b2=0.99), "data")
    assert run_id(plain, "data") != run_id(other, "data")
    assert differences(to_dict(plain), other) == ["optimizer.options.b2 was 0.99, is now 0.5"]
    assert from_dict(to_dict(other)) == other
    assert {name: value for name, value, _ in leaves(other)}["optimizer.options.nesterov"] is False


@dataclasses.dataclass
class BetasOptions:
    betas: tuple[float, float] = (0.9, 0.99)
    widths: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1, 0.5)
    rule: str = "a"


def test_options_of_every_kind_are_read_back_from_every_file(lion):
    @train.register_optimizer("betas")
    def make(learning_rate, config, options: BetasOptions):
        return optax.lion(learning_rate, *options.betas)

    config = validate(Config(optimizer=OptimizerConfig(name="betas", options=BetasOptions(widths=(3, 4)))))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    for name, value, field in leaves(config):
        if ".options." in name:
            read = published._parse_setting(exact(value), field.type)
            assert (tuple(read) if isinstance(value, tuple) else read) == value, name
    as_floats = BetasOptions(widths=(3, 4), scales=(1.0, 0.5))
    same = validate(Config(optimizer=OptimizerConfig(name="betas", options=as_floats)))
    assert run_id(config, "data") == run_id(same, "data")
    for wrong, message in (
        (BetasOptions(betas=(0.9,)), r"options\.betas=\(0\.9,\) must be 2 numbers separated by commas"),
        (BetasOptions(scales=("x",)), r"options\.scales=\('x',\) must be numbers separated by commas, or \(\)"),
        (BetasOptions(rule=None), r"options\.rule=None must be a string"),
    ):
        with pytest.raises(UserError, match=message):
            validate(Config(optimizer=OptimizerConfig(name="betas", options=wrong)))


@pytest.mark.parametrize(
    ("kind", "default", "message"),
    [
        (
            "float | None",
            None,
            r"'odd': Odd\.x is float \| None; an option is an int, a float, a str, a bool, or a tup",
        ),
        ("dict", 3, r"'odd': Odd\.x is dict; an option is"),
        ("tuple[str, ...]", (), r"'odd': Odd\.x is tuple\[str, \.\.\.\]; an option is"),
        ("float", dataclasses.MISSING, r"'odd': Odd\.x has no default; give it one"),
    ],
)
def test_options_that_no_file_could_hold_are_refused(kind, default, message, lion):
    odd = dataclasses.make_dataclass("Odd", [("x", eval(kind), dataclasses.field(default=default))])

    @train.register_optimizer("odd")
    def make(learning_rate, config, options):
        return optax.sgd(learning_rate)

    make.__annotations__["options"] = odd
    with pytest.raises(UserError, match=message):
        validate(Config(optimizer=OptimizerConfig(name="odd")))


def test_a_run_without_options_has_none_in_its_files():
    assert "options" not in to_dict(Config())["optimizer"]
    assert not [name for name, _, _ in leaves(Config()) if "options" in name]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimizerConfig(options=LionOptions()), r"config\.optimizer\.options=LionOptions.*left out for adam"),
        (OptimizerConfig(name="my_lion", options=3), r"config\.optimizer\.options=3 must be a LionOptions for my_lion"),
        (OptimizerConfig(name="my_lion", options=LionOptions(b2="x")), r"options\.b2='x' must be a finite number"),
        (OptimizerConfig(name="no_such_module:tx"), r"config\.optimizer\.name='no_such_module:tx'.*cannot be imported"),
        (OptimizerConfig(name="optax:no_such"), r"config\.optimizer\.name='optax:no_such'.*cannot be imported"),
        (
            OptimizerConfig(name="lamb"),
            r"config\.optimizer\.name='lamb' is not known; choose one of sgd, .*radam",
        ),
    ],
)
def test_options_and_names_that_do_not_fit_are_refused(lion, config, message):
    with pytest.raises(UserError, match=message):
        validate(Config(optimizer=config))


def test_momentum_is_a_registered_optimizers_own_business(lion):
    assert validate(Config(optimizer=OptimizerConfig(name="my_lion", momentum=0.9))).optimizer.momentum == 0.9
    with pytest.raises(UserError, match=r"config\.optimizer\.momentum is for sgd"):
        validate(Config(optimizer=OptimizerConfig(name="adam", momentum=0.9)))


@pytest.mark.parametrize("register", [train.register_optimizer, train.register_dataset])
def test_the_projects_own_cannot_be_replaced(register, lion):
    for name in ("sgd", "digits"):
        if name in OPTIMIZERS if register is train.register_optimizer else name in DATASETS:
            with pytest.raises(UserError, match=f"'{name}' is built in"):
                register(name)(lambda: None)


def test_what_is_no_optimizer_is_refused(lion):
    train.register_optimizer("wrong")(lambda learning_rate, config: 3)
    with pytest.raises(UserError, match=r"'wrong' returned 3; expected an optax.GradientTransformation"):
        make_inner_optimizer(OptimizerConfig(name="wrong"), optax.constant_schedule(0.1))


def test_an_optimizer_that_does_not_take_what_it_is_called_with_is_refused(lion):
    train.register_optimizer("wrong")(lambda learning_rate: optax.sgd(learning_rate))
    with pytest.raises(
        UserError, match=r"'wrong' takes \(learning_rate\) and cannot be called: too many positional arguments"
    ):
        make_inner_optimizer(OptimizerConfig(name="wrong"), optax.constant_schedule(0.1))


@pytest.mark.parametrize("register", [train.register_optimizer, train.register_dataset])
def test_a_decorator_without_a_name_is_refused(lion, register):
    with pytest.raises(UserError, match=rf"needs a name, for example @train.{register.__name__}\('mine'\)"):
        register(lambda learning_rate, config: optax.sgd(learning_rate))


class Wide(nn.Module):
    """Seven outputs, whatever the classes."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(7)(x.reshape(x.shape[0], -1))


class WithoutTrain(nn.Module):
    def __call__(self, x):
        return x


class OtherName(nn.Module):
    classes: int

    def __call__(self, x, train):
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Wide, r"config.model.name='mine' gives \[B, 7\] for digits; expected logits \[B, 10\]"),
        (WithoutTrain, r"model 'mine': its __call__ does not take train; it is called as module\(inputs, train=...\)"),
        (
            OtherName,
            r"'mine' takes \(classes, parent, name\) and cannot be called: missing a required argument: 'classes'",
        ),
        (lambda num_classes: num_classes, r"model 'mine' is int; expected a flax.linen.Module"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(lion, model, message):
    train.register_model("mine", task="image")(model)
    config = validate(Config(dataset="digits", model=ModelConfig(name="mine")))
    with pytest.raises(UserError, match=message):
        make_recipe(config, data.load("digits"))


def test_a_registered_model_data_set_and_an_imported_optimizer_train(lion, tmp_path, monkeypatch):
    @train.register_model("linear", task="image")
    class Linear(nn.Module):
        num_classes: int
        options: LionOptions

        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))

    @train.register_dataset("stripes")
    def stripes(data_dir, batch_size):
        images = np.zeros((40, 4, 4, 1), np.uint8)
        targets = np.arange(40, dtype=np.int32) % 2
        images[targets == 1, :, ::2] = 255
        split = data.Split(images, targets)
        return data.Dataset("stripes", "image", split, split, 2, "none", (128.0,), (128.0,), shuffle=True)

    (tmp_path / "my_package.py").write_text(
        "import optax\n\ndef my_sgd(learning_rate, config):\n    return optax.sgd(learning_rate)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = Config(
        dataset="stripes",
        epochs=3,
        batch_size=8,
        devices=1,
        model=ModelConfig(name="linear", options=LionOptions(b2=0.25)),
        optimizer=OptimizerConfig(name="my_package:my_sgd", learning_rate=0.1, lookahead=True, decay_epochs=()),
    )
    assert make_recipe(validate(config), stripes("", 8)).model.options.b2 == 0.25
    rows = train_run(config, tmp_path / "run", quiet=True).rows
    assert rows[-1]["test_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("bad header"), "dataset mine cannot be read: bad header"),
        (FileNotFoundError(2, "No such file", "a.npy"), "dataset mine: a.npy cannot be read: No such file"),
    ],
)
def test_why_a_registered_data_set_cannot_be_read_is_said(lion, error, message):
    @train.register_dataset("mine")
    def mine():
        raise error

    with pytest.raises(UserError, match=f"^{message}$"):
        data.load("mine")


def test_a_registered_language_model_needs_only_logits(lion, tmp_path):
    @train.register_model("bigrams", task="text")
    class Bigrams(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, tokens, train):
            return nn.Embed(self.num_classes, self.num_classes)(tokens)  # a table of logits

        def hidden(self, tokens, train):
            raise AssertionError("a method of the user's own")

    @train.register_dataset("count")
    def count(batch_size, sequence_length):
        tokens = (np.arange(40 * 6, dtype=np.int32) % 5).reshape(40, 6)
        split = data.Split(tokens, (tokens + 1) % 5)
        return data.Dataset("count", "text", split, split, 5, "none", (), (), shuffle=False, vocab_size=5)

    config = Config(
        dataset="count",
        epochs=3,
        batch_size=8,
        devices=1,
        model=ModelConfig(name="bigrams"),
        optimizer=OptimizerConfig(name="adam", learning_rate=0.3, lookahead=True),
    )
    rows = train_run(config, tmp_path / "run", quiet=True).rows
    assert rows[-1]["slow_test_accuracy"] == 1.0
    assert rows[-1]["test_perplexity"] == pytest.approx(np.exp(rows[-1]["test_loss"]))


def test_an_optimizer_of_optax_is_no_factory_of_one(lion):
    for name, second in (("lion", "b1"), ("sgd", "momentum")):
        with pytest.raises(UserError, match=rf"'optax:{name}' takes \(learning_rate, {second}, .*expected a function"):
            make_inner_optimizer(OptimizerConfig(name=f"optax:{name}"), optax.constant_schedule(0.1))


def test_a_task_that_there_is_not_is_refused_with_the_nearest(lion):
    with pytest.raises(UserError, match=r"task='images' must be one of image, text, .*did you mean 'image'"):
        train.register_model("mine", task="images")


def test_a_factory_with_open_keywords_receives_all_of_them(lion):
    @train.register_model("open", task="image")
    def make(num_classes, **settings):
        return settings

    assert MODELS["open"].taken({"num_classes": 3, "dropout": 0.5}) == {"num_classes": 3, "dropout": 0.5}
    assert create_model("open", num_classes=3) == {"axis_name": None}


def test_an_options_field_is_a_flag(tmp_path):
    """As a command, since flags and registrations are the process's."""
    (tmp_path / "config.py").write_text(
        "import dataclasses, optax, train\n"
        "from train.config import Config, OptimizerConfig\n\n"
        "@dataclasses.dataclass\nclass Options:\n    b2: float = 0.99\n\n"
        "@train.register_optimizer('my_lion')\n"
        "def lion(learning_rate, config, options: Options):\n    return optax.lion(learning_rate, b2=options.b2)\n\n"
        "def get_config():\n    return Config(optimizer=OptimizerConfig(name='my_lion', options=Options()))\n"
    )
    code = (
        "import sys; from train.flags import parse; "
        f"config, _ = parse(['--config={tmp_path}/config.py', '--workdir=x', sys.argv[1]]); "
        "print(config.optimizer.options.b2)"
    )
    command = [sys.executable, "-c", code, "--config.optimizer.options.b2=0.5"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "0.5\n"
    command[-1] = "--config.optimizer.options.b2=wide"
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "UserError" in refused.stderr


def test_a_name_given_as_a_flag_brings_its_options():
    config, _ = parse(
        [
            "--config=configs/digits_cnn.py",
            "--workdir=x",
            "--config.optimizer.name=lion",
            "--config.optimizer.options.b2=.5",
        ]
    )
    assert config.optimizer.options == Lion(b2=0.5)
    with pytest.raises(UserError, match=r"there is no flag --config\.optimizer\.options\.beta"):
        parse(["--config=configs/digits_cnn.py", "--workdir=x", "--config.optimizer.options.beta=1"])
