"""CIFAR-10 and CIFAR-100: from the publisher's binary files to TFDS's form, and from there to arrays."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.data import decoded_cache, download, prepared
from train.data.dataset import Dataset, Split
from train.errors import UserError

_IMAGE_BYTES = 3 * 32 * 32

# Per channel over the training images, the values that the report's code uses for both sets.
_MEAN = (125.3, 123.0, 113.9)
_STD = (63.0, 62.1, 66.7)


@dataclass(frozen=True)
class _Published:
    """The publisher's "binary version" (https://www.cs.toronto.edu/~kriz/cifar.html).

    Attributes:
      folder: what its archive unpacks to.
      files: by split, name and MD5 of each record file.
      file_records: records in each of them.
      labels: the label bytes before each image, as TFDS feature and number of classes.
      names: by feature, the text file of its class names. These have no MD5 here: copies differ in the
        blank lines at their end.
    """

    folder: str
    files: Mapping[str, Mapping[str, str]]
    file_records: Mapping[str, int]
    labels: tuple[tuple[str, int], ...]
    names: Mapping[str, str]


# The MD5s are those of the files in the publisher's archives. The one of test_batch.bin is what two unrelated
# public projects (one CMake, one Go) list beside these same five; the five equal files that were seen here.
_PUBLISHED = {
    "cifar10": _Published(
        folder="cifar-10-batches-bin",
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
        file_records={"train": 10_000, "test": 10_000},
        labels=(("label", 10),),
        names={"label": "batches.meta.txt"},
    ),
    "cifar100": _Published(
        folder="cifar-100-binary",
        files={
            "train": {"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
            "test": {"test.bin": "4499cfba6c016c1be1438163640a0898"},
        },
        file_records={"train": 50_000, "test": 10_000},
        labels=(("coarse_label", 20), ("label", 100)),
        names={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
    ),
}


def load_cifar(name: str, data_dir: str) -> Dataset:
    """50,000 training and 10,000 test images, uint8 [N, 32, 32, 3]; CIFAR-100 with its fine labels.

    Raises:
      UserError: the set is not prepared in `data_dir` (the message has the command), or it is damaged.
    """
    builder = prepared.open_prepared(name, data_dir)
    folder = Path(builder.data_dir)

    def decode() -> dict[str, np.ndarray]:
        arrays = {}
        for split in ("train", "test"):
            images, labels = read_images(builder, split)
            arrays |= {f"{split}_inputs": images, f"{split}_targets": labels}
        return arrays

    arrays, key = decoded_cache.cached(folder, decode)
    feature = builder.info.features["label"]
    return Dataset(
        name=name,
        task="image",
        train=Split(arrays["train_inputs"], arrays["train_targets"]),
        test=Split(arrays["test_inputs"], arrays["test_targets"]),
        num_classes=feature.num_classes,
        augmentation="pad_crop_flip",
        mean=_MEAN,
        std=_STD,
        shuffle=True,
        class_names=tuple(feature.names),
        source=f"{name} {builder.version} prepared by TFDS, SHA-256 {key[:16]}",
    )


def read_images(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a split of a prepared set of equal-sized images: uint8 [N, H, W, C] and int32 [N].

    Raises:
      UserError: damaged records, an image of another size, a label out of range.
    """
    from PIL import Image

    shape = builder.info.features["image"].shape
    classes = builder.info.features["label"].num_classes
    expected = builder.info.splits[split].num_examples if split in builder.info.splits else 0
    images = np.empty((expected, *shape), np.uint8)
    labels = np.empty(expected, np.int32)
    for i, example in enumerate(prepared.read_examples(builder, split, undecoded=("image",))):
        try:
            images[i] = np.asarray(Image.open(io.BytesIO(example["image"])))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(
                f"image {i} of split {split!r} in {builder.data_dir} is not a PNG of shape {shape}: "
                f"{prepared.one_line(error)}"
            ) from error
        labels[i] = example["label"]
    check_labels(labels, classes, f"split {split!r} in {builder.data_dir}")
    return images, labels


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raises UserError where a label is not in 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UserError(f"{where}: record {wrong[0]} has label {labels[wrong[0]]}, outside 0..{classes - 1}")


def prepare_cifar(
    name: str,
    data_dir: str,
    *,
    from_dir: str = "",
    allow_mismatch: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Prepares CIFAR-10 or CIFAR-100 in `data_dir` and returns its folder.

    Args:
      from_dir: a folder with the publisher's extracted binary files, or that holds their folder; empty
        downloads the archive whose size and SHA-256 TFDS has registered.
      allow_mismatch: take files whose MD5 differs from the publisher's (they are named in a report line).
      report: receives progress, a line at a time.

    Raises:
      UserError: no network, a foreign, damaged, truncated or missing file, a folder that cannot be written.
    """
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    base = {"cifar10": tfds_cifar.Cifar10, "cifar100": tfds_cifar.Cifar100}[name]
    published = _PUBLISHED[name]

    def read(folder: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, list[str]]]:
        found = _find(folder, published)
        return _read_published(found, published, allow_mismatch, report), _read_names(found, published)

    if from_dir:
        splits, names = read(Path(from_dir).expanduser())
    else:
        url = f"https://www.cs.toronto.edu/~kriz/{name.replace('cifar', 'cifar-')}-binary.tar.gz"
        registered = base.url_infos[url]
        with prepared.temporary_folder(prepared.resolve_data_dir(data_dir), name) as temporary:
            archive = download.fetch(
                url,
                temporary / "archive.tar.gz",
                size=int(registered.size),
                sha256=registered.checksum,
                report=report,
                advice=f"where there is no network, bring the extracted archive and run: "
                f"{prepared.prepare_command(name, data_dir)} --from-dir DIR",
            )
            download.extract(archive, temporary / "extracted")
            splits, names = read(temporary / "extracted")

    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        labels, images = splits[split]
        for i, image in enumerate(images):
            example: dict[str, Any] = {"id": f"{split}_{i:05d}", "image": encode_png(image)}
            for (feature, _), label in zip(published.labels, labels[i], strict=True):
                example[feature] = int(label)
            yield i, example
            if (i + 1) % 10_000 == 0:
                report(f"{name}: {i + 1:,} of {len(images):,} {split} images encoded")

    def verify(root: Path) -> None:
        """What was written must read back as what was given."""
        dataset = load_cifar(name, str(root))
        for split in ("train", "test"):
            labels, images = splits[split]
            got: Split = getattr(dataset, split)
            if _content(got.inputs, got.targets) != _content(images, labels[:, -1]):
                raise RuntimeError(f"{name}: the prepared {split} split does not read back as it was written")
        report(f"{name}: read back and compared")

    source = {split: (lambda split=split: examples(split)) for split in ("train", "test")}
    return prepared.write(prepared.builder_from(base, source, names), data_dir, verify)


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as PNG bytes (lossless)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _content(images: np.ndarray, labels: np.ndarray) -> bytes:
    """A digest of the examples that does not depend on their order: TFDS shuffles what it writes."""
    digests = [
        hashlib.blake2b(image.tobytes() + bytes([label]), digest_size=8).digest()
        for image, label in zip(images, labels.astype(np.uint8), strict=True)
    ]
    return np.sort(np.frombuffer(b"".join(digests), np.uint64)).tobytes()


def _find(folder: Path, published: _Published) -> Path:
    """`folder` or the publisher's folder in it, whichever holds the files."""
    wanted = [file for files in published.files.values() for file in files]
    for candidate in (folder, folder / published.folder):
        if any((candidate / file).is_file() for file in wanted):
            missing = [file for file in wanted if not (candidate / file).is_file()]
            if missing:
                raise UserError(f"{candidate} lacks {', '.join(missing)}")
            return candidate
    raise UserError(
        f"{folder} holds none of {', '.join(wanted)}, and no folder {published.folder}; "
        f"give the folder that the publisher's archive extracts to"
    )


def _read_published(
    folder: Path, published: _Published, allow_mismatch: bool, report: Callable[[str], None]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By split: labels uint8 [N, labels] and images uint8 [N, 32, 32, 3], in the files' order."""
    splits = {}
    record = len(published.labels) + _IMAGE_BYTES
    for split, files in published.files.items():
        rows = []
        for file, md5 in files.items():
            path = folder / file
            size = published.file_records[split] * record
            if path.stat().st_size != size:
                raise UserError(f"{path} has {path.stat().st_size:,} bytes, the publisher's has {size:,}")
            data = prepared.read_published(path, md5, allow_mismatch, report)
            block = np.frombuffer(data, np.uint8).reshape(-1, record)
            for column, (feature, classes) in enumerate(published.labels):
                check_labels(block[:, column], classes, f"{path} ({feature})")
            rows.append(block)
        table = np.concatenate(rows)
        labels, pixels = np.split(table, [len(published.labels)], axis=1)
        # The file has whole channels one after the other.
        splits[split] = labels, np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return splits


def _read_names(folder: Path, published: _Published) -> dict[str, list[str]]:
    """Class names by feature. The fine names must be there; those of the coarse classes may be absent."""
    names = {}
    for feature, classes in published.labels:
        path = folder / published.names[feature]
        if not path.is_file() and feature != "label":
            continue
        try:
            names[feature] = [line.strip() for line in path.read_text("ascii").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as ASCII text: {prepared.one_line(error)}") from error
        if len(names[feature]) != classes or len(set(names[feature])) != classes:
            raise UserError(f"{path} has {len(set(names[feature]))} class names, not {classes}")
    return names
