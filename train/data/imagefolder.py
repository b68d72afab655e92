"""Images in folders, `data_dir/{train,valid}/<class>/*`, of any size, as canvases of one size.

The random crops are made on the device, which needs arrays of one shape. So every image is in the upper left
corner of a canvas with its split's largest height and width, with its size stored next to it. Two rules limit the
memory without changing what a 224-pixel crop sees:
- An image whose shorter side is above 320 pixels is shrunk to 320 once (a crop of at least 64 % of the area
  then has a side of at least 256, so it is never enlarged).
- An image longer than twice its shorter side is cut to the middle part of that length: no square of 64 % of its
  area fits, so torchvision's crop, and this one, uses the central square anyway.

Pixels are used as they are stored: like torchvision's ImageFolder, neither this nor `prepare images` applies the
orientation in an image's EXIF data. If such images should be upright, rotate the files first (`jpegtran`, `mogrify
-auto-orient`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from train.data.dataset import Dataset, Split
from train.errors import UserError, first_line, reason
from train.interface import paths

if TYPE_CHECKING:
    from PIL import Image

MAX_SHORTER_SIDE = 320
MAX_ASPECT = 2
MAX_BYTES = 8 << 30

# ImageNet's, in units of 0..255.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)

_SUFFIXES = (".jpg", ".jpeg", ".png")
_FORMATS = ("JPEG", "PNG")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Item:
    """One image: where it comes from (for errors), its label, and how to get its encoded bytes."""

    where: str
    label: int
    read: Callable[[], bytes]


def load_imagefolder(data_dir: str, *, skip_corrupt: bool = False) -> Dataset:
    """JPEG and PNG images, colour or grey, as RGB canvases uint8 [N, H, W, 3] with `sizes`.

    Classes are the sorted names of the folders in `train`; `valid` becomes the test split. Hidden files are ignored.

    Args:
      skip_corrupt: skip files that cannot be read as images, each with a warning.

    Raises:
      UserError: a missing folder, an empty class, classes that differ between the splits, a dead link, a file that
        cannot be read as an image (unless skipped), more than 8 GiB of pixels.
    """
    classes, items = scan(data_dir)
    return to_dataset("imagefolder", items, classes, skip_corrupt, f"images in {Path(data_dir).name}")


def to_dataset(
    name: str, items: dict[str, list[Item]], classes: Sequence[str], skip_corrupt: bool, source: str
) -> Dataset:
    (train, train_digest), (valid, valid_digest) = (
        _decode(items[split], split, skip_corrupt) for split in ("train", "valid")
    )
    return Dataset(
        name=name,
        task="image",
        train=train,
        test=valid,
        num_classes=len(classes),
        augmentation="random_resized_crop",
        mean=_MEAN,
        std=_STD,
        shuffle=True,
        class_names=tuple(classes),
        source=source,
        digest=hashlib.sha256(f"{train_digest} {valid_digest}".encode()).hexdigest(),
    )


def scan(data_dir: str) -> tuple[list[str], dict[str, list[Item]]]:
    """The classes, and the images of each split; raises UserError like `load_imagefolder`."""
    folder = Path(data_dir)
    if not data_dir or not folder.is_dir():
        raise UserError(
            f"image folders need a data_dir with train/<class>/ and valid/<class>/; "
            f"{data_dir or 'an empty path'} is not a folder"
        )
    classes: dict[str, list[str]] = {}
    items: dict[str, list[Item]] = {}
    for split in ("train", "valid"):
        entries = paths.entries(folder / split)
        stray = [path for path in entries if not _is_folder(path)]
        if stray:
            raise UserError(f"{stray[0]} is not a folder; {folder / split} must contain one folder per class")
        if len(entries) < 2:
            raise UserError(f"{folder / split} contains {len(entries)} class folders; at least 2 are needed")
        classes[split] = [path.name for path in entries]
        _check_names(classes[split], folder / split)
        items[split] = [item for label, path in enumerate(entries) for item in _class_items(path, label)]
    only = {
        "train": sorted(set(classes["train"]) - set(classes["valid"])),
        "valid": sorted(set(classes["valid"]) - set(classes["train"])),
    }
    for split, names in only.items():
        if names:
            other = "valid" if split == "train" else "train"
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"classes differ: {', '.join(names[:3])}{more} in {folder / split} but not in {folder / other}"
            )
    return classes["train"], items


def _check_names(names: Sequence[str], folder: Path) -> None:
    """Rejects class names that would be lost or look alike in records, pages and log lines."""
    seen: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise UserError(f"the class folder {name!r} in {folder} has a name that cannot be printed; rename it")
        if (other := seen.setdefault(" ".join(name.split()), name)) != name:
            raise UserError(f"the class folders {other!r} and {name!r} in {folder} differ only by blanks; rename one")


def _class_items(folder: Path, label: int) -> Iterator[Item]:
    entries = paths.entries(folder)
    if not entries:
        raise UserError(f"the class folder {folder} is empty; put images there or remove it")
    for path in entries:
        if _is_folder(path):
            raise UserError(f"{path} is a folder, but images are expected here")
        yield Item(str(path), label, functools.partial(paths.read_bytes, path))


def _is_folder(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # ENOENT, ELOOP
        raise UserError(f"{path} cannot be read: {reason(error)}; is it a link that leads nowhere?") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise UserError(f"{path} is a pipe, a socket or a device, but images are expected here; remove it")
    return stat.S_ISDIR(mode)


class Corrupt(Exception):
    """Not a readable image; the message says why."""


def open_image(item: Item) -> Image.Image:
    """Opens an image without decoding its pixels; raises Corrupt."""
    from PIL import Image, UnidentifiedImageError

    if not item.where.lower().endswith(_SUFFIXES):
        raise Corrupt(f"its name does not end with {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
    try:
        image = Image.open(io.BytesIO(item.read()), formats=_FORMATS)
    except UnidentifiedImageError:
        raise Corrupt("it is neither JPEG nor PNG") from None
    except OSError as error:
        raise Corrupt(reason(error)) from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Corrupt(first_line(error)) from error
    # Pillow itself rejects twice as many pixels, and warns from this number on. All its other warnings (a damaged EXIF
    # block, an odd MPO or APNG) come with an image that it can decode. Warning filters belong to the whole process, so
    # they are not changed here, where many threads decode.
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise Corrupt(f"it has {image.width}x{image.height} pixels, more than {Image.MAX_IMAGE_PIXELS:,}")
    if image.mode.startswith(("I", "F")):
        raise Corrupt("it has more than 8 bits per channel")
    return image


def decode_pixels(item: Item) -> np.ndarray:
    """uint8 [height, width, 3], within this module's size limits; raises Corrupt."""
    from PIL import Image

    image = open_image(item)
    try:
        if "transparency" in image.info:
            image = image.convert("RGBA")  # directly to RGB, it warns about a palette with several transparencies
        image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise Corrupt(first_line(error)) from error
    box, height, width = _bounded(image.height, image.width)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


def _bounded(height: int, width: int) -> tuple[tuple[int, int, int, int], int, int]:
    """The part of an image that is kept (left, upper, right, lower) and the height and width it gets."""
    shorter = min(height, width)

    def cut(length: int) -> int:
        # The same number of pixels on both sides.
        return max(0, length - MAX_ASPECT * shorter) // 2

    left, upper = cut(width), cut(height)
    width, height = width - 2 * left, height - 2 * upper
    factor = min(1.0, MAX_SHORTER_SIDE / shorter)
    box = (left, upper, left + width, upper + height)
    return box, max(1, round(height * factor)), max(1, round(width * factor))


def _decode(items: Sequence[Item], split: str, skip_corrupt: bool) -> tuple[Split, str]:
    """Decodes images onto canvases, in their order, with as many threads as there are cores.

    Returns:
      The split, and the SHA-256 of the encoded images and their labels (decoders differ, files do not).
    """

    def attempt(function: Callable[[Item], Any], item: Item) -> Any:
        try:
            return function(item)
        except Corrupt as error:
            if not skip_corrupt:
                raise UserError(
                    f"{item.where} cannot be read as an image: {error}; remove it, or set skip_corrupt"
                ) from error
            logger.warning("skipped, cannot be read as an image: %s (%s)", item.where, error)
            return None

    def size(item: Item) -> tuple[int, int, str]:
        with open_image(item) as image:
            return *_bounded(image.height, image.width)[1:], hashlib.sha256(item.read()).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(lambda item: attempt(size, item), items))
        items = [item for item, s in zip(items, found, strict=True) if s is not None]
        sums = [s[2] for s in found if s is not None]
        sizes = np.array([s[:2] for s in found if s is not None], np.int32).reshape(-1, 2)
        if not len(items):
            raise UserError(f"the {split} split contains no readable image")
        shape = (len(items), *(int(side) for side in sizes.max(axis=0)), 3)
        if np.prod(shape, dtype=np.int64) > MAX_BYTES:
            raise UserError(
                f"the {split} split's {shape[0]} images need {np.prod(shape, dtype=np.int64) / 2**30:.1f} GiB "
                f"as canvases of {shape[1]}x{shape[2]}, more than {MAX_BYTES >> 30}; shrink them, or use fewer"
            )
        canvases = np.zeros(shape, np.uint8)

        def fill(index: int) -> bool:
            pixels = attempt(decode_pixels, items[index])
            if pixels is None:
                return False
            canvases[index, : pixels.shape[0], : pixels.shape[1]] = pixels
            return True

        good = np.array(list(threads.map(fill, range(len(items)))))
    labels = np.array([item.label for item in items], np.int32)
    lines = [f"{label} {sums[index]}\n" for index, label in enumerate(labels) if good[index]]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    whole = Split(canvases, labels, sizes)
    return whole if good.all() else whole.take(good), digest
