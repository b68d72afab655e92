"""The devices of a run: where arrays lie, and how a program is compiled for all of them.

`train.step.share` says how one step is shared out, without devices; here are those of this machine, or of all the
processes that train a run.

Under pmap nothing is stacked: replicated values go in and come out without a device axis, so checkpoints are the same
whatever the number of devices. `out_axes=None` is not checked by JAX: a forgotten `psum` returns device 0's part,
which is why the tests compare several devices with one.

On the devices of several processes pmap is the `jax.shard_map` that it is made of.
"""

# jax.Device is a variable to pyright.
# pyright: reportInvalidTypeForm=false

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.errors import UserError
from train.step.share import AXIS, Share


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The devices of a run.

    Attributes:
      devices: of all processes, at least one; every process has the same.
      share: how a batch is split over them.
    """

    devices: tuple[jax.Device, ...]
    share: Share

    @classmethod
    def of(cls, devices: Sequence[jax.Device], mode: str) -> "Parallel":
        """`mode` ("pmap", "jit" or "local") over the devices; one device needs none of them."""
        return cls(tuple(devices), Share.of(len(devices), mode))

    @property
    def max_in_flight(self) -> int:
        """How many steps may be dispatched and not yet done.

        Collectives of several CPU devices wait for each other on one thread pool: a second step in flight can take the
        threads that the first one's devices still need, and neither ends.
        """
        return 1 if len(self.devices) > 1 and self.devices[0].platform == "cpu" else 2

    def compiler_options(self, *, once: bool = False) -> dict[str, Any]:
        """On the CPU: the order of operations that needs least memory, not the one that runs most at a time.

        Each large operation uses all cores anyway, and ResNet18's step takes 105 MB of temporaries instead of 164.

        Args:
          once: whether the program runs once. LLVM then does little to it: ResNet18's initial state compiles in 2.6 s
            instead of 6.7, and has the same bits.
        """
        if self.devices[0].platform != "cpu":
            return {}
        quick = {"xla_backend_optimization_level": 1} if once else {}
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED", **quick}

    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    @property
    def replicated(self) -> jax.sharding.Sharding:
        """Where state and data live."""
        if self.share.mode == "single":
            return jax.sharding.SingleDeviceSharding(self.devices[0])
        return NamedSharding(self._mesh(), PartitionSpec())

    @property
    def several_processes(self) -> bool:
        """Whether some of the devices are another process'."""
        return len({device.process_index for device in self.devices}) > 1

    def put(self, tree: Any) -> Any:
        """Places a tree on every device, each leaf in buffers of its own; every process has the same tree."""
        return jax.device_put(tree, self.replicated) if not self.several_processes else _put(tree, self.placed(tree))

    def placed(self, shapes: Any) -> Any:
        """A tree of shapes and dtypes with the place where `put` would put each leaf."""
        where = self.replicated
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=where), shapes)

    def placed_state(self, shapes: Any) -> Any:
        """Shapes, dtypes and places of a state whose shapes and dtypes are given as one worker has it."""
        if self.share.mode != "local":
            return self.placed(shapes)
        where, workers = NamedSharding(self._mesh(), PartitionSpec(AXIS)), self.share.devices
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((workers, *x.shape), x.dtype, sharding=where), shapes)

    def loadable(self, shapes: Any) -> Any:
        """Shapes and dtypes with a place that this process can read a checkpoint to by itself."""
        if not self.several_processes and self.share.mode != "local":
            return shapes
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)

    def loaded(self, tree: Any, shapes: Any) -> Any:
        """What was read to `loadable` places, on every device."""
        return tree if not self.several_processes and self.share.mode != "local" else _put(tree, shapes)

    def compile(
        self,
        program: Callable[..., Any],
        args: Sequence[Any],
        donate: tuple[int, ...] = (),
        *,
        own: Any = False,
        once: bool = False,
        tracing: contextlib.AbstractContextManager[Any] | None = None,
    ) -> Callable[..., Any]:
        """Compiles `program(*args)` ahead of time.

        Args:
          program: a pure function; everything it returns must be equal on all devices, but for what `own` names.
          args: arguments placed by `put`, or their shapes placed by `placed`.
          donate: indices of arguments whose buffers the outputs may take; give them first and in the outputs' order.
          own: for local steps, which outputs are each worker's own: a tree of bools, one for each output or part of it.
          once: whether it runs once, see `compiler_options`.
          tracing: entered while the program is traced, a lock if several threads compile: they trace no faster for
            taking turns at every instruction, and the first is done sooner.

        Returns:
          The compiled program, called with `*args`.
        """
        tracing, options = tracing or contextlib.nullcontext(), self.compiler_options(once=once)
        if self.share.mode == "pmap" and not self.several_processes:
            index, lowered = self._lower_pmap(program, args, donate, tracing)
            return functools.partial(lowered.compile(options), index)
        where = self.replicated
        if self.share.mode == "local":
            jitted = jax.jit(self._each_worker(program, args, own), donate_argnums=donate)
            with tracing:
                lowered = jitted.lower(*args)
            return lowered.compile(options)
        if self.share.mode == "pmap":
            # What jax.pmap is made of; itself it takes no argument that is already on the devices of all processes.
            replicated = PartitionSpec()
            name = getattr(program, "__name__", "program")
            program = jax.shard_map(
                program, mesh=self._mesh(), in_specs=replicated, out_specs=replicated, check_vma=False
            )
            program.__name__ = name  # what profiles and compilation logs call it
        jitted = jax.jit(program, donate_argnums=donate, in_shardings=where, out_shardings=where)
        with tracing:
            lowered = jitted.lower(*args)
        return lowered.compile(options)

    def _each_worker(self, program, args, own):
        """The program on each worker's own part of arguments that the devices split, without the axis of workers."""

        def part(*args):
            args = jax.tree.map(lambda x, spec: x[0] if spec == mine else x, args, specs)
            outputs = program(*args)
            return jax.tree.map(lambda own, x: jax.tree.map(lambda y: y[None], x) if own else x, own, outputs)

        part.__name__ = getattr(program, "__name__", "program")
        mine = PartitionSpec(AXIS)
        specs = jax.tree.map(lambda x: x.sharding.spec, tuple(args))
        out_specs = jax.tree.map(lambda own: mine if own else PartitionSpec(), own)
        return jax.shard_map(part, mesh=self._mesh(), in_specs=specs, out_specs=out_specs, check_vma=False)

    def _lower_pmap(self, program, args, donate, tracing):
        def part(index, *args):
            del index  # pmap wants one argument with a device axis
            return program(*args)

        part.__name__ = getattr(program, "__name__", "program")  # what profiles and compilation logs call it
        mapped = jax.pmap(
            part,
            axis_name=AXIS,
            in_axes=(0,) + (None,) * len(args),
            out_axes=None,
            devices=self.devices,
            donate_argnums=tuple(i + 1 for i in donate),
        )
        indices = jnp.arange(len(self.devices), dtype=jnp.int32)
        indices = jax.device_put(indices, NamedSharding(self._mesh(), PartitionSpec(AXIS)))
        with tracing:
            return indices, mapped.lower(indices, *args)


def _put(tree: Any, shapes: Any) -> Any:
    """Arrays that every process has, placed as the shapes say."""

    def put(leaf, shape):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(shape.shape, shape.sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree, shapes)


def run_devices(count: int) -> list[jax.Device]:
    """The first `count` devices of each process, all of them for 0.

    Raises:
      UserError: `count` is more than there are.
    """
    found = []
    for process in range(jax.process_count()):
        devices = [device for device in jax.devices() if device.process_index == process]
        if count > len(devices):
            raise UserError(f"config.devices={count}, but this machine has {len(devices)}; use 0 for all of them")
        found += devices[: count or len(devices)]
    return found
