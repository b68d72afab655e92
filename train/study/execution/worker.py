"""python -m train.study.execution.worker --study=FILE --out=DIR [--cpus=0,1] [--quick_compile] [--keep_checkpoints]

Trains runs one after the other, each in DIR/runs/ID, and writes everything they print to DIR/logs/ID.txt. It reads the
runs from standard input, one JSON line each: {"id": ..., "config": ...}. One process serves many runs, so that JAX
starts once, and each run is what the study's own process planned, even if its files have changed since. The study file
is run for what it registers. When standard input closes, the worker stops as if by a signal: no worker outlives its
study. If another process holds the workdir, such as the worker of a study that was just killed, it waits. After each
run it writes one JSON line: {"id": ..., "status": ..., "message": ...}. Where JAX can run nothing, every run is
"unusable".

Exit status: 0 all finished, 1 one failed, 75 stopped by a signal.
"""

import argparse
import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from train.config import Config, from_dict, validate
from train.errors import InUse, RunFailed, UserError
from train.interface.output import TolerantStream, one_line, tolerant_output, with_environment
from train.run.signals import EXIT_STOPPED, StopRequest

FINISHED, STOPPED, FAILED, REFUSED, UNUSABLE = "finished", "stopped", "failed", "refused", "unusable"


def run_directory(out: Path, run: str) -> Path:
    """The workdir of a run."""
    return out / "runs" / run


def log_name(run: str) -> str:
    """Path of its log, relative to the out directory."""
    return f"logs/{run}.txt"


def open_log(path: Path) -> TextIO:
    """Opens a run's log for what is added to it; what is said is lost, with a warning, where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        logging.getLogger(__name__).warning("the log %s cannot be written: %s", path, error.strerror)
        return open(os.devnull, "a")


@contextlib.contextmanager
def everything_said_goes_to(path: Path) -> Iterator[None]:
    """Standard output and error of the process, its libraries' included, are added to a file."""
    streams = [TolerantStream(stream) for stream in (sys.stdout, sys.stderr)]
    saved = [os.dup(number) for number in (1, 2)]
    with open_log(path) as log:
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            yield
        finally:
            for stream in streams:
                stream.settle()  # what a full disk left in a buffer must not go to the study
            for number, old in zip((1, 2), saved, strict=True):
                os.dup2(old, number)
                os.close(old)


def train_run(run: str, config: Config, out: Path, stop: StopRequest, *, keep_checkpoints: bool) -> tuple[str, str]:
    """Trains, and takes away the checkpoints of a run that is finished.

    Returns:
      "finished", "stopped", "failed", or "refused" (what was given is wrong, so trying again will not help); and for
      the latter two why, in one line.
    """
    from train.run.loop import train

    with everything_said_goes_to(out / log_name(run)):
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')}  run {run}, process {os.getpid()}", flush=True)
        try:
            status = _when_free(lambda: train(config, run_directory(out, run), stop=stop).status, stop)
        except (UserError, RunFailed) as error:
            print(f"error: {error}", flush=True)
            return (REFUSED if isinstance(error, UserError) else FAILED), str(error)
        except Exception as error:
            traceback.print_exc()
            return FAILED, one_line(error)
    if status == FINISHED and not keep_checkpoints:
        shutil.rmtree(run_directory(out, run) / "checkpoints", ignore_errors=True)
    return status, ""


def why_unusable() -> str:
    """Why no program can run in this process, in one line; empty if programs can."""
    import jax

    try:
        jax.block_until_ready(jax.jit(lambda x: x + 1)(0))
    except Exception as error:
        return f"JAX cannot run here: {with_environment(error)}"
    return ""


def _when_free(train: Callable[[], str], stop: StopRequest) -> str:
    """Trains as soon as no other process has the workdir; "stopped" where a signal comes first."""
    told = False
    while not stop:
        try:
            return train()
        except InUse as error:
            if not told:
                print(f"waiting: {error}", flush=True)
            told = True
            time.sleep(0.5)
    return STOPPED


def _read_runs(source: TextIO, runs: "queue.Queue[dict[str, Any]]") -> None:
    for line in source:
        runs.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    with tolerant_output():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.study.execution.worker", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpus", default="", help="cores to use, such as 0,1; all if not given")
    parser.add_argument("--quick_compile", action="store_true")
    parser.add_argument("--keep_checkpoints", action="store_true")
    flags = parser.parse_args(arguments)
    if flags.cpus and hasattr(os, "sched_setaffinity"):
        # Before JAX starts, whose thread pools are as large as this.
        os.sched_setaffinity(0, {int(cpu) for cpu in flags.cpus.split(",")})
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    import jax

    from train.step import runtime
    from train.study.plan import run_study_file

    runs: queue.Queue[dict[str, Any]] = queue.Queue()
    failed = False
    with StopRequest() as stop:
        threading.Thread(target=_read_runs, args=(sys.stdin, runs), daemon=True).start()
        runtime.set_up()
        if flags.quick_compile:
            jax.config.update("jax_disable_most_optimizations", True)
        run_study_file(flags.study)
        unusable = why_unusable()
        while (run := _next(runs, stop)) is not None:
            if unusable:
                failed = True
                print(json.dumps({"id": run["id"], "status": UNUSABLE, "message": unusable}), flush=True)
                continue
            config = validate(from_dict(run["config"]))
            status, message = train_run(run["id"], config, flags.out, stop, keep_checkpoints=flags.keep_checkpoints)
            failed |= status in (FAILED, REFUSED)
            print(json.dumps({"id": run["id"], "status": status, "message": message}), flush=True)
    return EXIT_STOPPED if stop else int(failed)


def _next(runs: "queue.Queue[dict[str, Any]]", stop: StopRequest) -> dict[str, Any] | None:
    """The next run; None once a signal came."""
    while not stop:
        with contextlib.suppress(queue.Empty):
            return runs.get(timeout=0.2)
    return None


if __name__ == "__main__":
    sys.exit(main())
