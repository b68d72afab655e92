"""BatchNorm statistics for slow weights, in Flax Linen and NNX.

    python examples/recalibrate_batch_stats.py

Running statistics follow the live weights. Slow weights that are evaluated between two syncs need their own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


def recalibrated(update, batch_stats, batches, momentum):
    """Averages the statistics of each of `batches`, which must have equal sizes; returns a tree like `batch_stats`.

    `update(batch_stats, batch)`, a forward pass in training mode, returns the statistics; `momentum` is the layers'.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)  # one update leaves (1 - momentum) of the batch's
    found = [jax.tree.map(lambda x: x / (1 - momentum), update(zeros, batch)) for batch in batches]
    return jax.tree.map(lambda *x: sum(x) / len(x), *found)


def linen_update(model: nn.Module, params):
    """Returns the `update` function for a Linen module with `__call__(inputs, train)` and these weights."""

    def update(stats, x):
        _, updated = model.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
        return updated["batch_stats"]

    return jax.jit(update)


def nnx_update(model: nnx.Module):
    """Returns the `update` function for an NNX module, such as a clone with slow weights."""
    graph, _, rest = nnx.split(model, nnx.BatchStat, ...)

    def update(stats, x):
        running = nnx.merge(graph, stats, rest)
        running.train()
        running(x)
        return nnx.state(running, nnx.BatchStat)

    return jax.jit(update)


def main():
    """Statistics of a layer that doubles its input: twice the mean and four times the variance of the data."""
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    model.layers[0].kernel[...] = 2.0 * jnp.eye(3)
    batches = 1.0 + jax.random.normal(jax.random.key(1), (20, 256, 3))
    nnx.update(model, recalibrated(nnx_update(model), nnx.state(model, nnx.BatchStat), list(batches), momentum=0.99))
    mean, variance = model.layers[1].mean[...], model.layers[1].var[...]
    print("mean", mean, "variance", variance)
    return mean, variance


if __name__ == "__main__":
    main()
