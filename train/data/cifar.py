"""CIFAR-10 and CIFAR-100: from the publisher's files to TFDS's format, and from there to arrays."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from train.data import cifar_files
from train.data.cifar_files import check_labels
from train.data.dataset import Dataset, Split
from train.data.storage import decoded_cache, download, prepared
from train.errors import UserError, first_line

# Per channel over the training images; the report's code uses these values for both data sets.
_MEAN = (125.3, 123.0, 113.9)
_STD = (63.0, 62.1, 66.7)


def load_cifar(name: str, data_dir: str) -> Dataset:
    """50,000 training and 10,000 test images, uint8 [N, 32, 32, 3]; CIFAR-100 with its fine labels.

    Raises:
      UserError: the data set is not prepared in `data_dir` (the message has the command), or it is damaged.
    """

    def decode(builder: Any) -> dict[str, np.ndarray]:
        arrays = {"class_names": np.array(builder.info.features["label"].names)}
        for split in ("train", "test"):
            images, labels = read_images(builder, split)
            arrays |= {f"{split}_inputs": images, f"{split}_targets": labels}
        return arrays

    arrays, source = decoded_cache.decoded(name, data_dir, decode)
    class_names = tuple(arrays["class_names"].tolist())
    return Dataset(
        name=name,
        task="image",
        train=Split(arrays["train_inputs"], arrays["train_targets"]),
        test=Split(arrays["test_inputs"], arrays["test_targets"]),
        num_classes=len(class_names),
        augmentation="pad_crop_flip",
        mean=_MEAN,
        std=_STD,
        shuffle=True,
        class_names=class_names,
        source=source,
    )


def read_images(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a split of a prepared data set of equal-sized images: uint8 [N, H, W, C] and int32 [N].

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
                f"image {i} of split {split!r} in {builder.data_dir} is not a PNG of shape {shape}: {first_line(error)}"
            ) from error
        labels[i] = example["label"]
    check_labels(labels, classes, f"split {split!r} in {builder.data_dir}")
    return images, labels


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
      from_dir: a folder that contains the publisher's extracted files or their folder, in the binary or the Python
        version; empty downloads the archive whose size and SHA-256 TFDS has registered.
      allow_mismatch: accept files whose MD5 differs from the publisher's (a report line names them).
      report: receives progress, one line at a time.

    Raises:
      UserError: no network, a wrong, damaged, truncated or missing file, a folder that cannot be written.
    """
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    base = {"cifar10": tfds_cifar.Cifar10, "cifar100": tfds_cifar.Cifar100}[name]
    published = cifar_files.PUBLISHED[name]
    url = f"https://www.cs.toronto.edu/~kriz/{name.replace('cifar', 'cifar-')}-binary.tar.gz"
    downloaded = download.unpacked(name, url, base.url_infos, data_dir, report=report)
    with contextlib.nullcontext(Path(from_dir)) if from_dir else downloaded as folder:
        splits, names = cifar_files.read(name, folder, allow_mismatch=allow_mismatch, report=report)

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
        """Checks that what was written reads back unchanged."""
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
