"""Data sets: `load(name)` gives host arrays; `python -m train.data prepare NAME` puts a set on disk.

Nothing here imports JAX, and the libraries that read a set are imported when that set is asked for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from train.data.dataset import Dataset, Split, subset, with_digest
from train.errors import UserError

__all__ = ["DATASETS", "Dataset", "Split", "load"]

DATASETS: dict[str, str] = {
    "digits": "scikit-learn's handwritten digits, 8x8 grey, 10 classes; embedded",
    "cifar10": "CIFAR-10, 32x32 colour, 10 classes; `python -m train.data prepare cifar10`",
    "cifar100": "CIFAR-100, 32x32 colour, 100 fine classes; `python -m train.data prepare cifar100`",
    "imagefolder": "JPEG and PNG images in data_dir/{train,valid}/<class>/, any size, colour or grey",
    "images": "such a tree in TFDS's form; `python -m train.data prepare images --from-dir DIR`",
    "text": "word-level text, data_dir with train.txt and valid.txt, one sentence a line",
    "ptb": "Penn Treebank, 10,000 words; `python -m train.data prepare ptb --from-dir DIR`",
    "pydoc": "the English of Python's own help, 2,000 words; embedded, differs between Python versions",
    "imdb_reviews": "IMDB movie reviews, 2 classes; `python -m train.data prepare imdb_reviews`",
}


def load(
    name: str,
    *,
    data_dir: str = "",
    train_examples: int = 0,
    test_examples: int = 0,
    batch_size: int = 128,
    test_batch_size: int = 0,
    sequence_length: int = 35,
    skip_corrupt: bool = False,
) -> Dataset:
    """Loads a data set into host memory.

    Args:
      name: one of `DATASETS`.
      data_dir: where it lies; empty means TFDS's own default (`TFDS_DATA_DIR`, or
        `~/tensorflow_datasets`).
      train_examples, test_examples: 0 for all, else that many (see `train.data.dataset.subset`).
      batch_size, test_batch_size: language models only: the number of parallel rows that the text is cut
        into, for training and for testing; 0 for the latter means `batch_size`.
      sequence_length: text only: tokens in a segment, or in a review.
      skip_corrupt: image folders only: leave out an image that cannot be read, with a warning, instead of
        refusing the set.

    Raises:
      UserError: an unknown name, missing or damaged data, or more examples asked for than there are.
    """
    rows: Any = {
        "batch_size": batch_size,
        "test_batch_size": test_batch_size,
        "sequence_length": sequence_length,
    }
    match name:
        case "digits":
            from train.data.digits import load_digits

            dataset = load_digits()
        case "cifar10" | "cifar100":
            from train.data.cifar import load_cifar

            dataset = load_cifar(name, data_dir)
        case "imagefolder":
            from train.data.imagefolder import load_imagefolder

            dataset = load_imagefolder(data_dir, skip_corrupt=skip_corrupt)
        case "images":
            from train.data.images import load_images

            dataset = load_images(data_dir, skip_corrupt=skip_corrupt)
        case "imdb_reviews":
            from train.data.imdb import load_imdb

            dataset = load_imdb(data_dir, sequence_length=sequence_length)
        case "text":
            from train.data.text import load_text

            dataset = load_text(data_dir, **rows)
        case "ptb":
            from train.data.ptb import load_ptb

            dataset = load_ptb(data_dir, **rows)
        case "pydoc":
            from train.data.pydoc import load_pydoc

            dataset = load_pydoc(**rows)
        case _:
            raise UserError(f"dataset={name!r} is unknown; use one of {', '.join(DATASETS)}")
    return _limited(with_digest(dataset), train_examples, test_examples)


def _limited(dataset: Dataset, train_examples: int, test_examples: int) -> Dataset:
    in_order = not dataset.shuffle
    return dataclasses.replace(
        dataset,
        train=subset(dataset.train, train_examples, field="train_examples", in_order=in_order),
        test=subset(dataset.test, test_examples, field="test_examples", in_order=in_order),
    )
