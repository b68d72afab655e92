"""Our side of a comparison: the trainer's own compiled programs, called as the trainer calls them."""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.rows import Row
from train.config import Config
from train.data import Dataset
from train.loop import model_options
from train.models import create_model
from train.optimizers import make_optimizer, make_schedule
from train.parallel import Parallel
from train.programs import Programs
from train.sampling import Preprocessing


def make_programs(config: Config, dataset: Dataset, *, lowered: bool = True) -> Programs:
    """What `train.loop.build_programs` makes of a config, over a data set that is given; on one device.

    Args:
        config: the recipe.
        dataset: the data.
        lowered: False takes XLA's own convolutions throughout.
    """
    parallel = Parallel.of(jax.local_devices()[:1], config.parallel)
    options = model_options(config.model, dataset)
    model = create_model(config.model.name, num_classes=dataset.num_classes, axis_name=parallel.axis_name, **options)
    if not lowered:
        model = model.clone(conv_general_dilated=jax.lax.conv_general_dilated)
    steps_per_epoch = -(-len(dataset.train) // config.batch_size)
    # The rate stays at its first value however many rounds there are.
    schedule = make_schedule(config.optimizer, steps_per_epoch=max(steps_per_epoch, 10**6), epochs=config.epochs)
    return Programs(
        model,
        make_optimizer(config.optimizer, schedule),
        dataset,
        parallel,
        schedule=schedule,
        batch_size=config.batch_size,
        test_batch_size=config.test_batch_size or config.batch_size,
        lookahead=config.optimizer.lookahead,
        preprocessing=Preprocessing.of(dataset, image_size=config.image_size),
    )


class TrainingSteps:
    """Training steps one after another, the next dispatched before the last is done, as `train.run` does."""

    def __init__(self, programs: Programs):
        self.programs = programs
        self.state, self.metrics = programs.init(0), programs.zero_metrics()
        self.order = programs.order(self.state)

    def run(self, steps: int) -> list[float]:
        """Takes so many steps; returns their losses."""
        in_flight: collections.deque[jax.Array] = collections.deque()
        losses = []
        for _ in range(steps):
            self.state, self.metrics, report = self.programs.train(self.state, self.metrics, self.order, last=False)
            in_flight.append(report["loss"])
            if len(in_flight) >= self.programs.parallel.max_in_flight:
                losses.append(float(in_flight.popleft()))
        losses += map(float, in_flight)
        jax.block_until_ready((self.state, self.metrics))
        return losses

    def compiled(self) -> Any:
        """The program of a step."""
        return self.programs._train_program(self.state, self.metrics, self.order, last=False)


class ScannedSteps(TrainingSteps):
    """The same steps, several a dispatch, by `lax.scan`."""

    def __init__(self, programs: Programs, steps_per_dispatch: int):
        super().__init__(programs)
        self._steps_per_dispatch = steps_per_dispatch

        def steps(state, metrics, data, order, shard):
            def step(carried, _):
                state, metrics = carried
                state, metrics, report = programs._train(state, metrics, data, order, shard, last=False)
                return (state, metrics), report["loss"]

            (state, metrics), losses = jax.lax.scan(step, (state, metrics), length=steps_per_dispatch)
            return state, metrics, losses

        args = (self.state, self.metrics, programs.train_data, self.order)
        self._program = programs.parallel.compile(steps, args, donate=(0, 1))

    def run(self, steps: int) -> list[float]:
        if steps % self._steps_per_dispatch:
            raise ValueError(f"{steps} steps are not a multiple of {self._steps_per_dispatch} a dispatch; give --steps")
        losses = []
        for _ in range(steps // self._steps_per_dispatch):
            args = (self.state, self.metrics, self.programs.train_data, self.order)
            self.state, self.metrics, report = self._program(*args)
            losses += map(float, report)
        jax.block_until_ready((self.state, self.metrics))
        return losses

    def compiled(self) -> Any:
        return self._program


def evaluation(programs: Programs) -> Callable[[], Any]:
    """A pass over the test set."""
    state = programs.init(0)
    return lambda: programs.evaluate(state).means()


def side(row: Row, how: frozenset[str]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A round of the row, and what is to be said of it.

    Args:
        row: what to do.
        how: "xla" for XLA's own convolutions, "scan5" for five steps a dispatch.
    """
    programs = make_programs(row.config, row.dataset(), lowered="xla" not in how)
    scan = next((int(word.removeprefix("scan")) for word in how if word.startswith("scan")), 0)
    if row.kind == "evaluate":
        return evaluation(programs), {}
    steps = ScannedSteps(programs, scan) if scan else TrainingSteps(programs)
    return functools.partial(steps.run, row.steps), {"xla_bytes": xla_bytes(steps.compiled())}


def xla_bytes(compiled: Any) -> dict[str, int]:
    """What XLA says that a program needs: bytes of arguments, outputs in buffers of their own, temporaries."""
    analysis = compiled.memory_analysis()
    return {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
