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
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from train.errors import RunFailed, UserError
from train.interface.command_line import run_command
from train.interface.output import Extras, accept_any_text, tolerant_output
from train.interface.signals import EXIT_INTERRUPTED, EXIT_STOPPED, raise_at_interrupt
from train.study.execution.checks import Checked, check_runs, identified
from train.study.execution.forecast import forecast_words, plan_in_words
from train.study.execution.run_plan import forecast_of, located, patiently, run_planned, worker_flags
from train.study.execution.runner import Tally, take_group
from train.study.execution.status import status_in_words
from train.study.execution.tune import run_trials
from train.study.execution.worker import log_name, worker_command, write_runs_file
from train.study.flags import parse
from train.study.page.csv_tables import write_tables
from train.study.page.summary import format_tables, format_verdicts
from train.study.plan import (
    PlannedRun,
    Section,
    Study,
    load_study,
    planned_runs,
    select,
    trial_runs,
    with_epochs,
)
from train.study.results.facts import read_facts
from train.study.results.published import open_directory, read_runs
from train.study.results.records import RunRecord, StudyResults, is_finished
from train.study.results.tuning import tuned
from train.study.verdicts.judge import assemble

PAGE = "index.html"
_PUBLISHED = "all finished runs are published, --report_only draws figures and page"


def print_commands(flags: argparse.Namespace, study: Study, left: Sequence[PlannedRun]) -> None:
    """Prints a command for each run that is left, or for each few seeds of it."""
    of_worker = worker_flags(flags, study)
    while left:
        group, left = take_group(left, flags.seeds_per_program)
        print(shlex.join(worker_command(of_worker, write_runs_file(flags.out, group))))


def run_study(flags: argparse.Namespace, arguments: list[str]) -> int:
    """Runs a study file; returns the exit status."""
    study = load_study(flags.study, scale=flags.scale)
    study = with_epochs(study, flags.epochs) if flags.epochs else study
    only = tuple(filter(None, flags.only.split(",")))
    if flags.until and not study.claims:
        raise UserError(f"--until={flags.until}: the study has no claims to resolve; give it some, or use --seeds")
    if flags.status:
        show_status(flags, study, only)
        return 0
    with open_directory(flags.out, study):
        runs = read_runs(flags.out)
        if flags.report_only and not runs:
            raise UserError(f"--out={flags.out} has no published runs to report; leave --report_only out")
        checked = Checked({}, 0)
        if not flags.report_only or flags.data_dir:
            planned = planned_runs(study, only=only, seeds=flags.seeds)
            checked = check_runs(planned, flags.data_dir, seeds_per_program=flags.seeds_per_program)
        study = identified(study, checked.digests, runs)
        trials = located(trial_runs(study, only=only), flags)
        if flags.dry_run:
            show_plan(flags, study, only, trials, runs, checked)
            return 0
        if flags.print_commands:
            show_commands(flags, study, only, trials, runs)
            return 0
        number, tally = 0, Tally()
        if not flags.report_only:
            if trials:
                tally = run_trials(flags, arguments, study, select(study, only), trials, runs)
                if tally.open:
                    print(f"stopped with {len(tally.open)} of {len(trials)} trials to do; run the same command again")
                    return EXIT_STOPPED
            number, tally = run_planned(flags, arguments, tuned(study, runs), only, runs, checked)
            runs = read_runs(flags.out)  # in the file's order: what --report_only draws is the same to the bit
        study = tuned(study, runs)
        results = assemble(study, runs, read_facts(flags.out))
        patiently(flags, lambda: write_tables(flags.out, results))
        if tally.open:
            print(f"stopped with {len(tally.open)} of {number} runs to do; run the same command again to continue")
            if flags.executor == "slurm":
                print("the jobs in Slurm's queue go on: --status shows them, scancel stops them")
            print("figures and page were not updated; add --report_only to draw them from the finished runs")
            return EXIT_STOPPED
        extras = Extras()
        figures = draw(results, flags.out, extras)
    show_results(flags, results, select(study, only), figures, extras, tally)
    return 1 if tally.failed or extras.missing else 0


def _open(trials: Iterable[PlannedRun], runs: Mapping[str, RunRecord]) -> list[PlannedRun]:
    """The trials that have not ended; one that failed has."""
    return [run for run in trials if run.id not in runs]


def show_status(flags: argparse.Namespace, study: Study, only: Sequence[str]) -> None:
    """Prints what is done, going on and failed, while the study runs or not."""
    runs, digests = read_runs(flags.out), {}
    try:
        digests = check_runs(planned_runs(study, only=only, seeds=flags.seeds), flags.data_dir).digests
    except UserError as error:
        if not runs:  # whose data says which runs are meant, on a node without the data
            raise
        print(f"note: {error}")
    study = identified(study, digests, runs)
    planned = planned_runs(tuned(study, runs), only=only, seeds=flags.seeds)
    print(status_in_words(flags.out, [*trial_runs(study, only=only), *planned], runs))


def show_plan(
    flags: argparse.Namespace,
    study: Study,
    only: Sequence[str],
    trials: Sequence[PlannedRun],
    runs: Mapping[str, RunRecord],
    checked: Checked,
) -> None:
    """Prints the plan and what it takes."""
    study = tuned(study, runs)
    planned = planned_runs(study, only=only, seeds=flags.seeds)
    left = [run for run in planned if not is_finished(run.id, runs)]
    found = forecast_of(flags, left, runs, checked)
    print(plan_in_words(study, select(study, only), planned, runs))
    if trials:
        print(f"before these: {len(_open(trials, runs))} of {len(trials)} trials to do")
    print(f"to do: {len(left)} of {len(planned)} runs: {forecast_words(found, jobs=flags.jobs)}")


def show_commands(
    flags: argparse.Namespace,
    study: Study,
    only: Sequence[str],
    trials: Sequence[PlannedRun],
    runs: Mapping[str, RunRecord],
) -> None:
    """Prints a command for each run that is left; if trials are, for those: what follows is known when they ended."""
    left = _open(trials, runs)
    if not left:
        planned = located(planned_runs(tuned(study, runs), only=only, seeds=flags.seeds), flags)
        left = [run for run in planned if not is_finished(run.id, runs)]
    print_commands(flags, study, left)


def show_results(
    flags: argparse.Namespace,
    results: StudyResults,
    sections: Sequence[Section],
    figures: Sequence[Path],
    extras: Extras,
    tally: Tally,
) -> None:
    """Prints tables and verdicts, where the files are, and what failed."""
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
        return run_command(lambda: _run(given))
    except KeyboardInterrupt:
        print(f"interrupted; {_PUBLISHED}", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(given: list[str]) -> int:
    try:
        return run_study(parse(given, __doc__), given)
    except OSError as error:
        raise RunFailed(f"{error}; {_PUBLISHED}") from error


if __name__ == "__main__":
    sys.exit(main())
