"""How long a start takes: the library's import, --help, and `python -m train` to the end of its first step.

    python -m benchmarks.startup [--rounds=5] [--cold_rounds=2] [--config=configs/cifar10_resnet18.py]
                                 [--data_dir=DIR] [--out=FILE]

Times run from the start of the process to the end of what it is started for. "cold" has an empty compilation cache,
"second" the one that a start before it left; both train in a new workdir. The sections of a start to its first step
are in the file and printed. Without --data_dir a CIFAR-10 of made-up images is prepared once (a minute) and kept in
the system's temporary folder. Nothing is compared here: the figures are of ours alone.
"""

import argparse
import collections
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness

AT_MOST, AIM = 6.0, 3.0
HELP_AT_MOST = 1.5


def seconds_of(arguments: Sequence[str]) -> float:
    """Wall seconds of a Python process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment())
    return time.perf_counter() - began


def environment(cache: Path | None = None) -> dict[str, str]:
    """A start's environment: the CPU, and where given a folder for caches of its own."""
    own = {} if cache is None else {"XDG_CACHE_HOME": str(cache)}
    return {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | {"JAX_PLATFORMS": "cpu"} | own


def to_first_step(arguments: Sequence[str], cache: Path) -> dict[str, dict[str, float]]:
    """Starts a training in a new workdir.

    Returns:
      "sections", seconds of each and "total"; "jax", seconds that JAX counts itself for tracing, lowering, compiling
      and reading its cache, added up over threads that run at the same time.
    """
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "benchmarks.startup", f"--worker={time.monotonic()!r}"]
        found = subprocess.run(
            [*command, *arguments, f"--workdir={workdir}/run"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(cache),
        )
    return json.loads(found.stdout.splitlines()[-1])


class Sections:
    """When parts of a start ended; what is nested in another part is taken out of that one."""

    def __init__(self, began: float):
        self._last, self._began = began, began
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """The time since the end of the section before belongs to `name`."""
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def around(self, before: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as a section; what came before it is the section `before`."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.end(before)
            result = function(*args, **kwargs)
            self.end(name)
            return result

        return timed

    def total(self) -> float:
        return self._last - self._began


def start(began: float, arguments: list[str]) -> None:
    """Be `python -m train` until its first step is done; print the sections, and leave."""
    sections = Sections(began)
    sections.end("python")
    import jax

    import train.experiment
    import train.run.loop
    from train.__main__ import main
    from train.run.recovery import Position, Recovery
    from train.run.trainer import Trainer

    sections.end("imports")
    jax_seconds: dict[str, float] = collections.defaultdict(float)

    def add(event: str, duration_secs: float, **_: Any) -> None:
        jax_seconds[event.removeprefix("/jax/")] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    advance = Position.advance

    def first_step(self: Position, trainer: Trainer, order: Any, *, one_update: bool = False) -> Any:
        sections.end("tensorboard, order")
        scalars = advance(self, trainer, order, one_update=one_update)
        float(scalars["loss"])
        sections.end("first step")
        print(json.dumps({"sections": sections.seconds | {"total": sections.total()}, "jax": jax_seconds}), flush=True)
        os._exit(0)

    def section(owner: Any, function: str, before: str, name: str) -> None:
        setattr(owner, function, sections.around(before, name, getattr(owner, function)))

    section(train.experiment, "load_dataset", "config, workdir", "data")
    section(train.run.loop, "make_experiment", "config, workdir", "model")
    section(Trainer, "__init__", "model", "data to device")
    section(Recovery, "saved", "checkpoints opened", "restore")
    section(Recovery, "beginning", "run.json", "initial state")
    section(Trainer, "compile", "initial state", "compile or load")
    Position.advance = first_step
    sys.exit(main(arguments))


def made_up_cifar10() -> Path:
    """A prepared CIFAR-10 of noise, made on the first call and kept."""
    import numpy as np

    folder = Path(tempfile.gettempdir()) / f"lookahead-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; give --data_dir")
    if (folder / "tfds" / "cifar10").is_dir():
        return folder / "tfds"
    with tempfile.TemporaryDirectory() as raw:
        rng = np.random.default_rng(0)
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            records = rng.integers(0, 256, (10_000, 3073), np.uint8)
            records[:, 0] %= 10
            (Path(raw) / name).write_bytes(records.tobytes())
        (Path(raw) / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n")
        command = ["-m", "train.data", "prepare", "cifar10", f"--from-dir={raw}", f"--data-dir={folder / 'tfds'}"]
        subprocess.run([sys.executable, *command, "--allow-mismatch"], check=True, stdout=sys.stderr)
    return folder / "tfds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, "startup", rounds=5)
    parser.add_argument("--cold_rounds", type=int, default=2, help="starts with an empty compilation cache (default 2)")
    parser.add_argument("--config", default="configs/cifar10_resnet18.py")
    parser.add_argument("--data_dir", default=None, help="where CIFAR-10 is prepared (default: made-up images)")
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    flags, rest = parser.parse_known_args()
    if flags.worker is not None:
        start(flags.worker, [f"--config={flags.config}", *rest])
        return
    if rest:
        parser.error(f"unknown argument {rest[0]}")
    arguments = [f"--config={flags.config}"]
    if flags.data_dir is not None or "cifar10" in flags.config:
        arguments.append(f"--config.data_dir={flags.data_dir or made_up_cifar10()}")
    about = harness.machine()
    commands = {
        "import lookahead_jax": ["-c", "import lookahead_jax"],
        "python -m train --help": ["-m", "train", "--help"],
    }
    plain = {name: [] for name in commands}
    second: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as cache:
        to_first_step(arguments, Path(cache))
        for command in commands.values():
            seconds_of(command)
        for _ in range(flags.rounds):
            for name, command in commands.items():
                plain[name].append(seconds_of(command))
            second.append(to_first_step(arguments, Path(cache)))
    cold = []
    for _ in range(flags.cold_rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(to_first_step(arguments, Path(cache)))
    result = summarise(flags.config, plain, {"second": second, "cold": cold})
    rows = [[line["benchmark"], line["ours"], line["at_least"], line["aim"]] for line in result["table"]]
    print(harness.table(["start", "seconds", "bound", "aim"], rows))
    for kind, title in (("sections", "section, seconds"), ("jax", "by JAX's own count, threads added up")):
        print("\n" + harness.table([title, *result[kind]], section_rows(result[kind])))
    print("\n" + harness.describe(about))
    harness.write_rows(harness.result_path("startup", flags), {"start": result}, about)


def section_rows(kinds: dict[str, dict[str, harness.Summary]]) -> list[list[str]]:
    """A row for each section, a column for each kind of start."""
    names = dict.fromkeys(name for found in kinds.values() for name in found)
    return [[name, *(found[name].text() if name in found else "" for found in kinds.values())] for name in names]


def summarise(
    config: str, plain: dict[str, list[float]], starts: dict[str, list[dict[str, dict[str, float]]]]
) -> dict[str, Any]:
    """The file's content: lines of the table, and the sections of each kind of start."""
    bounds = {
        "import lookahead_jax": ("", ""),
        "python -m train --help": (f"at most {HELP_AT_MOST} s", ""),
        "second": (f"at most {AT_MOST:g} s", f"{AIM:g} s"),
        "cold": ("", ""),
    }
    titles = {
        "second": f"second start, to the first step ({Path(config).stem})",
        "cold": f"first start, nothing compiled, to the first step ({Path(config).stem})",
    }
    totals = {**plain, **{name: [s["sections"]["total"] for s in found] for name, found in starts.items() if found}}
    table = [
        harness.table_line(
            titles.get(name, name), harness.Summary.of(values).text() + " s", "", None, *bounds[name], len(values)
        )
        for name, values in totals.items()
    ]

    def medians(kind: str) -> dict[str, dict[str, harness.Summary]]:
        return {
            name: {part: harness.Summary.of([s[kind].get(part, 0.0) for s in found]) for part in found[0][kind]}
            for name, found in starts.items()
            if found
        }

    sections, jax_seconds = medians("sections"), medians("jax")
    return {"config": config, "table": table, "sections": sections, "jax": jax_seconds, "seconds": totals}


if __name__ == "__main__":
    main()
