"""The tuning of a study: its trials are run before all else, and choose the values of what follows."""

import argparse
from collections.abc import Sequence

from train.errors import RunFailed
from train.study.execution.run_plan import run_session
from train.study.execution.runner import Tally
from train.study.plan import PlannedRun, Section, Study
from train.study.results.records import RunRecord
from train.study.results.tuning import without_choice


def run_trials(
    flags: argparse.Namespace,
    arguments: list[str],
    study: Study,
    sections: Sequence[Section],
    trials: Sequence[PlannedRun],
    runs: dict[str, RunRecord],
) -> Tally:
    """Runs the trials that have not ended yet.

    A trial that failed has no score, and is not run again: a rate at which the loss is not finite is an answer.

    Args:
      flags, arguments: of the command line.
      study: the plan.
      sections: that are to be run.
      trials: all of theirs.
      runs: the published runs; grows.

    Returns:
      How the session went.

    Raises:
      RunFailed: all trials of a variant failed.
    """
    failed = {run.id for run in runs.values() if run.status == "failed"}
    tally = run_session(flags, arguments, study, [run for run in trials if run.id not in failed], runs)
    if not tally.open and (nothing := without_choice(sections, runs)):
        raise RunFailed(
            f"every trial of {', '.join(nothing)} failed; their logs are in {flags.out / 'logs'}: choose other ranges"
        )
    return tally
