"""The loop of one run: epochs, evaluation, rows, checkpoints and resume."""

import collections
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax

from train.config import Config, validate
from train.errors import UserError
from train.experiment import load_dataset
from train.files import with_patience
from train.identity import run_id
from train.run.checkpointing import Checkpoints
from train.run.figures import draw_curves
from train.run.progress import Progress
from train.run.records import NORM_COLUMNS, MetricsFile, Row, TensorBoard, perplexity
from train.run.recovery import NonFiniteStep, Position, Recovery
from train.run.signals import StopRequest
from train.run.trainer import Trainer, make_trainer
from train.run.workdir import Workdir, open_workdir


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      status: "finished", or "stopped" by a signal (run the same command again).
      rows: of metrics.csv.
    """

    status: Literal["finished", "stopped"]
    rows: list[Row]


def train(config: Config, workdir: Path, *, stop: StopRequest | None = None, quiet: bool = False) -> Outcome:
    """Trains a config in a workdir; continues the run that is in the workdir, and leaves a finished one alone.

    Args:
      config: the run.
      workdir: its directory, made if missing.
      stop: a request that is already listening; by default signals are listened to here.
      quiet: print nothing about epochs or the end: a study reports its runs itself.

    Returns:
      How it ended, and the rows of metrics.csv.

    Raises:
      UserError: what the user gave is wrong; nothing is overwritten.
      RunFailed: a loss is not finite, or the disk is full; the last good checkpoint is intact.
    """
    validate(config)
    if stop is None:
        with StopRequest() as listening:
            return train(config, workdir, stop=listening, quiet=quiet)
    with open_workdir(workdir, config) as directory:
        if directory.finished():
            if not quiet:
                print(f"{workdir} is finished; choose another workdir to train again")
            return Outcome("finished", MetricsFile(directory.metrics, language_model=False).rows)
        dataset = load_dataset(config)
        directory.check_data(dataset)
        trainer = make_trainer(config, dataset)
        run = run_id(config, dataset.digest)
        checkpoints = Checkpoints(directory.checkpoints, run=run, disk_wait=config.disk_wait)
        try:
            return Run(config, directory, trainer, checkpoints, stop, quiet=quiet).run()
        finally:
            checkpoints.close()


class Run:
    """One run in its workdir, from wherever it stands to its end or a stop signal."""

    def __init__(
        self,
        config: Config,
        directory: Workdir,
        trainer: Trainer,
        checkpoints: Checkpoints,
        stop: StopRequest,
        *,
        quiet: bool,
    ):
        self._config, self._directory = config, directory
        self._trainer, self._recipe = trainer, trainer.recipe
        self._checkpoints, self._stop, self._quiet = checkpoints, stop, quiet
        self._language_model = self._recipe.task == "text"
        self._metrics_file = MetricsFile(directory.metrics, language_model=self._language_model)
        self._recovery = Recovery(config, trainer, checkpoints, str(directory.config))

    def run(self) -> Outcome:
        """Trains until the last epoch or a stop signal."""
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
        )
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
                    board.append(row)
                    progress.epoch(row)
            return self._end(position, progress)
        except BaseException as error:
            self._directory.record("failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        finally:
            progress.close()
            board.close()

    def _check_rows(self, step: int) -> None:
        """Drops rows that a kill left beyond the checkpoint; refuses a file that lacks some."""
        self._metrics_file.keep_until(step)
        found, wanted = len(self._metrics_file.rows), step // self._recipe.steps_per_epoch
        if found != wanted:
            raise UserError(
                f"{self._directory.metrics} has {found} rows, but the checkpoint at step {step} comes after epoch "
                f"{wanted}; restore the file, or choose another workdir"
            )

    def _write_patiently(self, action: Callable[[], None], what: str) -> None:
        with_patience(action, seconds=self._config.disk_wait, what=what)

    def _train_epoch(self, position: Position, progress: Progress) -> dict[str, float]:
        """Steps to the end of the epoch, or to the first step after a stop signal.

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
            step, scalars = in_flight.popleft()
            if not math.isfinite(float(scalars["loss"])):
                raise NonFiniteStep(step)
            return scalars

        for _ in range(position.step % per_epoch, per_epoch):
            in_flight.append((position.step + 1, position.advance(trainer, order)))
            # The next step is dispatched before this one is done, and no further ahead.
            if len(in_flight) >= trainer.parallel.max_in_flight:
                wait_for_oldest()
            progress.step()
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
        self._directory.record("running", epoch=epoch, step=position.step, skipped_steps=self._recovery.skipped)
        return row

    def _end(self, position: Position, progress: Progress) -> Outcome:
        finished = position.step == self._recipe.total_steps
        if not finished:
            position.save(self._checkpoints)
        self._checkpoints.wait()
        rows = self._metrics_file.rows
        if rows:
            curves, title = self._directory.curves, self._directory.path.name
            self._write_patiently(lambda: draw_curves(rows, title, curves), str(curves))
        if finished:
            self._directory.record("finished", epoch=self._config.epochs, step=position.step)
            if not self._quiet:
                progress.say(f"finished; metrics, curves and checkpoints are in {self._directory.path}")
            return Outcome("finished", rows)
        name = self._stop.signal.name if self._stop.signal else "a signal"
        self._directory.record("stopped", step=position.step, signal=name)
        progress.say(f"stopped by {name} after step {position.step}, saved; run the same command again to continue")
        return Outcome("stopped", rows)
