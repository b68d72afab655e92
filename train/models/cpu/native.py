"""Builds onednn.cc on first use, and loads it. What is missing for that is an `Unavailable`, never a failing run."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax

from train.interface.paths import cache_folder

SOURCE = Path(__file__).with_name("onednn.cc")
OPTIONS = ("-std=c++20", "-O2", "-shared", "-fPIC")
COMPILERS = ("g++", "c++", "clang++")
# Distributions on PyPI of the extra "onednn", and the file that each is known by.
LIBRARY = ("onednn-cpu-gomp", "libdnnl.so.3")
HEADERS = ("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp")


class Unavailable(Exception):
    """oneDNN cannot be used here; the message says why."""


class NotInstalled(Unavailable):
    """The extra is not installed."""


def load() -> ctypes.CDLL:
    """The library of onednn.cc, from the user's cache or newly built there.

    It is built again for another source, another oneDNN or another jaxlib, whose headers it contains.

    Raises:
      Unavailable: a distribution, a compiler or the cache is missing, or it cannot be built or loaded.
    """
    library, header = _installed(*LIBRARY), _installed(*HEADERS)
    includes = [jax.ffi.include_dir(), str(header.parents[2])]
    options = [*OPTIONS, *(f"-isystem{include}" for include in includes), f"-Wl,-rpath,{library.parent}"]
    versions = [importlib.metadata.version(name) for name in ("jaxlib", LIBRARY[0], HEADERS[0])]
    key = hashlib.sha256("\0".join([SOURCE.read_text("utf-8"), *options, *versions]).encode()).hexdigest()[:16]
    folder = cache_folder("onednn")
    if folder is None:
        raise Unavailable("the user's cache folder is missing or not writable for its owner alone")
    built = folder / f"{key}.so"
    try:
        if not built.exists():
            with (folder / ".lock").open("a") as lock:
                _wait_for(lock.fileno())  # another process may be building the same
                if not built.exists():
                    _build(built, [*options, str(SOURCE), str(library), "-l:libgomp.so.1"])
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise Unavailable(str(error)) from error


def _installed(distribution: str, ending: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise NotInstalled(f"{distribution} is not installed") from error
    for file in files:
        if file.as_posix().endswith(f"/{ending}") and (path := Path(str(file.locate())).resolve()).exists():
            return path
    raise Unavailable(f"{distribution} is installed without {ending}")


def _wait_for(lock: int) -> None:
    # On a file system without locks both build, and the rename makes one of them the library.
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)


def _build(target: Path, arguments: list[str]) -> None:
    given = [compiler] if (compiler := os.environ.get("CXX")) else COMPILERS
    compiler = next(filter(None, map(shutil.which, given)), None)
    if compiler is None:
        raise Unavailable(f"no C++ compiler is found ({', '.join(given)})")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        try:
            done = subprocess.run([compiler, *arguments, "-o", str(made)], capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{compiler} took longer than five minutes") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or [f"status {done.returncode}"]
            raise Unavailable(f"{compiler} failed: {lines[0]}")
        os.replace(made, target)
