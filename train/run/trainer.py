"""A recipe's programs, compiled for the devices at hand, over data that is on them. Holds no maths and no state."""

import math
from typing import Any

import jax

import lookahead_jax as la
from train.config import Config
from train.data import Dataset
from train.experiment import load_dataset, make_recipe
from train.registry import OPTIMIZERS
from train.step import steps
from train.step.compiling import Compiler, Program, named
from train.step.dispatch import ONE_BY_ONE, Call, Dispatch, choose
from train.step.input_pipeline import to_host_arrays
from train.step.metrics import Metrics
from train.step.parallel import Parallel, local_devices
from train.step.recalibration import recalibrate
from train.step.recipe import Recipe
from train.step.runtime import release_freed_memory
from train.step.steps import TrainState


class Trainer:
    """What a run executes.

    Attributes:
      recipe: what its programs are functions of.
      source: of the data, in a line.
      digest: of the data.
      parallel: the devices.
      dispatch: how updates are put into calls of the devices.
      train_data: on the devices.
      test_data: on the devices.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, parallel: Parallel, dispatch: Dispatch = ONE_BY_ONE):
        self.recipe, self.parallel, self.dispatch = recipe, parallel, dispatch
        self.source, self.digest = dataset.source, dataset.digest
        self.train_data = parallel.put(to_host_arrays(dataset.train))
        self.test_data = parallel.put(to_host_arrays(dataset.test))
        self._compiler = Compiler(parallel.compile)

    @property
    def compilations(self) -> int:
        """Programs compiled so far; does not grow after the first epoch."""
        return self._compiler.compilations

    # The programs

    def _program(self, name: str, function: Any, args: tuple[Any, ...]) -> Program:
        return Program(name, named(name, function, self.recipe), args)

    def _order_program(self, state: TrainState) -> Program:
        return self._program("epoch_order", steps.epoch_order, (state.key, state.step))

    def train_program(self, state: TrainState, metrics: Metrics, order: jax.Array, **how: Any) -> Program:
        """The program of a `Call` (its fields but the count may be left out), for these arguments or their shapes."""
        call = Call(**{"count": 1, **how})
        if call.count == 1:
            function = named("train_step", steps.train_step, self.recipe, last=call.last, sync=call.sync)
        else:
            function = named("train_steps", steps.train_steps, self.recipe, count=call.count, period=call.period)
        return Program(("train_step", call), function, (state, metrics, self.train_data, order), donate=(0, 1))

    def _evaluate_program(self, params: Any, batch_stats: Any) -> Program:
        return self._program("evaluate", steps.evaluate, (params, batch_stats, self.test_data))

    def _recalibrate_program(self, state: TrainState) -> Program:
        args = (la.slow_params(state.opt_state), state.batch_stats, state.key, state.step, self.train_data)
        return self._program("recalibrate", recalibrate, args)

    def compiled(self, program: Program) -> Any:
        """The compiled program."""
        return self._compiler.get(program)

    def compile(self) -> None:
        """Compiles what training will run, two programs at a time; returns when the step is there.

        On one device the others are compiled while the first steps run. Several devices wait for them, as their
        collectives and what a compilation runs would share threads.
        """
        state, metrics = self.abstract_state(), self.abstract_metrics()
        ordering = self._order_program(state)
        order = self.parallel.placed(jax.eval_shape(ordering.function, *ordering.args))
        calls = self.dispatch.calls(self.recipe.steps_per_epoch)
        first, *others = (self.train_program(state, metrics, order, **call._asdict()) for call in calls)
        programs = [first, ordering, *others, self._evaluate_program(state.params, state.batch_stats)]
        if self.recipe.recalibration_batches:
            programs.append(self._recalibrate_program(state))
        self._compiler.ahead(programs, wait=self.parallel.share.mode != "single", done=release_freed_memory)

    # State

    def init(self, seed: int) -> TrainState:
        """The state before the first step."""
        key = self.parallel.put(jax.random.PRNGKey(seed))
        return self._compiler.call(self._program("init_state", steps.init_state, (key,)))

    def zero_metrics(self) -> Metrics:
        """Sums before the first sample."""
        return self.parallel.put(Metrics.zeros())

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and places of the state, computed without running anything."""
        return self.parallel.placed(steps.abstract_state(self.recipe))

    def abstract_metrics(self) -> Metrics:
        """Shapes, dtypes and places of the sums."""
        return self.parallel.placed(jax.eval_shape(Metrics.zeros))

    # Training

    def order(self, state: TrainState) -> jax.Array:
        """The order of the epoch that the state is in: int32 [examples]."""
        return self._compiler.call(self._order_program(state))

    def train(
        self, state: TrainState, metrics: Metrics, order: jax.Array, **how: Any
    ) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
        """One update, or those of a `Call`, whose fields `how` are. `state` and `metrics` are donated."""
        return self._compiler.call(self.train_program(state, metrics, order, **how))

    def all_finite(self, state: TrainState) -> bool:
        """Whether every number of the state is finite."""
        return bool(self._compiler.call(Program("all_finite", steps.all_finite, (state,))))

    def state_norms(self, state: TrainState) -> dict[str, float]:
        """Norms that a state alone has: of the parameters, and from live to slow weights."""
        slow = la.slow_params(state.opt_state) if self.recipe.lookahead else None
        return {name: float(value) for name, value in steps.state_norms(state.params, slow).items()}

    # Evaluation

    def evaluate(self, state: TrainState, *, slow: bool = False) -> Metrics:
        """Sums over the whole test set: of the live weights, or of the slow ones.

        The slow weights get BatchNorm statistics of their own first if the recipe re-estimates them.
        """
        params, batch_stats = (la.slow_params(state.opt_state) if slow else state.params), state.batch_stats
        if slow and self.recipe.recalibration_batches:
            batch_stats = self.recalibrated_batch_stats(state)
        return self._compiler.call(self._evaluate_program(params, batch_stats))

    def recalibrated_batch_stats(self, state: TrainState) -> Any:
        """BatchNorm statistics of the slow weights over the first batches of the state's epoch."""
        return self._compiler.call(self._recalibrate_program(state))

    def steps_since_sync(self, state: TrainState) -> int:
        """Updates since Lookahead's last sync; 0 where its own count decides when to sync."""
        return int(state.opt_state.steps_since_sync) if self.dispatch.sync_period else 0

    def slow_scores_are_live_ones(self, state: TrainState) -> bool:
        """Whether `evaluate` gives the same for both: right after a sync, unless the slow weights get statistics of
        their own.
        """
        return not self.recipe.recalibration_batches and int(state.opt_state.steps_since_sync) == 0


def make_trainer(config: Config) -> Trainer:
    """Loads the data of a config, and works out its recipe and devices.

    Raises:
      UserError: a name is unknown, the data is missing, or the batch does not fit.
    """
    dataset = load_dataset(config)
    parallel = Parallel.of(local_devices(config.devices), config.parallel)
    recipe = make_recipe(config, dataset, parallel.share)
    # An optimizer of a user's may accumulate gradients, and then not every step is one that Lookahead counts.
    counted = config.optimizer.lookahead and OPTIMIZERS[config.optimizer.name].own
    dispatch = choose(
        config.steps_per_dispatch,
        platform=parallel.devices[0].platform,
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(steps.abstract_state(recipe).params)),
        sync_period=config.optimizer.sync_period if counted else 0,
    )
    return Trainer(recipe, dataset, parallel, dispatch)
