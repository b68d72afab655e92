"""One pure step on one device or on several: plain jit, pmap, or jit over a sharded batch.

State and data are replicated; only the batch is split. A program is a function `program(*args, shard)`, whose `shard`
takes the drawn global batch and gives this device's part of it:

| mode   | how                                     | axis_name | shard                              |
|--------|-----------------------------------------|-----------|------------------------------------|
| single | `jax.jit`                               | None      | the whole batch                    |
| pmap   | `jax.pmap`, in_axes None, out_axes None | "devices" | the slice at this device's index   |
| jit    | `jax.jit` with `NamedSharding`          | None      | a sharding constraint; XLA reduces |

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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.errors import UserError

AXIS = "devices"

Mode = Literal["single", "pmap", "jit"]


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The devices of a run, and how a program runs on them.

    Attributes:
      devices: local devices, at least one.
      mode: see the table above; "single" exactly when there is one device.
    """

    devices: tuple[jax.Device, ...]
    mode: Mode

    @classmethod
    def of(cls, devices: Sequence[jax.Device], mode: str) -> "Parallel":
        """`mode` ("pmap" or "jit") over the devices; one device needs neither."""
        return cls(tuple(devices), "single" if len(devices) == 1 else mode)  # type: ignore[arg-type]

    @property
    def axis_name(self) -> str | None:
        """The axis that steps reduce over by name: pmap's alone."""
        return AXIS if self.mode == "pmap" else None

    @property
    def max_in_flight(self) -> int:
        """How many steps may be dispatched and not yet done.

        Collectives of several CPU devices wait for each other on one thread pool: a second step in flight can take the
        threads that the first one's devices still need, and neither ends.
        """
        return 1 if len(self.devices) > 1 and self.devices[0].platform == "cpu" else 2

    @property
    def _compiler_options(self) -> dict[str, Any]:
        """On the CPU: an order of operations that holds little at a time, not one that runs many at a time.

        Each operation of size has all cores as it is, and ResNet18's step takes 105 MB of temporaries for 164.
        """
        return (
            {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
            if self.devices[0].platform == "cpu"
            else {}
        )

    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    @property
    def replicated(self) -> jax.sharding.Sharding:
        """Where state and data live."""
        if self.mode == "single":
            return jax.sharding.SingleDeviceSharding(self.devices[0])
        return NamedSharding(self._mesh(), PartitionSpec())

    def put(self, tree: Any) -> Any:
        """Places a tree on every device, each leaf in buffers of its own."""
        return jax.device_put(tree, self.replicated)

    def check_divides(self, size: int, what: str) -> None:
        """Raises UserError where `size` examples cannot be split evenly."""
        n = len(self.devices)
        if size % n:
            raise UserError(f"{what} of {size} does not divide over {n} devices; use a multiple of {n}")

    def compile(
        self,
        program: Callable[..., Any],
        args: Sequence[Any],
        donate: tuple[int, ...] = (),
        *,
        tracing: contextlib.AbstractContextManager[Any] | None = None,
    ) -> Callable[..., Any]:
        """Compiles `program(*args, shard)` ahead of time.

        Args:
          program: a pure function; everything it returns must be equal on all devices.
          args: arguments placed by `put`, for their shapes and places.
          donate: indices of arguments whose buffers the outputs may take; give them first and in the outputs' order.
          tracing: entered while the program is traced, a lock where several threads compile: they trace no faster for
            taking turns at every instruction, and the first is done sooner.

        Returns:
          The compiled program, called with `*args`.
        """
        tracing = tracing or contextlib.nullcontext()
        if self.mode == "pmap":
            return self._compile_pmap(program, args, donate, tracing)
        where = self.replicated
        batched = NamedSharding(self._mesh(), PartitionSpec(AXIS)) if self.mode == "jit" else None

        def shard(tree):
            return tree if batched is None else jax.lax.with_sharding_constraint(tree, batched)

        def whole(*args):
            return program(*args, shard)

        whole.__name__ = getattr(program, "__name__", "program")  # what profiles and compilation logs call it
        jitted = jax.jit(whole, donate_argnums=donate, in_shardings=where, out_shardings=where)
        with tracing:
            lowered = jitted.lower(*args)
        return lowered.compile(self._compiler_options)

    def _compile_pmap(self, program, args, donate, tracing):
        n = len(self.devices)

        def part(device, *args):
            def shard(tree):
                def slice_leaf(leaf):
                    size = leaf.shape[0] // n
                    return jax.lax.dynamic_slice_in_dim(leaf, device * size, size)

                return jax.tree.map(slice_leaf, tree)

            return program(*args, shard)

        part.__name__ = getattr(program, "__name__", "program")
        mapped = jax.pmap(
            part,
            axis_name=AXIS,
            in_axes=(0,) + (None,) * len(args),
            out_axes=None,
            devices=self.devices,
            donate_argnums=tuple(i + 1 for i in donate),
        )
        indices = jax.device_put(jnp.arange(n, dtype=jnp.int32), NamedSharding(self._mesh(), PartitionSpec(AXIS)))
        with tracing:
            lowered = mapped.lower(indices, *args)
        compiled = lowered.compile(self._compiler_options)
        return lambda *args: compiled(indices, *args)


def local_devices(count: int) -> list[jax.Device]:
    """The first `count` local devices, all of them for 0.

    Raises:
      UserError: more asked for than there are.
    """
    devices = jax.local_devices()
    if count > len(devices):
        raise UserError(f"config.devices={count}, but this machine has {len(devices)}; use 0 for all of them")
    return devices[: count or len(devices)]
