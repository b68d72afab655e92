"""python -m train.study --study=configs/studies/quick.py --out=DIR [--scale=S] [--only=2.1,2.4:cifar100] [--jobs=N] ...

Runs every variant of a study at every seed, and writes tables, verdicts, figures and index.html to DIR. Runs already
published in DIR (runs.csv, curves.csv.gz) are not repeated, even if their workdirs under DIR/runs were deleted. Running
the same command again continues a stopped study; more --seeds or another --only adds runs to it. Study files are
Python and run as such: use only those you trust.

Exit status: 0 done, 1 a run or the disk failed, 2 wrong input, 75 stopped by a signal (run the same command again), 130
interrupted while it drew figures and page (--report_only draws them). If only figures or page fail, runs and tables
are complete, the status is 1, and --report_only draws what is missing.
"""

import sys

if __name__ == "__main__":  # before the imports that take seconds
    from train.interface.command_line import import_jax
    from train.interface.installed import require
    from train.interface.signals import end_at_interrupt

    end_at_interrupt()
    require("study")
    import_jax()

import argparse
import dataclasses
import logging
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from train.config import Config
from train.errors import RunFailed, UserError
from train.files import with_patience
from train.interface.output import Extras, accept_any_text, tolerant_output
from train.interface.signals import EXIT_INTERRUPTED, EXIT_STOPPED, StopRequest, raise_at_interrupt
from train.study.execution import cluster
from train.study.execution.checks import Checked, check_runs, identified
from train.study.execution.executor import Executor, LocalExecutor
from train.study.execution.forecast import check_space, forecast, in_words, plan_in_words
from train.study.execution.live import Live
from train.study.execution.runner import Runner, Tally, take_group
from train.study.execution.session import Session
from train.study.execution.status import status_in_words
from train.study.execution.tune import run_trials
from train.study.execution.worker import log_name, worker_command, write_runs_file
from train.study.flags import parse
from train.study.page.csv_tables import write_tables
from train.study.page.summary import format_tables, format_verdicts
from train.study.plan import (
    PlannedRun,
    Study,
    copy_study_file,
    load_study,
    planned_runs,
    select,
    trial_runs,
    with_data_dir,
    with_epochs,
)
from train.study.results.published import STUDY_COPIES, open_directory, read_facts, read_runs, write_runs
from train.study.results.records import RunRecord, StudyResults, is_finished
from train.study.results.tuning import tuned
from train.study.verdicts.judge import assemble, without_trials
from train.study.verdicts.resolve import first_look_left, next_runs

PAGE = "index.html"


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


def print_commands(flags: argparse.Namespace, study: Study, left: Sequence[PlannedRun]) -> None:
    """Prints a command for each run that is left, or for each few seeds of it."""
    of_worker = worker_flags(flags, study)
    while left:
        group, left = take_group(left, flags.seeds_per_program)
        print(shlex.join(worker_command(of_worker, write_runs_file(flags.out, group))))


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


def run_study(flags: argparse.Namespace, arguments: list[str]) -> int:
    """Runs a study file; returns the exit status."""
    study = load_study(flags.study, scale=flags.scale)
    study = with_epochs(study, flags.epochs) if flags.epochs else study
    only = tuple(filter(None, flags.only.split(",")))

    def patiently(write: Callable[[], None]) -> None:
        with_patience(write, seconds=Config().disk_wait, what=f"the tables in {flags.out}")

    planned = planned_runs(study, only=only, seeds=flags.seeds)
    if flags.status:
        runs = read_runs(flags.out)
        checked = check_runs(planned, flags.data_dir)
        study = identified(study, checked.digests, runs)
        planned = planned_runs(tuned(study, runs), only=only, seeds=flags.seeds)
        print(status_in_words(flags.out, [*trial_runs(study, only=only), *planned], runs))
        return 0
    with open_directory(flags.out, study):
        runs, tally = read_runs(flags.out), Tally()
        if flags.report_only and not runs:
            raise UserError(f"--out={flags.out} has no published runs to report; leave --report_only out")
        checked = Checked({}, 0)
        if not flags.report_only or flags.data_dir:
            checked = check_runs(planned, flags.data_dir)
        study = identified(study, checked.digests, runs)
        sections = select(study, only)
        if trials := located(trial_runs(study, only=only), flags):
            open_trials = [run for run in trials if run.id not in runs]
            if flags.print_commands and open_trials:  # what follows them is known when they have ended
                print_commands(flags, study, open_trials)
                return 0
            if not flags.report_only and not flags.dry_run:
                tally = run_trials(run_session, flags, arguments, study, sections, trials, runs)
                if tally.open:
                    print(f"stopped with {len(tally.open)} of {len(trials)} trials to do; run the same command again")
                    return EXIT_STOPPED
            study, tally = tuned(study, runs), Tally()  # trials that failed are results
            sections = select(study, only)
        planned = located(planned_runs(study, only=only, seeds=flags.seeds), flags)
        if not flags.report_only:
            left = [run for run in planned if not is_finished(run.id, runs)]
            found = forecast(left, runs, checked.checkpoint_bytes * flags.seeds_per_program, flags.out, jobs=flags.jobs)
            if flags.dry_run:
                print(plan_in_words(study, sections, planned, runs))
                if trials:
                    print(f"before these: {len(open_trials)} of {len(trials)} trials to do")
                print(f"to do: {len(left)} of {len(planned)} runs: {in_words(found, jobs=flags.jobs)}")
                return 0
            if flags.print_commands:
                print_commands(flags, study, left)
                return 0
            if left:
                check_space(found, jobs=flags.jobs)
            tally = run_session(flags, arguments, study, planned, runs)
            more = []
            if flags.until == "resolved" and not tally.open:
                ended = list(without_trials(runs).values())
                if waiting := first_look_left(study, ended):
                    print(f"no seeds are added yet: {waiting} runs of the first look are to do; leave --only out")
                else:
                    more = next_runs(study, ended, max_seeds=flags.max_seeds, only=only)
            if more:
                more = located(more, flags)
                later = run_session(flags, arguments, study, more, runs)
                tally = Tally(tally.finished + later.finished, tally.failed + later.failed, later.open)
                planned = planned + more
            patiently(lambda: write_runs(flags.out, study, runs))
            runs = read_runs(flags.out)  # in the file's order: what --report_only draws is the same to the bit
        results = assemble(study, runs, read_facts(flags.out))
        patiently(lambda: write_tables(flags.out, results))
        if tally.open:
            left = len(tally.open)
            print(f"stopped with {left} of {len(planned)} runs to do; run the same command again to continue")
            if flags.executor == "slurm":
                print("the jobs in Slurm's queue go on: --status shows them, scancel stops them")
            print("figures and page are as they were; the command with --report_only draws them from what is there")
            return EXIT_STOPPED
        extras = Extras()
        figures = draw(results, flags.out, extras)
    print(f"\n{format_tables(results, sections)}\n")
    if verdicts := format_verdicts(results.verdicts):
        print(f"{verdicts}\n")
    for figure in figures[:1]:
        print(f"figure:  {figure}" + (f" and {len(figures) - 1} more files" if len(figures) > 1 else ""))
    print(f"tables:  {', '.join(str(flags.out / name) for name in ('runs.csv', 'claims.csv', 'summary.csv'))}")
    if PAGE not in extras.missing:
        print(f"page:    {flags.out / PAGE}")
    for what, why in extras.missing.items():
        print(f"missing: {what}: {why}; runs and tables are complete, --report_only draws it", file=sys.stderr)
    for run, message in tally.failed:
        print(f"failed:  {run.name}: {message}; log: {flags.out / log_name(run.id)}", file=sys.stderr)
    return 1 if tally.failed or extras.missing else 0


def draw(results: StudyResults, out: Path, extras: Extras) -> list[Path]:
    """Draws figures and page as far as possible; returns the figures' files, and leaves in `extras` what is missing."""
    figures: list[Path] = []
    # Matplotlib is imported here, once there is something to draw.
    with extras.best_effort("the figures"):
        from train.study.page.figures import draw_all
        from train.study.page.tuning import draw_all_tuning

        figures = draw_all(results, out / "figures", extras) + draw_all_tuning(results, out / "figures", extras)
    with extras.best_effort(PAGE):
        from train.study.page.write import write_page

        write_page(results, out / PAGE)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (see above)."""
    raise_at_interrupt()
    accept_any_text()
    with tolerant_output():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return run_study(parse(given, __doc__), given)
    except (UserError, RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:
        print(f"error: {error}; all finished runs are published, --report_only draws figures and page", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; all finished runs are published, --report_only draws figures and page", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
