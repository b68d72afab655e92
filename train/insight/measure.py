"""Which weights `train.insight` scores: two paths from the start of a cycle, the line of its sync, and a grid."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.config import Config, to_dict
from train.errors import UserError
from train.experiment import make_experiment
from train.insight.landscape import Plane, flat, plane_through, project, score, score_points
from train.insight.points import Insight, Point
from train.run.checkpointing import Checkpoints
from train.run.recovery import Position
from train.run.trainer import Trainer
from train.step.steps import TrainState

# Where the line is scored: 0 is the slow weights, 1 the fast ones, and each point is where that slow step size leads.
LINE = tuple(float(x) for x in np.linspace(-0.25, 1.5, 36).round(4))


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
      grid: points along each side.
      cycles: cycles of Lookahead, including the first.
      examples: test examples, evenly spread; 0 for all.
      batches: batches over which BatchNorm's statistics are estimated.
    """

    grid: int = 15
    cycles: int = 3
    examples: int = 2000
    batches: int = 10

    def __post_init__(self):
        for name, least in (("grid", 2), ("cycles", 1), ("examples", 0), ("batches", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name}={getattr(self, name)} must be at least {least}")


def check(config: Config) -> None:
    """Raises UserError if the config has no cycle of Lookahead to show."""
    optimizer = config.optimizer
    if not (optimizer.lookahead and optimizer.sync_period >= 2 and optimizer.slow_step_size > 0):
        raise UserError(
            "a picture of Lookahead needs config.optimizer.lookahead=True, sync_period of at least 2 and a "
            f"slow_step_size above 0; they are {optimizer.lookahead}, {optimizer.sync_period}, "
            f"{optimizer.slow_step_size}"
        )
    for name, plain in (("accumulate_steps", 1), ("ema_decay", 0.0), ("local_steps", False), ("seeds_per_program", 1)):
        if getattr(config, name) != plain:
            raise UserError(
                f"a picture of Lookahead needs a run with config.{name}={plain}, not {getattr(config, name)}"
            )


class Scorer:
    """Scores weights of a run's model, all over the same examples."""

    def __init__(self, config: Config, trainer: Trainer, batch_stats: Any, effort: Effort):
        tests = trainer.test_data.inputs.shape[0]
        chosen = np.linspace(0, tests - 1, min(effort.examples or tests, tests)).astype(int)
        self.examples = len(chosen)
        recipe = trainer.recipe
        self.recipe = dataclasses.replace(
            recipe,
            recalibration_batches=effort.batches,
            test_batch_size=min(recipe.test_batch_size, self.examples),
        )
        test = jax.tree.map(lambda x: x[chosen], trainer.test_data)
        self._data = (batch_stats, trainer.train_data, test, jax.random.PRNGKey(config.seed))
        self._score = jax.jit(functools.partial(score, self.recipe))
        self._score_points = jax.jit(functools.partial(score_points, self.recipe))

    def point(self, kind: str, step: int, plane: Plane, params: Any) -> Point:
        """Weights on a path."""
        place = np.asarray(project(plane, flat(params)), float).tolist()
        return Point(kind, step, *place, *np.asarray(self._score(params, *self._data), float).tolist())

    def row(self, kind: str, xs: np.ndarray, y: float, plane: Plane, like: Any) -> list[Point]:
        """Points of the plane along its first axis."""
        coordinates = np.stack([xs, np.full_like(xs, y)], axis=1).astype(np.float32)
        scores = np.asarray(self._score_points(coordinates, plane, like, *self._data), float).tolist()
        return [Point(kind, 0, float(x), float(y), 0.0, *values) for x, values in zip(xs, scores, strict=True)]


def grid_axes(points: list[Point], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a grid around points, a third larger than their extent, each side at least half of the other."""
    array = np.array([(point.x, point.y) for point in points])
    low, high = array.min(axis=0), array.max(axis=0)
    centre, half = (low + high) / 2, (high - low) / 2 * 4 / 3
    half = np.maximum(half, half.max() / 2)
    x, y = (np.linspace(c - h, c + h, size) for c, h in zip(centre, half, strict=True))
    return x, y


def _step(trainer: Trainer, position: Position) -> None:
    position.advance(trainer, trainer.order(position.state))


def start_of_cycle(trainer: Trainer, workdir: Path) -> Position:
    """The start of the first cycle after a run's last checkpoint, where slow and fast weights are equal.

    Raises:
      UserError: the workdir has no checkpoint.
    """
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        position = Position.load(trainer, checkpoints)
    finally:
        checkpoints.close()
    if position is None:
        raise UserError(f"{workdir} has no checkpoint to start from; choose another workdir")
    while int(position.state.opt_state.steps_since_sync):
        _step(trainer, position)
    return position


def walk(trainer: Trainer, state: TrainState, first_step: int, steps: int) -> Iterator[tuple[int, Any]]:
    """Parameters after each of `steps` steps from `state`, from 1; each is valid until the next is asked for."""
    position = Position(jax.tree.map(jnp.copy, state), trainer.zero_metrics(), first_step)
    for step in range(1, steps + 1):
        _step(trainer, position)
        yield step, position.state.params


def first_cycle(trainer: Trainer, state: TrainState, first_step: int, period: int) -> Plane:
    """The plane through the start, the middle and the end of the fast weights of a cycle.

    Args:
      trainer: a trainer with only the inner optimizer, which takes all the steps within a cycle.
      state: the state at the start.
      first_step: the number of its step.
      period: steps in a cycle.
    """
    kept = {0: flat(state.params)}
    for step, params in walk(trainer, state, first_step, period):
        if step in (period // 2, period):
            kept[step] = flat(params)
    return plane_through(kept[0], kept[period // 2], kept[period])


def path_without(
    scorer: Scorer, plane: Plane, trainer: Trainer, state: TrainState, first: int, steps: int
) -> Iterator[Point]:
    """The path of the inner optimizer alone; its first cycle is that of Lookahead's fast weights."""
    yield scorer.point("without", 0, plane, state.params)
    for step, params in walk(trainer, state, first, steps):
        yield scorer.point("without", step, plane, params)


def path_with(
    scorer: Scorer, plane: Plane, trainer: Trainer, state: TrainState, first: int, steps: int, config: Config
) -> Iterator[Point]:
    """Lookahead's path: its live weights at each step, before and after a sync, and the slow weights at each sync."""
    period, alpha = config.optimizer.sync_period, config.optimizer.slow_step_size
    slow = state.params
    yield scorer.point("slow", 0, plane, slow)
    yield scorer.point("with", 0, plane, slow)
    for step, params in walk(trainer, state, first, steps):
        if step % period == 0:
            before, slow = slow, jax.tree.map(jnp.copy, params)
            # The fast weights just before the sync follow from the slow ones before and after it.
            fast = jax.tree.map(lambda old, new: old + (new - old) / alpha, before, slow)
            yield scorer.point("with", step, plane, fast)
            yield scorer.point("slow", step, plane, slow)
        yield scorer.point("with", step, plane, params)


def measure(
    config: Config, workdir: Path, effort: Effort, *, say: Callable[[str], None] = print, stopped: Any = False
) -> Insight:
    """Measures the plane and the paths.

    Args:
      config: config of the finished run in `workdir`.
      workdir: the run's directory.
      effort: how much to measure.
      say: receives progress messages.
      stopped: becomes true to end the measurement early.

    Raises:
      UserError: the config has no Lookahead to show, or the weights do not span a plane.
      KeyboardInterrupt: `stopped` became true.
    """
    check(config)
    config = dataclasses.replace(config, devices=1)
    trainer = Trainer(make_experiment(config))
    plain = Trainer(
        make_experiment(dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lookahead=False)))
    )
    start = start_of_cycle(trainer, workdir)
    state, first, period = start.state, start.step, config.optimizer.sync_period
    bare = dataclasses.replace(state, opt_state=state.opt_state.fast_state)
    scorer, steps, points = Scorer(config, trainer, state.batch_stats, effort), effort.cycles * period, []

    def take(found: Iterator[Point] | list[Point]) -> None:
        for point in found:
            points.append(point)
            if stopped:
                raise KeyboardInterrupt

    plane = first_cycle(plain, bare, first, period)
    say(f"{steps} steps from step {first}, without Lookahead and with it")
    take(path_without(scorer, plane, plain, bare, first, steps))
    take(path_with(scorer, plane, trainer, state, first, steps, config))
    xs, ys = grid_axes(points, effort.grid)
    # The plane's first axis is the line on which the first sync chooses a point.
    length = next(point.x for point in points if point.kind == "without" and point.step == period)
    take(scorer.row("line", np.array(LINE) * length, 0.0, plane, state.params))
    for number, y in enumerate(ys, 1):
        take(scorer.row("grid", xs, float(y), plane, state.params))
        say(f"row {number} of {effort.grid} of the grid")
    facts = {
        "dataset": config.dataset,
        "model": config.model.name,
        "optimizer": to_dict(config)["optimizer"],
        "learning_rate": trainer.recipe.learning_rate(first),
        "step": first,
        "epoch": round(first / trainer.recipe.steps_per_epoch, 2),
        "seed": config.seed,
        "train_examples": trainer.recipe.train_examples,
        "test_examples": scorer.examples,
        "effort": dataclasses.asdict(effort),
        "devices": [f"{device.platform} {device.device_kind}" for device in trainer.parallel.devices],
        "jax": jax.__version__,
    }
    return Insight(facts, points)
