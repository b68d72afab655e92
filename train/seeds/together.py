"""Several seeds of one config in one program; each keeps a workdir of its own, and may start, fail and end by itself.

Seeds that have done the same number of steps of their epoch train together, in lanes of one program
(`train.seeds.lanes`), to the end of that epoch. One that is alone there takes the ordinary program. So a seed that was
stopped elsewhere, or that left its lane because its numbers were not finite, catches up with the others by itself: only
the seeds furthest into their epoch advance, until all are at the start of an epoch.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.config import Config, differences, to_dict, validate
from train.errors import UserError
from train.experiment import XLA, make_experiment
from train.hosts import agreement
from train.interface.signals import StopRequest
from train.run.loop import Outcome, Run
from train.run.records import NORM_COLUMNS, MetricsFile
from train.run.scores import scores, timed
from train.run.trainer import Trainer
from train.run.workdir import Workdir, ending_recorded, open_workdir
from train.seeds.lanes import Lanes
from train.step.dispatch import lagging


class Member:
    """A run among those trained together.

    Attributes:
      config: its own.
      result: how it ended; None while it goes on.
      run: its loop, once its data is there.
    """

    run: Run

    def __init__(self, config: Config, workdir: Path):
        self.config, self._workdir = config, workdir
        self.result: Outcome | Exception | None = None
        self._directory: Workdir | None = None
        self._held = contextlib.ExitStack()  # the workdir's lock, and what the run has open

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """An error inside the block ends this run, is recorded, and touches no other."""
        try:
            with ending_recorded(self._directory) if self._directory else contextlib.nullcontext():
                yield
        except Exception as error:
            self.close(error)

    def open(self) -> None:
        """Locks the workdir; a run that is finished there has ended."""
        self._directory = self._held.enter_context(open_workdir(self._workdir, self.config))
        if self._directory.finished():
            self.close(Outcome("finished", MetricsFile(self._directory.metrics).rows))

    @property
    def convolutions(self) -> str | None:
        """What computed them so far; None for a run that begins."""
        return self._directory.convolutions if self._directory else None

    def begin(self, trainer: Trainer, stop: StopRequest, *, quiet: bool) -> None:
        """Takes the run up."""
        assert self._directory
        self.run = Run(self.config, self._directory, trainer, stop, quiet=quiet)
        self._held.enter_context(self.run.opened())
        self.run.take_up()

    def close(self, result: Outcome | Exception) -> None:
        """The run has ended: frees what it held."""
        self.result = result
        failed = result if isinstance(result, Exception) else None
        try:
            self._held.__exit__(type(failed) if failed else None, failed, None)
        except Exception as error:
            self.result = failed or error

    def abandon(self, error: BaseException) -> None:
        """Records what interrupts the run, and frees what it held."""
        with (
            contextlib.suppress(BaseException),
            ending_recorded(self._directory) if self._directory else contextlib.nullcontext(),
        ):
            raise error
        with contextlib.suppress(BaseException):
            self._held.close()


def seed_runs(config: Config, workdir: Path) -> list[tuple[Config, Path]]:
    """The runs of `config.seeds_per_program`: seeds from `config.seed` on, each in a folder of `workdir`.

    Raises:
      UserError: they cannot be trained in one program.
    """
    _check_local_steps(config)
    seeds = range(config.seed, config.seed + config.seeds_per_program)
    runs = [dataclasses.replace(config, seed=seed, seeds_per_program=1) for seed in seeds]
    return [(validate(run), workdir / f"seed{run.seed}") for run in runs]


def train_together(
    runs: Sequence[tuple[Config, Path]], *, stop: StopRequest | None = None, quiet: bool = False
) -> list[Outcome | Exception]:
    """Trains runs that differ in their seeds alone, each in its workdir, as `train.run.loop.train` would.

    Args:
      runs: configs and workdirs.
      stop: how to ask the runs to save and end; by default, signals ask.
      quiet: print nothing about epochs or the end.

    Returns:
      For each run how it ended, or what `train` would have raised.

    Raises:
      UserError: the configs differ in more than their seeds, or several processes train this run.
    """
    if stop is None:
        with StopRequest() as listening:
            return train_together(runs, stop=listening, quiet=quiet)
    if agreement.count() > 1:
        raise UserError("config.seeds_per_program is for a run of one process; start the seeds as runs of their own")
    first = runs[0][0]
    _check_local_steps(first)
    for config, _ in runs:
        validate(config)
        if found := differences(to_dict(first), dataclasses.replace(config, seed=first.seed)):
            raise UserError(f"runs in one program may differ in their seeds alone, but {'; '.join(found)}")
    members = [Member(config, workdir) for config, workdir in runs]
    try:
        for member in members:
            with member.guarded():
                member.open()
        if left := _left(members):
            _begin(left, stop, quiet=quiet)
        _train(members, stop)
    except BaseException as error:  # an interrupt
        for member in _left(members):
            member.abandon(error)
        raise
    return [member.result for member in members if member.result is not None]


def _check_local_steps(config: Config) -> None:
    if config.local_steps:
        raise UserError("config.seeds_per_program is not for local steps; start the seeds as runs of their own")


def _left(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if member.result is None]


def _shared(members: Sequence[Member], action: Callable[[], Any]) -> Any:
    """What the action returns; its error ends all the members."""
    try:
        return action()
    except Exception as error:
        for member in members:
            with member.guarded():
                raise error
        return None


def _convolutions(members: Sequence[Member]) -> str | None:
    """XLA's for all, as oneDNN would compute one seed after another; but what they began with if that is the same."""
    began = {member.convolutions for member in members} - {None}
    return began.pop() if len(began) == 1 else XLA


def _begin(members: Sequence[Member], stop: StopRequest, *, quiet: bool) -> None:
    config = members[0].config
    trainer = _shared(members, lambda: Trainer(make_experiment(config, convolutions=_convolutions(members))))
    for member in _left(members):
        with member.guarded():
            member.begin(trainer, stop, quiet=quiet)


def _train(members: Sequence[Member], stop: StopRequest) -> None:
    """Trains to the end of all runs, or to a stop signal."""
    while left := _left(members):
        for member in left:
            if stop or not member.run.goes_on:
                with member.guarded():
                    member.close(member.run.end())
        moving = [member for member in left if member.result is None]
        furthest = max((member.run.steps_into_epoch for member in moving), default=0)
        moving = [member for member in moving if member.run.steps_into_epoch == furthest]
        if len(moving) == 1:
            with moving[0].guarded():
                moving[0].run.advance()
        elif moving:
            _shared(moving, lambda moving=moving: _advance(moving, stop))


def _advance(members: Sequence[Member], stop: StopRequest) -> None:
    """Trains runs that are at the same step of their epochs to its end, and finishes it."""
    runs = [member.run for member in members]
    trainer = runs[0].trainer
    lanes, per_epoch = Lanes(trainer, len(runs)), trainer.recipe.steps_per_epoch
    began, first = time.monotonic(), runs[0].steps_into_epoch
    states = lanes.stack([run.position.state for run in runs])
    metrics = lanes.stack([run.position.metrics for run in runs])
    orders = lanes.order(states)
    bad: dict[int, int] = {}  # lane -> how many steps from here its numbers were not finite
    steps_done = 0

    def dispatched() -> Iterator[tuple[int, dict[str, jax.Array]]]:
        nonlocal states, metrics, steps_done
        for step in range(first, per_epoch):
            states, metrics, scalars = lanes.train(states, metrics, orders, last=step + 1 == per_epoch)
            steps_done += 1
            yield steps_done, scalars
            for run in runs:
                run.progress.step(1)
            if stop or len(bad) == len(runs):
                return

    scalars: dict[str, np.ndarray] = {}
    for step, results in lagging(dispatched(), trainer.parallel.max_in_flight):
        scalars = jax.device_get(results)
        for lane in np.flatnonzero(~np.isfinite(scalars["loss"])):
            bad.setdefault(int(lane), step)
    whole = first + steps_done == per_epoch
    norms = {name: scalars[name] for name in NORM_COLUMNS if whole and name in scalars}
    for lane in range(len(runs)):
        if not all(np.isfinite(values[lane]) for values in norms.values()):
            bad.setdefault(lane, steps_done)
    seconds = time.monotonic() - began
    starts = [run.position.step for run in runs]
    for run, state, sums in zip(runs, lanes.apart(states), lanes.apart(metrics), strict=True):
        position = run.position
        position.state, position.metrics = state, sums
        position.step, position.seconds = position.step + steps_done, position.seconds + seconds
    rows, evaluated = timed(lambda: lanes.scores(states) if whole and len(bad) < len(runs) else [])
    for lane, (member, run) in enumerate(zip(members, runs, strict=True)):
        with member.guarded():
            if lane in bad:
                run.go_back(starts[lane] + bad[lane])
                if run.steps_into_epoch == 0:
                    run.finish_epoch({}, *timed(lambda run=run: scores(trainer, run.position.state)))
            elif whole:
                run.finish_epoch({name: float(values[lane]) for name, values in norms.items()}, rows[lane], evaluated)
