"""How a comparison is timed, summarised, printed and stored; shared by every benchmark.

A comparison runs its sides in turn, many short rounds of each: on a shared machine the speed drifts by more than the
difference that is looked for, and rounds next to each other see the same machine. What is reported is the median of
the rounds' ratios with its quartiles. Sides that cannot share a process (another framework's thread pool, another
environment) run as workers: processes that wait for a line on stdin before each round.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "torch")


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median and quartiles of n measurements."""

    n: int
    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        lower, median, upper = np.percentile(np.asarray(values, float), [25, 50, 75])
        return cls(len(values), float(median), float(lower), float(upper))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.lower:.{digits}f}-{self.upper:.{digits}f})"


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Summary:
    """Summary of the ratios of rounds next to each other."""
    return Summary.of([a / b for a, b in zip(numerator, denominator, strict=True)])


def seconds_in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each call of each side, called in turn; every second round in the opposite order.

    Args:
        sides: what to time. A side waits for its own work to finish (`jax.block_until_ready`).
        rounds: timed calls of each side.
        warm_up: calls before them, which compile and fill caches.
    """
    for side in sides.values():
        for _ in range(warm_up):
            side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds):
        for name in list(sides) if i % 2 == 0 else reversed(list(sides)):
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


class Worker:
    """One side in a process of its own: it prints the seconds of a round for each line that it reads.

    Args:
        arguments: command line after the Python interpreter, as in ["-m", "benchmarks.optimizer", "--worker=torch"];
            that command calls :func:`serve`.
        environment: variables set on top of this process's.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None):
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.description: dict[str, Any] = json.loads(self._read())

    def round(self) -> float:
        """Seconds of one more round."""
        assert self._process.stdin is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return float(json.loads(self._read()))

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark worker ended with status {self._process.wait()}; its error is above")
        return line

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(side: Callable[[], Any], warm_up: int = 2, **description: Any) -> None:
    """Be a :class:`Worker`: describe the side, then time one call of it for each line on stdin."""
    for _ in range(warm_up):
        side()
    print(json.dumps(description), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        side()
        print(json.dumps(time.perf_counter() - start), flush=True)


def workers_in_turn(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """As :func:`seconds_in_turn`, for workers: only one of them runs at a time."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for i in range(rounds):
        for name in list(workers) if i % 2 == 0 else reversed(list(workers)):
            seconds[name].append(workers[name].round())
    return seconds


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": cores,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("XLA_", "JAX_", "GLIBC_TUN", "OMP_"))},
        "command": " ".join(["python", "-m", *_module_and_arguments()]),
    }


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else sys.argv[0], *sys.argv[1:]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def describe(about: Mapping[str, Any]) -> str:
    """One line for under a table: hardware, versions, load."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores, load {about['load_before']} before; "
        f"Python {about['python']}, {versions}; {about['date']}; {about['command']}"
    )


def write_json(path: str | Path, results: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Results (dataclasses allowed) and the machine into one file, complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": about, **results}, indent=2, default=dataclasses.asdict)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text + "\n")
    partial.replace(path)
