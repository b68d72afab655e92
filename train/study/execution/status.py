"""How far a study is, from what it left on the disk and Slurm's queue: for any node, while it runs or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from train.errors import UserError
from train.locks import in_use
from train.run.provenance import run_facts
from train.study.execution.cluster import in_queue, read_jobs
from train.study.execution.worker import run_directory
from train.study.plan import PlannedRun
from train.study.results.records import RunRecord, is_finished

STATES = ("done", "running", "queued", "failed", "stopped", "to do")


def state_of(run: PlannedRun, out: Path, runs: Mapping[str, RunRecord], queued: Mapping[str, str], job: str) -> str:
    """One of `STATES`.

    Args:
      run: one that is planned.
      out: the out directory.
      runs: the published runs.
      queued: the jobs in Slurm's queue with their states.
      job: the run's last job; "" if it had none.
    """
    if is_finished(run.id, runs):
        return "done"
    if job in queued:
        return "queued" if queued[job] in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else "running"
    workdir = run_directory(out, run.id)
    status = run_facts(workdir).get("status", "")
    if status == "running" and (job or not in_use(workdir)):
        return "stopped"  # its job has left the queue, or its process has died
    return {"finished": "done", "": "failed" if run.id in runs else "to do"}.get(status, status)


def status_in_words(out: Path, planned: Sequence[PlannedRun], runs: Mapping[str, RunRecord]) -> str:
    """A line with the number of runs in each state, and a line for each run that is going on or has failed."""
    jobs = read_jobs(out)
    try:
        queued = in_queue(job["job"] for job in jobs.values())
        blind = ""
    except UserError as error:
        queued, blind = {}, f"\n{error}"
    found: dict[str, list[str]] = {state: [] for state in STATES}
    for run in planned:
        job = jobs.get(run.id, {}).get("job", "")
        where = f" (job {job})" if job in queued else ""
        found.setdefault(state_of(run, out, runs, queued, job), []).append(f"{run.name}{where}")
    lines = [", ".join(f"{len(names)} {state}" for state, names in found.items() if names)]
    lines += [f"  {state}: {name}" for state in ("running", "queued", "failed", "stopped") for name in found[state]]
    return "\n".join(lines) + blind
