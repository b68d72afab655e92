"""What a study's runs will take: time, from runs of the same kind, and disk, from the size of their states."""

import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from train.config import Config, from_dict
from train.errors import UserError
from train.interface.words import duration_words
from train.run.checkpointing import KEEP
from train.run.records import Row, seconds_per_epoch
from train.study.plan import PlannedRun, Section, Study
from train.study.results.records import RunRecord, is_finished

# The last ones, the best one, and the one that is being written.
CHECKPOINTS_AT_ONCE = KEEP + 2


class Forecast(NamedTuple):
    """What the runs that are left will take.

    Attributes:
      seconds: of wall time; of those runs alone that have a measured kind.
      unmeasured: runs of which no kind is measured.
      checkpoint_bytes: of the largest checkpoint among the runs.
      free_bytes: on the disk that they are written to.
    """

    seconds: float
    unmeasured: int
    checkpoint_bytes: int
    free_bytes: int


def kind(config: Config) -> tuple:
    """Returns what runs have in common whose epochs take about as long."""
    return (
        config.dataset,
        config.model.name,
        config.model.stem,
        config.train_examples,
        config.test_examples,
        config.validation_examples,
        config.batch_size,
        config.sequence_length,
    )


def measured_paces(runs: Iterable[RunRecord]) -> dict[tuple, float]:
    """Returns the median seconds of an epoch for each kind of the finished runs."""
    found: dict[tuple, list[float]] = {}
    for run in runs:
        rows: list[Row] = run.rows
        if run.status == "finished" and (pace := seconds_per_epoch(rows)) is not None:
            found.setdefault(kind(from_dict(run.config)), []).append(pace)
    return {key: statistics.median(paces) for key, paces in found.items()}


def forecast(
    left: Sequence[PlannedRun], runs: Mapping[str, RunRecord], checkpoint_bytes: int, out: Path, *, jobs: int
) -> Forecast:
    """Works out what the runs that are left will take.

    Args:
      left: the runs to do.
      runs: the published ones, whose times are the measure.
      checkpoint_bytes: of the largest checkpoint among the runs, times the runs that a job has at once.
      out: where they go; made already.
      jobs: runs at once.
    """
    paces = measured_paces(runs.values())
    times = [paces[kind(run.config)] * run.config.epochs for run in left if kind(run.config) in paces]
    return Forecast(
        seconds=sum(times) / max(1, min(jobs, len(times))),
        unmeasured=len(left) - len(times),
        checkpoint_bytes=checkpoint_bytes,
        free_bytes=shutil.disk_usage(out).free,
    )


def check_space(found: Forecast, *, jobs: int) -> None:
    """Checks that the checkpoints of the runs that go on at once fit on the disk.

    Raises:
      UserError: They do not.
    """
    needed = found.checkpoint_bytes * CHECKPOINTS_AT_ONCE * jobs
    if needed > found.free_bytes:
        raise UserError(
            f"the checkpoints of --jobs={jobs} runs take up to {_size(needed)}, and only {_size(found.free_bytes)} are "
            "free; make room, or use fewer jobs"
        )


def forecast_words(found: Forecast, *, jobs: int) -> str:
    """Returns the forecast as a line."""
    time = f"about {duration_words(found.seconds)} with --jobs={jobs}" if found.seconds else "time not known"
    if found.seconds and found.unmeasured:
        time += f", and {found.unmeasured} runs of kinds that have not been timed"
    size = found.checkpoint_bytes * CHECKPOINTS_AT_ONCE * jobs
    return f"{time}; checkpoints take up to {_size(size)} at once, {_size(found.free_bytes)} are free"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def plan_in_words(
    study: Study, sections: Iterable[Section], planned: Sequence[PlannedRun], runs: Mapping[str, RunRecord]
) -> str:
    """Returns the plan: a line for each variant, with the seeds that are done out of those planned."""
    seeds: dict[str, list[bool]] = {}
    for run in planned:
        seeds.setdefault(run.variant_id, []).append(is_finished(run.id, runs))
    lines = [study.title]
    for section in sections:
        lines.append(f"\n{section.key}  {section.title}" + (f" ({section.budget})" if section.budget else ""))
        width = max(len(variant.label) for variant in section.variants)
        for variant in section.variants:
            done = seeds[variant.id]
            lines.append(f"  {variant.label:{width}}  {sum(done)} of {len(done)} seeds done")
    return "\n".join(lines) + "\n"
