"""Several states of one recipe trained by one program: `jax.vmap` over states, each a lane."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from train import averages
from train.run.records import Row
from train.run.scores import score_columns
from train.run.trainer import Trainer
from train.step import steps
from train.step.compiling import Program, named
from train.step.evaluation import evaluate
from train.step.metrics import Metrics
from train.step.recalibration import recalibrate
from train.step.steps import TrainState


def _stack(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _apart(tree: Any) -> list[Any]:
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf, lane=lane: leaf[lane], tree) for lane in range(count)]


class Lanes:
    """The programs of a `Trainer` for states that are stacked on a leading axis; data and recipe are shared.

    Args:
      trainer: of one state.
      count: lanes.

    Attributes:
      recipe: what its programs are functions of.
    """

    def __init__(self, trainer: Trainer, count: int):
        self._trainer, self.recipe, self._count = trainer, trainer.recipe, count

    def _call(self, name: str, function: Any, args: tuple[Any, ...], donate: tuple[int, ...] = ()) -> Any:
        program = Program((name, self._count), named(name, function), args, donate)
        return self._trainer.compiled(program)(*args)

    def stack(self, trees: Sequence[Any]) -> Any:
        """One tree of the lanes' trees, in buffers of its own."""
        name = f"stack_{type(trees[0]).__name__}"
        return self._call(name, _stack, tuple(trees))

    def apart(self, tree: Any) -> list[Any]:
        """The lanes' trees, in buffers of their own."""
        return self._call(f"apart_{type(tree).__name__}", _apart, (tree,))

    def order(self, states: TrainState) -> jax.Array:
        """The orders of the epochs that the states are in: int32 [lanes, examples]."""
        orders = jax.vmap(lambda key, step: steps.epoch_order(self.recipe, key, step))
        return self._call("epoch_orders", orders, (states.key, states.step))

    def train(
        self, states: TrainState, metrics: Metrics, orders: jax.Array, *, last: bool = False
    ) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
        """One step of every lane; scalars are [lanes]. `states` and `metrics` are donated."""

        def step(state, metrics, data, order):
            return steps.train_step(self.recipe, state, metrics, data, order, last=last)

        args = (states, metrics, self._trainer.train_data, orders)
        name = "train_last_steps" if last else "train_steps"
        return self._call(name, jax.vmap(step, in_axes=(0, 0, None, 0)), args, donate=(0, 1))

    def evaluate(
        self, states: TrainState, *, slow: bool = False, ema: bool = False, validation: bool = False
    ) -> list[tuple[float, float]]:
        """The lanes' mean losses and accuracies over a whole set; see `Trainer.evaluate`."""
        recipe, trainer = self.recipe, self._trainer
        params, batch_stats = self._weights(states, slow=slow, ema=ema), states.batch_stats
        if params is not states.params and recipe.recalibration_batches:
            again = jax.vmap(lambda *args: recalibrate(recipe, *args), in_axes=(0, 0, 0, 0, None))
            args = (params, batch_stats, states.key, states.step, trainer.train_data)
            batch_stats = self._call("recalibrate_lanes", again, args)
        of_set, data = trainer.evaluation(validation=validation)
        scored = jax.vmap(lambda *args: evaluate(of_set, *args), in_axes=(0, 0, None))
        name = "validate_lanes" if validation else "evaluate_lanes"
        sums = jax.device_get(self._call(name, scored, (params, batch_stats, data)))
        return [metrics.means() for metrics in _apart(sums)]

    def _weights(self, states: TrainState, *, slow: bool, ema: bool) -> Any:
        """See `Trainer.weights`."""

        def compute(name: str, function: Callable[..., Any], *args: Any) -> Any:
            return self._call(f"{name}_lanes", jax.vmap(function), args)

        decay = self.recipe.ema_decay if ema else 0.0
        return averages.evaluated_params(states.opt_state, states.params, slow=slow, ema_decay=decay, compute=compute)

    def scores(self, states: TrainState) -> list[Row]:
        """What `train.run.scores.scores` gives for each lane, a set and its weights in one program for all lanes."""
        known: dict[tuple[str, ...], list[tuple[float, float]]] = {}

        def of_lane(lane: int, **which: bool) -> tuple[float, float]:
            key = tuple(sorted(which))
            if key not in known:
                known[key] = self.evaluate(states, **which)
            return known[key][lane]

        same = self.recipe.lookahead and self.slow_scores_are_live_ones(states)
        return [score_columns(self.recipe, partial(of_lane, lane), same=same) for lane in range(self._count)]

    def slow_scores_are_live_ones(self, states: TrainState) -> bool:
        """Whether `evaluate` gives the same for both in every lane: right after a sync."""
        steps_since_sync = averages.without_ema(states.opt_state).steps_since_sync
        return not self.recipe.recalibration_batches and not jax.device_get(steps_since_sync).any()
