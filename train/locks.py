"""One process at a time in a directory."""

import contextlib
import errno
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

from train.errors import InUse, UserError

# What flock says when another process has the lock; all else says that there are no locks here.
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(directory: Path, what: str, *, by: str = "process") -> Iterator[None]:
    """Makes or opens a directory, and keeps other processes out of it while the block runs.

    The lock is flock's, on the file `.lock`: it ends with the process, however that dies (the soft locks of `filelock`
    outlive a killed one). On a network file system it works if that supports flock, as Linux's NFS does; without
    support the block runs unlocked, with a warning.

    Args:
      directory: made if missing.
      what: the directory as the user knows it, for messages.
      by: what else would use it, for messages.

    Raises:
      UserError: the directory cannot be made or written.
      InUse: another process has it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("a")
    except OSError as error:
        raise UserError(f"{what} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise InUse(f"{what} is in use by another {by}; wait for it or choose another") from error
            reason = error.strerror or error
            log.warning("%s cannot be locked (%s); do not use it from two processes at once", what, reason)
        yield
