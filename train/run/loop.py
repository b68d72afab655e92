"""The loop of one run: epochs, evaluation, rows, checkpoints and resume."""

import contextlib
import dataclasses
import io
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from train.config import Config
from train.experiment import make_experiment
from train.hosts import agreement
from train.interface.output import Extras
from train.interface.signals import StopRequest
from train.run.checkpointing import Checkpoints, closing
from train.run.figures import draw_curves
from train.run.progress import Progress
from train.run.records import NORM_COLUMNS, MetricsFile, Row, columns_of, validation_score
from train.run.recovery import NonFiniteStep, Position, Recovery, check_rows
from train.run.scores import epoch_row, scores, timed
from train.run.tensorboard import TensorBoard
from train.run.trainer import Trainer, check_processes
from train.run.workdir import Workdir, ending_recorded, open_workdir
from train.step.compiling import Interrupted
from train.step.dispatch import lagging


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
      quiet: print nothing about epochs or a finished run, since a study reports its runs itself; only that it stopped.

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
            return Outcome("finished", MetricsFile(directory.metrics).rows)
        with ending_recorded(directory):
            trainer = Trainer(make_experiment(config, convolutions=directory.convolutions))
            return Run(config, directory, trainer, asked, quiet=quiet).run()


class Run:
    """One run in its workdir, from wherever it stands to its end or a stop signal.

    Attributes:
      trainer: what it executes.
      position: where it stands, from `take_up` on.
      progress: what a person sees of it, within `opened`.
    """

    position: Position
    progress: Progress

    def __init__(self, config: Config, directory: Workdir, trainer: Trainer, stop: StopRequest, *, quiet: bool):
        check_processes(config, trainer)
        directory.check_data(trainer.source, trainer.digest, trainer.convolutions)
        self._config, self._directory = config, directory
        self.trainer, self._recipe = trainer, trainer.recipe
        self._stop, self._quiet = agreement.agreed(stop), quiet
        self._language_model = self._recipe.task == "text"
        columns = columns_of(
            language_model=self._language_model,
            ema=bool(self._recipe.ema_decay),
            validation=self._recipe.validation_data is not None,
        )
        self._metrics_file = MetricsFile(directory.metrics, columns)
        self._checkpoints = Checkpoints(
            directory.checkpoints,
            run=directory.run_id,
            continued=directory.continued_runs,
            disk_wait=directory.disk_wait,
        )
        self._recovery = Recovery(config, trainer, self._checkpoints, str(directory.config))
        self._extras = Extras()
        self._saved: Position | None = None

    def run(self) -> Outcome:
        """Trains until the last epoch or a stop signal."""
        with contextlib.ExitStack() as held:
            # Processes that train a run together stop together, at a step.
            alone = agreement.count() == 1
            try:
                with self.trainer.interrupted_by(self._stop) if alone else contextlib.nullcontext():
                    self.trainer.compile_ahead(fresh=not self._checkpoints.steps())
                    held.enter_context(self.opened())
                    if not self._quiet:
                        self.progress.say("compiling ...")
                    self.take_up()
                    self.trainer.compile()
            except Interrupted:
                return self._stopped("while compiling")  # no step was made since the last save
            agreement.barrier("compiled")  # collectives wait for each other half a minute at most
            while self.goes_on and not self._stop:
                self.advance()
            return self.end()

    @property
    def goes_on(self) -> bool:
        """Whether steps are left."""
        return self.position.step < self._recipe.total_steps

    @property
    def steps_into_epoch(self) -> int:
        """Steps that the epoch has behind it."""
        return self.position.step % self._recipe.steps_per_epoch

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Reads the newest checkpoint, and records that the run goes on; what it has open is closed after the block."""
        with closing(self._checkpoints):
            self._saved = self._recovery.saved()
            step = self._saved.step if self._saved else 0
            check_rows(self._directory, self._metrics_file, self._checkpoints, step, self._recipe.steps_per_epoch)
            devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in self.trainer.parallel.devices]
            self._directory.start(devices, self.trainer.dataset_facts)
            # Not before a whole checkpoint is known: what a kill left may be the only one.
            self._checkpoints.remove_leftovers()
            with self._shown(step):
                yield

    def take_up(self) -> None:
        """Takes the run up where its newest checkpoint is, or begins it."""
        self.position = self._saved or self._recovery.beginning()
        self._saved = None

    @contextlib.contextmanager
    def _shown(self, step: int) -> Iterator[None]:
        recipe, writes = self._recipe, self._directory.writes
        self._board = TensorBoard(self._directory.tensorboard, after_epoch=step // recipe.steps_per_epoch)
        self.progress = Progress(
            total=recipe.total_steps,
            done=step,
            steps_per_epoch=recipe.steps_per_epoch,
            examples_per_step=recipe.batch_size * recipe.samples_per_example,
            unit="tok" if self._language_model else "img",
            quiet=self._quiet or not writes,
            stream=None if writes else io.StringIO(),
            extras=self._extras,
        )
        if step and not self._quiet:
            epoch = step / recipe.steps_per_epoch
            self.progress.say(f"resumed from step {step:,} (epoch {epoch:.4g} of {self._config.epochs})")
        try:
            yield
        finally:
            self.progress.close()
            with self._extras.best_effort("tensorboard/"):
                self._board.close()

    def advance(self) -> None:
        """Trains to the end of the epoch, and finishes it; a stop signal ends it early."""
        norms = {}
        try:
            norms = self._train_epoch()
        except NonFiniteStep as bad:
            self.go_back(bad.step)
        if self.steps_into_epoch == 0:
            self.finish_epoch(norms, *timed(lambda: scores(self.trainer, self.position.state)))

    def go_back(self, step: int) -> None:
        """Continues from where `config.on_nonfinite` says, after step `step` gave numbers that are not finite."""
        self.position = self._recovery.after(step, self.position.skipped)
        if self._directory.writes:  # rows of epochs that end later will be written again
            self._directory.patiently(
                lambda: self._metrics_file.keep_until(self.position.step), self._directory.metrics
            )
        self._board.go_back(self.position.step // self._recipe.steps_per_epoch)
        self.progress.go_to(self.position.step)

    def _train_epoch(self) -> dict[str, float]:
        """Steps to the end of the epoch, or to the end of the call in which a stop signal arrives.

        Returns:
          The norms of the epoch's last step; empty if it was not reached.

        Raises:
          NonFiniteStep: a loss, or the parameters at the end, are not finite.
        """
        trainer, per_epoch, position = self.trainer, self._recipe.steps_per_epoch, self.position
        order = trainer.order(position.state)
        scalars, began = {}, time.monotonic()
        for first, scalars in lagging(self._dispatched(order), trainer.parallel.max_in_flight):
            finite = np.isfinite(np.atleast_1d(scalars["loss"]))
            if not finite.all():
                raise NonFiniteStep(first + int(finite.argmin()))
        jax.block_until_ready(position.metrics)
        position.seconds += time.monotonic() - began
        if position.step % per_epoch:
            return {}
        norms = {name: float(scalars[name]) for name in NORM_COLUMNS if name in scalars}
        if not all(map(math.isfinite, norms.values())):
            raise NonFiniteStep(position.step)
        return norms

    def _dispatched(self, order: jax.Array) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        """The first step of each call to the end of the epoch, or to a stop signal, and the call's scalars."""
        position, per_epoch = self.position, self._recipe.steps_per_epoch
        end = (position.step // per_epoch + 1) * per_epoch
        while position.step < end:
            before = position.step
            yield before + 1, position.advance(self.trainer, order)
            self.progress.step(position.step - before)
            self._stop.poll()
            if self._stop:
                return

    def finish_epoch(self, norms: dict[str, float], scored: Row, seconds: float) -> None:
        """Writes the row, and saves a checkpoint if one is due.

        Args:
          norms: of the epoch's last step; empty if they are not known.
          scored: what the evaluation gave.
          seconds: how long the evaluation took.
        """
        recipe, position = self._recipe, self.position
        row = epoch_row(recipe, position, norms, scored, seconds)
        epoch = row["epoch"]
        # The row first: a checkpoint on the disk then has all its rows, and rows beyond it are dropped at a resume.
        if self._directory.writes:
            self._directory.patiently(lambda: self._metrics_file.append(row), self._directory.metrics)
        position.metrics, position.seconds = self.trainer.zero_metrics(), 0.0
        if epoch % self._config.checkpoint_every == 0 or position.step == recipe.total_steps:
            position.save(self._checkpoints, score=validation_score(row))
        facts = {"skipped_steps": position.skipped, "checkpoint": self._checkpoints.newest}
        with self._extras.best_effort("run.json"):
            self._directory.record("running", epoch=epoch, step=position.step, **facts)
        with self._extras.best_effort("tensorboard/"):
            if self._directory.writes:
                self._board.append(row)
        self.progress.epoch(row)

    def end(self) -> Outcome:
        """Saves what a stop leaves, and records how the run ended."""
        position, progress, finished = self.position, self.progress, not self.goes_on
        if not finished:
            position.save(self._checkpoints)
        self._checkpoints.wait()
        rows = self._metrics_file.rows
        if rows and self._directory.writes:
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
        return self._stopped(f"after step {position.step}, saved", **facts)

    def _stopped(self, when: str, **facts: Any) -> Outcome:
        """Records a stop, and says how to go on."""
        signal = self._stop.signal
        self._directory.record("stopped", patient=True, **facts, signal=signal.name if signal else "none")
        how = f"stopped by {signal.name}" if signal else "stopped"
        self.progress.say(f"{how} {when}; run the same command again to continue")
        return Outcome("stopped", self._metrics_file.rows)
