"""Models by name: `create_model("resnet18", num_classes=10, stem="cifar")`.

The names are known without importing JAX: a module is imported when one of its models is created.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from train.errors import UserError
from train.registry import MODELS, Entry

if TYPE_CHECKING:
    import flax.linen as nn

    from train.data import Dataset

__all__ = ["MODELS", "create_model", "model_for"]

MODELS.own("resnet18", "train.models.resnet:ResNet18", "ResNet18, ImageNet or CIFAR stem", task="image")
MODELS.own("cnn", "train.models.cnn:CNN", "three convolutions, for 224x224 images", task="image")
MODELS.own("small_cnn", "train.models.small_cnn:SmallCNN", "three 3x3 convolutions, for 8x8 digits", task="image")
MODELS.own("gru", "train.models.gru:GRULanguageModel", "two-layer GRU language model", task="text")
MODELS.own("bilstm", "train.models.bilstm:BiLSTMClassifier", "two-layer bidirectional LSTM", task="text_classification")


_KINDS = {"image": "images", "text": "language models", "text_classification": "text classification"}


def model_for(dataset: Dataset, settings: Any, *, axis_name: str | None = None, dtype: str = "float32") -> nn.Module:
    """The Flax module for a config's model settings and a data set's sizes.

    Args:
      dataset: decides the task and the width of the output.
      settings: a `train.config.ModelConfig`.
      axis_name: as in `create_model`.
      dtype: of its computation, "float32" or "bfloat16"; its parameters and outputs are float32.

    Raises:
      UserError: the model is unknown, is for a different task than the data set's, or does not accept a value.
    """
    entry = MODELS[settings.name]
    if entry.task and entry.task != dataset.task:
        raise UserError(
            f"config.model.name={settings.name!r} is for {_KINDS.get(entry.task, entry.task)}, "
            f"config.dataset={dataset.name!r} is for {_KINDS[dataset.task]}; choose two that match"
        )
    names = [field.name for field in dataclasses.fields(settings) if field.name != "name"]
    sizes = {"vocabulary_size": dataset.vocab_size, "num_classes": dataset.num_classes, "axis_name": axis_name}
    model = _made(entry, {name: getattr(settings, name) for name in names} | sizes)
    if not entry.own:
        _check_callable(settings.name, model)
    if dtype == "float32":
        return model
    from train.models.precision import in_bfloat16

    return in_bfloat16(model)


def _check_callable(name: str, model: object) -> None:
    """Refuses a user's model that cannot be called as a network is."""
    from flax import linen

    if not isinstance(model, linen.Module):
        raise UserError(f"model {name!r} is {type(model).__name__}; expected a flax.linen.Module")
    parameters = inspect.signature(type(model).__call__).parameters.values()
    if not any(one.name == "train" or one.kind is one.VAR_KEYWORD for one in parameters):
        raise UserError(f"model {name!r}: its __call__ does not take train; it is called as module(inputs, train=...)")


def create_model(name: str, *, num_classes: int, axis_name: str | None = None, **options: Any) -> nn.Module:
    """The Flax module with this name, not yet initialised.

    Args:
      name: one of `MODELS`.
      num_classes: width of the output; for a language model the size of its vocabulary.
      axis_name: the `pmap` or `shard_map` axis over which the batch is split, for models with BatchNorm or dropout;
        the others ignore it. None under plain `jit`, sharded or not.
      **options: arguments of that model, for instance `stem="cifar"` for "resnet18".

    Raises:
      UserError: an unknown name, option or option value.
    """
    entry = MODELS[name]
    parameters = [parameter for parameter in entry.parameters() if parameter not in ("parent", "name")]
    if unknown := sorted(set(options) - set(parameters)):
        raise UserError(f"unknown option {unknown[0]!r} for model {name}; its options are {', '.join(parameters)}")
    return _made(entry, {"num_classes": num_classes, "axis_name": axis_name, **options})


def _made(entry: Entry, given: dict[str, Any]) -> nn.Module:
    if given["num_classes"] < 1:
        raise UserError(f"num_classes={given['num_classes']} for model {entry.name}; it must be at least 1")
    return entry.call(**entry.taken(given))
