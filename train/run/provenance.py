"""Describes what a result was made with: machine, package versions, and commit of the source tree."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.files import read_json

# The types of what other programs read in a run's run.json.
_FACTS: dict[str, Any] = {
    "status": str,
    "started": str,
    "updated": str,
    "wall_seconds": int | float,
    "data": dict,
    "devices": list,
    "versions": dict,
    "machine": str,
    "python": str,
    "commit": str,
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "scipy")


@functools.cache
def processor() -> str:
    """Model name of the processor, or its architecture where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_words(devices: Sequence[str] = ()) -> str:
    """The machine in a few words: accelerators among a run's devices (as run.json lists them), processor, cores."""
    kinds = sorted({device.split(" ", 1)[-1] for device in devices if not device.startswith("cpu")})
    return ", ".join([*kinds, f"{processor()}, {cores()} core{'s' * (cores() != 1)}"])


def now() -> str:
    """The time as records have it, such as "2026-11-27T12:00:00+0000"."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def versions() -> dict[str, str]:
    """Versions of the packages that figures depend on."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def run_facts(workdir: Path) -> dict[str, Any]:
    """What a workdir's run.json says of its run: entries of the right type only, for it is only a record.

    Empty where there is none, or it is damaged.
    """
    with contextlib.suppress(OSError, ValueError):
        facts = read_json(workdir / "run.json")
        return {name: facts[name] for name, kind in _FACTS.items() if isinstance(facts.get(name), kind)}
    return {}


def source_commit() -> str:
    """The commit of the source tree, with "-dirty" if its Python files have changes; "unknown" outside git.

    SOURCE_COMMIT in the environment says it where the tree has no .git, as in a container. Results that a study
    publishes into the repository do not count as changes.
    """
    if told := os.environ.get("SOURCE_COMMIT"):
        return told

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
