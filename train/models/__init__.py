"""Models by name: `create_model("resnet18", num_classes=10, stem="cifar")`.

The names are known without importing JAX: a module is imported when one of its models is created.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from train.errors import UserError
from train.registry import MODELS

if TYPE_CHECKING:
    import flax.linen as nn

__all__ = ["MODELS", "create_model"]

MODELS.own("resnet18", "train.models.resnet:ResNet18", "ResNet18, ImageNet or CIFAR stem", task="image")
MODELS.own("cnn", "train.models.cnn:CNN", "three convolutions, for 224x224 images", task="image")
MODELS.own("small_cnn", "train.models.small_cnn:SmallCNN", "three 3x3 convolutions, for 8x8 digits", task="image")
MODELS.own("gru", "train.models.gru:GRULanguageModel", "two-layer GRU language model", task="text")
MODELS.own("bilstm", "train.models.bilstm:BiLSTMClassifier", "two-layer bidirectional LSTM", task="text_classification")


def create_model(name: str, *, num_classes: int, axis_name: str | None = None, **options: Any) -> nn.Module:
    """The Flax module of that name, not yet initialised.

    Args:
      name: one of `MODELS`.
      num_classes: width of the output; for a language model the size of its vocabulary.
      axis_name: the `pmap` or `shard_map` axis over which the batch is split, for models with BatchNorm or dropout;
        ignored by the others. None under plain `jit`, sharded or not.
      **options: arguments of that model, for instance `stem="cifar"` for "resnet18".

    Raises:
      UserError: an unknown name, option or value of an option.
    """
    entry = MODELS[name]
    parameters = [parameter for parameter in entry.parameters() if parameter not in ("parent", "name")]
    if unknown := sorted(set(options) - set(parameters)):
        raise UserError(f"unknown option {unknown[0]!r} for model {name}; its options are {', '.join(parameters)}")
    if num_classes < 1:
        raise UserError(f"num_classes={num_classes} for model {name}; it must be at least 1")
    given = {"num_classes": num_classes, "axis_name": axis_name, **options}
    return entry.load()(**entry.taken(given))
