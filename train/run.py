"""The loop of one run: epochs, evaluation, rows, checkpoints, resume, and what to do when numbers give out."""

import collections
import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Literal

import jax

from train.checkpointing import Checkpoints
from train.config import Config
from train.errors import RunFailed, UserError
from train.figures import draw_curves
from train.files import with_patience
from train.metrics import NORM_COLUMNS, MetricsFile, Row, TensorBoard, perplexity
from train.position import NonFiniteStep, Position, replay
from train.programs import Programs
from train.progress import Progress
from train.signals import StopRequest
from train.workdir import Workdir

# So many steps passed over within twice as many steps: the run is not going anywhere.
MAX_SKIPS = 10

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


class Run:
    """One run in its workdir, from wherever it stands to its end or a stop signal."""

    def __init__(
        self,
        config: Config,
        directory: Workdir,
        programs: Programs,
        checkpoints: Checkpoints,
        stop: StopRequest,
        *,
        quiet: bool,
    ):
        self._config, self._directory, self._programs = config, directory, programs
        self._checkpoints, self._stop, self._quiet = checkpoints, stop, quiet
        self._language_model = programs.dataset.task == "text"
        self._metrics_file = MetricsFile(directory.metrics, language_model=self._language_model)
        self._total = config.epochs * programs.steps_per_epoch
        self._skipped: list[int] = []

    def run(self) -> Outcome:
        """Trains until the last epoch or a stop signal."""
        programs, per_epoch = self._programs, self._programs.steps_per_epoch
        position = self._load_position()
        self._check_rows(position.step)
        self._directory.start([f"{d.platform}:{d.id} {d.device_kind}" for d in programs.parallel.devices])
        programs.compile(position.state, position.metrics)
        board = TensorBoard(self._directory.tensorboard, after_epoch=position.step // per_epoch)
        progress = Progress(
            total=self._total,
            done=position.step,
            steps_per_epoch=per_epoch,
            examples_per_step=self._config.batch_size * programs.samples_per_example,
            unit="tok" if self._language_model else "img",
            quiet=self._quiet,
        )
        try:
            while position.step < self._total and not self._stop:
                norms = {}
                try:
                    norms = self._train_epoch(position, progress)
                except NonFiniteStep as bad:
                    position = self._recover(bad.step)
                    progress.go_to(position.step)
                if position.step % per_epoch == 0:
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

    # Where the run stands

    def _load_position(self) -> Position:
        """The newest whole checkpoint, or the beginning."""
        programs = self._programs
        abstract = {"state": programs.abstract_state(), "metrics": programs.abstract_metrics()}
        restored = self._checkpoints.restore(abstract)
        if restored is None:
            return Position(programs.init(self._config.seed), programs.zero_metrics(), step=0)
        return Position(restored.tree["state"], restored.tree["metrics"], restored.step, restored.progress["seconds"])

    def _check_rows(self, step: int) -> None:
        """Drops rows that a kill left beyond the checkpoint; refuses a file that lacks some."""
        self._metrics_file.keep_until(step)
        found, wanted = len(self._metrics_file.rows), step // self._programs.steps_per_epoch
        if found != wanted:
            raise UserError(
                f"{self._directory.metrics} has {found} rows, but the checkpoint at step {step} comes after epoch "
                f"{wanted}; bring the file back, or choose another workdir"
            )

    def _save(self, position: Position, *, score: float | None = None) -> None:
        tree = {"state": position.state, "metrics": position.metrics}
        self._checkpoints.save(position.step, tree, {"seconds": position.seconds, "score": score})

    def _write_patiently(self, action: Callable[[], None], what: str) -> None:
        with_patience(action, seconds=self._config.disk_wait, what=what)

    # Training

    def _train_epoch(self, position: Position, progress: Progress) -> dict[str, float]:
        """Steps to the end of the epoch, or to the first step after a stop signal.

        Returns:
          The norms of the epoch's last step; empty where it was not reached.

        Raises:
          NonFiniteStep: a loss, or the parameters at the end, are not finite.
        """
        programs = self._programs
        order = programs.order(position.state)
        in_flight: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
        began = time.monotonic()

        def wait_for_oldest() -> dict[str, jax.Array]:
            step, report = in_flight.popleft()
            if not math.isfinite(float(report["loss"])):
                raise NonFiniteStep(step)
            return report

        for _ in range(position.step % programs.steps_per_epoch, programs.steps_per_epoch):
            in_flight.append((position.step + 1, position.advance(programs, order)))
            # The next step is dispatched before this one is done, and no further ahead.
            if len(in_flight) >= programs.parallel.max_in_flight:
                wait_for_oldest()
            progress.step()
            if self._stop:
                break
        report = {}
        while in_flight:
            report = wait_for_oldest()
        jax.block_until_ready(position.metrics)
        position.seconds += time.monotonic() - began
        if position.step % programs.steps_per_epoch:
            return {}
        norms = {name: float(report[name]) for name in NORM_COLUMNS if name in report}
        if not all(map(math.isfinite, norms.values())):
            raise NonFiniteStep(position.step)
        return norms

    def _recover(self, step: int) -> Position:
        """Obeys `on_nonfinite` after step `step` reported a loss that is not finite.

        The steps since the newest checkpoint are repeated one by one, which is exact, to find the last state all of
        whose numbers are finite: a gradient that overflows shows in the loss one step late.
        """
        self._checkpoints.wait()
        position, bad = replay(self._programs, self._load_position(), step)
        epoch = (bad - 1) // self._programs.steps_per_epoch + 1
        what = f"step {bad} (epoch {epoch}) left a loss or a parameter that is not finite"
        if (
            self._config.on_nonfinite == "stop"
            or len([s for s in self._skipped if s > bad - 2 * MAX_SKIPS]) >= MAX_SKIPS
        ):
            self._save(position)
            self._checkpoints.wait()
            norms = self._programs.state_norms(position.state)
            said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in norms.items())
            raise RunFailed(
                f"{what}; the state before it is saved as checkpoint {position.step} ({said}); config in "
                f"{self._directory.config}: lower config.optimizer.learning_rate (now "
                f"{self._programs.learning_rate(bad - 1):.3g}), or start anew with --config.on_nonfinite=skip"
            )
        if self._config.on_nonfinite == "restore":
            older = self._load_position()
            # Weights and optimizer of the checkpoint; the data goes on behind the batch that failed.
            position.state = dataclasses.replace(older.state, step=position.state.step)
            what += f"; went back to the weights of step {older.step}"
        position.skip_step()
        self._skipped.append(bad)
        log.warning("%s; its batch is passed over", what)
        return position

    def _finish_epoch(self, position: Position, norms: dict[str, float]) -> Row:
        """Evaluates, writes the row, and saves where it is time to."""
        began = time.monotonic()
        programs = self._programs
        epoch = position.step // programs.steps_per_epoch
        loss, accuracy = position.metrics.means()
        row: Row = {
            "epoch": epoch,
            "step": position.step,
            "learning_rate": programs.learning_rate(position.step - 1),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "examples_per_second": position.metrics.samples() / position.seconds,
            "slow_test_loss": None,
            "slow_test_accuracy": None,
            **norms,
        }
        means = programs.evaluate(position.state).means()
        row["test_loss"], row["test_accuracy"] = means
        if programs.has_slow_weights:
            if not programs.slow_scores_are_live_ones(position.state):
                means = programs.evaluate(position.state, slow=True).means()
            row["slow_test_loss"], row["slow_test_accuracy"] = means
        if self._language_model:
            for prefix in ("train", "test", "slow_test"):
                value = row[f"{prefix}_loss"]
                row[f"{prefix}_perplexity"] = None if value is None else perplexity(value)
        row["seconds"] = position.seconds + time.monotonic() - began
        # The row first: a checkpoint on the disk then has all its rows, and rows beyond it are dropped at a resume.
        self._write_patiently(lambda: self._metrics_file.append(row), str(self._directory.metrics))
        position.metrics, position.seconds = programs.zero_metrics(), 0.0
        if epoch % self._config.checkpoint_every == 0 or position.step == self._total:
            score = row["slow_test_accuracy"] if programs.has_slow_weights else row["test_accuracy"]
            self._save(position, score=score)
        self._directory.record("running", epoch=epoch, step=position.step, skipped_steps=self._skipped)
        return row

    def _end(self, position: Position, progress: Progress) -> Outcome:
        finished = position.step == self._total
        if not finished:
            self._save(position)
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
