"""How one step is shared out over devices: plain jit, pmap, jit over a sharded batch, or workers on their own.

Data are replicated, and but for "local" the state; the batch is split.

| mode   | how                                     | `Share.part(batch)`                | `Share.total(x)`  |
|--------|-----------------------------------------|------------------------------------|-------------------|
| single | `jax.jit`                               | the whole batch                    | x                 |
| pmap   | `jax.pmap`, in_axes None, out_axes None | the slice at this device's index   | psum over devices |
| jit    | `jax.jit` with `NamedSharding`          | a sharding constraint              | x; XLA reduces    |
| local  | `jax.shard_map`, states stacked         | as under pmap                      | psum over devices |

"local" is for local steps: each device is a worker with a state of its own, from its own part of each batch, and only
Lookahead's outer step averages over them. States have a leading axis of workers, which the devices split.

No devices are needed to say so: steps are traced with a `Share`, also for a machine that is not there.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from train.models.axis_sum import axis_sum

AXIS = "devices"

Mode = Literal["single", "pmap", "jit", "local"]


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
        """`mode` ("pmap", "jit" or "local") over several devices; one device needs none of them."""
        return cls(devices, "single" if devices == 1 else mode)  # type: ignore[arg-type]

    @property
    def axis_name(self) -> str | None:
        """The axis that BatchNorm and `total` reduce over by name: pmap's alone."""
        return AXIS if self.mode == "pmap" else None

    @property
    def workers_axis(self) -> str | None:
        """The axis that Lookahead's outer step averages over: where each device is a worker with its own state."""
        return AXIS if self.mode == "local" else None

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

    def examples(self, size: int) -> Any:
        """How many of `size` examples are real among those that a model's statistics are taken over; None if all.

        Those are the global batch, but a worker's own part (and so a traced number) for local steps.
        """
        counted = self.counted(size)
        return counted if counted is None else jnp.sum(counted, dtype=jnp.int32) if self.mode == "local" else size

    def total(self, tree: Any) -> Any:
        """The sum of every device's value."""
        return axis_sum(tree, AXIS) if self.mode in ("pmap", "local") else tree

    def gradient(self, tree: Any) -> Any:
        """The gradient that a device's optimizer gets, from that of its part of the global mean.

        For local steps that is n times its part, with n workers: the gradient of its own mean where parts are alike,
        and in any case one whose mean over the workers is the global gradient.
        """
        return jax.tree.map(lambda x: x * self.devices, tree) if self.mode == "local" else self.total(tree)

    def mean(self, tree: Any) -> Any:
        """The mean over the workers under local steps, whose values may differ; otherwise the values themselves."""
        return jax.lax.pmean(tree, AXIS) if self.mode == "local" else tree

    def every(self, flag: jax.Array) -> jax.Array:
        """Whether a flag holds on all workers."""
        return jax.lax.pmin(flag.astype(jnp.int32), AXIS) == 1 if self.mode == "local" else flag

    def own_key(self, key: jax.Array) -> jax.Array:
        """A PRNG key of this device's own, for a model that draws random numbers for its part of the batch alone."""
        return jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if self.mode in ("pmap", "local") else key


WHOLE = Share()  # one device


def pad(leaf: jax.Array, size: int) -> jax.Array:
    """Makes the first axis at least `size` long, with copies of its last element."""
    missing = size - leaf.shape[0]
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)]) if missing > 0 else leaf
