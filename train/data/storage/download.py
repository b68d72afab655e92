"""Downloads an archive whose size and SHA-256 are known, and unpacks it without trusting it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import lzma
import os
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from train.data.storage import prepared
from train.data.storage.preparation import prepare_command
from train.errors import UserError

_CHUNK = 1 << 20
_TIMEOUT_S = 30


@contextlib.contextmanager
def unpacked(
    name: str, url: str, registered: Mapping[str, Any], data_dir: str, *, report: Callable[[str], None]
) -> Iterator[Path]:
    """The publisher's archive of a data set, downloaded, checked and unpacked, in a folder that lasts for the block.

    Args:
      name: of the data set, as `python -m train.data prepare` takes it.
      url: of the archive.
      registered: sizes and SHA-256s by address, a TFDS builder's `url_infos`.
      data_dir: where the data set will be prepared; the folder is made next to that place.
      report: receives progress, one line at a time.

    Raises:
      UserError: no network, a file other than the registered one, or not a tar archive of plain files.
    """
    with prepared.temporary_folder(prepared.resolve_data_dir(data_dir), name) as temporary:
        archive = fetch(
            url,
            temporary / "archive.tar.gz",
            size=int(registered[url].size),
            sha256=registered[url].checksum,
            report=report,
            advice=f"without a network, copy the extracted archive here and run: "
            f"{prepare_command(name, data_dir)} --from-dir DIR",
        )
        extract(archive, temporary / "extracted")
        yield temporary / "extracted"


def fetch(
    url: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    report: Callable[[str], None],
    advice: str,
) -> Path:
    """Downloads `url` to `path`, checks it and returns the path; a file that fails the check is removed.

    Args:
      size, sha256: those of the expected file; no more bytes than `size` are read.
      report: receives progress, one line at a time.
      advice: what to do if the address cannot be reached; added to the error.

    Raises:
      UserError: no network, or a file other than the registered one.
    """
    digest, received, told = hashlib.sha256(), 0, 0
    report(f"downloading {url} ({size / 1e6:.0f} MB)")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, path.open("wb") as f:
            while received <= size and (chunk := response.read(_CHUNK)):
                f.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                if 10 * received // size > told:
                    told = 10 * received // size
                    report(f"  {received / 1e6:.0f} of {size / 1e6:.0f} MB")
    except (OSError, http.client.HTTPException) as error:
        path.unlink(missing_ok=True)
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise UserError(
                f"cannot download {url}: no space left in {path.parent}; free {size / 1e6:.0f} MB"
            ) from error
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot download {url} ({reason}); {advice}") from error
    if received != size or digest.hexdigest() != sha256:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{url} is not the registered file: {received:,} bytes, SHA-256 {digest.hexdigest()}; "
            f"expected {size:,} bytes, {sha256}"
        )
    return path


def extract(archive: Path, folder: Path) -> None:
    """Unpacks a tar archive into `folder`: only regular files and folders, and only inside it.

    Raises:
      UserError: the archive is not a tar archive, is truncated or damaged, or has a member that is a link or a device
        or is outside the folder; the message names the member, and nothing is written.
    """
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            while tar.fileobj and tar.fileobj.read(_CHUNK):  # to gzip's checksum, before which tarfile stops
                pass
            for member in members:
                parts = member.name.replace("\\", "/").split("/")
                if os.path.isabs(member.name) or ".." in parts:
                    raise UserError(f"{archive.name}: {member.name!r} is outside the folder; nothing unpacked")
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive.name}: {member.name!r} is a link or a device; nothing unpacked")
            tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{archive.name} cannot be unpacked as a tar archive: {error}") from error
