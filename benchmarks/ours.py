"""Our side of a comparison: the trainer's own compiled programs, called as the trainer calls them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.rows import Row
from train.config import Config
from train.data import Dataset
from train.experiment import XLA, make_experiment
from train.run.trainer import Trainer
from train.seeds.lanes import Lanes
from train.step.dispatch import lagging
from train.step.steps import train_steps


def make_trainer(config: Config, dataset: Dataset, *, lowered: bool = True, onednn: bool = True) -> Trainer:
    """The trainer of a config, over a data set that is given; on one device.

    Args:
      config: the recipe; its learning rate stays at its first value however many rounds there are.
      dataset: the data.
      lowered: False takes XLA's own convolutions throughout.
      onednn: False does without oneDNN; where it is not installed, all do.
    """
    optimizer = dataclasses.replace(config.optimizer, schedule="step", decay_epochs=())
    config = dataclasses.replace(config, optimizer=optimizer, devices=1)
    experiment = make_experiment(config, dataset, convolutions=None if lowered and onednn else XLA)
    if not lowered:
        model = experiment.recipe.model.clone(conv_general_dilated=jax.lax.conv_general_dilated)
        recipe = dataclasses.replace(experiment.recipe, model=model)
        experiment = dataclasses.replace(experiment, recipe=recipe)
    return Trainer(experiment)


class TrainingSteps:
    """Training steps one after another, the next dispatched before the last is done, as `train.run.loop` does."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.state, self.metrics = trainer.init(0), trainer.zero_metrics()
        self.order = trainer.order(self.state)

    def run(self, steps: int) -> list[float]:
        """Takes so many steps; returns their losses."""
        dispatched = (self._step() for _ in range(steps))
        losses = [float(loss) for loss in lagging(dispatched, self.trainer.parallel.max_in_flight)]
        jax.block_until_ready((self.state, self.metrics))
        return losses

    def _step(self) -> jax.Array:
        self.state, self.metrics, scalars = self.trainer.train(self.state, self.metrics, self.order)
        return scalars["loss"]

    def compiled(self) -> Any:
        """The program of a step."""
        trainer = self.trainer
        return trainer.compiled(trainer.train_program(self.state, self.metrics, self.order))


class ScannedSteps(TrainingSteps):
    """The same steps, several a dispatch, by `lax.scan`."""

    def __init__(self, trainer: Trainer, steps_per_dispatch: int):
        super().__init__(trainer)
        self._steps_per_dispatch = steps_per_dispatch

        function = functools.partial(train_steps, trainer.recipe, count=steps_per_dispatch)
        args = (self.state, self.metrics, trainer.train_data, self.order)
        self._program = trainer.parallel.compile(function, args, donate=(0, 1))

    def run(self, steps: int) -> list[float]:
        if steps % self._steps_per_dispatch:
            raise ValueError(f"{steps} steps are not a multiple of {self._steps_per_dispatch} a dispatch; give --steps")
        losses = []
        for _ in range(steps // self._steps_per_dispatch):
            args = (self.state, self.metrics, self.trainer.train_data, self.order)
            self.state, self.metrics, scalars = self._program(*args)
            losses += map(float, scalars["loss"])
        jax.block_until_ready((self.state, self.metrics))
        return losses

    def compiled(self) -> Any:
        return self._program


def seeds_side(trainer: Trainer, count: int, seeds: int) -> Callable[[], None]:
    """So many steps of several seeds in one program; of one seed in the ordinary program for 0."""
    state, metrics, programs = trainer.init(0), trainer.zero_metrics(), trainer
    if seeds:
        programs = Lanes(trainer, seeds)
        state = programs.stack([trainer.init(seed) for seed in range(seeds)])
        metrics = programs.stack([metrics] * seeds)
    order = programs.order(state)
    carried = {"state": state, "metrics": metrics}

    def run() -> None:
        for _ in range(count):
            carried["state"], carried["metrics"], _ = programs.train(carried["state"], carried["metrics"], order)
        jax.block_until_ready(carried)

    return run


def evaluation(trainer: Trainer) -> Callable[[], Any]:
    """A pass over the test set."""
    state = trainer.init(0)
    return lambda: trainer.evaluate(state).means()


def side(row: Row, how: frozenset[str]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A round of the row, and what is to be said of it.

    Args:
      row: what to do.
      how: "xla" for XLA's own convolutions, "plain" for the lowerings without oneDNN, "scan5" for five steps a
        dispatch.
    """
    trainer = make_trainer(row.config, row.dataset(), lowered="xla" not in how, onednn="plain" not in how)
    scan = next((int(word.removeprefix("scan")) for word in how if word.startswith("scan")), 0)
    if row.kind == "evaluate":
        return evaluation(trainer), {"convolutions": trainer.convolutions}
    steps = ScannedSteps(trainer, scan) if scan else TrainingSteps(trainer)
    return functools.partial(steps.run, row.steps), {
        "xla_bytes": xla_bytes(steps.compiled()),
        "convolutions": trainer.convolutions,
    }


def xla_bytes(compiled: Any) -> dict[str, int]:
    """What XLA says that a program needs: bytes of arguments, outputs in buffers of their own, temporaries."""
    analysis = compiled.memory_analysis()
    return {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
