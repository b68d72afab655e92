"""`python -m train.data prepare NAME` puts a data set on disk, ready for training; `list` shows the data sets."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from train.errors import UserError
from train.interface.command_line import Parser, optional_path
from train.interface.installed import require
from train.interface.nearest import did_you_mean
from train.interface.output import accept_any_text, os_error_words

# What --from-dir accepts, by data set.
FROM_DIR = {
    "cifar10": "cifar-10-batches-bin or cifar-10-batches-py (what torchvision keeps), or the .tar.gz of either",
    "cifar100": "cifar-100-binary or cifar-100-python, or the .tar.gz of either",
    "ptb": "the folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt; required, because the licence allows no "
    "download",
    "images": "a folder with train/<class>/ and valid/<class>/ of JPEG and PNG images; required",
    "imdb_reviews": "the folder aclImdb, or its .tar.gz",
}


def _parser() -> Parser:
    sets = "\n".join(f"  {name:<14}--from-dir: {words}" for name, words in FROM_DIR.items())
    epilog = (
        f"data sets to prepare, and what --from-dir accepts:\n{sets}\n\n"
        "digits and pydoc are built in; imagefolder and text are your own folders (--config.dataset=imagefolder "
        "--config.data_dir=DIR)."
    )
    parser = Parser(prog="python -m train.data", description=__doc__, epilog=epilog)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    prepare = commands.add_parser("prepare", help="prepare a data set", epilog=epilog)
    prepare.add_argument("name", help="one of: " + ", ".join(PREPARE))
    prepare.add_argument(
        "--from-dir", default="", type=optional_path, metavar="DIR", help="use the publisher's files; no download"
    )
    prepare.add_argument("--allow-mismatch", action="store_true", help="accept files whose MD5 is not the publisher's")
    listed = commands.add_parser("list", help="list the data sets: whether each is prepared, its size, where it is")
    for command in (prepare, listed):
        command.add_argument(
            "--data-dir",
            default="",
            type=optional_path,
            metavar="DIR",
            help="folder of the prepared data sets (default: TFDS's own)",
        )
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
    from train.data.prepared_images import prepare_images

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
    """Prepares the named data set, or says that it is already prepared."""
    if arguments.name not in PREPARE:
        raise UserError(
            f"there is nothing to prepare for {arguments.name!r}; use one of {', '.join(PREPARE)}"
            f"{did_you_mean(arguments.name, PREPARE)}"
        )
    from train.data.storage import prepared

    folder = prepared.resolve_data_dir(arguments.data_dir) / arguments.name
    if prepared.is_prepared(arguments.name, arguments.data_dir):
        if arguments.name != "ptb":
            folder = prepared.open_prepared(arguments.name, arguments.data_dir).data_dir
        if arguments.from_dir:
            _report(
                f"warning: --from-dir={arguments.from_dir} was not read; to prepare {arguments.name} from it, remove "
                f"{folder} first, or choose another --data-dir"
            )
        print(f"{arguments.name} is already prepared: {folder}")
        return
    if arguments.from_dir and not Path(arguments.from_dir).exists():
        raise UserError(f"--from-dir={arguments.from_dir} does not exist")
    with _unpacked(arguments.name, arguments):
        print(f"{arguments.name} is ready: {PREPARE[arguments.name](arguments.name, arguments)}")


@contextlib.contextmanager
def _unpacked(name: str, arguments: argparse.Namespace) -> Iterator[None]:
    """Within the block, replaces a --from-dir that is an archive with the folder that it unpacks to."""
    given = arguments.from_dir
    if not (given and Path(given).is_file()):
        yield
        return
    from train.data.storage import download, prepared

    with prepared.temporary_folder(prepared.resolve_data_dir(arguments.data_dir), name) as temporary:
        _report(f"unpacking {given}")
        arguments.from_dir = str(temporary / "extracted")
        download.extract(Path(given), temporary / "extracted")
        yield


def list_sets(arguments: argparse.Namespace) -> None:
    """Prints one line per data set: its state, its size on disk, and where it is or how to get it."""
    from train.data import DATASETS
    from train.data.storage import prepared

    rows = [("set", "state", "size", "where")]
    for name, entry in DATASETS.items():
        if name not in PREPARE:
            state = "your folder" if "data_dir" in entry.parameters() else "built in"
            rows.append((name, state, "", entry.help))
        elif prepared.is_prepared(name, arguments.data_dir):
            folder = prepared.resolve_data_dir(arguments.data_dir) / name
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows.append((name, "prepared", f"{size / 1e6:,.1f} MB", str(folder)))
        else:
            more = " --from-dir DIR" if name in ("ptb", "images") else ""
            rows.append((name, "not prepared", "", prepared.prepare_command(name, arguments.data_dir) + more))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr for a user's error, 130 when interrupted."""
    # So that temporary folders are removed; SIGINT too, because shells make background jobs ignore it.
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    accept_any_text()
    require("train")
    try:
        arguments = _parser().parse_args(argv)
        (list_sets if arguments.command == "list" else prepare)(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder without permission, a failing disk
        print(f"error: {os_error_words(error, 'reading or writing')}", file=sys.stderr)
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
