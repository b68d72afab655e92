"""What a run is: typed settings with their ranges, and nothing that needs JAX.

A config file is Python with a `get_config()` that returns a `Config`; `--config.optimizer.sync_period=10` on the
command line is typed by these dataclasses. Every field states its range beside its default, and `validate` checks all
of them, so that a wrong value is one line naming the field before anything is built.

Annotations stay real types here (no `from __future__ import annotations`): ml_collections reads them to parse flags.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from train.data import DATASETS
from train.errors import UserError
from train.interface.nearest import did_you_mean
from train.models import MODELS
from train.optimizer_options import AdamW, Lion, Muon, ScheduleFreeAdamW
from train.registry import OPTIMIZERS, PARTS
from train.setting import check_value, leaves, make_plain, setting

__all__ = [
    "FORMER",
    "Config",
    "ModelConfig",
    "OptimizerConfig",
    "differences",
    "fill_options",
    "from_dict",
    "set_name",
    "to_dict",
    "validate",
]

# Settings that were added after runs had been published, by dotted name: the value that the runs before had. A run's
# id leaves such a setting out while it has this value, and files without it are read as having it.
FORMER: dict[str, Any] = {
    "accumulate_steps": 1,
    "dtype": "float32",
    "ema_decay": 0.0,
    "local_steps": False,
    "optimizer.clip_norm": 0.0,
    "optimizer.schedule_epochs": 0,
    "optimizer.warmup_epochs": 0.0,
    "validation_examples": 0,
}

OPTIMIZERS.own("sgd", "train.optimizers:sgd", "SGD, with momentum if asked for; L2 weight decay")
OPTIMIZERS.own("adam", "train.optimizers:adam", "Adam; L2 weight decay")
OPTIMIZERS.own("radam", "train.optimizers:radam", "RAdam as in its authors' code; decoupled weight decay")
for _name, _help, _options in (
    ("adamw", "optax.adamw", AdamW),
    ("nadamw", "optax.nadamw: AdamW with Nesterov momentum", AdamW),
    ("lion", "optax.lion", Lion),
    ("muon", "optax.contrib.muon for matrices and convolutions, AdamW for the rest", Muon),
    ("schedule_free_adamw", "optax.contrib.schedule_free_adamw, evaluated at its average", ScheduleFreeAdamW),
):
    OPTIMIZERS.own(_name, f"train.optimizers:{_name}", f"{_help}; decoupled weight decay", options=_options)


@dataclasses.dataclass
class ModelConfig:
    """Which network, and its options; fields that a model has no use for are ignored by it."""

    name: str = setting("resnet18", help="or one of your own: docs/howto/own_model_and_data.md", choices=MODELS)
    stem: str = setting(
        "imagenet",
        help="ResNet's first layers: imagenet (7x7/2 and max-pool, the report's) or cifar (3x3/1, the usual at 32x32)",
        choices=("imagenet", "cifar"),
    )
    dropout: float = setting(0.5, help="of the language model and the LSTM", at_least=0.0, at_most=0.999)
    embedding_size: int = setting(50, help="of the language model and the LSTM", at_least=1)
    hidden_size: int = setting(50, help="of the language model and the LSTM", at_least=1)
    options: Any = None  # settings of a model of your own: a dataclass


@dataclasses.dataclass
class OptimizerConfig:
    """The inner optimizer, its schedule, and Lookahead around it. The defaults are plain Adam at a constant rate."""

    name: str = setting("adam", help="or one of your own: docs/howto/own_optimizer.md", choices=OPTIMIZERS)
    learning_rate: float = setting(0.001, above=0.0)
    weight_decay: float = setting(
        0.0, help="L2 in the gradient for sgd and adam, decoupled for the others", at_least=0.0
    )
    momentum: float = setting(0.0, help="of sgd, or of an optimizer of your own", at_least=0.0, at_most=0.999999)
    nesterov: bool = setting(False)
    schedule: str = setting("step", choices=("step", "cosine"))
    decay_epochs: tuple[int, ...] = setting(
        (), help="step schedule: the rate is multiplied by decay_factor after each of these epochs", at_least=1
    )
    decay_factor: float = setting(0.2, above=0.0, at_most=1.0)
    decay_delay: int = setting(0, help="delay each drop of the rate by this many epochs", at_least=0)
    schedule_epochs: int = setting(
        0, help="cosine schedule: restart every this many epochs; 0: one cosine over all epochs", at_least=0
    )
    warmup_epochs: float = setting(
        0.0, help="epochs of the run, or of each cycle, in which the rate rises linearly from 0", at_least=0.0
    )
    clip_norm: float = setting(
        0.0, help="scale the gradient down to this norm (over all parameters) if it is larger; 0: never", at_least=0.0
    )
    lookahead: bool = setting(False, help="put Lookahead around the optimizer")
    sync_period: int = setting(5, help="of Lookahead: k", at_least=1)
    slow_step_size: float = setting(0.8, help="of Lookahead: alpha", at_least=0.0, at_most=1.0)
    options: Any = None  # what this optimizer alone has: a dataclass; None takes the defaults


@dataclasses.dataclass
class Config:
    """One training run."""

    dataset: str = setting("cifar10", help="or one of your own: docs/howto/own_model_and_data.md", choices=DATASETS)
    data_dir: str = setting("", help="where prepared data is; empty: TFDS's own default folder", identity=False)
    epochs: int = setting(200, at_least=1)
    batch_size: int = setting(128, at_least=1)
    test_batch_size: int = setting(
        0, help="0: the training batch size; language models: the rows that the test text is cut into", at_least=0
    )
    sequence_length: int = setting(35, help="tokens per segment (language models) or per review", at_least=1)
    seed: int = setting(0, at_least=0, at_most=2**32 - 1)
    train_examples: int = setting(0, help="0: all; language models: segments of sequence_length tokens", at_least=0)
    test_examples: int = setting(0, help="0: all; language models: segments of sequence_length tokens", at_least=0)
    validation_examples: int = setting(
        0,
        help="training examples set aside for model selection (best checkpoint, tuning): the last ones of a fixed "
        "random order; language models: the last segments; 0: none",
        at_least=0,
    )
    skip_corrupt: bool = setting(
        False, help="image folders: skip images that cannot be read instead of rejecting the data set"
    )
    add_unk: bool = setting(
        True,
        help="text: if train.txt has no <unk>, add it for words of valid.txt that train.txt lacks; false: reject such "
        "a text",
        identity=False,  # a text that both values take gives the same data
    )
    image_size: int = setting(224, help="image folders: height and width of what the network sees", at_least=1)
    cutout: int = setting(
        0, help="the CIFAR sets: side in pixels of the square erased from each training image; 0: none", at_least=0
    )
    label_smoothing: float = setting(0.0, at_least=0.0, at_most=0.999)
    accumulate_steps: int = setting(1, help="batches whose mean gradient makes one update", at_least=1)
    ema_decay: float = setting(
        0.0,
        help="also evaluate an exponential moving average of the live weights with this decay; 0: none",
        at_least=0.0,
        at_most=0.999999,
    )
    dtype: str = setting(
        "float32",
        help="dtype of the forward and backward passes; weights, statistics, optimizer and losses are float32",
        choices=("float32", "bfloat16"),
    )
    recalibrate_batch_stats: bool = setting(
        False,
        help="evaluate weights that did not train (slow, averaged) with BatchNorm statistics re-estimated over "
        "training batches",
    )
    parallel: str = setting("pmap", help="several devices: pmap, or jit with NamedSharding", choices=("pmap", "jit"))
    local_steps: bool = setting(
        False,
        help="each device trains its own fast weights, and only Lookahead's outer step averages over them (DiLoCo)",
    )
    devices: int = setting(0, help="devices of each process to use; 0: all", at_least=0)
    seeds_per_program: int = setting(
        1,
        help="train this many seeds, starting at config.seed, in one program; each has its own workdir, DIR/seedN",
        at_least=1,
        identity=False,
    )
    steps_per_dispatch: int = setting(
        0,
        help="updates in one program call; signals are obeyed and checkpoints saved between calls; 0: 20 on a TPU, 1 "
        "on a CPU or GPU",
        at_least=0,
        identity=False,
    )
    on_nonfinite: str = setting(
        "stop",
        help="what to do when a loss or parameter becomes NaN or infinite: stop, skip that batch, or restore the last "
        "checkpoint",
        choices=("stop", "skip", "restore"),
    )
    disk_wait: float = setting(
        600.0, help="seconds to wait for space on a full disk before giving up", at_least=0.0, identity=False
    )
    checkpoint_every: int = setting(
        1, help="epochs between checkpoints; the last epoch always saves one", at_least=1, identity=False
    )
    resume: bool = setting(
        True, help="continue the run in the workdir; false: reject a workdir that has one", identity=False
    )
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


def validate(config: Config) -> Config:
    """Checks type and range of every field, and makes NumPy's scalars plain Python values.

    Returns:
      The same config.

    Raises:
      UserError: Names the field, its value and what is allowed.
    """
    if not isinstance(config, Config):
        raise UserError(f"get_config() must return a train.config.Config, not {type(config).__name__}")
    fill_options(config)
    make_plain(config)
    for name, value, field in leaves(config):
        check_value(name, value, field)
    decay = config.optimizer.decay_epochs
    if list(decay) != sorted(set(decay)):
        raise UserError(f"config.optimizer.decay_epochs={decay} must increase from one to the next")
    if config.optimizer.nesterov and not config.optimizer.momentum:
        raise UserError("config.optimizer.nesterov=True needs config.optimizer.momentum greater than 0")
    if config.local_steps and not config.optimizer.lookahead:
        raise UserError("config.local_steps=True needs config.optimizer.lookahead=True, which does the averaging")
    if config.optimizer.schedule_epochs and config.optimizer.schedule != "cosine":
        raise UserError("config.optimizer.schedule_epochs is only for schedule=cosine; leave it at 0 for schedule=step")
    name = config.optimizer.name
    if config.optimizer.momentum and name != "sgd" and OPTIMIZERS[name].own:
        raise UserError(f"config.optimizer.momentum is for sgd; {name} has its own: leave it at 0")
    if config.optimizer.lookahead and name == "schedule_free_adamw":
        raise UserError(
            "config.optimizer.lookahead=True cannot be combined with schedule_free_adamw, whose average would not "
            "follow the weights at a sync; use adamw"
        )
    return config


def fill_options(config: Config) -> None:
    """Gives a model and an optimizer that take options their defaults if the config has none."""
    for part, registry in PARTS.items():
        owner, expected = getattr(config, part), {"model": ModelConfig, "optimizer": OptimizerConfig}[part]
        if not isinstance(owner, expected):
            raise UserError(f"config.{part}={owner!r} must be {expected.__name__}(name=...)")
        if owner.name not in registry:
            continue  # refused as every wrong value is
        try:
            kind = registry[owner.name].options_type()
        except UserError as error:
            raise UserError(f"config.{part}.name={owner.name!r}: {error}") from error
        if kind is not None and owner.options is None:
            owner.options = kind()
        if not isinstance(owner.options, kind or type(None)):
            wanted = f"a {kind.__name__}" if kind else "left out"
            raise UserError(f"config.{part}.options={owner.options!r} must be {wanted} for {owner.name}")


def set_name(config: Config, part: str, name: str) -> None:
    """Changes the name of a config's "model" or "optimizer", and takes away options that do not fit it."""
    owner, registry = getattr(config, part), PARTS[part]
    owner.name = name
    kind = registry[name].options_type() if name in registry else None
    if kind is None or not isinstance(owner.options, kind):
        owner.options = None


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain values, tuples as lists: what config.json holds."""
    as_dict = dataclasses.asdict(config)
    as_dict["optimizer"]["decay_epochs"] = list(config.optimizer.decay_epochs)
    for part in PARTS:
        if as_dict[part]["options"] is None:
            del as_dict[part]["options"]
    return as_dict


def differences(stored: Mapping[str, Any], config: Config) -> list[str]:
    """Says what makes `config` another run than the one whose config.json is `stored`.

    Returns:
      A phrase for each such setting: "name was theirs, is now ours". One that `stored` lacks is as `FORMER` has it.
    """
    found = []
    for name, value, field in leaves(config):
        if not field.metadata["identity"]:
            continue
        theirs: Any = stored
        for part in name.split("."):
            theirs = theirs.get(part) if isinstance(theirs, Mapping) else None
        if theirs is None and name in FORMER:
            theirs = FORMER[name]
        ours = list(value) if isinstance(value, tuple) else value
        theirs = list(theirs) if isinstance(theirs, tuple) else theirs
        if theirs is None:
            found.append(f"{name} was not recorded, is now {ours!r}")
        elif theirs != ours:
            found.append(f"{name} was {theirs!r}, is now {ours!r}")
    return found


def from_dict(values: Mapping[str, Any]) -> Config:
    """Makes a config of what `to_dict` made of one. It is not validated.

    A setting that is missing is as `FORMER` has it, or, where it makes no difference to the run, at its default.

    Raises:
      UserError: It is not what `to_dict` makes, another setting is missing, or one is unknown.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"a config must be a JSON object of settings, not {type(values).__name__}")
    config = Config()
    for part, registry in PARTS.items():
        nested = values.get(part)
        if isinstance(nested, Mapping) and "options" in nested:
            kind = registry[str(nested.get("name", ""))].options_type()
            getattr(config, part).options = kind() if kind else None
    known = set()
    for name, default, field in list(leaves(config)):
        *nest, last = name.split(".")
        known.add(name)
        value: Any = values
        for part in (*nest, last):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            if name not in FORMER and field.metadata["identity"]:
                raise UserError(f"config.{name} is missing")
            value = FORMER.get(name, default)
        owner: Any = config
        for part in nest:
            owner = getattr(owner, part)
        setattr(owner, last, tuple(value) if isinstance(value, list) else value)
    if unknown := sorted(set(_names(values)) - known):
        raise UserError(f"config.{unknown[0]} is not a setting{did_you_mean(unknown[0], known)}")
    return config


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
