"""IMDB movie reviews (Maas et al., ACL 2011) as fixed-length word ids: from the publisher's files or TFDS."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.storage import decoded_cache, download, prepared
from train.data.text import read_utf8
from train.errors import UserError

VOCABULARY = 10_000
# Ids 0 to 3, as in Keras's copy of the data set, whose words begin at 4 and which never uses 3.
SPECIAL = ("<pad>", "<start>", "<unk>", "<unused>")
START, UNKNOWN = 1, 2

_URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"  # checked by SHA-256
# What Keras's tokenizer treats as blanks. Apostrophes are kept, and so is the "br" of the reviews' line breaks.
_BLANKS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))
_LABELS = ("neg", "pos")
MAX_BYTES = 8 << 30


def load_imdb(data_dir: str, *, sequence_length: int) -> Dataset:
    """Reviews as int32 [N, sequence_length] word ids, and labels 0 (neg) or 1 (pos).

    The words are those of Keras's copy of the data set (`keras.datasets.imdb` with 10,000 words), which the report
    used: lower-cased, without punctuation, ranked by frequency in the training reviews. A review begins with id 1; id 2
    stands for words beyond the 9,996 most frequent ones; the words' ids start at 4. Longer reviews are cut at the end,
    shorter ones padded with zeros; `sizes` int32 [N] has the lengths, including the start.

    Raises:
      UserError: the data set is not prepared in `data_dir` (the message has the command), or it is damaged.
    """
    if sequence_length < 1:
        raise UserError(f"sequence_length={sequence_length} must be at least 1")
    arrays, source = decoded_cache.decoded("imdb_reviews", data_dir, _encode, form="imdb 2")
    vocabulary = tuple(str(word) for word in arrays["vocabulary"])

    def split(name: str) -> Split:
        return _pad(arrays[f"{name}_ids"], arrays[f"{name}_lengths"], arrays[f"{name}_labels"], sequence_length)

    return Dataset(
        name="imdb_reviews",
        task="text_classification",
        train=split("train"),
        test=split("test"),
        num_classes=len(_LABELS),
        augmentation="none",
        mean=(),
        std=(),
        shuffle=True,
        vocab_size=len(vocabulary),
        class_names=_LABELS,
        source=source,
    )


def words(review: str) -> list[str]:
    """The words of a review, as `load_imdb` describes them."""
    return review.lower().translate(_BLANKS).split()


def _encode(builder: Any) -> dict[str, np.ndarray]:
    """Each split as one stream of ids with the reviews' lengths and labels, and the vocabulary."""
    texts: dict[str, list[list[str]]] = {}
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        texts[split], labels = [], []
        for i, example in enumerate(prepared.read_examples(builder, split)):
            try:
                texts[split].append(words(example["text"].decode("utf-8")))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"review {i} of split {split!r} in {builder.data_dir} is not UTF-8 at byte {error.start}"
                ) from error
            if example["label"] not in (0, 1):
                raise UserError(
                    f"review {i} of split {split!r} in {builder.data_dir} has label {example['label']}, not 0 or 1"
                )
            labels.append(example["label"])
        arrays[f"{split}_labels"] = np.array(labels, np.int32)
    counts = collections.Counter(word for review in texts["train"] for word in review)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - len(SPECIAL)]
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *ranked))}
    for split, reviews in texts.items():
        flat = (i for review in reviews for i in (START, *(vocabulary.get(word, UNKNOWN) for word in review)))
        arrays[f"{split}_ids"] = np.fromiter(flat, np.int32)
        arrays[f"{split}_lengths"] = np.array([len(review) + 1 for review in reviews], np.int32)
    return arrays | {"vocabulary": np.array(list(vocabulary))}


def _pad(ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray, width: int) -> Split:
    """Cuts a stream of reviews into rows of `width` ids."""
    if (size := 4 * len(lengths) * width) > MAX_BYTES:
        raise UserError(
            f"with sequence_length={width}, {len(lengths):,} reviews take {size / 2**30:.1f} GiB, more than "
            f"{MAX_BYTES >> 30}; the longest review has {lengths.max():,} words"
        )
    starts = np.cumsum(lengths) - lengths
    kept = np.minimum(lengths, width)
    rows = np.zeros((len(lengths), width), np.int32)
    for row, start, length in zip(rows, starts, kept, strict=True):
        row[:length] = ids[start : start + length]
    return Split(rows, labels, kept.astype(np.int32))


def prepare_imdb(data_dir: str, *, from_dir: str = "", report: Callable[[str], None] = print) -> Path:
    """Prepares `imdb_reviews/plain_text` in `data_dir` and returns its folder.

    Args:
      from_dir: the folder `aclImdb` that the publisher's archive unpacks to, or its parent; empty downloads the
        archive whose size and SHA-256 TFDS has registered.

    Raises:
      UserError: no network, a missing or empty folder, a review that is not UTF-8.
    """
    from tensorflow_datasets.datasets.imdb_reviews import imdb_reviews_dataset_builder as tfds_imdb

    base: Any = tfds_imdb.Builder
    downloaded = download.unpacked("imdb_reviews", _URL, base.url_infos, data_dir, report=report)
    with contextlib.nullcontext(Path(from_dir)) if from_dir else downloaded as folder:
        return _prepare(base, _find(folder), data_dir, report)


def _find(folder: Path) -> Path:
    for candidate in (folder, folder / "aclImdb"):
        if (candidate / "train" / "pos").is_dir():
            return candidate
    raise UserError(f"{folder} contains no train/pos and no aclImdb; give the folder that the archive extracts to")


def _prepare(base: Any, folder: Path, data_dir: str, report: Callable[[str], None]) -> Path:
    def reviews(split: str, groups: Iterable[tuple[str, int | str]]) -> Iterator[tuple[str, dict[str, Any]]]:
        count = 0
        for group, label in groups:
            files = sorted((folder / split / group).glob("*.txt"))
            if not files and group != "unsup":
                raise UserError(f"{folder / split / group} contains no reviews (*.txt)")
            for path in files:
                # The key is the path in the archive, as in TFDS, which decides the stored order.
                yield f"aclImdb/{split}/{group}/{path.name}", {"text": read_utf8(path).strip(), "label": label}
                count += 1
        report(f"imdb_reviews: {count:,} {split} reviews stored")

    labelled = [(label, label) for label in _LABELS]
    source: dict[str, prepared.Examples] = {
        "train": lambda: reviews("train", labelled),
        "test": lambda: reviews("test", labelled),
    }
    if any((folder / "train" / "unsup").glob("*.txt")):
        source["unsupervised"] = lambda: reviews("train", [("unsup", -1)])
    return prepared.write(prepared.builder_from(base, source, {}), data_dir)
