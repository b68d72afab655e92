"""Where a run stands: taken from a checkpoint, one step further, and back to the last finite state."""

import dataclasses
import logging
import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from train.config import Config
from train.errors import RunFailed, UserError
from train.hosts import agreement
from train.run.checkpointing import Checkpoints
from train.run.records import MetricsFile
from train.run.trainer import Trainer
from train.run.workdir import Workdir
from train.step import steps
from train.step.metrics import Metrics
from train.step.recipe import Recipe
from train.step.steps import TrainState

# If this many of the last twice as many steps were skipped, the run is not going anywhere.
MAX_SKIPS = 10

log = logging.getLogger(__name__)


class NonFiniteStep(Exception):
    """A step gave numbers that are not finite.

    Attributes:
      step: its number, from 1.
    """

    def __init__(self, step: int):
        super().__init__(f"step {step}")
        self.step = step


@dataclasses.dataclass
class Position:
    """Where a run stands: what a checkpoint stores.

    Attributes:
      state: of the training.
      metrics: sums of the epoch so far.
      step: batches so far; the host's copy of `state.step`.
      seconds: spent in the epoch so far.
      since_sync: updates since the last sync; None: ask the state.
      skipped: numbers of the steps whose batch was skipped, of the whole run.
    """

    state: TrainState
    metrics: Metrics
    step: int
    seconds: float = 0.0
    since_sync: int | None = None
    skipped: tuple[int, ...] = ()

    @classmethod
    def load(cls, trainer: Trainer, checkpoints: Checkpoints) -> "Position | None":
        """The newest whole checkpoint; None if there is none."""
        abstract = {"state": trainer.abstract_state(), "metrics": trainer.abstract_metrics()}
        parallel, recipe = trainer.parallel, trainer.recipe
        workers = recipe.share.devices if recipe.share.workers_axis else None

        def stored_form(progress):
            same = progress.get("workers") == workers
            state = abstract["state"] if same else parallel.placed(stored_state(recipe, progress))
            return parallel.loadable(abstract | {"state": state})

        restored = checkpoints.restore(stored_form)
        if agreement.from_first(step := restored.step if restored else 0) != step:
            raise UserError(
                f"process {agreement.index()} found checkpoint {step}, but process 0 found a different one; the "
                "workdir must be on a file system that all processes share"
            )
        if restored is None:
            return None
        tree, progress = restored.tree, restored.progress
        if (saved_by := progress.get("workers")) != workers:
            log.warning(
                "continuing with %d workers from the slow weights; the checkpoint was saved with %d",
                *(workers or 1, saved_by or 1),
            )
            tree["state"] = steps.for_workers(tree["state"], saved_by, workers)
            if workers is None:
                tree["state"] = parallel.put(tree["state"])
        tree = parallel.loaded(tree, abstract)
        skipped = tuple(progress.get("skipped") or ())
        return cls(tree["state"], tree["metrics"], restored.step, progress["seconds"], skipped=skipped)

    def save(self, checkpoints: Checkpoints, *, score: float | None = None) -> None:
        """Saves a checkpoint in the background; the one with the highest score is kept."""
        tree = agreement.whole({"state": self.state, "metrics": self.metrics})
        workers = self.state.step.shape[0] if self.state.step.ndim else None
        progress = {"seconds": self.seconds, "score": score, "workers": workers, "skipped": self.skipped}
        checkpoints.save(self.step, tree, progress)

    def advance(self, trainer: Trainer, order: jax.Array, *, one_update: bool = False) -> dict[str, jax.Array]:
        """Makes the next call of the device: one update, or as many as one call does.

        Args:
          trainer: the programs, and how updates are put into calls.
          order: of the epoch.
          one_update: makes a single one, however many the trainer would.

        Returns:
          The call's scalars, "loss" one for each update or a single one; they need not be there yet.
        """
        dispatch = dataclasses.replace(trainer.dispatch, steps=1) if one_update else trainer.dispatch
        steps_into_epoch = self.step % trainer.recipe.steps_per_epoch
        # At an epoch's start again: seeds that train together count by their states alone.
        if dispatch.sync_period and (self.since_sync is None or not steps_into_epoch):
            self.since_sync = trainer.steps_since_sync(self.state)
        call = dispatch.next_call(trainer.recipe.steps_per_epoch - steps_into_epoch, self.since_sync or 0)
        self.state, self.metrics, scalars = trainer.train(self.state, self.metrics, order, call)
        self.step += call.count
        if self.since_sync is not None:
            self.since_sync = (self.since_sync + call.count) % dispatch.sync_period
        return scalars

    def skip_step(self, weights: TrainState | None = None) -> None:
        """Passes over the next batch: neither parameters nor metrics see it.

        Args:
          weights: a state to go back to, except for its place in the data; None keeps the present one.
        """
        self.state = dataclasses.replace(weights or self.state, step=self.state.step + 1)
        self.step += 1
        if weights:
            self.since_sync = None

    def copied(self) -> "Position":
        """A copy in buffers of its own, since the step donates its arguments."""
        state, metrics = jax.tree.map(jnp.copy, (self.state, self.metrics))
        return dataclasses.replace(self, state=state, metrics=metrics)


def stored_state(recipe: Recipe, progress: Mapping[str, Any]) -> TrainState:
    """Shapes and dtypes of a state as a checkpoint with these plain values has it: of local steps, of all workers."""
    state, workers = steps.abstract_state(recipe), progress.get("workers")
    if workers is None:
        return state
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((workers, *x.shape), x.dtype), state)


def replay(
    trainer: Trainer, start: Position, until: int, skipped: Collection[int] = (), *, restore: bool = False
) -> tuple[Position, int]:
    """Repeats the steps from `start` to step `until`, looking at every number after each.

    Args:
      trainer: the programs.
      start: where to begin; its buffers are donated.
      until: number of the last step.
      skipped: steps whose batch was skipped, and is again.
      restore: whether a skip went back to the weights of `start`.

    Returns:
      The position before the first step that left a number that is not finite, and that step's number; the position
      before step `until` if none did. Arrays that are not finite at `start` do not count: an optimizer may hold an
      infinity from its beginning on, such as the best loss so far.
    """
    position, order = start, trainer.order(start.state)
    were_finite = trainer.finite_leaves(start.state)
    weights = start.copied().state if restore and skipped else None
    while True:
        if position.step % trainer.recipe.steps_per_epoch == 0:
            order = trainer.order(position.state)
            position.metrics, position.seconds = trainer.zero_metrics(), 0.0
        if position.step + 1 in skipped:
            position.skip_step(None if weights is None else jax.tree.map(jnp.copy, weights))
            continue
        before, began = position.copied(), time.monotonic()
        loss = float(position.advance(trainer, order, one_update=True)["loss"])
        position.seconds += time.monotonic() - began
        lost = were_finite & ~trainer.finite_leaves(position.state)
        if position.step == until or not math.isfinite(loss) or lost.any():
            return before, position.step


def check_rows(directory: Workdir, metrics: MetricsFile, checkpoints: Checkpoints, step: int, per_epoch: int) -> None:
    """Drops rows that a kill left beyond the checkpoint at `step`.

    Raises:
      UserError: rows, or checkpoints, are missing.
    """
    if not directory.writes:
        return
    saved = directory.last_saved
    if checkpoints.newest is None:
        check_not_lost(directory, len(metrics.rows))
    if saved is not None and step < saved:
        log.warning("checkpoint %d is gone or damaged; the run goes on from step %d", saved, step)
    directory.patiently(lambda: metrics.keep_until(step), directory.metrics)
    found, wanted = len(metrics.rows), step // per_epoch
    if found != wanted:
        raise UserError(
            f"{directory.metrics} has {found} rows, but the checkpoint at step {step} comes after epoch {wanted}; "
            "restore the file, or choose another workdir"
        )


def check_not_lost(directory: Workdir, rows: int) -> None:
    """Refuses a workdir that has lost its checkpoints.

    Raises:
      UserError: its rows were trained from checkpoints that are gone.
    """
    if rows and (directory.last_saved is not None or not directory.checkpoints.exists()):
        raise UserError(
            f"{directory.metrics} has {rows} rows, but the checkpoints in {directory.checkpoints} are gone; restore "
            f"them, or delete {directory.metrics} and {directory.run} to train again from the start"
        )


class Recovery:
    """Obeys `config.on_nonfinite`."""

    def __init__(self, config: Config, trainer: Trainer, checkpoints: Checkpoints, config_file: str):
        self._config, self._trainer, self._checkpoints = config, trainer, checkpoints
        self._config_file = config_file

    def saved(self) -> Position | None:
        """The newest whole checkpoint; None if there is none."""
        return Position.load(self._trainer, self._checkpoints)

    def beginning(self) -> Position:
        """The beginning of the run."""
        return Position(self._trainer.init(self._config.seed), self._trainer.zero_metrics(), step=0)

    def newest(self) -> Position:
        """The newest whole checkpoint, or the beginning of the run."""
        return self.saved() or self.beginning()

    def after(self, step: int, skipped: tuple[int, ...]) -> Position:
        """Where to continue after step `step` gave a loss that is not finite.

        The steps since the newest checkpoint are repeated one by one, which is exact, to find the last state all of
        whose numbers are finite: a gradient that overflows shows in the loss one step late.

        Args:
          step: its number.
          skipped: those whose batch was skipped so far.

        Raises:
          RunFailed: the run is to stop; the last finite state is saved.
        """
        self._checkpoints.wait()
        agreement.barrier("the newest checkpoint")
        restore = self._config.on_nonfinite == "restore"
        position, bad = replay(self._trainer, self.newest(), step, skipped, restore=restore)
        position.skipped = skipped
        epoch = (bad - 1) // self._trainer.recipe.steps_per_epoch + 1
        what = f"after step {bad} (epoch {epoch}) a loss or a parameter is NaN or infinite"
        lately = sum(other > bad - 2 * MAX_SKIPS for other in skipped)
        if self._config.on_nonfinite == "stop" or lately >= MAX_SKIPS:
            position.save(self._checkpoints)
            self._checkpoints.wait()
            agreement.barrier("the last checkpoint")
            norms = self._trainer.state_norms(position.state)
            said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in norms.items())
            raise RunFailed(
                f"{what}; the state before it is saved as checkpoint {position.step} ({said}); config in "
                f"{self._config_file}: lower config.optimizer.learning_rate (now "
                f"{self._trainer.recipe.learning_rate(bad - 1):.3g}), or start over with --config.on_nonfinite=skip"
            )
        older = self.newest() if restore else None
        if older is not None:
            what += f"; went back to the weights of step {older.step}"
        position.skip_step(older.state if older else None)
        position.skipped += (bad,)
        log.warning("%s; its batch is skipped", what)
        return position
