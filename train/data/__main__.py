"""`python -m train.data prepare NAME` puts a data set on disk, ready for training; `list` shows the data sets."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from train.data.storage import preparation
from train.data.storage.preparation import PREPARATIONS
from train.errors import UserError
from train.interface.command_line import Parser, optional_path, run_command
from train.interface.installed import require
from train.interface.nearest import did_you_mean
from train.interface.output import accept_any_text


def _parser() -> Parser:
    sets = "\n".join(f"  {name:<14}--from-dir: {one.from_dir}" for name, one in PREPARATIONS.items())
    epilog = (
        f"data sets to prepare, and what --from-dir accepts:\n{sets}\n\n"
        "digits and pydoc are built in; imagefolder and text are your own folders (--config.dataset=imagefolder "
        "--config.data_dir=DIR)."
    )
    parser = Parser(prog="python -m train.data", description=__doc__, epilog=epilog)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    prepare = commands.add_parser("prepare", help="prepare a data set", epilog=epilog)
    prepare.add_argument("name", help="one of: " + ", ".join(PREPARATIONS))
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


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare(arguments: argparse.Namespace) -> None:
    """Prepares the named data set, or says that it is already prepared."""
    if arguments.name not in PREPARATIONS:
        raise UserError(
            f"there is nothing to prepare for {arguments.name!r}; use one of {', '.join(PREPARATIONS)}"
            f"{did_you_mean(arguments.name, PREPARATIONS)}"
        )
    from train.data.storage import prepared

    folder = prepared.resolve_data_dir(arguments.data_dir) / arguments.name
    if prepared.is_prepared(arguments.name, arguments.data_dir):
        if not PREPARATIONS[arguments.name].files:
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
        made = preparation.prepare(
            arguments.name,
            arguments.data_dir,
            from_dir=arguments.from_dir,
            allow_mismatch=arguments.allow_mismatch,
            report=_report,
        )
        print(f"{arguments.name} is ready: {made}")


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
        if name not in PREPARATIONS:
            state = "your folder" if "data_dir" in entry.parameters() else "built in"
            rows.append((name, state, "", entry.help))
        elif prepared.is_prepared(name, arguments.data_dir):
            folder = prepared.resolve_data_dir(arguments.data_dir) / name
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows.append((name, "prepared", f"{size / 1e6:,.1f} MB", str(folder)))
        else:
            rows.append((name, "not prepared", "", preparation.prepare_command(name, arguments.data_dir)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 with a line on stderr for a user's error or a disk that refuses, 130 when interrupted."""
    # So that temporary folders are removed; SIGINT too, because shells make background jobs ignore it.
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    accept_any_text()
    require("train")
    try:
        return run_command(lambda: _run(argv))
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    (list_sets if arguments.command == "list" else prepare)(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
