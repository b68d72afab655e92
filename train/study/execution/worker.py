"""python -m train.study.execution.worker --study=FILE --out=DIR [--runs=FILE] [--cpus=0,1] [--quick_compile] ...

Trains runs one after the other, each in DIR/runs/ID, and writes everything they print to DIR/logs/ID.txt. It reads the
runs from standard input, a JSON line for each or for a few that differ in their seeds alone, which it trains in one
program: [{"id": ..., "config": ...}, ...]. One process serves many runs, so that JAX starts once, and each run is what
the study's own process planned, even if its files have changed since. The study file is run for what it registers. When
standard input closes, the worker stops as if by a signal: no worker outlives its study. If another process holds the
workdir, such as the worker of a study that was just killed, it waits. After the runs of a line it writes one JSON line
for each: {"id": ..., "status": ..., "message": ...}. Where JAX can run nothing, every run is "unusable".

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from train.config import Config, from_dict, to_dict, validate
from train.errors import InUse, RunFailed, UserError
from train.files import write_atomic
from train.interface.output import TolerantStream, one_line, tolerant_output, with_environment
from train.interface.signals import EXIT_STOPPED, StopRequest
from train.run.provenance import now
from train.study.plan import PlannedRun, run_study_file

FINISHED, STOPPED, FAILED, REFUSED, UNUSABLE = "finished", "stopped", "failed", "refused", "unusable"


def worker_command(worker_flags: Sequence[str], runs_file: Path) -> list[str]:
    """The command of a worker that trains the runs of a file and ends."""
    return [sys.executable, "-m", "train.study.execution.worker", *worker_flags, f"--runs={runs_file}"]


def runs_line(runs: Sequence[PlannedRun]) -> str:
    """What a worker reads: runs that it trains in one program."""
    return json.dumps([{"id": run.id, "config": to_dict(run.config)} for run in runs])


def write_runs_file(out: Path, runs: Sequence[PlannedRun]) -> Path:
    """Writes what a worker reads to a file named after the first of the runs, and returns the file's path."""
    path = out.absolute() / "commands" / f"{runs[0].id}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, runs_line(runs) + "\n")
    return path


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


class Assigned(NamedTuple):
    """A run that a worker is told to train.

    Attributes:
      id: of the run.
      config: validated.
    """

    id: str
    config: Config


def train_runs(
    runs: Sequence[Assigned], out: Path, stop: StopRequest, *, keep_checkpoints: bool
) -> list[tuple[str, str]]:
    """Trains one run, or in one program several that differ in their seeds alone; the first's log gets what they print.

    Takes away the checkpoints of those that finish.

    Returns:
      For each run "finished", "stopped", "failed", or "refused" (what was given is wrong, so trying again will not
      help); and for the latter two why, in one line.
    """
    first, ended = runs[0].id, []
    for run in runs[1:]:
        with open_log(out / log_name(run.id)) as log:
            log.write(f"{now()}  run {run.id} trains in one program with run {first}: see {log_name(first)}\n")
    with everything_said_goes_to(out / log_name(first)):
        print(f"{now()}  run {' '.join(run.id for run in runs)}, process {os.getpid()}", flush=True)
        results = _when_free(lambda some: _train(some, out, stop), runs, stop)
        for run in runs:
            ended.append(_said(results[run.id]))
    for run, (status, message) in zip(runs, ended, strict=True):
        if message and run.id != first:
            with open_log(out / log_name(run.id)) as log:
                log.write(f"error: {message}\n")
        if status == FINISHED and not keep_checkpoints:
            shutil.rmtree(run_directory(out, run.id) / "checkpoints", ignore_errors=True)
    return ended


def _train(runs: Sequence[Assigned], out: Path, stop: StopRequest) -> list[Any]:
    """For each run how it ended: an `Outcome`, or the error."""
    from train.run.loop import train
    from train.seeds.together import train_together

    try:
        if len(runs) > 1:
            return list(train_together([(run.config, run_directory(out, run.id)) for run in runs], stop=stop))
        return [train(runs[0].config, run_directory(out, runs[0].id), stop=stop)]
    except Exception as error:
        return [error] * len(runs)


def _said(result: Any) -> tuple[str, str]:
    """Status and message of a run's result; prints what is wrong with it."""
    if isinstance(result, UserError | RunFailed):
        print(f"error: {result}", flush=True)
        return (REFUSED if isinstance(result, UserError) else FAILED), str(result)
    if isinstance(result, Exception):
        traceback.print_exception(result)
        return FAILED, one_line(result)
    return (STOPPED if result is None else result.status), ""


def why_it_cannot_run(study_file: Path) -> str:
    """Why the copy of a study file cannot be run in this process, in one line; empty if it was."""
    try:
        run_study_file(study_file)
    except UserError as error:
        hint = "a worker has a copy of the study file and of the Python files beside it that it imports"
        return f"{error}; {hint}: give the absolute path of any other file"
    return ""


def why_unusable() -> str:
    """Why no program can run in this process, in one line; empty if programs can."""
    import jax

    try:
        jax.block_until_ready(jax.jit(lambda x: x + 1)(0))
    except Exception as error:
        return f"JAX cannot run here: {with_environment(error)}"
    return ""


def _when_free(
    train: Callable[[Sequence[Assigned]], list[Any]], runs: Sequence[Assigned], stop: StopRequest
) -> dict[str, Any]:
    """Trains runs, those whose workdirs other processes have as soon as they are free.

    Returns:
      What `train` says of each run by its id; None where a signal came before its workdir was free.
    """
    results: dict[str, Any] = dict.fromkeys(run.id for run in runs)
    waiting, told = list(runs), False
    while waiting and not stop:
        results |= zip((run.id for run in waiting), train(waiting), strict=True)
        waiting = [run for run in waiting if isinstance(results[run.id], InUse)]
        for run in waiting:
            if not told:
                print(f"waiting: {results[run.id]}", flush=True)
            told, results[run.id] = True, None
        if waiting:
            time.sleep(0.5)
    return results


def _read_runs(source: TextIO, runs: "queue.Queue[list[dict[str, Any]] | None]") -> None:
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
    parser.add_argument("--runs", type=Path, help="a file of such lines, instead of standard input")
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

    runs: queue.Queue[list[dict[str, Any]] | None] = queue.Queue()
    failed = False
    with StopRequest(signal.SIGTERM) as stop:  # by which the study asks
        if flags.runs is None:
            threading.Thread(target=_read_runs, args=(sys.stdin, runs), daemon=True).start()
        else:
            listed = [json.loads(line) for line in flags.runs.read_text(encoding="utf-8").splitlines()]
            for group in [*listed, None]:
                runs.put(group)
        runtime.set_up()
        if flags.quick_compile:
            jax.config.update("jax_disable_most_optimizations", True)
        unusable = why_it_cannot_run(flags.study) or why_unusable()
        while (group := _next(runs, stop)) is not None:
            group = [Assigned(one["id"], validate(from_dict(one["config"]))) for one in group]
            if unusable:
                ends = [(UNUSABLE, unusable)] * len(group)
            else:
                ends = train_runs(group, flags.out, stop, keep_checkpoints=flags.keep_checkpoints)
            for run, (status, message) in zip(group, ends, strict=True):
                failed |= status in (FAILED, REFUSED, UNUSABLE)
                print(json.dumps({"id": run.id, "status": status, "message": message}), flush=True)
    return EXIT_STOPPED if stop else int(failed)


def _next(runs: "queue.Queue[list[dict[str, Any]] | None]", stop: StopRequest) -> list[dict[str, Any]] | None:
    """The next runs; None once a signal came, or a file has no more."""
    while not stop:
        with contextlib.suppress(queue.Empty):
            return runs.get(timeout=0.2)
    return None


if __name__ == "__main__":
    from train.step.compiling import end_process

    end_process(main())
