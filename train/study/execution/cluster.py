"""Runs as jobs of Slurm, submitted through submitit: an array of jobs, each a run or a few seeds in one program.

A job is a worker process (`train.study.execution.worker`) with its runs in a file. Before its time limit, or when it
is preempted, the worker saves, and the job is queued again and continues. The study that submitted the jobs may end:
they go on, and the same command finds them by OUT/slurm/jobs.json and collects what they leave. Slurm's queue says
which jobs go on, so that no accounting is needed; what has left the queue has ended.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from train.errors import RunFailed, UserError
from train.files import read_json, write_json
from train.study.execution.executor import RunEnd
from train.study.execution.worker import FAILED, STOPPED, log_name, worker_command, write_runs_file
from train.study.plan import PlannedRun

JOBS = "slurm/jobs.json"
# Slurm refuses arrays that are longer; sites may allow more.
ARRAY = 1000
QUEUE_SECONDS = 5.0
# A job that has left the queue may have written its last words to a network file system that is slow to show them.
PATIENCE = 30.0
# A job that saves when it runs out of time is queued again without end.
TIMEOUTS = 1_000_000


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `--executor=slurm`."""
    parser.add_argument("--slurm_partition", default="", help="Slurm: the partition; the default one if not given")
    parser.add_argument("--slurm_account", default="", help="Slurm: the account")
    parser.add_argument(
        "--slurm_time", type=int, default=60, help="Slurm: minutes after which a job saves and is requeued"
    )
    parser.add_argument("--slurm_mem", default="", help="Slurm: memory of a job, such as 8GB")
    parser.add_argument("--slurm_gpus", type=int, default=0, help="Slurm: GPUs of a job")
    parser.add_argument("--slurm_cpus", type=int, default=1, help="Slurm: cores of a job")
    parser.add_argument("--slurm_array_parallelism", type=int, default=256, help="Slurm: jobs of an array at once")


@dataclasses.dataclass
class Job:
    """What a job does; submitit pickles it.

    Attributes:
      command: of the worker.
    """

    command: list[str]
    _process: "subprocess.Popen[str] | None" = None

    def __call__(self) -> list[dict[str, str]]:
        """Trains; returns the ends of the runs, as the worker prints them."""
        # The command's own output goes to the runs' logs, what is left of it to the job's.
        self._process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ends = []
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                ends.append(json.loads(line))
        self._process.wait()
        return ends

    def checkpoint(self) -> Any:
        """Called by submitit when the job is to give way: the runs save, and the job is queued again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        return DelayedSubmission(Job(self.command))


class SlurmExecutor:
    """Jobs of a cluster; an `Executor`.

    Args:
      out: the out directory, on a file system that all nodes share.
      worker_flags: of `train.study.execution.worker`.
      flags: the study's command line, see `add_flags`.

    Raises:
      UserError: Slurm or submitit is not there.
    """

    def __init__(self, out: Path, worker_flags: list[str], flags: argparse.Namespace):
        try:
            import submitit
        except ImportError as error:
            raise UserError('--executor=slurm needs submitit: pip install -e ".[study,slurm]"') from error
        self._out, self._worker_flags = out.absolute(), worker_flags
        given: dict[str, Any] = {
            "job_name": f"study-{out.name}",
            "time": flags.slurm_time,
            "cpus_per_task": flags.slurm_cpus,
            "array_parallelism": flags.slurm_array_parallelism,
            "signal_delay_s": max(30, min(120, flags.slurm_time * 60 // 4)),
            "stderr_to_stdout": True,
        }
        for name, value in (("partition", flags.slurm_partition), ("account", flags.slurm_account)):
            given |= {name: value} if value else {}
        given |= {"mem": flags.slurm_mem} if flags.slurm_mem else {}
        given |= {"gpus_per_node": flags.slurm_gpus} if flags.slurm_gpus else {}
        try:
            self._submitit = submitit.SlurmExecutor(self._out / "slurm" / "%j", max_num_timeout=TIMEOUTS)
            self._submitit.update_parameters(**given)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"--executor=slurm: {' '.join(str(error).split())}") from error
        self._jobs = read_jobs(self._out)  # of each run: its job
        self._new: list[Sequence[PlannedRun]] = []
        self._going: dict[str, float | None] = {}  # run: since when its job is out of the queue
        self._stopped, self._looked = False, 0.0

    def has_room(self) -> bool:
        return True

    def start(self, runs: Sequence[PlannedRun]) -> None:
        self._going |= dict.fromkeys(run.id for run in runs)
        self._new.append(list(runs))

    def wait(self, seconds: float) -> list[RunEnd]:
        if self._stopped:
            ends = [RunEnd(run, STOPPED, "its job goes on") for run in self._going]
            self._going = {}
            return ends
        if self._new:
            self._submit()
        if not self._going:
            return []
        time.sleep(seconds)
        if time.monotonic() - self._looked < QUEUE_SECONDS:
            return []
        self._looked = now = time.monotonic()
        queued = in_queue(self._jobs[run]["job"] for run in self._going)
        ends = []
        for run, since in list(self._going.items()):
            job = self._jobs[run]["job"]
            if job in queued:
                self._going[run] = None
                continue
            since = self._going[run] = since or now
            end = self._end(run, job)
            if end is None and now - since > PATIENCE:
                end = RunEnd(
                    run, FAILED, f"Slurm job {job} ended without reporting a result; see {self._out / 'slurm' / job}"
                )
            if end is not None:
                del self._going[run]
                ends.append(end)
        return ends

    def stop(self) -> None:
        """Lets go of the jobs, which go on."""
        self._stopped = True

    def close(self) -> None:
        pass

    def _submit(self) -> None:
        """Submits what was started since the last time and is not in the queue yet, as arrays."""
        known = {run.id: self._jobs[run.id]["job"] for runs in self._new for run in runs if run.id in self._jobs}
        queued = in_queue(known.values())
        left = [[run for run in runs if known.get(run.id) not in queued] for runs in self._new]
        new, self._new = [runs for runs in left if runs], []
        for first in range(0, len(new), ARRAY):
            groups = new[first : first + ARRAY]
            jobs = []
            for runs in groups:
                file = write_runs_file(self._out, runs)
                jobs.append(Job(worker_command(self._worker_flags, file)))
            try:
                with _outside_of_jobs():
                    submitted = self._map(jobs)
            except Exception as error:
                raise RunFailed(f"Slurm did not accept the jobs: {' '.join(str(error).split())}") from error
            for runs, job in zip(groups, submitted, strict=True):
                self._jobs |= {run.id: {"job": job, "name": run.name} for run in runs}
            write_json(self._out / JOBS, self._jobs)

    def _map(self, jobs: Sequence[Job]) -> list[str]:
        with self._submitit.batch():
            submitted = [self._submitit.submit(job) for job in jobs]
        return [job.job_id for job in submitted]

    def _end(self, run: str, job: str) -> RunEnd | None:
        """How a job that has left the queue says that a run ended; None if it says nothing."""
        import submitit

        path = submitit.SlurmJob(self._submitit.folder, job, tasks=[0]).paths.result_pickle
        try:
            outcome, result = pickle.loads(path.read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        if outcome != "success":
            return RunEnd(run, FAILED, f"Slurm's job {job}: {str(result).strip().splitlines()[-1]}")
        found = [end for end in result if end.get("id") == run]
        if not found:
            return RunEnd(run, FAILED, f"its process in Slurm's job {job} died; log: {self._out / log_name(run)}")
        if found[-1]["status"] == STOPPED:
            return RunEnd(run, FAILED, f"it was stopped in Slurm's job {job}")
        return RunEnd(run, found[-1]["status"], found[-1]["message"])


@contextlib.contextmanager
def _outside_of_jobs():
    """Without the variables of a job that this process may be in, which sbatch would take for its options."""
    given = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ |= given


def read_jobs(out: Path) -> dict[str, dict[str, str]]:
    """The last job of each run and the run's name, by the run's id; empty where none was submitted."""
    with contextlib.suppress(OSError, ValueError):
        return {run: dict(job) for run, job in read_json(out / JOBS).items()}
    return {}


def in_queue(jobs: Iterable[str]) -> dict[str, str]:
    """Of these jobs those in Slurm's queue, with their states, such as PENDING and RUNNING.

    Raises:
      UserError: the queue cannot be seen.
    """
    wanted = set(jobs)
    if not wanted:
        return {}
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i|%T"]
    for attempt in range(5):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            pairs = (line.strip().split("|") for line in done.stdout.splitlines() if "|" in line)
            return {job: state for job, state in pairs if job in wanted}
        except FileNotFoundError as error:
            raise UserError("--executor=slurm: there is no squeue here; run the command on a login node") from error
        except subprocess.SubprocessError as error:
            if attempt == 4:
                said = getattr(error, "stderr", "") or str(error)
                raise UserError(f"--executor=slurm: squeue cannot see the queue: {said.strip()}") from error
            time.sleep(2.0 * (attempt + 1))  # a busy controller
    return {}
