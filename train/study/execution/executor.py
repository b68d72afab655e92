"""Where runs are trained: an interface, and processes on this machine; `train.study.execution.cluster` is another.

An executor trains a run and reports its end, no more: what to run, in which order, how often to try and what
to publish is `train.study.execution.runner`'s.
"""

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from train.interface.signals import EXIT_STOPPED
from train.study.execution.worker import FAILED, STOPPED, log_name, open_log, runs_line
from train.study.plan import PlannedRun

# A process takes no further run after so long: what libraries leave behind is freed, and a start costs seconds.
WORKER_SECONDS = 300.0


class RunEnd(NamedTuple):
    """The end of a run.

    Attributes:
      id: of the run.
      status: "finished"; "stopped" (asked to, and saved); "failed"; "refused" (what was given is wrong: trying again
        will not help); "unusable" (no run can start there).
      message: why it failed, in one line.
    """

    id: str
    status: str
    message: str


class Executor(Protocol):
    """Trains runs somewhere; a workdir OUT/runs/ID and a log OUT/logs/ID.txt appear while it does."""

    def has_room(self) -> bool:
        """Whether another run may be started now."""
        ...

    def start(self, runs: Sequence[PlannedRun]) -> None:
        """Starts runs, or continues them where their workdirs stand; several differ in their seeds alone."""
        ...

    def wait(self, seconds: float) -> list[RunEnd]:
        """Runs that ended since the last call; waits at most so long for the first."""
        ...

    def stop(self) -> None:
        """Asks all runs to save and end; each ends as "stopped", or as it would have."""
        ...

    def close(self) -> None:
        """Frees what is held; no run is going on any more."""
        ...


def shares_of_cores(jobs: int) -> list[str]:
    """A share of this process' cores for each of `jobs` processes, as `--cpus`; "" where it cannot be had.

    Two processes of one core each train more images a second than one of two cores (the parts of a step that run on
    one core do so at the same time), and pinned ones do not wait for each other.
    """
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [""] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        return [str(cores[job % len(cores)]) for job in range(jobs)]
    bounds = [job * len(cores) // jobs for job in range(jobs + 1)]
    return [",".join(map(str, cores[a:b])) for a, b in itertools.pairwise(bounds)]


class _Slot:
    """A worker process, or the place for one."""

    def __init__(self, command: list[str], environment: dict[str, str], out: Path, ends: "queue.Queue[RunEnd]"):
        self._command, self._environment, self._out, self._ends = command, environment, out, ends
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._since = 0.0
        self._lock = threading.Lock()  # of `_process` and `runs`: a process may die while it is given runs
        self.runs: set[str] = set()

    def start(self, runs: Sequence[PlannedRun]) -> None:
        if self._process is not None and time.monotonic() - self._since > WORKER_SECONDS:
            self.retire()
        with self._lock:
            self.runs = {run.id for run in runs}
            if self._process is None:
                self._start_process(runs[0].id)
            assert self._process is not None
            assert self._process.stdin is not None
            # A worker that has just died says so by its end of output, not here.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(runs_line(runs) + "\n")
                self._process.stdin.flush()

    def _start_process(self, run: str) -> None:
        with open_log(self._out / log_name(run)) as errors:
            # A session of its own: Ctrl-C reaches the study alone, which then asks its workers to save, once.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        self._since = time.monotonic()
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        output: IO[str] | None = process.stdout
        assert output is not None
        assert process.stdin is not None
        with output:
            for line in output:
                # Whatever else a study file prints is no end of a run.
                with contextlib.suppress(ValueError, TypeError):
                    self._ends.put(RunEnd(**json.loads(line)))
        status = process.wait()
        with self._lock:
            if self._process is not process:
                return  # retired
            self._process, runs = None, list(self.runs)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if runs:
            asked = status in (-signal.SIGTERM, EXIT_STOPPED)
            how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
            for run in runs:
                self._ends.put(RunEnd(run, STOPPED if asked else FAILED, f"its process ended {how}"))

    def stop(self) -> None:
        process = self._process
        if self.runs and process is not None:
            process.send_signal(signal.SIGTERM)  # no signal to one that has ended

    def retire(self) -> None:
        """Lets an idle process end."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
            if self._listener is not None:
                self._listener.join()


class LocalExecutor:
    """Processes on this machine, each with its share of the cores, and of a GPU's memory.

    Args:
      out: the out directory.
      worker_flags: of `train.study.execution.worker`.
      jobs: runs at once.
    """

    def __init__(self, out: Path, worker_flags: list[str], *, jobs: int = 1):
        self._ends: queue.Queue[RunEnd] = queue.Queue()
        environment = dict(os.environ)
        # A worker finds the same `train` as this process, wherever that was started: it is run from a checkout.
        paths = [str(Path(__file__).resolve().parents[3]), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        if jobs > 1:
            environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / jobs:.3f}")
        command = [sys.executable, "-m", "train.study.execution.worker", *worker_flags]
        self._slots = [
            _Slot([*command, f"--cpus={cpus}"], environment, out, self._ends) for cpus in shares_of_cores(jobs)
        ]

    def has_room(self) -> bool:
        return any(not slot.runs for slot in self._slots)

    def start(self, runs: Sequence[PlannedRun]) -> None:
        next(slot for slot in self._slots if not slot.runs).start(runs)

    def wait(self, seconds: float) -> list[RunEnd]:
        ends = []
        with contextlib.suppress(queue.Empty):
            ends.append(self._ends.get(timeout=seconds))
            while True:
                ends.append(self._ends.get_nowait())
        for end in ends:
            for slot in self._slots:
                slot.runs.discard(end.id)
        return ends

    def stop(self) -> None:
        for slot in self._slots:
            slot.stop()

    def close(self) -> None:
        for slot in self._slots:
            slot.retire()
