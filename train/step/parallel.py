"""How one step is shared out over devices: plain jit, pmap, or jit over a sharded batch.

State and data are replicated; only the batch is split.

| mode   | how                                     | `Share.part(batch)`                | `Share.total(x)`  |
|--------|-----------------------------------------|------------------------------------|-------------------|
| single | `jax.jit`                               | the whole batch                    | x                 |
| pmap   | `jax.pmap`, in_axes None, out_axes None | the slice at this device's index   | psum over devices |
| jit    | `jax.jit` with `NamedSharding`          | a sharding constraint              | x; XLA reduces    |

Devices may be those of several processes: both modes work there, pmap as the `jax.shard_map` that it is made of.

`Share` says how, without devices: steps are traced with it, also for a machine that is not there. `Parallel` adds the
devices of this one.

Under pmap nothing is stacked: replicated values go in and come out without a device axis, so checkpoints are the same
whatever the number of devices. `out_axes=None` is not checked by JAX: a forgotten `psum` returns device 0's part,
which is why the tests compare four devices with one.
"""

# jax.Device is a variable to pyright.
# pyright: reportInvalidTypeForm=false

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from train.errors import UserError

AXIS = "devices"

Mode = Literal["single", "pmap", "jit"]


@dataclasses.dataclass(frozen=True)
class Share:
    """How the global batch is split over devices. Static under jit.

    Attributes:
      devices: number of devices.
      mode: see the table above; "single" exactly when there is one device.
    """

    devices: int = 1
    mode: Mode = "single"

    @classmethod
    def of(cls, devices: int, mode: str) -> "Share":
        """`mode` ("pmap" or "jit") over several devices; one device needs neither."""
        return cls(devices, "single" if devices == 1 else mode)  # type: ignore[arg-type]

    @property
    def axis_name(self) -> str | None:
        """The axis that BatchNorm and `total` reduce over by name: pmap's alone."""
        return AXIS if self.mode == "pmap" else None

    def padded(self, size: int) -> int:
        """The least multiple of the number of devices that is at least `size`."""
        return -(-size // self.devices) * self.devices

    def part(self, tree: Any) -> Any:
        """This device's part of arrays with a leading batch axis.

        An axis that does not divide over the devices is padded first, with copies of its last element, which are
        finite wherever that one is; `counted` says which elements are real.
        """
        if self.mode == "single":
            return tree
        tree = jax.tree.map(lambda leaf: pad(leaf, self.padded(leaf.shape[0])), tree)
        if self.mode == "jit":
            mesh = AbstractMesh((self.devices,), (AXIS,))
            return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(AXIS)))
        device = jax.lax.axis_index(AXIS)

        def slice_leaf(leaf):
            size = leaf.shape[0] // self.devices
            return jax.lax.dynamic_slice_in_dim(leaf, device * size, size)

        return jax.tree.map(slice_leaf, tree)

    def counted(self, size: int) -> jax.Array | None:
        """Which elements of this device's part of `size` examples are real, bool; None if nothing pads it."""
        padded = self.padded(size)
        return None if padded == size else self.part(jnp.arange(padded) < size)

    def total(self, tree: Any) -> Any:
        """The sum of every device's value."""
        return jax.lax.psum(tree, AXIS) if self.mode == "pmap" else tree

    def own_key(self, key: jax.Array) -> jax.Array:
        """A PRNG key of this device's own, for a model that draws random numbers for its part of the batch alone."""
        return jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if self.mode == "pmap" else key


WHOLE = Share()  # one device


def pad(leaf: jax.Array, size: int) -> jax.Array:
    """Makes the first axis at least `size` long, with copies of its last element."""
    missing = size - leaf.shape[0]
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)]) if missing > 0 else leaf


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
        """`mode` ("pmap" or "jit") over the devices; one device needs neither."""
        return cls(tuple(devices), Share.of(len(devices), mode))

    @property
    def max_in_flight(self) -> int:
        """How many steps may be dispatched and not yet done.

        Collectives of several CPU devices wait for each other on one thread pool: a second step in flight can take the
        threads that the first one's devices still need, and neither ends.
        """
        return 1 if len(self.devices) > 1 and self.devices[0].platform == "cpu" else 2

    @property
    def compiler_options(self) -> dict[str, Any]:
        """On the CPU: the order of operations that needs least memory, not the one that runs most at a time.

        Each large operation uses all cores anyway, and ResNet18's step takes 105 MB of temporaries instead of 164.
        """
        cpu = self.devices[0].platform == "cpu"
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if cpu else {}

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
        if not self.several_processes:
            return jax.device_put(tree, self.replicated)

        def put(leaf):
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, self.replicated, lambda index: leaf[index])

        return jax.tree.map(put, tree)

    def loadable(self, shapes: Any) -> Any:
        """Shapes and dtypes with a place that this process can read a checkpoint to by itself."""
        if not self.several_processes:
            return shapes
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)

    def loaded(self, tree: Any) -> Any:
        """What was read to `loadable` places, on every device."""
        return self.put(tree) if self.several_processes else tree

    def placed(self, shapes: Any) -> Any:
        """A tree of shapes and dtypes with the place where `put` would put each leaf."""
        where = self.replicated
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)

    def compile(
        self,
        program: Callable[..., Any],
        args: Sequence[Any],
        donate: tuple[int, ...] = (),
        *,
        tracing: contextlib.AbstractContextManager[Any] | None = None,
    ) -> Callable[..., Any]:
        """Compiles `program(*args)` ahead of time.

        Args:
          program: a pure function; everything it returns must be equal on all devices.
          args: arguments placed by `put`, or their shapes placed by `placed`.
          donate: indices of arguments whose buffers the outputs may take; give them first and in the outputs' order.
          tracing: entered while the program is traced, a lock if several threads compile: they trace no faster for
            taking turns at every instruction, and the first is done sooner.

        Returns:
          The compiled program, called with `*args`.
        """
        tracing = tracing or contextlib.nullcontext()
        if self.share.mode == "pmap" and not self.several_processes:
            return self._compile_pmap(program, args, donate, tracing)
        where = self.replicated
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
        return lowered.compile(self.compiler_options)

    def _compile_pmap(self, program, args, donate, tracing):
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
            lowered = mapped.lower(indices, *args)
        compiled = lowered.compile(self.compiler_options)
        return lambda *args: compiled(indices, *args)


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
