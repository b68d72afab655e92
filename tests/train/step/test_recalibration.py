"""BatchNorm statistics of a batch alone, whoever's BatchNorm it is."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from train.models.normalization import BatchNorm
from train.step.recalibration import batch_statistics


class Theirs(nn.Module):
    """Flax's own BatchNorm, whose momentum and variance are not ours."""

    momentum: float

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(x)


class Ours(nn.Module):
    momentum: float

    @nn.compact
    def __call__(self, x, train):
        return BatchNorm(momentum=self.momentum)(x, train)


@pytest.mark.parametrize(("make", "ddof"), [(Theirs, 0), (Ours, 1)])
@pytest.mark.parametrize("momentum", [0.99, 0.9, 0.0])
def test_they_are_the_batchs_whatever_the_momentum(make, ddof, momentum):
    x = 3 * np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32) + 1
    model = make(momentum)
    variables = model.init(jax.random.PRNGKey(0), x, train=False)
    # The running statistics are given for their structure, and do not count.
    stats = jax.tree.map(lambda leaf: leaf + 5, variables["batch_stats"])
    found = jax.jit(lambda stats: batch_statistics(model, variables.get("params", {}), stats, x, jax.random.PRNGKey(1)))
    (layer,) = found(stats).values()
    np.testing.assert_allclose(layer["mean"], x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer["var"], x.var((0, 1, 2), ddof=ddof), rtol=1e-5)
