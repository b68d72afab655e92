"""`python -m train.data prepare NAME`: puts a data set on disk, in the form in which training reads it."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from train.errors import UserError


class _Parser(argparse.ArgumentParser):
    """argparse whose complaint is one line, as every user error here is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see: python -m train.data --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m train.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    prepare = commands.add_parser("prepare", help="prepare a data set", description=__doc__)
    prepare.add_argument("name", help="one of: " + ", ".join(PREPARE))
    prepare.add_argument(
        "--from-dir", default="", metavar="DIR", help="take the publisher's files from DIR; no download"
    )
    prepare.add_argument(
        "--data-dir", default="", metavar="DIR", help="where prepared sets lie (default: TFDS's own folder)"
    )
    prepare.add_argument("--allow-mismatch", action="store_true", help="take files whose MD5 is not the publisher's")
    return parser


def _prepare_cifar(name: str, arguments: argparse.Namespace) -> Path:
    from train.data.cifar import prepare_cifar

    return prepare_cifar(
        name,
        arguments.data_dir,
        from_dir=arguments.from_dir,
        allow_mismatch=arguments.allow_mismatch,
        report=_report,
    )


def _prepare_ptb(name: str, arguments: argparse.Namespace) -> Path:
    from train.data.ptb import prepare_ptb

    return prepare_ptb(
        arguments.data_dir,
        from_dir=arguments.from_dir,
        allow_mismatch=arguments.allow_mismatch,
        report=_report,
    )


def _prepare_images(name: str, arguments: argparse.Namespace) -> Path:
    from train.data.images import prepare_images

    return prepare_images(arguments.data_dir, from_dir=arguments.from_dir, report=_report)


def _prepare_imdb(name: str, arguments: argparse.Namespace) -> Path:
    from train.data.imdb import prepare_imdb

    return prepare_imdb(arguments.data_dir, from_dir=arguments.from_dir, report=_report)


PREPARE: dict[str, Callable[[str, argparse.Namespace], Path]] = {
    "cifar10": _prepare_cifar,
    "cifar100": _prepare_cifar,
    "ptb": _prepare_ptb,
    "images": _prepare_images,
    "imdb_reviews": _prepare_imdb,
}


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare(arguments: argparse.Namespace) -> None:
    """Prepares the named set, or says that it is there."""
    if arguments.name not in PREPARE:
        raise UserError(f"there is nothing to prepare for {arguments.name!r}; use one of {', '.join(PREPARE)}")
    from train.data import prepared

    folder = prepared.resolve_data_dir(arguments.data_dir) / arguments.name
    if any(folder.glob("**/dataset_info.json")) or (arguments.name == "ptb" and folder.is_dir()):
        if arguments.name != "ptb":
            folder = prepared.open_prepared(arguments.name, arguments.data_dir).data_dir
        print(f"{arguments.name} is there already: {folder}")
        return
    print(f"{arguments.name} is ready: {PREPARE[arguments.name](arguments.name, arguments)}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr for a user's error, 130 when interrupted."""
    # So that temporary folders are removed; SIGINT too, which a shell lets its background jobs ignore.
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        prepare(_parser().parse_args(argv))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
