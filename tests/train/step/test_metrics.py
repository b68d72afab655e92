"""Sums over an epoch are exact."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from train.step.metrics import Metrics


def test_metrics_lose_no_digits_over_an_epoch():
    losses = np.random.default_rng(1).exponential(200.0, 4000).astype(np.float32)

    def body(metrics, loss):
        return metrics.add(loss, jnp.int32(1), jnp.int32(2)), None

    metrics = jax.jit(lambda x: jax.lax.scan(body, Metrics.zeros(), x)[0])(losses)
    loss, accuracy = metrics.means()
    exact = math.fsum(losses.astype(float)) / 8000
    assert abs(loss - exact) < 1e-9 * exact
    assert abs(float(metrics.loss) / 8000 - exact) > 1e-9 * exact  # a plain float32 sum is not enough
    assert accuracy == 0.5
