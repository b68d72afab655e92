"""What a person watching a study sees: a line a run that ends; on a terminal a bar of what goes on, and time left."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from train.errors import UserError
from train.files import read_csv
from train.run.records import Row, seconds_per_epoch
from train.study.execution.forecast import kind, measured_paces
from train.study.execution.worker import log_name, run_directory
from train.study.plan import PlannedRun
from train.study.results.records import RunRecord, is_finished


class Live:
    """Progress of a study in runs and epochs.

    Args:
      out: the out directory.
      planned: the runs of this session, published ones included.
      runs: the published runs.
      jobs: runs at once.
      stream: where to write; the bar shows only on a terminal.
    """

    def __init__(
        self,
        out: Path,
        planned: Sequence[PlannedRun],
        runs: Mapping[str, RunRecord],
        *,
        jobs: int,
        stream: TextIO | None = None,
    ):
        self._out, self._jobs, self._stream = out, jobs, stream or sys.stdout
        self._total = len(planned)
        self._left = {run.id: run for run in planned if not is_finished(run.id, runs)}
        self._going: dict[str, tuple[PlannedRun, float]] = {}
        # Seconds an epoch of each kind, and seconds that whole runs took beyond their epochs.
        self._pace: dict[tuple, float] = measured_paces(runs.values())
        self._beyond: list[float] = []
        self._epochs = sum(run.config.epochs for run in planned)
        self._bar: tqdm | None = None
        if self._stream.isatty():
            bar_format = "|{bar:16}| {desc}"
            self._bar = tqdm(
                total=self._epochs, file=self._stream, bar_format=bar_format, dynamic_ncols=True, leave=False
            )

    @property
    def done(self) -> int:
        """Runs that are finished, earlier ones included."""
        return self._total - len(self._left)

    def started(self, run: PlannedRun) -> None:
        """A run goes on now."""
        self._going[run.id] = (run, time.monotonic())

    def finished(self, run: PlannedRun, rows: Sequence[Row]) -> None:
        """The line of a run that came to its end."""
        spent = self._ended(run)
        self._left.pop(run.id, None)
        self._learn(run, rows)
        self._beyond.append(max(0.0, spent - sum(row["seconds"] for row in rows)))
        last = rows[-1]
        if last.get("test_perplexity") is not None:
            what = f"perplexity {last['train_perplexity']:.1f}, test {last['test_perplexity']:.1f}"
        else:
            what = f"loss {last['train_loss']:.4f}, test {last['test_accuracy']:.2%}"
        left = self._time_left()
        parts = [
            f"run {self.done} of {self._total}  {run.name}: {what}",
            f"{spent:.0f} s",
            f"left {left}" if left else "",
        ]
        self.say("  ".join(filter(None, parts)))

    def found(self, run: PlannedRun, rows: Sequence[Row]) -> None:
        """A run was there already, finished by a session that was cut off before it published it."""
        self._left.pop(run.id, None)
        self._learn(run, rows)
        self.say(f"run {self.done} of {self._total}  {run.name}: finished before")

    def failed(self, run: PlannedRun, message: str, *, again: bool) -> None:
        """The line of a run that failed."""
        self._ended(run)
        if not again:
            self._left.pop(run.id, None)
            self._total -= 1
            self._epochs -= run.config.epochs
        what = "failed, will be retried" if again else "failed"
        self.say(f"{run.name}: {what}: {message}; log: {self._out / log_name(run.id)}")

    def stopped(self, run: PlannedRun) -> None:
        """A run saved and stopped."""
        self._ended(run)

    def _ended(self, run: PlannedRun) -> float:
        _, since = self._going.pop(run.id, (run, time.monotonic()))
        return time.monotonic() - since

    def _learn(self, run: PlannedRun, rows: Sequence[Mapping]) -> None:
        pace = seconds_per_epoch(rows)
        if pace is not None:
            self._pace[kind(run.config)] = pace

    def _epochs_done(self, run: PlannedRun) -> int:
        try:
            rows = read_csv(run_directory(self._out, run.id) / "metrics.csv")[1]
            self._learn(run, rows)
        except (UserError, KeyError, ValueError):
            return 0  # it counts as not begun: this is for the eye alone
        return len(rows)

    def _time_left(self) -> str:
        """Of all runs; "" where nothing is measured yet."""
        done = {run.id: self._epochs_done(run) for run, _ in self._going.values()}
        if not self._pace:
            return ""
        typical = sum(self._pace.values()) / len(self._pace)
        beyond = sum(self._beyond) / len(self._beyond) if self._beyond else 0.0
        seconds = 0.0
        for run in self._left.values():
            seconds += (run.config.epochs - done.get(run.id, 0)) * self._pace.get(kind(run.config), typical)
            seconds += 0.0 if run.id in done else beyond
        return tqdm.format_interval(seconds / min(self._jobs, max(len(self._left), 1)))

    def update(self) -> None:
        """Brings the bar up to date."""
        if self._bar is None:
            return
        left = self._time_left()
        done = {run.id: self._epochs_done(run) for run, _ in self._going.values()}
        going = "".join(f"  | {run.name} {done[run.id]}/{run.config.epochs}" for run, _ in self._going.values())
        open_epochs = sum(run.config.epochs for run in self._left.values())
        self._bar.total, self._bar.n = self._epochs, self._epochs - open_epochs + sum(done.values())
        self._bar.set_description_str(f"{self.done}/{self._total} runs" + (f", left {left}" if left else "") + going)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
