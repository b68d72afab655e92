"""CIFAR as published, in two versions: flat binary files, and Python pickles (which torchvision keeps)."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.data.storage import prepared
from train.errors import UserError, first_line, reason
from train.interface import paths

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
Report = Callable[[str], None]

_IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class Version:
    """The files of one version.

    Attributes:
      folder: the folder that its archive unpacks to.
      archive: the archive's name.
      files: by split, name and MD5 of each file.
      labels: names of the labels in a file, one for each of `Published.labels`; empty for the binary version, where
        they are the bytes before each image.
      names: by feature, where its class names are: a text file, or a key of the pickle `meta`. They have no MD5 here,
        because copies of the text files differ in their trailing blank lines.
      meta: the pickle with the class names.
    """

    folder: str
    archive: str
    files: Mapping[str, Mapping[str, str]]
    names: Mapping[str, str]
    labels: tuple[str, ...] = ()
    meta: str = ""


@dataclass(frozen=True)
class Published:
    """A data set as published (https://www.cs.toronto.edu/~kriz/cifar.html).

    Attributes:
      versions: its versions, the binary one first.
      file_records: by split, the number of records in each file.
      labels: an image's labels, each as TFDS feature and number of classes.
    """

    versions: tuple[Version, ...]
    file_records: Mapping[str, int]
    labels: tuple[tuple[str, int], ...]


# The MD5s are those of the files in the publisher's archives; for the pickles, those that torchvision expects. The MD5
# of test_batch.bin is listed by two unrelated public projects (one CMake, one Go) next to these same five; the five
# were checked against real files.
PUBLISHED = {
    "cifar10": Published(
        versions=(
            Version(
                folder="cifar-10-batches-bin",
                archive="cifar-10-binary.tar.gz",
                files={
                    "train": {
                        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
                        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
                        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
                        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
                        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
                    },
                    "test": {"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
                },
                names={"label": "batches.meta.txt"},
            ),
            Version(
                folder="cifar-10-batches-py",
                archive="cifar-10-python.tar.gz",
                files={
                    "train": {
                        "data_batch_1": "c99cafc152244af753f735de768cd75f",
                        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                        "data_batch_4": "634d18415352ddfa80567beed471001a",
                        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    },
                    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
                },
                names={"label": "label_names"},
                labels=("labels",),
                meta="batches.meta",
            ),
        ),
        file_records={"train": 10_000, "test": 10_000},
        labels=(("label", 10),),
    ),
    "cifar100": Published(
        versions=(
            Version(
                folder="cifar-100-binary",
                archive="cifar-100-binary.tar.gz",
                files={
                    "train": {"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
                    "test": {"test.bin": "4499cfba6c016c1be1438163640a0898"},
                },
                names={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
            ),
            Version(
                folder="cifar-100-python",
                archive="cifar-100-python.tar.gz",
                files={
                    "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
                    "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
                },
                names={"coarse_label": "coarse_label_names", "label": "fine_label_names"},
                labels=("coarse_labels", "fine_labels"),
                meta="meta",
            ),
        ),
        file_records={"train": 50_000, "test": 10_000},
        labels=(("coarse_label", 20), ("label", 100)),
    ),
}


def read(name: str, folder: Path, *, allow_mismatch: bool, report: Report) -> tuple[Splits, dict[str, list[str]]]:
    """Reads the publisher's files, in either version.

    Args:
      name: "cifar10" or "cifar100".
      folder: the folder with the files, or its parent.
      allow_mismatch: accept files whose MD5 differs from the publisher's (a report line names them).
      report: receives one line at a time.

    Returns:
      By split, labels uint8 [N, labels] and images uint8 [N, 32, 32, 3], in the files' order; and the class names by
      feature, where those of the coarse classes may be missing.

    Raises:
      UserError: a wrong, damaged, truncated or missing file.
    """
    published = PUBLISHED[name]
    found, version = _find(folder, published)
    splits: Splits = {}
    for split, files in version.files.items():
        tables = []
        for file, md5 in files.items():
            records = published.file_records[split]
            if version.meta:
                tables.append(_read_pickled(found / file, md5, records, version, published, allow_mismatch, report))
            else:
                tables.append(_read_binary(found / file, md5, records, published, allow_mismatch, report))
        labels, pixels = np.split(np.concatenate(tables), [len(published.labels)], axis=1)
        # A record stores one whole channel after the other.
        splits[split] = labels, np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return splits, _read_names(found, version, published)


def _find(folder: Path, published: Published) -> tuple[Path, Version]:
    """`folder` or the publisher's folder in it, whichever has the files, and their version."""
    for version in published.versions:
        wanted = [file for files in version.files.values() for file in files]
        for candidate in (folder, folder / version.folder):
            there = {path.name for path in paths.entries(candidate)} if candidate.is_dir() else set()
            if there & {*wanted, version.meta} - {""}:
                if missing := [file for file in wanted if file not in there]:
                    raise UserError(f"{candidate} lacks {', '.join(missing)}")
                return candidate, version
    for version in published.versions:
        if (folder / version.archive).is_file():
            raise UserError(f"{folder} contains {version.archive}, not extracted; pass that file as --from-dir")
    binary, pickled = published.versions
    files = ", ".join(file for files in binary.files.values() for file in files)
    raise UserError(
        f"{folder} contains none of {files}, and no folder {binary.folder} or {pickled.folder}; give one of these "
        f"folders, or {binary.archive} or {pickled.archive}"
    )


def _read_binary(
    path: Path, md5: str, records: int, published: Published, allow_mismatch: bool, report: Report
) -> np.ndarray:
    """uint8 [records, labels + 3072]."""
    record = len(published.labels) + _IMAGE_BYTES
    size = records * record
    if path.stat().st_size != size:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, but the publisher's has {size:,}")
    data = prepared.read_published(path, md5, allow_mismatch, report)
    block = np.frombuffer(data, np.uint8).reshape(-1, record)
    for column, (feature, classes) in enumerate(published.labels):
        check_labels(block[:, column], classes, f"{path} ({feature})")
    return block


def _read_pickled(
    path: Path, md5: str, records: int, version: Version, published: Published, allow_mismatch: bool, report: Report
) -> np.ndarray:
    """The same table from a pickle."""
    batch = _unpickle(path, prepared.read_published(path, md5, allow_mismatch, report))
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (records, _IMAGE_BYTES):
        shape = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise UserError(f"{path} has data of {shape}, but the publisher's is uint8 [{records}, {_IMAGE_BYTES}]")
    columns = []
    for key, (feature, classes) in zip(version.labels, published.labels, strict=True):
        labels = batch.get(key)
        if not isinstance(labels, list) or len(labels) != records or not all(type(label) is int for label in labels):
            raise UserError(f"{path}: {key!r} is not a list of {records:,} integers")
        check_labels(np.array(labels), classes, f"{path} ({feature})")
        columns.append(np.array(labels, np.uint8))
    return np.concatenate([np.stack(columns, 1), pixels], axis=1)


# The names of an array's parts in a pickle, under NumPy 1 and 2.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Creates only NumPy arrays and plain values: a pickle could otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in Python 2's form
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not part of an array")
        return _PARTS[module, name]


def _unpickle(path: Path, data: bytes) -> dict[str, Any]:
    try:
        # They were written by Python 2, whose strings are bytes.
        found = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{path} is not a pickle of arrays: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} contains a {type(found).__name__}, not a dictionary")
    return found


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raises UserError if a label is not in 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UserError(f"{where}: record {wrong[0]} has label {labels[wrong[0]]}, outside 0..{classes - 1}")


def _read_names(folder: Path, version: Version, published: Published) -> dict[str, list[str]]:
    """Class names by feature. The fine names are required; the coarse ones may be missing."""
    path = folder / version.meta if version.meta else folder
    try:
        pickled = _unpickle(path, paths.read_bytes(path)) if version.meta else {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    names: dict[str, list[str]] = {}
    for feature, classes in published.labels:
        where = f"{path} ({version.names[feature]})" if version.meta else str(folder / version.names[feature])
        if version.meta:
            found = pickled.get(version.names[feature])
            if found is None and feature != "label":
                continue
            names[feature] = [str(name) for name in found] if isinstance(found, list) else []
        else:
            if not Path(where).is_file() and feature != "label":
                continue
            try:
                lines = paths.read_bytes(Path(where)).decode("ascii").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{where} cannot be read as ASCII text: {first_line(error)}") from error
            names[feature] = [line.strip() for line in lines if line.strip()]
        if len(names[feature]) != classes or len(set(names[feature])) != classes:
            raise UserError(f"{where} has {len(set(names[feature]))} class names, not {classes}")
    return names
