"""The loop of one run: epochs, evaluation, rows, checkpoints and resume."""

import collections
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from train.config import Config
from train.errors import RunFailed, UserError
from train.files import with_patience
from train.interface.output import Extras
from train.run.checkpointing import Checkpoints
from train.run.figures import draw_curves
from train.run.progress import Progress
from train.run.records import NORM_COLUMNS, MetricsFile, Row, perplexity
from train.run.recovery import NonFiniteStep, Position, Recovery
from train.run.signals import StopRequest
from train.run.tensorboard import TensorBoard
from train.run.trainer import Trainer, make_trainer
from train.run.workdir import Workdir, not_started, open_workdir

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      status: "finished", or "stopped" by a signal (run the same command again).
      rows: of metrics.csv.
    """

    status: Literal["finished", "stopped"]
    rows: list[Row]


def train(config: Config, workdir: Path | str, *, stop: StopRequest | None = None, quiet: bool = False) -> Outcome:
    """Trains a config in a workdir; continues the run that is in the workdir, and leaves a finished one alone.

    Args:
      config: the run.
      workdir: its directory, made if missing; `~` is expanded.
      stop: how to ask the run to save and end: `stop.ask()`, from any thread. By default, signals ask (in the main
        thread; Python gives no other thread any).
      quiet: print nothing about epochs or the end: a study reports its runs itself.

    Returns:
      How it ended, and the rows of metrics.csv.

    Raises:
      UserError: what the user gave is wrong; nothing is overwritten.
      RunFailed: a loss is not finite, the disk is full, or the run broke off before its first epoch was done; the
        last good checkpoint is intact.
    """
    listening = StopRequest() if stop is None else contextlib.nullcontext(stop)
    with listening as asked, open_workdir(workdir, config) as directory:
        if directory.finished():
            if not quiet:
                with Extras().best_effort("standard output"):
                    print(f"{directory.path} is finished; choose another workdir to train again")
            return Outcome("finished", MetricsFile(directory.metrics, language_model=False).rows)
        with _ending_recorded(directory):
            return Run(config, directory, make_trainer(config), asked, quiet=quiet).run()


@contextlib.contextmanager
def _ending_recorded(directory: Workdir) -> Iterator[None]:
    """Writes an error that ends the run to run.json; one before the first epoch is done becomes a `RunFailed`."""
    try:
        yield
    except UserError as error:
        if directory.started:
            directory.fail(error)
        raise
    except Exception as error:
        directory.fail(error)
        if isinstance(error, RunFailed) or directory.under_way:
            raise
        raise not_started(error, directory) from error
    except BaseException as error:
        directory.fail(error)
        raise


class Run:
    """One run in its workdir, from wherever it stands to its end or a stop signal."""

    def __init__(self, config: Config, directory: Workdir, trainer: Trainer, stop: StopRequest, *, quiet: bool):
        directory.check_data(trainer.source, trainer.digest)
        self._config, self._directory = config, directory
        self._trainer, self._recipe = trainer, trainer.recipe
        self._stop, self._quiet = stop, quiet
        self._language_model = self._recipe.task == "text"
        self._metrics_file = MetricsFile(directory.metrics, language_model=self._language_model)
        self._checkpoints = Checkpoints(directory.checkpoints, run=directory.run_id, disk_wait=directory.disk_wait)
        self._recovery = Recovery(config, trainer, self._checkpoints, str(directory.config))
        self._extras = Extras()

    def run(self) -> Outcome:
        """Trains until the last epoch or a stop signal; closes the checkpoints."""
        try:
            outcome = self._train()
        except BaseException:
            with Extras().best_effort("the checkpoint in the making"):  # must not hide what ended the run
                self._checkpoints.close()
            raise
        self._checkpoints.close()
        return outcome

    def _train(self) -> Outcome:
        trainer, recipe = self._trainer, self._recipe
        position = self._recovery.newest()
        self._check_rows(position.step)
        self._directory.start([f"{d.platform}:{d.id} {d.device_kind}" for d in trainer.parallel.devices])
        trainer.compile()
        board = TensorBoard(self._directory.tensorboard, after_epoch=position.step // recipe.steps_per_epoch)
        progress = Progress(
            total=recipe.total_steps,
            done=position.step,
            steps_per_epoch=recipe.steps_per_epoch,
            examples_per_step=recipe.batch_size * recipe.samples_per_example,
            unit="tok" if self._language_model else "img",
            quiet=self._quiet,
            extras=self._extras,
        )
        if position.step and not self._quiet:
            epoch = position.step / recipe.steps_per_epoch
            progress.say(f"resumed from step {position.step:,} (epoch {epoch:.4g} of {self._config.epochs})")
        try:
            while position.step < recipe.total_steps and not self._stop:
                norms = {}
                try:
                    norms = self._train_epoch(position, progress)
                except NonFiniteStep as bad:
                    position = self._recovery.after(bad.step)
                    progress.go_to(position.step)
                if position.step % recipe.steps_per_epoch == 0:
                    row = self._finish_epoch(position, norms)
                    with self._extras.best_effort("tensorboard/"):
                        board.append(row)
                    progress.epoch(row)
            return self._end(position, progress)
        finally:
            progress.close()
            with self._extras.best_effort("tensorboard/"):
                board.close()

    def _check_rows(self, step: int) -> None:
        """Drops rows that a kill left beyond the checkpoint; refuses a file, or checkpoints, of which some are gone."""
        metrics, checkpoints, rows = self._metrics_file, self._directory.checkpoints, len(self._metrics_file.rows)
        saved = self._directory.last_saved
        if rows and self._checkpoints.newest is None and (saved is not None or not checkpoints.exists()):
            raise UserError(
                f"{self._directory.metrics} has {rows} rows, but the checkpoints in {checkpoints} are gone; bring them "
                f"back, or delete {self._directory.metrics} and {self._directory.run} to train again from the start"
            )
        if saved is not None and step < saved:
            log.warning("checkpoint %d is gone or damaged; the run goes on from step %d", saved, step)
        self._write_patiently(lambda: metrics.keep_until(step), str(self._directory.metrics))
        found, wanted = len(metrics.rows), step // self._recipe.steps_per_epoch
        if found != wanted:
            raise UserError(
                f"{self._directory.metrics} has {found} rows, but the checkpoint at step {step} comes after epoch "
                f"{wanted}; restore the file, or choose another workdir"
            )

    def _write_patiently(self, action: Callable[[], None], what: str) -> None:
        with_patience(action, seconds=self._directory.disk_wait, what=what)

    def _train_epoch(self, position: Position, progress: Progress) -> dict[str, float]:
        """Steps to the end of the epoch, or to the end of the call in which a stop signal arrives.

        Returns:
          The norms of the epoch's last step; empty if it was not reached.

        Raises:
          NonFiniteStep: a loss, or the parameters at the end, are not finite.
        """
        trainer, per_epoch = self._trainer, self._recipe.steps_per_epoch
        order = trainer.order(position.state)
        in_flight: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
        began = time.monotonic()

        def wait_for_oldest() -> dict[str, jax.Array]:
            first, scalars = in_flight.popleft()
            finite = np.isfinite(np.atleast_1d(scalars["loss"]))
            if not finite.all():
                raise NonFiniteStep(first + int(finite.argmin()))
            return scalars

        end = (position.step // per_epoch + 1) * per_epoch
        while position.step < end:
            before = position.step
            in_flight.append((before + 1, position.advance(trainer, order)))
            # The next call is dispatched before this one is done, and no further ahead.
            if len(in_flight) >= trainer.parallel.max_in_flight:
                wait_for_oldest()
            progress.step(position.step - before)
            if self._stop:
                break
        scalars = {}
        while in_flight:
            scalars = wait_for_oldest()
        jax.block_until_ready(position.metrics)
        position.seconds += time.monotonic() - began
        if position.step % per_epoch:
            return {}
        norms = {name: float(scalars[name]) for name in NORM_COLUMNS if name in scalars}
        if not all(map(math.isfinite, norms.values())):
            raise NonFiniteStep(position.step)
        return norms

    def _finish_epoch(self, position: Position, norms: dict[str, float]) -> Row:
        """Evaluates, writes the row, and saves a checkpoint if one is due."""
        began = time.monotonic()
        trainer, recipe = self._trainer, self._recipe
        epoch = position.step // recipe.steps_per_epoch
        loss, accuracy = position.metrics.means()
        row: Row = {
            "epoch": epoch,
            "step": position.step,
            "learning_rate": recipe.learning_rate(position.step - 1),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "examples_per_second": position.metrics.samples() / position.seconds,
            "slow_test_loss": None,
            "slow_test_accuracy": None,
            **norms,
        }
        means = trainer.evaluate(position.state).means()
        row["test_loss"], row["test_accuracy"] = means
        if recipe.lookahead:
            if not trainer.slow_scores_are_live_ones(position.state):
                means = trainer.evaluate(position.state, slow=True).means()
            row["slow_test_loss"], row["slow_test_accuracy"] = means
        if self._language_model:
            for prefix in ("train", "test", "slow_test"):
                value = row[f"{prefix}_loss"]
                row[f"{prefix}_perplexity"] = None if value is None else perplexity(value)
        row["seconds"] = position.seconds + time.monotonic() - began
        # The row first: a checkpoint on the disk then has all its rows, and rows beyond it are dropped at a resume.
        self._write_patiently(lambda: self._metrics_file.append(row), str(self._directory.metrics))
        position.metrics, position.seconds = trainer.zero_metrics(), 0.0
        if epoch % self._config.checkpoint_every == 0 or position.step == recipe.total_steps:
            score = row["slow_test_accuracy"] if recipe.lookahead else row["test_accuracy"]
            position.save(self._checkpoints, score=score)
        facts = {"skipped_steps": self._recovery.skipped, "checkpoint": self._checkpoints.newest}
        with self._extras.best_effort("run.json"):
            self._directory.record("running", epoch=epoch, step=position.step, **facts)
        return row

    def _end(self, position: Position, progress: Progress) -> Outcome:
        finished = position.step == self._recipe.total_steps
        if not finished:
            position.save(self._checkpoints)
        self._checkpoints.wait()
        rows = self._metrics_file.rows
        if rows:
            with self._extras.best_effort("curves.png"):
                draw_curves(rows, self._directory.path.name, self._directory.curves)
        missing = self._extras.missing
        facts = {"step": position.step, "checkpoint": self._checkpoints.newest, "missing": missing or None}
        if finished:
            self._directory.record("finished", patient=True, epoch=self._config.epochs, **facts)
            if not self._quiet:
                said = "".join(f"; {what} is missing ({why})" for what, why in missing.items())
                progress.say(f"finished; metrics, curves and checkpoints are in {self._directory.path}{said}")
            return Outcome("finished", rows)
        signal = self._stop.signal
        self._directory.record("stopped", patient=True, **facts, signal=signal.name if signal else "none")
        how = f"stopped by {signal.name}" if signal else "stopped"
        progress.say(f"{how} after step {position.step}, saved; run the same command again to continue")
        return Outcome("stopped", rows)
