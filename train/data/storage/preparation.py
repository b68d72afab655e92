"""The data sets that can be prepared: the function that does it, its input, and how to tell that it is done."""

import importlib
import inspect
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Preparation(NamedTuple):
    """How a data set is prepared.

    Attributes:
      target: "module:function"; called with those of `prepare`'s arguments that it accepts; returns the folder.
      from_dir: what --from-dir accepts, in words.
      required: whether --from-dir must be given, because there is no download.
      files: names of files that show that it is prepared; empty where TFDS's metadata show it.
    """

    target: str
    from_dir: str
    required: bool = False
    files: tuple[str, ...] = ()


PREPARATIONS = {
    "cifar10": Preparation(
        "train.data.cifar:prepare_cifar",
        "cifar-10-batches-bin or cifar-10-batches-py (what torchvision keeps), or the .tar.gz of either",
    ),
    "cifar100": Preparation(
        "train.data.cifar:prepare_cifar", "cifar-100-binary or cifar-100-python, or the .tar.gz of either"
    ),
    "ptb": Preparation(
        "train.data.ptb:prepare_ptb",
        "the folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt; required, because the licence allows no "
        "download",
        required=True,
        files=("ptb.train.txt", "ptb.valid.txt"),
    ),
    "images": Preparation(
        "train.data.prepared_images:prepare_images",
        "a folder with train/<class>/ and valid/<class>/ of JPEG and PNG images; required",
        required=True,
    ),
    "imdb_reviews": Preparation("train.data.imdb:prepare_imdb", "the folder aclImdb, or its .tar.gz"),
}


def prepare(
    name: str,
    data_dir: str,
    *,
    from_dir: str = "",
    allow_mismatch: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Prepares a data set and returns its folder.

    Args:
      name: a key of `PREPARATIONS`.
      data_dir: where it goes; TFDS's default if empty.
      from_dir: the publisher's files; empty for a download.
      allow_mismatch: accept files whose MD5 differs from the publisher's, where one is known.
      report: receives progress, one line at a time.

    Raises:
      UserError: as the function that prepares it.
    """
    module, _, function = PREPARATIONS[name].target.partition(":")
    target = getattr(importlib.import_module(module), function)
    given = {"name": name, "data_dir": data_dir, "from_dir": from_dir}
    given |= {"allow_mismatch": allow_mismatch, "report": report}
    return target(**{key: value for key, value in given.items() if key in inspect.signature(target).parameters})


def prepare_command(name: str, data_dir: str | os.PathLike[str]) -> str:
    """The command that prepares the data set in this folder."""
    where = f" --data-dir {shlex.quote(os.fspath(data_dir))}" if os.fspath(data_dir) else ""
    source = " --from-dir DIR" if name in PREPARATIONS and PREPARATIONS[name].required else ""
    return f"python -m train.data prepare {name}{where}{source}"
