"""How many updates one call of the device does, and who decides when Lookahead syncs.

**Steps per dispatch.** Several updates can be one program, a `lax.scan` of the step; signals are obeyed and checkpoints
saved between calls only. Every number is the same, bit for bit, whatever the number of steps (tested on a CPU). It pays
where the host cannot start programs as fast as the device ends them. On a CPU it does not: loops inside a scan run on
one core. On an H100, 10 steps a call made ResNet18's step shorter, 2.90 ms instead of 3.45, and the GRU's longer, 2.73
instead of 2.35 (results/gpu), so the default is 1 there too. On a TPU, where a program runs without the host from its
start to its end, it is 20; that has not been timed.

**The sync.** With one program for all steps a chip reads and writes the slow weights at each of them: 9 passes over the
parameters with Adam inside. With two, for steps that sync and for those that do not, it does so at each k-th: 7.4 on
average for k = 5, where Adam alone takes 7 (results/accelerators.md). The second program takes time to compile, so it
is used where the optimizer is more than 3 % of a step. How that was decided: 9 passes over a million float32 parameters
take 0.011 ms at an H100's 3.35 TB/s, and the steps of ours that have been timed there take 2.4 to 3.5 ms, so 3 % are
about 8 million parameters. ResNet18 has 11 million, the other models at most 2.5. A CPU has one program: start-up
counts there, and LLVM leaves the slow weights alone between syncs.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

T = TypeVar("T")

STEPS = {"tpu": 20}
LARGE = 8_000_000  # parameters


class Call(NamedTuple):
    """One call of the device.

    Attributes:
      count: updates.
      last: whether it is the epoch's last update, whose batch may be short.
      sync: whether the update ends in a sync; None leaves it to the optimizer's own count.
      period: of a call of several updates: every how many of them one syncs, the first period beginning with the call;
        0 leaves it to the optimizer's own count.
    """

    count: int
    last: bool = False
    sync: bool | None = None
    period: int = 0


ONE_UPDATE = Call(1)


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """How the updates of a run are put into calls.

    Attributes:
      steps: updates of a call, where so many are left before the epoch's last one.
      sync_period: k of Lookahead if the host decides about the sync of each update; 0 if the optimizer does.
    """

    steps: int = 1
    sync_period: int = 0

    def next_call(self, remaining: int, since_sync: int = 0) -> Call:
        """The call to make next.

        Args:
          remaining: steps to the end of the epoch, at least 1.
          since_sync: steps since the last sync; ignored if the optimizer counts them itself.
        """
        if remaining == 1:
            return Call(1, last=True)
        if 1 < self.steps < remaining and not (self.sync_period and since_sync):
            return Call(self.steps, period=self.sync_period)
        return Call(1, sync=since_sync + 1 >= self.sync_period if self.sync_period else None)

    def calls(self, steps_per_epoch: int) -> Iterator[Call]:
        """Every call that a run can make; the one that it begins with is the first."""
        if 1 < self.steps < steps_per_epoch:
            yield Call(self.steps, period=self.sync_period)
        for sync in (False, True) if self.sync_period else (None,):
            yield Call(1, sync=sync)
        yield Call(1, last=True)


ONE_BY_ONE = Dispatch()


def lagging(dispatched: Iterable[T], most: int) -> Iterator[T]:
    """Yields each item when `most` of them are dispatched, the last ones at the end.

    Waiting for the results of what it yields keeps at most `most` calls in flight: the next one is dispatched before
    the last is done, and no further ahead.

    Args:
      dispatched: dispatches a call whenever it is asked for the next item.
      most: at least 1.
    """
    waiting: collections.deque[T] = collections.deque()
    for item in dispatched:
        waiting.append(item)
        if len(waiting) >= most:
            yield waiting.popleft()
    yield from waiting


def choose(steps_per_dispatch: int, *, platform: str, parameters: int, sync_period: int) -> Dispatch:
    """The dispatch of a run, by the rules above.

    Args:
      steps_per_dispatch: of the config; 0 for the platform's default.
      platform: of the devices: "cpu", "gpu", "tpu".
      parameters: of the model.
      sync_period: k of a Lookahead whose inner optimizer changes the parameters at every step; 0 without one.
    """
    static = sync_period if platform != "cpu" and parameters > LARGE else 0
    steps = steps_per_dispatch or STEPS.get(platform, 1)
    if static and steps > 1 and not steps_per_dispatch:
        steps = max(steps // static, 1) * static  # whole periods
    if static and steps > 1 and steps % static:
        static = 0
    return Dispatch(steps, static)
