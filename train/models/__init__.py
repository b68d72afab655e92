"""The models of the study by name: ``create_model("resnet18", num_classes=10, stem="cifar")``.

The names, and the options that each takes, are known without importing JAX: a module is imported when one of
its models is created.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from train.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn

__all__ = ["MODELS", "ModelSpec", "create_model"]


class ModelSpec(NamedTuple):
    """Where a model is, and what ``create_model`` may set on it.

    Attributes:
        task: what it is for, as in ``train.data.Dataset``: images ``[B, H, W, C]`` or tokens ``[B, T]``
            ("text_classification") to logits ``[B, num_classes]``; tokens to logits ``[B, T, num_classes]`` ("text").
        module: the module that defines it.
        class_name: the Flax module in there.
        options: the fields that may be given as options.
        batch_stats: whether it has BatchNorm, hence a ``batch_stats`` collection and an ``axis_name``.
    """

    task: Literal["image", "text", "text_classification"]
    module: str
    class_name: str
    options: tuple[str, ...]
    batch_stats: bool = False


MODELS = MappingProxyType(
    {
        "resnet18": ModelSpec("image", "train.models.resnet", "ResNet18", ("stem",), batch_stats=True),
        "cnn": ModelSpec("image", "train.models.cnn", "CNN", (), batch_stats=True),
        "small_cnn": ModelSpec("image", "train.models.small_cnn", "SmallCNN", ("features",), batch_stats=True),
        "gru": ModelSpec(
            "text", "train.models.gru", "GRULanguageModel", ("embedding_size", "hidden_size", "num_layers", "dropout")
        ),
        "bilstm": ModelSpec(
            "text_classification",
            "train.models.bilstm",
            "BiLSTMClassifier",
            ("vocabulary_size", "embedding_size", "hidden_size", "num_layers", "dropout"),
        ),
    }
)


def create_model(name: str, *, num_classes: int, axis_name: str | None = None, **options: Any) -> nn.Module:
    """The Flax module of that name, not yet initialised.

    Args:
        name: one of :data:`MODELS`.
        num_classes: width of the output; for a language model the size of its vocabulary.
        axis_name: the ``pmap`` or ``shard_map`` axis over which BatchNorm takes its mean, for the models that
            have one; ignored by the others. None under plain ``jit``, sharded or not.
        **options: fields of that model, for instance ``stem="cifar"`` for ``resnet18``.

    Raises:
        UserError: an unknown name, option or value of an option.
    """
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    spec = MODELS[name]
    unknown = sorted(set(options) - set(spec.options))
    if unknown:
        known = ", ".join(spec.options) or "none"
        raise UserError(f"unknown option {unknown[0]!r} for the model {name}; its options are: {known}")
    if num_classes < 1:
        raise UserError(f"num_classes={num_classes} for the model {name}; it must be at least 1")
    if spec.batch_stats:
        options["axis_name"] = axis_name
    model_class = getattr(importlib.import_module(spec.module), spec.class_name)
    return model_class(num_classes=num_classes, **options)
