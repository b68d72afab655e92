"""BatchNorm statistics for slow weights, in Flax Linen and NNX.

    python examples/recalibrate_batch_stats.py

BatchNorm's running statistics follow the live weights. The slow weights compute other activations, so before they are
evaluated between two syncs, or published, their statistics are estimated again over some training batches, as
`torch.optim.swa_utils.update_bn` does. `recalibrated` is all it takes: copy it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


def recalibrated(update, batch_stats, batches, momentum=0.99):
    """The mean over `batches` of the statistics of each: a tree like `batch_stats`.

    Args:
      update: `update(batch_stats, batch)`, a forward pass in training mode that returns the new running statistics.
      batch_stats: for their structure alone.
      batches: of inputs, all of one size.
      momentum: of the BatchNorm layers; 0.99 is Flax's default.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    # From zero, one update leaves (1 - momentum) times the statistics of the batch.
    found = [jax.tree.map(lambda x: x / (1 - momentum), update(zeros, batch)) for batch in batches]
    return jax.tree.map(lambda *x: sum(x) / len(x), *found)


def linen_update(model: nn.Module, params):
    """Of a Linen module with `__call__(inputs, train)` and these weights."""

    @jax.jit
    def update(stats, x):
        _, updated = model.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
        return updated["batch_stats"]

    return update


def nnx_update(model: nnx.Module):
    """Of an NNX module, such as a clone with slow weights; it stays as it is."""
    graph, _, rest = nnx.split(model, nnx.BatchStat, ...)

    @jax.jit
    def update(stats, x):
        running = nnx.merge(graph, stats, rest)
        running.train()
        running(x)
        return nnx.state(running, nnx.BatchStat)

    return update


def main():
    """Statistics of a layer that doubles its input: twice the mean and four times the variance of the data."""
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    model.layers[0].kernel[...] = 2.0 * jnp.eye(3)
    batches = 1.0 + jax.random.normal(jax.random.key(1), (20, 256, 3))
    nnx.update(model, recalibrated(nnx_update(model), nnx.state(model, nnx.BatchStat), list(batches)))
    norm = model.layers[1]
    print("mean", norm.mean[...], "variance", norm.var[...])
    return norm.mean[...], norm.var[...]


if __name__ == "__main__":
    main()
