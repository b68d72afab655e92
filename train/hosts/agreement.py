"""What the processes of a run agree on. In a run of one process everything here is at once true.

Every function but `index`, `count` and `is_first` is called by all processes, in the same order.
"""

import hashlib
import itertools
import signal
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from train.errors import UserError

T = TypeVar("T")

# One process may compile for long while the others wait.
BARRIER_SECONDS = 3600

_PLACE = (0, 1)
_BARRIERS = itertools.count()


def set_place(index: int, count: int) -> None:
    """Says which of how many processes this one is; `train.hosts.launch` does."""
    global _PLACE
    _PLACE = (index, count)


def index() -> int:
    """The number of this process, from 0. JAX need not have started its devices."""
    return _PLACE[0]


def count() -> int:
    """The number of processes."""
    return _PLACE[1]


def is_first() -> bool:
    """Whether this process writes the run's files."""
    return index() == 0


def from_first(value: int) -> int:
    """The first process' value, on all."""
    if count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def all_same(text: str) -> bool:
    """Whether all processes have given the same text."""
    if count() == 1:
        return True
    import numpy as np
    from jax.experimental import multihost_utils

    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1
    return len(set(np.asarray(multihost_utils.process_allgather(np.int32(digest))).tolist())) == 1


def barrier(name: str) -> None:
    """Returns once all processes have called it, which may be long after this one: there is no collective in it."""
    if count() > 1:
        from orbax.checkpoint import multihost

        number = next(_BARRIERS)
        everybody = set(range(count()))
        multihost.sync_global_processes(f"{name} {number}", timeout=BARRIER_SECONDS, processes=everybody)


def whole(tree: Any) -> Any:
    """A tree of arrays each of which this process has whole: those that processes share out are gathered."""
    if count() == 1:
        return tree
    import jax
    from jax.experimental import multihost_utils

    def leaf(array: Any) -> Any:
        return array if array.is_fully_replicated else multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(leaf, tree)


def on_first(action: Callable[[], T]) -> T | None:
    """The first process does something, and the others wait for it.

    Returns:
      What the action returned; None on the others.

    Raises:
      Exception: the action's, on the first process.
      UserError: the action failed; on the others.
    """
    if not is_first():
        if not from_first(0):
            raise UserError("process 0 could not start or resume the run; its last line says why")
        return None
    try:
        result = action()
    except BaseException:
        from_first(0)
        raise
    from_first(1)
    return result


class Stop(Protocol):
    """What asks a run to save and end; see `train.interface.signals.StopRequest`."""

    @property
    def signal(self) -> signal.Signals | None: ...

    def __bool__(self) -> bool: ...

    def poll(self) -> None:
        """Called once a step."""
        ...


class AgreedStop:
    """A stop request that all processes obey after the same step, whichever of them was asked.

    Each step starts a reduction of who was asked, and reads that of the step before, which is there by then: nothing
    waits for it, and all processes read the same.

    Args:
      own: this process' request.
    """

    def __init__(self, own: Stop):
        import jax
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self._own, self._agreed, self._under_way = own, False, None
        firsts = [next(d for d in jax.devices() if d.process_index == process) for process in range(count())]
        mesh = Mesh(np.array(firsts), ("processes",))
        self._each = NamedSharding(mesh, PartitionSpec("processes"))
        self._any = jax.jit(lambda asked: asked.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that this process got."""
        return self._own.signal

    def __bool__(self) -> bool:
        return self._agreed

    def poll(self) -> None:
        """Called by all processes after each step."""
        import jax
        import numpy as np

        earlier: Any = self._under_way
        mine = np.array([bool(self._own)], np.int32)
        self._under_way = self._any(jax.make_array_from_process_local_data(self._each, mine))
        if earlier is not None and int(earlier):
            self._agreed = True


def agreed(stop: Stop) -> Stop:
    """The stop request that the run obeys."""
    return stop if count() == 1 else AgreedStop(stop)
