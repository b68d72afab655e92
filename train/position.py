"""Where a run stands, one step further, and the way back to the last finite state."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from train.programs import Programs
from train.steps import Metrics, TrainState


class NonFiniteStep(Exception):
    """A step reported numbers that are not finite.

    Attributes:
      step: its number, from 1.
    """

    def __init__(self, step: int):
        super().__init__(f"step {step}")
        self.step = step


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

    def advance(self, programs: Programs, order: jax.Array) -> dict[str, jax.Array]:
        """Takes one step; returns its report, which need not be there yet."""
        last = (self.step + 1) % programs.steps_per_epoch == 0
        self.state, self.metrics, report = programs.train(self.state, self.metrics, order, last=last)
        self.step += 1
        return report

    def skip_step(self) -> None:
        """Passes over the next batch: neither parameters nor metrics see it."""
        self.state = dataclasses.replace(self.state, step=self.state.step + 1)
        self.step += 1


def replay(programs: Programs, start: Position, until: int) -> tuple[Position, int]:
    """Repeats the steps from `start` to step `until`, looking at every number after each.

    Returns:
      The position before the first step that left something that is not finite, and that step's number; the position
      before step `until`, where none did.
    """
    position, order = start, programs.order(start.state)
    while True:
        if position.step % programs.steps_per_epoch == 0:
            order = programs.order(position.state)
            position.metrics, position.seconds = programs.zero_metrics(), 0.0
        # The step donates its arguments.
        before = dataclasses.replace(position, **jax.tree.map(jnp.copy, _arrays(position)))
        loss = float(position.advance(programs, order)["loss"])
        if position.step == until or not (math.isfinite(loss) and programs.all_finite(position.state)):
            return before, position.step


def _arrays(position: Position) -> dict[str, TrainState | Metrics]:
    return {"state": position.state, "metrics": position.metrics}
