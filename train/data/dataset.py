"""A loaded data set: host arrays, and what the device needs to know about them."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from train.errors import UserError
from train.interface.nearest import did_you_mean
from train.registry import TASKS, Task

# Seed of the order in which a subset is drawn. A constant, not the run's seed: every run with `train_examples=5000`
# sees the same 5,000 examples, and a smaller subset is contained in a larger one.
_SUBSET_SEED = 1907_08610


Augmentation = Literal["none", "pad_crop_flip", "random_resized_crop"]


@dataclasses.dataclass(frozen=True)
class Split:
    """Arrays of one split, on the host.

    Attributes:
      inputs: images uint8 [N, H, W, C]; text int32 [N, T] token ids.
      targets: images and text classes int32 [N]; language models int32 [N, T], the next tokens.
      sizes: if the images of a split differ in size (`imagefolder`), int32 [N, 2], height and width of each image
        inside its canvas `inputs[i, :h, :w]`; for texts of different lengths (`imdb_reviews`), int32 [N], the number
        of tokens before the padding; None if every example fills its array.
    """

    inputs: np.ndarray
    targets: np.ndarray
    sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return self.targets.shape[0]

    def take(self, index: np.ndarray | slice) -> Split:
        """The examples at `index`, in its order."""
        return Split(self.inputs[index], self.targets[index], None if self.sizes is None else self.sizes[index])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, ready to be put on a device.

    Attributes:
      name: the name it was loaded by.
      task: what the targets are: a class per image, the next token at every position, or a class per text.
      train, test: the two splits.
      validation: training examples set aside for model selection (`held_out`); None if there are none.
      num_classes: number of classes, or for `task="text"` the vocabulary's size.
      augmentation: how training images are augmented on the device; testing uses the deterministic counterpart.
      mean, std: per channel, in units of 0..255; empty for text.
      shuffle: whether the training examples may be reordered (language models read segments in order).
      vocab_size: number of token ids for text tasks, 0 for images; for `task="text"` `num_classes` if it is 0.
      class_names: in the order of the labels, or the vocabulary in the order of the ids; empty if unknown.
      source: one line for a run's records: where the data came from, and what identifies its content.
      digest: SHA-256 of the content of both splits, before any subset is taken; part of a run's identity. If a
        loader sets none, `load` uses that of the arrays.
    """

    name: str
    task: Task
    train: Split
    test: Split
    num_classes: int
    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shuffle: bool
    vocab_size: int = 0
    class_names: tuple[str, ...] = ()
    source: str = ""
    digest: str = ""
    validation: Split | None = None


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _names(values: Iterable[Any] | None) -> tuple[str, ...]:
    return () if values is None else tuple(map(str, values))


# The plain values beside the arrays: how they are made of NumPy's, and what they must be.
_PLAIN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "num_classes": (operator.index, "a whole number"),
    "vocab_size": (operator.index, "a whole number"),
    "mean": (_numbers, "a number for each channel"),
    "std": (_numbers, "a number for each channel"),
    "shuffle": (bool, "True or False"),
    "class_names": (_names, "a text for each class"),
}


def checked(dataset: Dataset) -> Dataset:
    """The data set, if its arrays are what its task says; NumPy's scalars and arrays beside them as plain values.

    Raises:
      UserError: an unknown task or augmentation, arrays of another kind, different numbers of inputs and targets, no
        examples, a label outside the classes or a token outside the vocabulary, or not one mean and one positive
        deviation for each channel.
    """
    where = f"dataset {dataset.name!r}"
    plain = {}
    for name, (convert, words) in _PLAIN.items():
        try:
            plain[name] = convert(getattr(dataset, name))
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {name}={getattr(dataset, name)!r} must be {words}") from error
    if dataset.task == "text":  # each token is a class
        plain["vocab_size"] = plain["vocab_size"] or plain["num_classes"]
    dataset = dataclasses.replace(dataset, **plain)
    for name, allowed in (("task", TASKS), ("augmentation", get_args(Augmentation))):
        if (given := getattr(dataset, name)) not in allowed:
            raise UserError(
                f"{where}: {name}={given!r} must be one of {', '.join(allowed)}{did_you_mean(given, allowed)}"
            )
    image = dataset.task == "image"
    kind, rank, words = (np.uint8, 4, "uint8 [N, H, W, C]") if image else (np.int32, 2, "int32 [N, T]")
    for name in ("train", "test", "validation"):
        split: Split | None = getattr(dataset, name)
        if split is None:
            continue
        inputs, targets = split.inputs, split.targets
        if inputs.dtype != kind or inputs.ndim != rank:
            raise UserError(f"{where}: the {name} inputs are {inputs.dtype} {list(inputs.shape)}; expected {words}")
        if not inputs.size:
            raise UserError(f"{where}: the {name} inputs are {list(inputs.shape)}: there are no examples")
        if image and inputs.shape[-1] != (channels := dataset.train.inputs.shape[-1]):
            raise UserError(f"{where}: {name} has images of {inputs.shape[-1]} channels, train of {channels}")
        shape = inputs.shape if dataset.task == "text" else inputs.shape[:1]
        if targets.shape != shape or not np.issubdtype(targets.dtype, np.integer):
            raise UserError(
                f"{where}: the {name} targets are {targets.dtype} {list(targets.shape)}; expected int32 {list(shape)}"
            )
        _check_range(f"{where}: {name} has the target", targets, "num_classes", dataset.num_classes)
        if not image:
            _check_range(f"{where}: {name} has the token", inputs, "vocab_size", dataset.vocab_size)
    channels = dataset.train.inputs.shape[-1] if image else 0
    for name, values in (("mean", dataset.mean), ("std", dataset.std)):
        if len(values) != channels:
            raise UserError(f"{where}: {name} has {len(values)} values; expected one for each of {channels} channels")
    if not np.all(np.isfinite([*dataset.mean, *dataset.std])) or min(dataset.std, default=1.0) <= 0:
        raise UserError(f"{where}: mean={dataset.mean} must be finite, and std={dataset.std} finite and above 0")
    return dataset


def _check_range(what: str, values: np.ndarray, name: str, number: int) -> None:
    low, high = values.min(), values.max()
    if low < 0 or high >= number:
        raise UserError(f"{what} {low if low < 0 else high}; with {name}={number} they are from 0 to {number - 1}")


def digest_of(arrays: Iterable[np.ndarray | None]) -> str:
    """SHA-256 over arrays, their shapes and dtypes; None is distinct from every array."""
    total = hashlib.sha256()
    for array in arrays:
        if array is None:
            total.update(b"none\n")
            continue
        total.update(f"{array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def with_digest(dataset: Dataset) -> Dataset:
    """The data set with its digest: that of its arrays if its loader set none."""
    if dataset.digest:
        return dataset
    arrays = [a for split in (dataset.train, dataset.test) for a in (split.inputs, split.targets, split.sizes)]
    return dataclasses.replace(dataset, digest=digest_of(arrays))


def limited(dataset: Dataset, train_examples: int, test_examples: int, validation_examples: int = 0) -> Dataset:
    """The data set with these numbers of examples in its splits; see `subset` and `held_out`."""
    in_order = not dataset.shuffle
    train, validation = held_out(dataset.train, train_examples, validation_examples, in_order=in_order)
    return dataclasses.replace(
        dataset,
        train=train,
        validation=validation,
        test=subset(dataset.test, test_examples, field="test_examples", in_order=in_order),
    )


def subset(split: Split, examples: int, *, field: str, in_order: bool) -> Split:
    """A subset of a split with `examples` examples; 0 means all.

    A data set may be sorted by class on disk (an image folder is), so that its first n examples would have only a few
    classes. So the first n of a fixed random permutation are used: a simple random sample, the same one in every run,
    and contained in every larger one. With `in_order` (language models, whose segments are read in order) it is the
    first n in their original order.

    Raises:
      UserError: the number is negative or larger than the split.
    """
    _check_number(examples, len(split), f"{field}={examples}", "all")
    if examples in (0, len(split)):
        return split
    if in_order:
        return split.take(slice(examples))
    return split.take(np.random.default_rng(_SUBSET_SEED).permutation(len(split))[:examples])


def _check_number(examples: int, total: int, what: str, zero_means: str) -> None:
    if examples < 0:
        raise UserError(f"{what} is negative; the data set has {total} examples, and 0 means {zero_means}")
    if examples > total:
        raise UserError(f"{what}, but the data set has {total}; 0 means {zero_means}")


def held_out(split: Split, examples: int, validation: int, *, in_order: bool) -> tuple[Split, Split | None]:
    """Sets aside `validation` training examples, and uses `examples` of the others; 0 means all of them.

    The last ones in `subset`'s fixed order are set aside: they depend only on their number, and a run with `examples`
    trains on the same ones with or without a validation set. With `in_order` they are the last segments.

    Returns:
      Training and validation split; the latter is None for `validation` 0.

    Raises:
      UserError: there are too few examples, or one of the numbers is negative.
    """
    _check_number(examples, len(split), f"train_examples={examples}", "all")
    _check_number(validation, len(split), f"validation_examples={validation}", "none")
    if not validation:
        return subset(split, examples, field="train_examples", in_order=in_order), None
    left = len(split) - validation
    if left < max(examples, 1):
        raise UserError(
            f"validation_examples={validation} with train_examples={examples or 'all'}, but the data set has "
            f"{len(split)} training examples; use fewer"
        )
    order = np.arange(len(split)) if in_order else np.random.default_rng(_SUBSET_SEED).permutation(len(split))
    taken = order[:examples] if 0 < examples < left else np.sort(order[:left])
    return split.take(taken), split.take(np.sort(order[left:]))


@dataclasses.dataclass(frozen=True)
class ArrayForm:
    """Shape and dtype of an array, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype


def to_facts(dataset: Dataset) -> dict[str, Any]:
    """A data set as JSON, with only the shapes and dtypes of its examples."""

    def forms(split: Split) -> dict[str, Any]:
        arrays = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
        return {name: None if a is None else [list(a.shape), str(a.dtype)] for name, a in arrays.items()}

    facts = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)}
    return {name: forms(value) if isinstance(value, Split) else value for name, value in facts.items()}


def from_facts(facts: Mapping[str, Any]) -> Dataset:
    """A data set without examples: its splits have an `ArrayForm` in place of each array."""

    def split(forms: Mapping[str, Any]) -> Any:
        arrays: dict[str, Any] = {}
        for name, form in forms.items():
            arrays[name] = ArrayForm(tuple(form[0]), np.dtype(form[1])) if form else None
        return Split(**arrays)

    values: dict[str, Any] = {}
    for name, value in facts.items():
        values[name] = (
            split(value) if isinstance(value, Mapping) else tuple(value) if isinstance(value, list) else value
        )
    return Dataset(**values)
