"""An experiment's programs, compiled, over data that is on the devices. Holds no maths and no state."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import lookahead_jax as la
from train import averages
from train.config import Config
from train.data.dataset import Split, to_facts
from train.errors import UserError
from train.experiment import Experiment
from train.hosts import agreement
from train.setting import leaves
from train.step import steps
from train.step.compiling import Compiler, Program, named
from train.step.dispatch import ONE_UPDATE, Call
from train.step.evaluation import evaluate
from train.step.input_pipeline import DeviceSplit, to_host_arrays
from train.step.metrics import Metrics
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
      validation_data: on the devices; None if nothing was set aside.
      convolutions: what computes them on the CPU, as in `Experiment`.
      dataset_facts: all of the data set but its examples (`train.data.dataset.to_facts`).
    """

    def __init__(self, experiment: Experiment):
        self.recipe, self.parallel, self.dispatch = experiment.recipe, experiment.parallel, experiment.dispatch
        self.convolutions, dataset = experiment.convolutions, experiment.dataset
        self.source, self.digest = dataset.source, dataset.digest

        def on_devices(split: Split) -> DeviceSplit:
            return self.parallel.put(to_host_arrays(split))

        self.train_data, self.test_data = on_devices(dataset.train), on_devices(dataset.test)
        self.validation_data = on_devices(dataset.validation) if dataset.validation else None
        self.dataset_facts = to_facts(dataset)
        self._compiler = Compiler(self.parallel.compile)

    @property
    def compilations(self) -> int:
        """Programs compiled so far; does not grow after the first epoch."""
        return self._compiler.compilations

    # The programs

    def _program(self, name: str, function: Any, args: tuple[Any, ...], *, own: bool = False) -> Program:
        return Program(name, named(name, function, self.recipe), args, own=own)

    def _init_program(self, key: jax.Array) -> Program:
        return self._program("init_state", steps.init_state, (key,), own=True)._replace(once=True)

    def _order_program(self, state: TrainState) -> Program:
        return self._program("epoch_order", steps.epoch_order, (state.key, state.step))

    def train_program(self, state: TrainState, metrics: Metrics, order: jax.Array, call: Call = ONE_UPDATE) -> Program:
        """The program of a call, one step by default, for these arguments or their shapes."""
        if call.count == 1:
            function = named("train_step", steps.train_step, self.recipe, last=call.last, sync=call.sync)
        else:
            function = named("train_steps", steps.train_steps, self.recipe, count=call.count, period=call.period)
        args = (state, metrics, self.train_data, order)
        return Program(("train_step", call), function, args, donate=(0, 1), own=(True, False, False))

    def _evaluate_program(self, params: Any, batch_stats: Any, *, validation: bool = False) -> Program:
        recipe, data = self.evaluation(validation=validation)
        name = "validate" if validation else "evaluate"
        return Program(name, named(name, evaluate, recipe), (params, batch_stats, data))

    def evaluation(self, *, validation: bool = False) -> tuple[Recipe, DeviceSplit]:
        """What `evaluate` is given for the test or the validation set."""
        if not validation:
            return self.recipe, self.test_data
        assert self.validation_data is not None
        examples, devices = self.validation_data.targets.shape[0], self.recipe.share.devices
        size = min(self.recipe.test_batch_size, examples // devices * devices or devices)
        return dataclasses.replace(self.recipe, test_batch_size=size), self.validation_data

    def _recalibrate_program(self, params: Any, state: TrainState) -> Program:
        args = (params, state.batch_stats, state.key, state.step, self.train_data)
        return self._program("recalibrate", recalibrate, args, own=True)

    def compiled(self, program: Program) -> Any:
        """The compiled program."""
        return self._compiler.get(program)

    def compile_ahead(self, *, fresh: bool) -> None:
        """Begins to compile what training will run, two programs at a time, and returns.

        On several devices `compile` does that, as their collectives and what a compilation runs would share threads.

        Args:
          fresh: whether the run begins, and needs its initial state.
        """
        if self.parallel.share.mode == "single":
            self._begin_compiling(fresh=fresh)

    def compile(self) -> None:
        """Compiles what training will run; returns when the first step can run.

        On one device the other programs are compiled while the first steps run; several devices wait for them.
        """
        if not self._compiler.begun:
            self._begin_compiling(fresh=False)
        if self.parallel.share.mode != "single":
            self._compiler.wait()
        for program in (self._calls()[0], self._order_program(self.abstract_state())):
            self.compiled(program)

    def interrupted_by(self, stop: object) -> contextlib.AbstractContextManager[None]:
        """Inside the block no program is waited for once `stop` is true: see `Compiler.interrupted_by`."""
        return self._compiler.interrupted_by(stop)

    def _calls(self) -> list[Program]:
        """The programs of all calls of a run, the one that it begins with first."""
        state, metrics = self.abstract_state(), self.abstract_metrics()
        order = self.parallel.placed(jax.ShapeDtypeStruct((self.recipe.train_examples,), np.int32))
        calls = self.dispatch.calls(self.recipe.steps_per_epoch)
        return [self.train_program(state, metrics, order, call) for call in calls]

    def _begin_compiling(self, *, fresh: bool) -> None:
        state = self.abstract_state()
        step, *others = self._calls()
        key = self.parallel.placed(jax.ShapeDtypeStruct((2,), np.uint32))
        then = [*others, self._evaluate_program(state.params, state.batch_stats)]
        if self.validation_data is not None:
            then.append(self._evaluate_program(state.params, state.batch_stats, validation=True))
        if self.recipe.recalibration_batches:
            then.append(self._recalibrate_program(state.params, state))
        first = [step, *([self._init_program(key)] if fresh else []), self._order_program(state)]
        self._compiler.ahead(first, then, done=release_freed_memory)

    # State

    def init(self, seed: int) -> TrainState:
        """The state before the first step."""
        return self._compiler.call(self._init_program(self.parallel.put(jax.random.PRNGKey(seed))))

    def zero_metrics(self) -> Metrics:
        """Sums before the first sample."""
        return self.parallel.put(Metrics.zeros())

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and places of the state, computed without running anything."""
        return self.parallel.placed_state(steps.abstract_state(self.recipe))

    def abstract_metrics(self) -> Metrics:
        """Shapes, dtypes and places of the sums."""
        return self.parallel.placed(jax.eval_shape(Metrics.zeros))

    # Training

    def order(self, state: TrainState) -> jax.Array:
        """The order of the epoch that the state is in: int32 [examples]."""
        return self._compiler.call(self._order_program(state))

    def train(
        self, state: TrainState, metrics: Metrics, order: jax.Array, call: Call = ONE_UPDATE
    ) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
        """The updates of a call, one by default. `state` and `metrics` are donated."""
        return self._compiler.call(self.train_program(state, metrics, order, call))

    def finite_leaves(self, state: TrainState) -> np.ndarray:
        """Which arrays of the state are finite: bool [leaves of floating dtype]."""
        function = named("finite_leaves", steps.finite_leaves, self.recipe.share)
        return np.asarray(self._compiler.call(Program("finite_leaves", function, (state,))))

    def state_norms(self, state: TrainState) -> dict[str, float]:
        """Norms that a state alone has: of the parameters, and from live to slow weights; of one worker."""
        slow = la.slow_params(state.opt_state) if self.recipe.lookahead else None
        params, slow = jax.tree.map(self._here, (state.params, slow))
        return {name: float(value) for name, value in steps.state_norms(params, slow).items()}

    def _here(self, leaf: jax.Array) -> jax.Array:
        """A leaf of a state as this process' first device has it."""
        return leaf.addressable_data(0)[0] if self.recipe.share.workers_axis else leaf

    # Evaluation

    def evaluate(
        self, state: TrainState, *, slow: bool = False, ema: bool = False, validation: bool = False
    ) -> Metrics:
        """Sums over the whole test or validation set: of the live weights, the slow ones, or the moving average.

        Weights that did not train get BatchNorm statistics of their own first if the recipe re-estimates them.
        """
        params, batch_stats = self.weights(state, slow=slow, ema=ema), state.batch_stats
        if params is not state.params and self.recipe.recalibration_batches:
            batch_stats = self.recalibrated_batch_stats(state, params)
        return self._compiler.call(self._evaluate_program(params, batch_stats, validation=validation))

    def weights(self, state: TrainState, *, slow: bool = False, ema: bool = False) -> Any:
        """The weights to evaluate (`train.averages.evaluated_params`)."""

        def compute(name: str, function: Callable[..., Any], *args: Any) -> Any:
            return self._compiler.call(Program(name, named(name, function), args, own=True))

        decay = self.recipe.ema_decay if ema else 0.0
        return averages.evaluated_params(state.opt_state, state.params, slow=slow, ema_decay=decay, compute=compute)

    def recalibrated_batch_stats(self, state: TrainState, params: Any) -> Any:
        """BatchNorm statistics of weights over the first batches of the state's epoch."""
        return self._compiler.call(self._recalibrate_program(params, state))

    def steps_since_sync(self, state: TrainState) -> int:
        """Updates since Lookahead's last sync."""
        return int(self._here(averages.without_ema(state.opt_state).steps_since_sync))

    def slow_scores_are_live_ones(self, state: TrainState) -> bool:
        """Whether `evaluate` gives the same for both: right after a sync, unless the slow weights get statistics of
        their own.
        """
        return not self.recipe.recalibration_batches and self.steps_since_sync(state) == 0


def check_processes(config: Config, trainer: Trainer) -> None:
    """Compares what the processes of a run were started with: each compiles its own settings into its programs.

    Raises:
      UserError: on all of them; they differ.
    """
    local = ("data_dir", "disk_wait")
    settings = {name: value for name, value, _ in leaves(config) if name not in local}
    if not agreement.all_same(f"{settings} {trainer.digest} {trainer.convolutions} {jax.__version__}"):
        raise UserError(
            "the processes of this run differ in their settings, their data or their version of JAX; start each with "
            "the same command, files and packages, but for --process_id"
        )
