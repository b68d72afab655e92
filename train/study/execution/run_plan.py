"""Runs what a plan has left: one session, or the sessions of a whole plan with the seeds that are added to it."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from train.config import Config
from train.files import with_patience
from train.interface.signals import StopRequest
from train.study.execution import cluster
from train.study.execution.checks import Checked
from train.study.execution.executor import Executor, LocalExecutor
from train.study.execution.forecast import Forecast, check_space, forecast
from train.study.execution.live import Live
from train.study.execution.runner import Runner, Tally
from train.study.execution.session import Session
from train.study.plan import PlannedRun, Study, copy_study_file, planned_runs, with_data_dir
from train.study.results.published import STUDY_COPIES, write_runs
from train.study.results.records import RunRecord, is_finished
from train.study.verdicts.judge import without_trials
from train.study.verdicts.resolve import first_look_left, next_runs


def worker_flags(flags: argparse.Namespace, study: Study) -> list[str]:
    """What a worker process needs to know: of the study file it gets a copy as it was when this process read it."""
    found = [f"--study={copy_study_file(flags.study, flags.out / STUDY_COPIES)}", f"--out={flags.out}"]
    return found + ["--quick_compile"] * study.quick_compile + ["--keep_checkpoints"] * flags.keep_checkpoints


def make_executor(flags: argparse.Namespace, study: Study) -> Executor:
    """Where the runs are trained.

    Raises:
      UserError: it is Slurm, which is not there.
    """
    if flags.executor == "slurm":
        return cluster.SlurmExecutor(flags.out, worker_flags(flags, study), flags)
    return LocalExecutor(flags.out, worker_flags(flags, study), jobs=flags.jobs)


def run_session(
    flags: argparse.Namespace,
    arguments: list[str],
    study: Study,
    planned: list[PlannedRun],
    runs: dict[str, RunRecord],
) -> Tally:
    """Runs what is planned and not in `runs`, which grows; publishes each run and the session's facts."""
    live = Live(flags.out, planned, runs, jobs=flags.jobs)
    live.say(f"{study.title}\n{len(planned)} runs, {live.done} of them done")
    if live.done < len(planned):
        live.say(f"curves while they grow (pip install tensorboard): tensorboard --logdir={flags.out / 'runs'}")
    session = Session(flags, arguments, study)
    executor = make_executor(flags, study)
    try:
        with StopRequest() as stop:
            runner = Runner(
                study,
                flags.out,
                runs,
                executor,
                retries=flags.retries,
                live=live,
                seeds_per_program=flags.seeds_per_program,
                published=session.record,
            )
            tally = runner.run(planned, stop)
    finally:
        live.close()
        executor.close()
    session.record(tally)
    return tally


def located(planned: Iterable[PlannedRun], flags: argparse.Namespace) -> list[PlannedRun]:
    """The runs with their data where --data_dir says."""
    return [dataclasses.replace(run, config=with_data_dir(run.config, flags.data_dir)) for run in planned]


def forecast_of(
    flags: argparse.Namespace, left: Sequence[PlannedRun], runs: Mapping[str, RunRecord], checked: Checked
) -> Forecast:
    """What the runs that are left will take, with the seeds that a job trains at once."""
    checkpoints = checked.checkpoint_bytes * flags.seeds_per_program
    return forecast(left, runs, checkpoints, flags.out, jobs=flags.jobs)


def run_planned(
    flags: argparse.Namespace,
    arguments: list[str],
    study: Study,
    only: Sequence[str],
    runs: dict[str, RunRecord],
    checked: Checked,
) -> tuple[int, Tally]:
    """Runs what is planned and left, then the seeds that --until adds, and publishes them.

    Returns:
      The number of planned runs, and how the sessions went.
    """
    planned = located(planned_runs(study, only=only, seeds=flags.seeds), flags)
    if left := [run for run in planned if not is_finished(run.id, runs)]:
        check_space(forecast_of(flags, left, runs, checked), jobs=flags.jobs)
    tally = run_session(flags, arguments, study, planned, runs)
    more: list[PlannedRun] = []
    if flags.until == "resolved" and not tally.open:
        ended = list(without_trials(runs).values())
        if waiting := first_look_left(study, ended):
            print(f"no seeds are added yet: {waiting} runs of the first {study.seeds} seeds are left; omit --only")
        else:
            more = located(next_runs(study, ended, max_seeds=flags.max_seeds, only=only), flags)
    if more:
        later = run_session(flags, arguments, study, more, runs)
        tally = Tally(tally.finished + later.finished, tally.failed + later.failed, later.open)
    patiently(flags, lambda: write_runs(flags.out, study, runs))
    return len(planned) + len(more), tally


def patiently(flags: argparse.Namespace, write: Callable[[], None]) -> None:
    """Writes tables, waiting for a full disk as runs do."""
    with_patience(write, seconds=Config().disk_wait, what=f"the tables in {flags.out}")
