"""The sums beside a checkpoint's files: SHA256SUMS, as `sha256sum -c` reads it, and the sum of that list."""

import hashlib
from pathlib import Path

from train.files import fsync_path, write_atomic

SUMS = "SHA256SUMS"
SUM_OF_SUMS = f"{SUMS}.sha256"


class DamagedCheckpoint(Exception):
    """A step's directory is not what was written; the message says how."""


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in (SUMS, SUM_OF_SUMS))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(directory: Path) -> None:
    """Compares a checkpoint's files with its sums.

    Raises:
      DamagedCheckpoint: a file is missing, added or different, or there are no sums.
    """
    lines = _read(directory, SUMS)
    if _read(directory, SUM_OF_SUMS) != [_sum_line(directory / SUMS)] or not all(line[64:66] == "  " for line in lines):
        raise DamagedCheckpoint(f"{SUMS} is damaged")
    expected = {line[66:]: line[:64] for line in lines}
    found = {path.relative_to(directory).as_posix() for path in _files(directory)}
    if missing := sorted(expected.keys() - found):
        raise DamagedCheckpoint(f"{missing[0]} is missing")
    if stray := sorted(found - expected.keys()):
        raise DamagedCheckpoint(f"{stray[0]} was not written with it")
    for name, digest in expected.items():
        if _sha256(directory / name) != digest:
            raise DamagedCheckpoint(f"{name} has changed since it was written")


def _read(directory: Path, name: str) -> list[str]:
    try:
        return (directory / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedCheckpoint(f"{name} is missing or cannot be read") from error


def _sum_line(path: Path) -> str:
    return f"{_sha256(path)}  {path.name}"


def write_sums(directory: Path) -> None:
    """Writes the sums of all files in a folder, and flushes everything to the disk."""
    lines = ""
    for path in _files(directory):
        fsync_path(path)
        lines += f"{_sha256(path)}  {path.relative_to(directory).as_posix()}\n"
    write_atomic(directory / SUMS, lines)
    write_atomic(directory / SUM_OF_SUMS, _sum_line(directory / SUMS) + "\n")
    for path in sorted(directory.rglob("*")):
        if path.is_dir():
            fsync_path(path)
