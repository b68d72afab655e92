"""A disk that can be filled and freed: a small file system of the process' own, or a limit on the size of files."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

SIZE = 64 << 20
_INSIDE = "CHAOS_INSIDE"


def enter_namespace(module: str, arguments: list[str]) -> None:
    """Starts the command again where it may mount file systems, which vanish with it; returns if that is refused.

    Ordinary users become root of a namespace of their own; containers often allow neither.
    """
    if _INSIDE in os.environ:
        return
    os.environ[_INSIDE] = "limit"
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        check = [*unshare, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
        if shutil.which("unshare") and subprocess.run(check, capture_output=True).returncode == 0:
            os.environ[_INSIDE] = "mount"
            os.execvp("unshare", [*unshare, sys.executable, "-m", module, *arguments])


class FullDisk:
    """A folder whose file system is full between `fill` and `free`.

    Attributes:
      kind: "tmpfs", or "file size limit" where nothing can be mounted: files of the processes given to `fill` then
        cannot grow, which fails with EFBIG.
      full: whether it is now.
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self._ballast, self.full = folder / "ballast", False
        self._limited: list[int] = []
        self.kind = "tmpfs" if os.environ.get(_INSIDE) == "mount" else "file size limit"
        if self.kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)

    def fill(self, processes: list[int]) -> None:
        """Takes all the space that is left."""
        self.full = True
        if self.kind != "tmpfs":
            self._limited = processes
            return self._limit(0)
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                return

    def free(self) -> None:
        """Gives the space back."""
        self._ballast.unlink(missing_ok=True)
        self._limit(resource.RLIM_INFINITY)
        self._limited, self.full = [], False

    def _limit(self, size: int) -> None:
        for process in self._limited:
            try:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            except ProcessLookupError:
                continue
