"""Writing files so that a reader, or the next start after a kill, sees the old one or the new one whole."""

import contextlib
import csv
import errno
import io
import json
import logging
import math
import os
import resource
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from train.errors import RunFailed, UserError, first_line

# What a full disk, a full quota and a file-size limit say. Orbax' C++ side gives the text without the number.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RETRY_SECONDS = 2.0
_WARN_SECONDS = 60.0

log = logging.getLogger(__name__)


def fsync_path(path: Path) -> None:
    """Flushes a file, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _removed_on_failure(paths: Iterable[str | Path]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


@contextlib.contextmanager
def _file_beside(path: Path) -> Iterator[BinaryIO]:
    """A temporary file next to `path`: flushed to disk if the block succeeds, removed if it fails."""
    # Not by `tempfile`, whose files are for their owner alone: here the user's umask decides, as for any new file.
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}")
    with _removed_on_failure([temporary]), temporary.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends well, and vanishes when it does not.

    Raises:
      OSError: the file system refused (full, read-only); `path` is then as it was.
    """
    with _file_beside(path) as file:
        yield file
    with _removed_on_failure([file.name]):
        os.replace(file.name, path)
    fsync_path(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a whole file by `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files that belong together: once all are on the disk, each takes its place, in this order.

    Raises:
      OSError: the file system refused. If one cannot be written, all are as they were; if one cannot take its place,
        those before it have taken theirs.
    """
    written: list[str] = []
    with _removed_on_failure(written):
        for path, content in contents.items():
            with _file_beside(path) as file:
                file.write(content)
            written.append(file.name)
        for path, name in zip(contents, written, strict=True):
            os.replace(name, path)
            fsync_path(path.parent)  # or a power failure may leave a later one in its place without this one


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2) + "\n")


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file with a header: cells as `str` makes them, empty for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The columns and the rows of a CSV file with a header.

    Raises:
      UserError: it cannot be read, is not UTF-8, or a row has more or fewer cells than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {number}: expected {len(columns)} cells, as the header has")
    return columns, rows


def read_text(path: Path) -> str:
    """The text of a UTF-8 file that other programs may have touched: spreadsheets put a byte-order mark before it.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not UTF-8, or holds the conflict markers of a merge.
    """
    text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            raise ValueError(f"line {number} is a conflict marker of a merge: resolve the conflict")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; see `read_text`.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not JSON, or another value than an object.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds a JSON {'null' if value is None else type(value).__name__}, not an object")
    return value


def check_space(directory: Path, size: int) -> None:
    """Asks whether `size` bytes fit, before a library starts writing that would fail in the middle, and loudly.

    Raises:
      OSError: the disk (ENOSPC) or the process' limit on a file's size (EFBIG) is too small.
    """
    if shutil.disk_usage(directory).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < size:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(directory))


def out_of_space(error: Exception) -> bool:
    """Whether an error says that the disk is full, or the user's share of it."""
    return getattr(error, "errno", None) in _FULL or any(os.strerror(number) in str(error) for number in _FULL)


def with_patience(action: Callable[[], None], *, seconds: float, what: str) -> None:
    """Writes something; where the disk is full, tries again until `seconds` have passed.

    Args:
      action: writes, atomically.
      seconds: how long to wait for space.
      what: is written; for the message.

    Raises:
      RunFailed: there was no space in time, or the file system refuses for another reason.
    """
    deadline, warned = time.monotonic() + seconds, -math.inf
    while True:
        try:
            return action()
        except Exception as error:
            full, now = out_of_space(error), time.monotonic()
            if not full and not isinstance(error, OSError):
                raise
            reason = next((os.strerror(n) for n in _FULL if os.strerror(n) in str(error)), first_line(error))
            if not full or now >= deadline:
                do = "make room" if full else "fix this"
                raise RunFailed(
                    f"{what} could not be written: {reason}; what was saved before is intact: {do}, then run the "
                    "same command again"
                ) from error
            if now - warned >= _WARN_SECONDS:  # one line a minute, not one an attempt
                warned = now
                log.warning("%s cannot be written: %s; trying again for %.0f s", what, reason, deadline - now)
        time.sleep(min(_RETRY_SECONDS, max(0.0, deadline - time.monotonic())))
