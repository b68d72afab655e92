"""The compiled programs of a run: order of an epoch, training step, evaluation. Nothing else runs on the device.

Each takes and returns device arrays only; position in the epoch, order, crops and dropout follow from the state's own
`step` and `key`, so that nothing is copied from host to device from one step to the next.
"""

import concurrent.futures
import functools
import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import lookahead_jax as la
from train import recalibration, sampling, steps
from train.data import Dataset
from train.errors import UserError
from train.host_memory import release_freed_memory
from train.objectives import OBJECTIVES
from train.parallel import Parallel
from train.sampling import DeviceSplit, Preprocessing
from train.steps import Metrics, TrainState


def _keys(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of order (one for the run), draws (likewise; `draw` folds the step in) and dropout (of this step)."""
    order_key, draw_key, dropout_key = jax.random.split(key, 3)
    return order_key, draw_key, jax.random.fold_in(dropout_key, step)


class Programs:
    """What a run executes, compiled once per batch size.

    Attributes:
      dataset: the data, on the host.
      parallel: the devices.
      has_slow_weights: whether the optimizer keeps slow weights.
      steps_per_epoch: the last of them takes the remaining `last_batch_size` examples.
      last_batch_size: examples of the last step, `batch_size` where nothing remains.
      compilations: programs compiled so far; does not grow after the first epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        tx: optax.GradientTransformationExtraArgs,
        dataset: Dataset,
        parallel: Parallel,
        *,
        schedule: optax.Schedule,
        batch_size: int,
        test_batch_size: int,
        lookahead: bool,
        label_smoothing: float = 0.0,
        preprocessing: Preprocessing | None = None,
        recalibrate_batch_stats: bool = False,
    ):
        examples, tests = len(dataset.train.inputs), len(dataset.test.inputs)
        if batch_size > examples:
            raise UserError(f"config.batch_size={batch_size} is larger than the {examples} training examples")
        self.steps_per_epoch = -(-examples // batch_size)
        self.last_batch_size = examples - (self.steps_per_epoch - 1) * batch_size
        parallel.check_divides(batch_size, "config.batch_size")
        if self.last_batch_size != batch_size:
            parallel.check_divides(self.last_batch_size, "the last batch of the epoch")
        devices = len(parallel.devices)
        self._test_batch_size = min(test_batch_size, tests) // devices * devices
        if not self._test_batch_size:
            raise UserError(f"{tests} test examples do not divide over {devices} devices; use fewer devices")

        self.dataset, self.parallel, self.has_slow_weights = dataset, parallel, lookahead
        self._model, self._tx, self._schedule = model, tx, schedule
        self._batch_size, self._label_smoothing = batch_size, label_smoothing
        self._preprocessing = preprocessing or Preprocessing.of(dataset)
        self._objective = OBJECTIVES[dataset.task]
        self._recalibrates = lookahead and recalibrate_batch_stats
        self.train_data = parallel.put(sampling.to_host_arrays(dataset.train))
        self.test_data = parallel.put(sampling.to_host_arrays(dataset.test))
        self._compiled: dict[Any, concurrent.futures.Future[Any]] = {}
        self._claiming, self._tracing = threading.Lock(), threading.Lock()
        self._ahead: list[concurrent.futures.Future[Any]] = []

    @property
    def compilations(self) -> int:
        concurrent.futures.wait(self._ahead)
        return len(self._compiled)

    @property
    def samples_per_example(self) -> int:
        """1 for images, tokens of a segment for text: what rates and metrics count."""
        return self.dataset.train.targets[:1].size

    def learning_rate(self, step: int) -> float:
        """The rate of the update after `step` updates."""
        return float(jnp.asarray(self._schedule(step)))

    def _program(self, name: Any, program: Any, args: tuple[Any, ...], donate: tuple[int, ...] = ()) -> Any:
        """The compiled program of that name, compiled now where no thread has begun to."""
        with self._claiming:
            mine = name not in self._compiled
            compiled = self._compiled.setdefault(name, concurrent.futures.Future())
        if mine:
            try:
                compiled.set_result(self.parallel.compile(program, args, donate, tracing=self._tracing))
            except BaseException as error:
                compiled.set_exception(error)
        return compiled.result()

    def compile(self, state: TrainState, metrics: Metrics) -> None:
        """Compiles what training will run, two programs at a time; returns when the step is there.

        On one device the others come while the first steps run: an error of theirs is raised where they are used.
        Several devices wait for them, as their collectives and what a compilation runs would share threads.
        """
        # Shapes and places alone: by the time that a program is traced, a step may have taken the buffers.
        shapes = (state, metrics, self.order(state))
        state, metrics, order = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), shapes
        )
        tasks = [
            lambda: self._train_program(state, metrics, order, last=False),
            lambda: self._train_program(state, metrics, order, last=True),
            lambda: self._evaluate_program(state.params, state.batch_stats),
        ]
        if self._recalibrates:
            tasks.append(lambda: self._recalibrate_program(self._recalibrate_args(state)))
        pool = concurrent.futures.ThreadPoolExecutor(2)
        self._ahead = [pool.submit(task) for task in tasks]
        self._ahead.append(pool.submit(self._release_when_compiled, tuple(self._ahead)))
        pool.shutdown(wait=self.parallel.mode != "single")
        self._ahead[0].result()

    def _release_when_compiled(self, tasks: Sequence[concurrent.futures.Future[Any]]) -> None:
        concurrent.futures.wait(tasks)
        release_freed_memory()

    # The state before the first step

    def _init(self, key: jax.Array, shard: Any) -> TrainState:
        del shard
        form = jax.eval_shape(lambda data: sampling.slice_batch(data, 0, 1, self._preprocessing), self.train_data)
        return steps.init_state(key, self._model, self._tx, form.inputs)

    def init(self, seed: int) -> TrainState:
        """The state of a new run."""
        key = self.parallel.put(jax.random.PRNGKey(seed))
        return self._program("init", self._init, (key,))(key)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and places of the state, computed without running anything."""
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        return self._placed(jax.eval_shape(functools.partial(self._init, shard=None), key))

    def abstract_metrics(self) -> Metrics:
        """Shapes, dtypes and places of the sums."""
        return self._placed(jax.eval_shape(Metrics.zeros))

    def _placed(self, forms: Any) -> Any:
        where = self.parallel.replicated
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), forms)

    def zero_metrics(self) -> Metrics:
        """Sums before the first sample."""
        return self.parallel.put(Metrics.zeros())

    # Training

    def _order(self, key: jax.Array, step: jax.Array, shard: Any) -> jax.Array:
        del shard
        order_key, _, _ = _keys(key, step)
        examples = self.train_data.inputs.shape[0]
        epoch = step // self.steps_per_epoch
        return sampling.epoch_order(order_key, epoch, examples, shuffle=self._preprocessing.shuffle)

    def order(self, state: TrainState) -> jax.Array:
        """The order of the epoch that the state is in: int32 [examples]."""
        args = (state.key, state.step)
        return self._program("order", self._order, args)(*args)

    def _train(
        self, state: TrainState, metrics: Metrics, data: DeviceSplit, order: jax.Array, shard: Any, *, last: bool
    ) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
        _, draw_key, dropout_key = _keys(state.key, state.step)
        drawn = sampling.draw(
            draw_key,
            state.step,
            order,
            batch_size=self.last_batch_size if last else self._batch_size,
            full_batch_size=self._batch_size,
            preprocessing=self._preprocessing,
        )
        batch = sampling.load(data, shard(drawn), self._preprocessing)
        axis_name = self.parallel.axis_name
        if axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
        return steps.train_step(
            state,
            metrics,
            batch,
            dropout_key,
            model=self._model,
            tx=self._tx,
            objective=self._objective,
            axis_name=axis_name,
            label_smoothing=self._label_smoothing,
            with_norms=last,
            slow_params=la.slow_params if self.has_slow_weights else None,
        )

    def _train_program(self, state: TrainState, metrics: Metrics, order: jax.Array, *, last: bool) -> Any:
        program = functools.partial(self._train, last=last)
        program.__name__ = "train_step"  # type: ignore[attr-defined]
        args = (state, metrics, self.train_data, order)
        return self._program(("train", last), program, args, donate=(0, 1))

    def train(
        self, state: TrainState, metrics: Metrics, order: jax.Array, *, last: bool
    ) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
        """One step; `last` says that it ends the epoch, and reports norms. `state` and `metrics` are donated."""
        program = self._train_program(state, metrics, order, last=last)
        return program(state, metrics, self.train_data, order)

    def _all_finite(self, state: TrainState, shard: Any) -> jax.Array:
        del shard
        finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        return jnp.all(jnp.stack(finite))

    def all_finite(self, state: TrainState) -> bool:
        """Whether every number of the state is finite."""
        return bool(self._program("all_finite", self._all_finite, (state,))(state))

    def state_norms(self, state: TrainState) -> dict[str, float]:
        """Norms that a state alone has: of the parameters, and from live to slow weights."""
        slow = la.slow_params(state.opt_state) if self.has_slow_weights else None
        return {name: float(value) for name, value in steps.state_norms(state.params, slow).items()}

    # Evaluation

    def _evaluate(self, params: Any, batch_stats: Any, data: DeviceSplit, shard: Any) -> Metrics:
        examples, size = data.inputs.shape[0], self._test_batch_size

        def add_batch(metrics, index):
            # The last batch starts early enough to be full; what it repeats is not counted again.
            start = jnp.minimum(index * size, examples - size)
            weights = start + jnp.arange(size) >= index * size
            batch = sampling.slice_batch(data, start, size, self._preprocessing, shard)
            metrics = steps.eval_step(
                params,
                batch_stats,
                metrics,
                batch,
                shard(weights),
                model=self._model,
                objective=self._objective,
                axis_name=self.parallel.axis_name,
            )
            return metrics, None

        return jax.lax.scan(add_batch, Metrics.zeros(), jnp.arange(-(-examples // size)))[0]

    def _evaluate_program(self, params: Any, batch_stats: Any) -> Any:
        return self._program("evaluate", self._evaluate, (params, batch_stats, self.test_data))

    def evaluate(self, state: TrainState, *, slow: bool = False) -> Metrics:
        """Sums over the whole test set, in one program: of the live weights, or of the slow ones.

        The slow weights get batch statistics of their own first where the run re-estimates them.
        """
        params = la.slow_params(state.opt_state) if slow else state.params
        batch_stats = self.recalibrated_batch_stats(state) if slow and self._recalibrates else state.batch_stats
        return self._evaluate_program(params, batch_stats)(params, batch_stats, self.test_data)

    def slow_scores_are_live_ones(self, state: TrainState) -> bool:
        """Whether `evaluate` gives the same for both: right after a sync, unless the slow weights get statistics of
        their own.
        """
        return not self._recalibrates and int(state.opt_state.steps_since_sync) == 0

    def _recalibrate(
        self, params: Any, batch_stats: Any, key: jax.Array, step: jax.Array, data: DeviceSplit, shard: Any
    ) -> Any:
        order = self._order(key, step, shard)
        _, draw_key, dropout_key = _keys(key, step)
        first_of_epoch = step // self.steps_per_epoch * self.steps_per_epoch

        def add_batch(total, index):
            drawn = sampling.draw(
                draw_key,
                first_of_epoch + index,
                order,
                batch_size=self._batch_size,
                full_batch_size=self._batch_size,
                preprocessing=self._preprocessing,
            )
            inputs = sampling.load(data, shard(drawn), self._preprocessing).inputs
            found = recalibration.batch_statistics(self._model, params, batch_stats, inputs, dropout_key)
            return jax.tree.map(jnp.add, total, found), None

        batches = min(recalibration.BATCHES, data.inputs.shape[0] // self._batch_size)
        total, _ = jax.lax.scan(add_batch, jax.tree.map(jnp.zeros_like, batch_stats), jnp.arange(batches))
        return jax.tree.map(lambda x: x / batches, total)

    def _recalibrate_args(self, state: TrainState) -> tuple[Any, ...]:
        return la.slow_params(state.opt_state), state.batch_stats, state.key, state.step, self.train_data

    def _recalibrate_program(self, args: tuple[Any, ...]) -> Any:
        return self._program("recalibrate", self._recalibrate, args)

    def recalibrated_batch_stats(self, state: TrainState) -> Any:
        """BatchNorm statistics of the slow weights over the first batches of the state's epoch (`recalibration`)."""
        args = self._recalibrate_args(state)
        return self._recalibrate_program(args)(*args)
