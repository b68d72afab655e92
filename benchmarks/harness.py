"""How a comparison is timed, summarised, printed and stored; shared by every benchmark.

A comparison runs its sides in turn, many short rounds of each: on a shared machine the speed drifts by more than the
difference that is looked for, and rounds next to each other see the same machine. What is reported is the median of
the rounds' ratios with its quartiles. Sides that cannot share a process (another framework's thread pool, another
environment) run as workers: processes that wait for a line on stdin before each round.
"""

import argparse
import contextlib
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

from train.run import provenance
from train.step.runtime import release_freed_memory

FOLDER = Path("results/performance")
FEWEST_ROUNDS = 5  # of a result that is kept

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


def ratios_to(side: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    """Of every other side, the ratio of its seconds to those of `side`."""
    return {name: ratio(own, seconds[side]) for name, own in seconds.items() if name != side}


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
        that command calls `serve`.
      environment: variables set on top of this process's.

    Attributes:
      description: what the side said of itself when it was ready.
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
        return float(self._ask("round"))

    def peak_memory(self) -> int | None:
        """Most bytes that the process had in memory at once in the rounds so far; None where the system cannot say."""
        return self._ask("peak_memory")

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return json.loads(self._read())

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
    """Be a `Worker`: describe the side, then time one call of it for each line on stdin."""
    for _ in range(warm_up):
        side()
    forget_peak_memory()
    print(json.dumps(description), flush=True)
    for line in sys.stdin:
        if line.strip() == "peak_memory":
            answer = peak_memory()
        else:
            start = time.perf_counter()
            side()
            answer = time.perf_counter() - start
        print(json.dumps(answer), flush=True)


def forget_peak_memory() -> None:
    """The peak is counted from here on: what compiling took is no longer in it."""
    release_freed_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Most bytes resident at once since `forget_peak_memory` (VmHWM); None where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def use_cores(count: int) -> None:
    """Keeps this process on `count` of its cores: thread pools made afterwards have that many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def workers_in_turn(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """As `seconds_in_turn`, for workers: only one of them runs at a time."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for i in range(rounds):
        for name in list(workers) if i % 2 == 0 else reversed(list(workers)):
            seconds[name].append(workers[name].round())
    return seconds


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": provenance.processor(),
        "cores": provenance.cores(),
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


def add_arguments(parser: argparse.ArgumentParser, name: str, rounds: int) -> None:
    """The flags of every benchmark: how many rounds, and where the results go."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds of each side (default {rounds})")
    parser.add_argument(
        "--out",
        default=None,
        help=f"JSON file of results (default {FOLDER / name}.json where there are {FEWEST_ROUNDS} rounds or more, "
        "else none)",
    )


def result_path(name: str, flags: argparse.Namespace) -> Path | None:
    """Where the results of this call go: figures of too few rounds do not replace others unless asked to."""
    if flags.out is not None:
        return Path(flags.out) if flags.out else None
    return FOLDER / f"{name}.json" if flags.rounds >= FEWEST_ROUNDS else None


def table_line(
    benchmark: str,
    ours: str,
    torch: str,
    ratio: Summary | None,
    at_least: str,
    aim: str,
    n: int,
) -> dict[str, Any]:
    """A line of the table of results/performance.md; `ratio` None where nothing is compared."""
    values = (benchmark, ours, torch, ratio, at_least, aim, n)
    return dict(zip(("benchmark", "ours", "torch", "ratio", "at_least", "aim", "n"), values, strict=True))


def write_rows(path: Path | None, rows: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Puts rows into a file of results, each with the machine; rows that the file has beside these stay.

    Args:
      path: the file, made where missing; None writes nothing.
      rows: by name; "table" of each is a list of `table_line`, the rest its figures (dataclasses allowed).
      about: `machine()`.
    """
    if path is None:
        print(f"not written: fewer than {FEWEST_ROUNDS} rounds and no --out")
        return
    stored = json.loads(path.read_text())["rows"] if path.exists() else {}
    stored |= {name: {"machine": about, **row} for name, row in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps({"rows": stored}, indent=2, default=dataclasses.asdict) + "\n")
    partial.replace(path)
    print(f"written to {path}")
