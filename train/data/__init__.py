"""Data sets: `load(name)` returns host arrays; `python -m train.data prepare NAME` puts a data set on disk.

Nothing here imports JAX, and the libraries that read a data set are imported only when it is loaded.
"""

from __future__ import annotations

from typing import Any

from train.data.dataset import Dataset, Split, checked, limited, with_digest
from train.errors import UserError, reason
from train.interface.paths import user_path
from train.registry import DATASETS

__all__ = ["DATASETS", "TITLES", "Dataset", "Split", "load"]

# What figures and pages call those that have a name of their own.
TITLES = {
    "digits": "handwritten digits",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "ptb": "Penn Treebank",
    "pydoc": "Python's help texts",
    "imdb_reviews": "IMDB reviews",
}

for _name, _target, _help in (
    ("digits", "digits:load_digits", "scikit-learn's handwritten digits, 8x8 grey, 10 classes; embedded"),
    ("cifar10", "cifar:load_cifar", "CIFAR-10, 32x32 colour, 10 classes; `python -m train.data prepare cifar10`"),
    ("cifar100", "cifar:load_cifar", "CIFAR-100, 100 fine classes; `python -m train.data prepare cifar100`"),
    ("imagefolder", "imagefolder:load_imagefolder", "JPEG and PNG images in data_dir/{train,valid}/<class>/"),
    (
        "images",
        "prepared_images:load_images",
        "such a tree in TFDS's format; `python -m train.data prepare images --from-dir D`",
    ),
    ("text", "text:load_text", "word-level text, data_dir with train.txt and valid.txt, one sentence per line"),
    ("ptb", "ptb:load_ptb", "Penn Treebank, 10,000 words; `python -m train.data prepare ptb --from-dir DIR`"),
    ("pydoc", "pydoc:load_pydoc", "the English of Python's own help, 2,000 words; embedded"),
    ("imdb_reviews", "imdb:load_imdb", "IMDB movie reviews, 2 classes; `python -m train.data prepare imdb_reviews`"),
):
    DATASETS.own(_name, f"train.data.{_target}", _help)


def load(
    name: str,
    *,
    data_dir: str = "",
    train_examples: int = 0,
    test_examples: int = 0,
    validation_examples: int = 0,
    batch_size: int = 128,
    test_batch_size: int = 0,
    sequence_length: int = 35,
    skip_corrupt: bool = False,
    add_unk: bool = True,
) -> Dataset:
    """Loads a data set into host memory.

    Args:
      name: one of `DATASETS`.
      data_dir: where the data is; empty means TFDS's default (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`).
      train_examples, test_examples: how many to use, 0 for all (see `train.data.dataset.subset`).
      validation_examples: number of training examples to set aside (see `train.data.dataset.held_out`).
      batch_size, test_batch_size: language models only: the number of parallel rows that the text is cut
        into, for training and for testing; 0 for the latter means `batch_size`.
      sequence_length: text only: tokens in a segment, or in a review.
      skip_corrupt: image folders only: skip an image that cannot be read, with a warning, instead of
        rejecting the data set.
      add_unk: text only: words of valid.txt that are not in train.txt become `<unk>`, which is added to the vocabulary
        if train.txt does not have it; False rejects such a text.

    Raises:
      UserError: an unknown name, missing, unreadable or damaged data, more data than fits into memory, or fewer
        examples than asked for.
    """
    given = {
        "batch_size": batch_size,
        "test_batch_size": test_batch_size,
        "sequence_length": sequence_length,
        "skip_corrupt": skip_corrupt,
        "add_unk": add_unk,
    }
    dataset = _whole(name, data_dir, given)
    return limited(dataset, train_examples, test_examples, validation_examples)


def _whole(name: str, data_dir: str, given: dict[str, Any]) -> Dataset:
    """A data set with all its examples; its loader gets the given arguments that it accepts."""
    entry = DATASETS[name]
    try:
        taken = entry.taken({**given, "name": name, "data_dir": data_dir and str(user_path(data_dir, "data_dir"))})
        dataset = entry.call(**taken)
    except OSError as error:
        place = error.filename or (data_dir if error.strerror else "")  # a library's own error need not be about a file
        raise UserError(f"dataset {name}{f': {place}' * bool(place)} cannot be read: {reason(error)}") from error
    except MemoryError as error:
        raise UserError(f"dataset {name} does not fit into memory: {error or 'use a subset'}") from error
    if not isinstance(dataset, Dataset):
        raise UserError(f"dataset {name!r} returned {type(dataset).__name__}; expected a train.data.Dataset")
    return with_digest(checked(dataset))
