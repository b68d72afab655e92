"""One process at a time in a directory."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from train.errors import InUse, UserError, reason
from train.files import out_of_space, with_patience

# What flock says when another process has the lock; all else says that there are no locks here.
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
LOCK, SOFT = ".lock", ".lock.owner"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(directory: Path, what: str, *, by: str = "process", disk_wait: float = 0.0) -> Iterator[None]:
    """Makes or opens a directory, and keeps other processes out of it while the block runs.

    The lock is flock's, on the file `.lock`: it ends with the process, however that dies. On a network file system it
    works if that supports flock, as Linux's NFS does. Without support, which is a warning, the file `.lock.owner` is
    the lock: it names host and process, and one whose process has died on this host does not count.

    A directory that the block left without any file is as it was before: without a lock, and gone if it was made here.

    Args:
      directory: made if missing.
      what: the directory as the user knows it, for messages.
      by: what else would use it, for messages.
      disk_wait: seconds to wait for space on a full disk.

    Raises:
      UserError: the directory cannot be made or written.
      InUse: another process has it.
      RunFailed: the disk stayed full.
    """
    made = [path for path in (directory, *directory.parents) if not os.path.lexists(path)]
    with _opened(directory, what, by, disk_wait), contextlib.ExitStack() as stack:
        stack.callback(_clear, directory, made)
        yield


@contextlib.contextmanager
def _opened(directory: Path, what: str, by: str, disk_wait: float) -> Iterator[None]:
    path, tries = directory / LOCK, 0
    while True:
        with _open(path, what, disk_wait) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _TAKEN:
                    if (tries := tries + 1) < 4:  # `in_use` has it for some microseconds
                        time.sleep(0.01)
                        continue
                    raise InUse(f"{what} is in use by another {by}; wait for it or choose another") from error
                log.warning("%s cannot be locked (%s); %s is the lock instead", what, reason(error), directory / SOFT)
                with _soft(directory / SOFT, what, by):
                    yield
                return
            if _is_at(file, path):
                yield
                return
        # Whoever had the lock took the file away with it (see `_clear`): once more, on a new one.


def in_use(directory: Path) -> bool:
    """Whether a process has the directory."""
    if (directory / SOFT).exists() and not _is_stale(_owner(directory / SOFT)):
        return True
    with contextlib.suppress(OSError), (directory / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _TAKEN
    return False


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _open(path: Path, what: str, disk_wait: float) -> IO[str]:
    found: list[IO[str]] = []

    def make() -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found.append(path.open("a"))
        except OSError as error:
            if out_of_space(error):
                raise
            raise UserError(f"{what} cannot be used: {reason(error)}") from error

    with_patience(make, seconds=disk_wait, what=what)
    return found[0]


@contextlib.contextmanager
def _soft(path: Path, what: str, by: str) -> Iterator[None]:
    mine = {"host": socket.gethostname(), "pid": os.getpid()}
    for _ in range(2):
        try:
            with path.open("x") as file:
                json.dump(mine, file)
            break
        except FileExistsError as error:
            theirs = _owner(path)
            if _is_stale(theirs):
                path.unlink(missing_ok=True)
                continue
            raise InUse(
                f"{what} is in use by another {by} (process {theirs.get('pid')} on {theirs.get('host')}); wait for it "
                f"or choose another; if it is gone, delete {path}"
            ) from error
        except OSError as error:
            raise UserError(f"{what} cannot be used: {reason(error)}") from error
    else:
        raise InUse(f"{what} is in use by another {by}; wait for it or choose another")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _owner(path: Path) -> dict[str, object]:
    """Whose lock it is; empty where that is not known, as while it is being written."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _is_stale(owner: dict[str, object]) -> bool:
    """Whether it was of a process on this host that has died."""
    return owner.get("host") == socket.gethostname() and not _alive(owner.get("pid"))


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


def _clear(directory: Path, made: list[Path]) -> None:
    """Takes the lock's file away where nothing else is, and the directories that were made for it."""
    with contextlib.suppress(OSError):
        if {entry.name for entry in directory.iterdir()} <= {LOCK, SOFT}:
            (directory / LOCK).unlink()
            (directory / SOFT).unlink(missing_ok=True)
            for path in made:
                path.rmdir()
