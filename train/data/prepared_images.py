"""Prepares an image folder tree in TFDS's format, and reads it back like `train.data.imagefolder`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from train.data.dataset import Dataset
from train.data.imagefolder import Corrupt, Item, decode_pixels, open_image, scan, to_dataset
from train.data.storage import prepared
from train.data.storage.preparation import prepare_command
from train.errors import UserError


def load_images(data_dir: str, *, skip_corrupt: bool = False) -> Dataset:
    """The data set that `prepare images` put in `data_dir` in TFDS's format; otherwise like `load_imagefolder`."""
    builder = prepared.open_prepared("images", data_dir)
    items = {}
    for split in ("train", "valid"):
        items[split] = [
            Item(example["image/filename"].decode(), int(example["label"]), lambda e=example: e["image"])
            for example in prepared.read_examples(builder, split, undecoded=("image",))
        ]
    classes = builder.info.features["label"].names
    return to_dataset("images", items, classes, skip_corrupt, f"images {builder.version} prepared by TFDS")


def prepare_images(data_dir: str, *, from_dir: str, report: Callable[[str], None] = print) -> Path:
    """Converts an image folder tree to TFDS's format in `data_dir` and returns its folder.

    The images keep their encoded bytes; one that is neither grey nor RGB is stored as RGB PNG, because TFDS
    without TensorFlow reads no others. Every image is decoded once, so a corrupt one is rejected here.

    Raises:
      UserError: like `load_imagefolder`, or there is no `from_dir`.
    """
    import tensorflow_datasets as tfds

    if not from_dir:
        raise UserError(
            f"prepare images needs a tree train/<class>/, valid/<class>/: {prepare_command('images', data_dir)}"
        )
    classes, items = scan(from_dir)

    class Images(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Images in folders, prepared by `python -m train.data prepare images`."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/filename": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=classes),
                }
            )
            description = "Images in folders, one per class."
            return tfds.core.DatasetInfo(
                builder=self,
                description=description,
                features=features,
                supervised_keys=("image", "label"),
            )

    def examples(split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for item in items[split]:
            try:
                decode_pixels(item)
                data = item.read()
                with open_image(item) as image:
                    if image.mode not in ("L", "RGB"):
                        buffer = io.BytesIO()
                        image.convert("RGB").save(buffer, "PNG")
                        data = buffer.getvalue()
            except Corrupt as error:
                raise UserError(f"{item.where} cannot be read as an image: {error}; remove it") from error
            name = Path(item.where).name.encode(errors="surrogateescape").decode(errors="backslashreplace")
            key = f"{classes[item.label]}/{name}"
            yield key, {"image": data, "image/filename": key, "label": item.label}
        report(f"images: {len(items[split]):,} {split} images checked and stored")

    def verify(root: Path) -> None:
        builder = prepared.open_prepared("images", root)
        for split in ("train", "valid"):
            stored = sum(1 for _ in prepared.read_examples(builder, split, undecoded=("image",)))
            if stored != len(items[split]):
                raise RuntimeError(f"the prepared {split} split has {stored} of {len(items[split])} images")

    source = {split: (lambda split=split: examples(split)) for split in ("train", "valid")}
    return prepared.write(prepared.builder_from(Images, source, {}), data_dir, verify)
