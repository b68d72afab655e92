"""What a person watching sees: a line an epoch; between them a bar on a terminal, a line now and then in a log.

Where nothing can be written (a closed or full standard error), nothing is seen, and the run goes on.
"""

import sys
import time
from typing import TextIO

from tqdm import tqdm

from train.interface.output import Extras
from train.run.records import Row

LOG_SECONDS = 30.0  # between two lines of a long epoch, where there is no terminal
LINES, BAR = "progress on the terminal", "the progress bar"


class Progress:
    """Progress of a run in steps.

    Args:
      total: steps of the whole run.
      done: steps that earlier starts made.
      steps_per_epoch: of every epoch.
      examples_per_step: samples of a full step, for the rate.
      unit: "img" or "tok".
      quiet: no line an epoch; the bar, or a line now and then, remains.
      stream: where to write, standard error by default; the bar shows only on a terminal.
      extras: where errors of writing end.
    """

    def __init__(
        self,
        total: int,
        done: int,
        steps_per_epoch: int,
        examples_per_step: int,
        unit: str,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        extras: Extras | None = None,
    ):
        self._quiet = quiet
        self._stream = stream or sys.stderr  # None where there was none when Python started
        self._extras = extras or Extras()
        self._epochs, self._steps_per_epoch, self._unit = total // steps_per_epoch, steps_per_epoch, unit
        self._step, self._done_at_start, self._total = done, done, total
        self._began = self._last_line = time.monotonic()
        self._examples_per_step = examples_per_step
        self._bar: tqdm | None = None
        terminal = False
        with self._extras.best_effort(LINES):
            terminal = self._stream is not None and self._stream.isatty()
        with self._extras.best_effort(BAR):
            if terminal:
                self._bar = tqdm(
                    total=total * examples_per_step,
                    initial=done * examples_per_step,
                    unit=unit,
                    unit_scale=True,
                    file=self._stream,
                    dynamic_ncols=True,
                    leave=False,
                )

    def step(self, count: int) -> None:
        """So many more steps are done."""
        self._step += count
        if self._bar is not None:
            self._advance_bar(count * self._examples_per_step)
        elif time.monotonic() - self._last_line >= LOG_SECONDS:
            epoch, step = divmod(self._step - 1, self._steps_per_epoch)
            rate = (self._step - self._done_at_start) * self._examples_per_step / (time.monotonic() - self._began)
            parts = [f"epoch {epoch + 1:>3}/{self._epochs}", f"step {step + 1}/{self._steps_per_epoch}"]
            self.say("  ".join([*parts, f"{rate:.0f} {self._unit}/s", f"left {self._time_left()}"]))

    def go_to(self, step: int) -> None:
        """The run continues from `step`, which may be behind."""
        self._advance_bar((step - self._step) * self._examples_per_step)
        self._step = step

    def _advance_bar(self, examples: int) -> None:
        if self._bar is not None:
            with self._extras.best_effort(BAR):
                self._bar.update(examples)

    def _time_left(self) -> str:
        spent = time.monotonic() - self._began
        steps = max(self._step - self._done_at_start, 1)
        return tqdm.format_interval(spent / steps * (self._total - self._step))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._last_line = time.monotonic()
        if self._stream is not None:
            with self._extras.best_effort(LINES):
                tqdm.write(text, file=self._stream)
                self._stream.flush()

    def epoch(self, row: Row) -> None:
        """The line of a finished epoch."""
        if self._quiet:
            return
        parts = [f"epoch {row['epoch']:>3}/{self._epochs}", f"lr {row['learning_rate']:.3g}"]
        text = "train_perplexity" in row
        name, form = ("perplexity", ".1f") if text else ("accuracy", ".2%")
        parts += [] if text else [f"loss {row['train_loss']:.4f}"]
        parts.append(f"{name} {row[f'train_{name}']:{form}}")
        for column in ("test", "slow_test", "ema_test", "validation"):
            if (value := row.get(f"{column}_{name}")) is not None:
                parts.append(f"{column.removesuffix('_test')} {value:{form}}")
        parts += [f"{row['examples_per_second']:.0f} {self._unit}/s", f"left {self._time_left()}"]
        self.say("  ".join(parts))

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            with self._extras.best_effort(BAR):
                self._bar.close()
