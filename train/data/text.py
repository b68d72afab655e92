"""Word-level language-model data: converts text files, or any two texts, to token ids in segments."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.errors import UserError, reason
from train.interface import paths

EOS = "<eos>"
UNK = "<unk>"

logger = logging.getLogger(__name__)


def load_text(
    data_dir: str | Path,
    *,
    batch_size: int,
    test_batch_size: int,
    sequence_length: int,
    add_unk: bool = False,
    name: str = "text",
) -> Dataset:
    """A folder with `train.txt` and `valid.txt` (or `*.train.txt`, `*.valid.txt`), one sentence per line.

    Words are separated by white space, and each line ends with `<eos>`. The vocabulary is the training file's. An
    unknown word in the other file becomes `<unk>` if the training file has `<unk>`, or always with `add_unk`: `<unk>`
    is then the last word of the vocabulary and occurs in no training example. As in the report, the split called test
    is the validation file; a `test.txt` is not read.

    Raises:
      UserError: a missing, empty or non-UTF-8 file, an unknown word without `<unk>`, a text that is too short.
    """
    folder = Path(data_dir)
    if not str(data_dir) or not folder.is_dir():
        raise UserError(
            f"dataset={name!r} needs a data_dir with train.txt and valid.txt; "
            f"{str(data_dir) or 'an empty path'} is not a folder"
        )
    train_file, valid_file = find_file(folder, "train"), find_file(folder, "valid")
    digest = hashlib.sha256()
    texts = []
    for path in (train_file, valid_file):
        text = read_utf8(path)
        digest.update(f"{len(text)}\n{text}".encode())
        # Only line feeds end a line: str.splitlines would also split at U+2028 and the like.
        texts.append([line.split() for line in text.removesuffix("\n").split("\n")])
    if not any(texts[0]):
        raise UserError(f"{train_file} contains no words")
    return language_model(
        *texts,
        name=name,
        where=str(valid_file),
        batch_size=batch_size,
        test_batch_size=test_batch_size,
        sequence_length=sequence_length,
        add_unk=add_unk,
        source=f"{train_file.name} and {valid_file.name}, SHA-256 {digest.hexdigest()[:16]}",
        digest=digest.hexdigest(),
    )


def language_model(
    train: Sequence[Sequence[str]],
    test: Sequence[Sequence[str]],
    *,
    name: str,
    where: str,
    batch_size: int,
    test_batch_size: int,
    sequence_length: int,
    source: str,
    digest: str,
    add_unk: bool = False,
) -> Dataset:
    """A data set from two tokenised texts, lists of lines; ids follow the order of first appearance.

    Args:
      where: the test text's name, for an error about a word that is not in the training text.
      add_unk: add `<unk>` to the vocabulary if a word of the test text needs it.
    """
    vocabulary: dict[str, int] = {}
    for line in train:
        for word in (*line, EOS):
            vocabulary.setdefault(word, len(vocabulary))
    if add_unk and UNK not in vocabulary:
        words = [word for line in test for word in line]
        if unknown := sum(word not in vocabulary for word in words):
            logger.warning(
                "%s: %d of %d words (%.1f %%) are not in the training text and count as %s, which no training example "
                "has; replace rare words by %s in both texts for a fair perplexity",
                *(where, unknown, len(words), 100 * unknown / len(words), UNK, UNK),
            )
            vocabulary[UNK] = len(vocabulary)
    return Dataset(
        name=name,
        task="text",
        train=segments(encode(train, vocabulary, name), batch_size, sequence_length, "batch_size", name),
        test=segments(
            encode(test, vocabulary, where),
            test_batch_size or batch_size,
            sequence_length,
            "test_batch_size" if test_batch_size else "batch_size",
            where,
        ),
        num_classes=len(vocabulary),
        augmentation="none",
        mean=(),
        std=(),
        shuffle=False,
        vocab_size=len(vocabulary),
        class_names=tuple(vocabulary),
        source=source,
        digest=digest,
    )


def encode(lines: Iterable[Sequence[str]], vocabulary: dict[str, int], where: str) -> np.ndarray:
    """One stream of ids, int32 [tokens], with `<eos>` after each line.

    Raises:
      UserError: a word is not in the vocabulary, which has no `<unk>`; the message names the word and the line.
    """
    unknown = vocabulary.get(UNK)
    ids: list[int] = []
    for number, line in enumerate(lines, 1):
        for word in (*line, EOS):
            index = vocabulary.get(word, unknown)
            if index is None:
                raise UserError(
                    f"{where}, line {number}: the word {word!r} is not in the training text, which has no {UNK}; "
                    f"replace rare words by {UNK} there, or set add_unk to true"
                )
            ids.append(index)
    return np.array(ids, np.int32)


def segments(stream: np.ndarray, rows: int, length: int, field: str, where: str) -> Split:
    """Cuts a stream into segments of `length` tokens, each with its next tokens as targets.

    The stream is divided into `rows` equal, consecutive rows (the remainder is dropped), and all rows are cut at the
    same places; a last segment shorter than `length` is dropped. Examples are ordered by time and then by row, so
    every `rows` consecutive examples are one batch:

        inputs[t * rows + r] = row r, tokens t * length ... (t + 1) * length - 1

    Raises:
      UserError: rows or length is below 1, or the stream is shorter than one segment.
    """
    if rows < 1:
        raise UserError(f"{field}={rows} must be at least 1")
    if length < 1:
        raise UserError(f"sequence_length={length} must be at least 1")
    steps = (len(stream) // rows - 1) // length  # one token more than the inputs: the last target
    if steps < 1:
        raise UserError(
            f"{where} has {len(stream)} tokens, too few for one segment: {field}={rows} rows of "
            f"sequence_length={length} need {rows * (length + 1)}"
        )
    table = stream[: len(stream) // rows * rows].reshape(rows, -1)

    def cut(start: int) -> np.ndarray:
        part = table[:, start : start + steps * length].reshape(rows, steps, length)
        return np.ascontiguousarray(part.swapaxes(0, 1)).reshape(steps * rows, length)

    return Split(cut(0), cut(1))


def find_file(folder: Path, role: str) -> Path:
    """`folder/role.txt`, or the only file there whose name ends with `.role.txt`."""
    plain = folder / f"{role}.txt"
    if plain.is_file():
        return plain
    found = [path for path in paths.entries(folder) if path.name.endswith(f".{role}.txt") and path.is_file()]
    if not found:
        raise UserError(f"{folder} has no {role}.txt and no file whose name ends with .{role}.txt")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} has several files that could be the {role} text: {names}; leave one")
    return found[0]


def read_utf8(path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
      UserError: it cannot be read, is empty, or is not UTF-8; the message has the offset of the bad byte.
    """
    try:
        data = paths.read_bytes(path)
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text: byte {error.object[error.start]:#04x} at offset {error.start} "
            f"({error.reason}); convert it, for instance with iconv"
        ) from error
    if not text.strip():
        raise UserError(f"{path} contains no words")
    return text.removeprefix("\ufeff")
