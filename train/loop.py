"""A run from its config to its files: epochs, evaluation, checkpoints, resume. No maths here."""

import collections
import dataclasses
import math
import time
from pathlib import Path
from typing import Any, Literal

import jax

from train import data
from train.checkpointing import Checkpoints
from train.config import Config, ModelConfig, validate
from train.errors import UserError
from train.figures import draw_curves
from train.metrics import MetricsFile, Row, TensorBoard, perplexity
from train.models import MODELS, create_model
from train.optimizers import make_optimizer, make_schedule
from train.parallel import Parallel, local_devices
from train.programs import Programs
from train.progress import Progress
from train.signals import StopRequest
from train.steps import Metrics, TrainState
from train.workdir import Workdir, open_workdir


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      status: "finished", or "stopped" by a signal (run the same command again).
      rows: of metrics.csv.
    """

    status: Literal["finished", "stopped"]
    rows: list[Row]


@dataclasses.dataclass
class Position:
    """Where a run stands: what a checkpoint holds.

    Attributes:
      state: of the training.
      metrics: sums of the epoch so far.
      step: updates so far; the host's copy of `state.step`.
      seconds: spent in the epoch so far.
    """

    state: TrainState
    metrics: Metrics
    step: int
    seconds: float = 0.0


def model_options(config: ModelConfig) -> dict[str, Any]:
    """The settings of a model that this one has a use for."""
    known = MODELS[config.name].options if config.name in MODELS else ()
    return {name: value for name, value in dataclasses.asdict(config).items() if name in known}


def build_programs(config: Config) -> Programs:
    """Data, model and optimizer of a config, on their devices.

    Raises:
      UserError: a name is unknown, the data is missing, or the batch does not fit.
    """
    dataset = data.load(
        config.dataset,
        data_dir=config.data_dir,
        train_examples=config.train_examples,
        test_examples=config.test_examples,
        batch_size=config.batch_size,
        test_batch_size=config.test_batch_size,
        sequence_length=config.sequence_length,
        skip_corrupt=config.skip_corrupt,
    )
    parallel = Parallel.of(local_devices(config.devices), config.parallel)
    model = create_model(
        config.model.name, num_classes=dataset.num_classes, axis_name=parallel.axis_name, **model_options(config.model)
    )
    steps_per_epoch = -(-len(dataset.train.inputs) // config.batch_size)
    schedule = make_schedule(config.optimizer, steps_per_epoch=steps_per_epoch, epochs=config.epochs)
    return Programs(
        model,
        make_optimizer(config.optimizer, schedule),
        dataset,
        parallel,
        schedule=schedule,
        batch_size=config.batch_size,
        test_batch_size=config.test_batch_size or config.batch_size,
        lookahead=config.optimizer.lookahead,
        label_smoothing=config.label_smoothing,
    )


def train(config: Config, workdir: Path, *, stop: StopRequest | None = None, quiet: bool = False) -> Outcome:
    """Trains a config in a workdir; continues the run that the workdir holds, and leaves a finished one alone.

    Args:
      config: the run.
      workdir: its directory, made where missing.
      stop: a request that is already listening; by default signals are listened to here.
      quiet: say nothing of single epochs or of the end: a study reports its runs itself.

    Returns:
      How it ended, and the rows of metrics.csv.

    Raises:
      UserError: what the user gave is wrong; nothing is overwritten.
    """
    validate(config)
    if stop is None:
        with StopRequest() as listening:
            return train(config, workdir, stop=listening, quiet=quiet)
    with open_workdir(workdir, config) as directory:
        if directory.finished():
            return Outcome("finished", MetricsFile(directory.metrics, language_model=False).rows)
        programs = build_programs(config)
        checkpoints = Checkpoints(directory.checkpoints)
        try:
            return Run(config, directory, programs, checkpoints, stop, quiet=quiet).run()
        finally:
            checkpoints.close()


class Run:
    """The loop of one run over its epochs."""

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
        self._quiet = quiet
        self._config, self._directory, self._programs = config, directory, programs
        self._checkpoints, self._stop = checkpoints, stop
        self._language_model = programs.dataset.task == "text"
        self._metrics_file = MetricsFile(directory.metrics, language_model=self._language_model)

    def run(self) -> Outcome:
        """Trains until the last epoch or a stop signal."""
        position = self._restore_or_init()
        programs, epochs = self._programs, self._config.epochs
        self._directory.start([f"{d.platform}:{d.id} {d.device_kind}" for d in programs.parallel.devices])
        programs.compile(position.state, position.metrics)
        done = position.step // programs.steps_per_epoch
        board = TensorBoard(self._directory.tensorboard, after_epoch=done)
        progress = Progress(
            total=epochs * programs.steps_per_epoch,
            done=position.step,
            steps_per_epoch=programs.steps_per_epoch,
            examples_per_step=self._config.batch_size * programs.samples_per_example,
            unit="tok" if self._language_model else "img",
            quiet=self._quiet,
        )
        try:
            while position.step < epochs * programs.steps_per_epoch:
                self._train_epoch(position, progress)
                if position.step % programs.steps_per_epoch:
                    break  # stopped inside the epoch
                row = self._finish_epoch(position)
                board.append(row)
                progress.epoch(row)
                if self._stop:
                    break
            finished = position.step == epochs * programs.steps_per_epoch
            return self._end(position, progress, finished=finished)
        except BaseException as error:
            self._directory.record("failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        finally:
            progress.close()
            board.close()

    def _restore_or_init(self) -> Position:
        programs = self._programs
        abstract = {"state": programs.abstract_state(), "metrics": programs.abstract_metrics()}
        restored = self._checkpoints.restore(abstract)
        if restored is None:
            self._metrics_file.keep_until(0)
            return Position(programs.init(self._config.seed), programs.zero_metrics(), step=0)
        self._metrics_file.keep_until(restored.step)
        if len(self._metrics_file.rows) != restored.step // programs.steps_per_epoch:
            raise UserError(
                f"{self._directory.metrics} has {len(self._metrics_file.rows)} rows, the checkpoint at step "
                f"{restored.step} wants {restored.step // programs.steps_per_epoch}; bring the file back, or start anew"
            )
        return Position(restored.tree["state"], restored.tree["metrics"], restored.step, restored.progress["seconds"])

    def _train_epoch(self, position: Position, progress: Progress) -> None:
        """Steps to the end of the epoch, or to the first step after a stop signal."""
        programs = self._programs
        order = programs.order(position.state)
        in_flight: collections.deque[dict[str, jax.Array]] = collections.deque()
        began = time.monotonic()
        for step_of_epoch in range(position.step % programs.steps_per_epoch, programs.steps_per_epoch):
            last = step_of_epoch == programs.steps_per_epoch - 1
            position.state, position.metrics, report = programs.train(position.state, position.metrics, order, last=last)
            position.step += 1
            # The next step is dispatched before this one is done, and no further ahead.
            in_flight.append(report)
            if len(in_flight) >= programs.parallel.max_in_flight:
                in_flight.popleft()["loss"].block_until_ready()
            progress.step()
            if self._stop:
                break
        jax.block_until_ready(position.metrics)
        position.seconds += time.monotonic() - began

    def _finish_epoch(self, position: Position) -> Row:
        """Evaluates, writes the row, and saves where it is time to."""
        began = time.monotonic()
        programs = self._programs
        epoch = position.step // programs.steps_per_epoch
        loss, accuracy = position.metrics.means()
        if not math.isfinite(loss):
            raise UserError(
                f"the training loss of epoch {epoch} is {loss}; the last finite state is in "
                f"{self._directory.checkpoints}: lower config.optimizer.learning_rate"
            )
        row: Row = {
            "epoch": epoch,
            "step": position.step,
            "learning_rate": programs.learning_rate(position.step - 1),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "examples_per_second": position.metrics.samples() / position.seconds,
        }
        for prefix, slow in (("test", False), ("slow_test", True)):
            if slow and not programs.has_slow_weights:
                row |= {"slow_test_loss": None, "slow_test_accuracy": None}
                continue
            row[f"{prefix}_loss"], row[f"{prefix}_accuracy"] = programs.evaluate(position.state, slow=slow).means()
        if self._language_model:
            for prefix in ("train", "test", "slow_test"):
                value = row[f"{prefix}_loss"]
                row[f"{prefix}_perplexity"] = None if value is None else perplexity(value)
        row["seconds"] = position.seconds + time.monotonic() - began
        # The row first: a checkpoint on the disk then has all its rows, and rows beyond it are dropped at a resume.
        self._metrics_file.append(row)
        position.metrics, position.seconds = programs.zero_metrics(), 0.0
        if epoch % self._config.checkpoint_every == 0 or epoch == self._config.epochs:
            score = row["slow_test_accuracy"] if programs.has_slow_weights else row["test_accuracy"]
            self._save(position, score=score)
        self._directory.record("running", epoch=epoch, step=position.step)
        return row

    def _save(self, position: Position, *, score: float | None = None) -> None:
        tree = {"state": position.state, "metrics": position.metrics}
        self._checkpoints.save(position.step, tree, {"seconds": position.seconds, "score": score})

    def _end(self, position: Position, progress: Progress, *, finished: bool) -> Outcome:
        if not finished:
            self._save(position)
        self._checkpoints.wait()
        rows = self._metrics_file.rows
        if rows:
            draw_curves(rows, self._directory.path.name, self._directory.curves)
        if finished:
            self._directory.record("finished", epoch=self._config.epochs, step=position.step)
            if not self._quiet:
                progress.say(f"finished; metrics, curves and checkpoints are in {self._directory.path}")
            return Outcome("finished", rows)
        name = self._stop.signal.name if self._stop.signal else "a signal"
        self._directory.record("stopped", step=position.step, signal=name)
        progress.say(f"stopped by {name} after step {position.step}, saved; run the same command again to continue")
        return Outcome("stopped", rows)
