"""Paths as users give them: expands `~`, and rejects unusable paths in one line that names them."""

import os
import stat
import unicodedata
from pathlib import Path

from train.errors import UserError, reason

__all__ = ["cache_folder", "entries", "home", "read_bytes", "user_path"]

# Linux allows 4,096 bytes; the files in a workdir need some of them.
_LONGEST = 3_500


def user_path(given: str | os.PathLike[str], what: str) -> Path:
    """The path that a user gave, which need not exist, with `~` and `~user` expanded.

    Args:
      given: the path; not empty.
      what: its name in an error, such as "--workdir".

    Raises:
      UserError: There is no such home, the path has control characters or is not UTF-8, it is too long, or it cannot be
        looked up (no permission for a folder above it, a loop of links).
    """
    text = os.fspath(given)
    name = f"{what}={text if len(text) < 200 else text[:200] + '...'}"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UserError(
            f"{what}={text!r} has control characters or bytes that are not UTF-8; rename it, or give a link to it with "
            "a plain name"
        )
    path = Path(os.path.expanduser(text))
    if text.startswith("~") and os.fspath(path).startswith("~"):
        user = text[1:].partition("/")[0]
        whose = f"of a user {user!r}" if user else f"of user {os.getuid()}, who has neither HOME nor a passwd entry,"
        raise UserError(f"{name}: the home folder {whose} is not known; write the path without ~")
    if len(os.fsencode(os.path.abspath(path))) > _LONGEST:
        raise UserError(f"{name} is longer than {_LONGEST:,} bytes; choose a shorter path")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # whoever opens or creates it says what it should be
    except OSError as error:
        raise UserError(f"{name} cannot be used: {reason(error)}") from error
    return path


def home() -> Path | None:
    """The user's home folder; None for a user who has neither HOME nor a passwd entry."""
    found = os.path.expanduser("~")
    return None if found.startswith("~") else Path(found)


def cache_folder(name: str) -> Path | None:
    """A folder in the user's own cache, `XDG_CACHE_HOME` or `~/.cache`, for files that are run as code.

    It is made for its owner alone.

    Returns:
      The folder; None without a home to write to, or if others can write to it.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or (home() and os.path.join(str(home()), ".cache"))
    if not caches:
        return None
    folder = Path(caches) / "lookahead_jax" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    return folder


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden files.

    Raises:
      UserError: It is missing, not a folder, or not readable.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read as a folder: {reason(error)}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Rejects pipes and devices, because reading one may never end.

    Raises:
      OSError: It cannot be read; `strerror` says why.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        return file.read()


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for a writer, as a named pipe would."""
    return os.open(path, flags | os.O_NONBLOCK)
