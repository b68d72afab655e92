"""Exact sums, losses, and the pure steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.steps import Metrics, count_correct, sample_losses


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


def test_label_smoothing_is_cross_entropy_with_soft_labels():
    logits = jax.random.normal(jax.random.PRNGKey(0), (5, 7))
    targets = jnp.array([0, 6, 3, 3, 1])
    soft = 0.9 * jax.nn.one_hot(targets, 7) + 0.1 / 7
    expected = optax.softmax_cross_entropy(logits, soft)
    np.testing.assert_allclose(sample_losses(logits, targets, 0.1), expected, rtol=1e-5)


def test_losses_of_bfloat16_logits_are_float32():
    assert sample_losses(jnp.zeros((2, 3), jnp.bfloat16), jnp.zeros(2, jnp.int32)).dtype == jnp.float32


def test_count_correct_counts_tokens():
    logits = jnp.array([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 3.0]]])
    assert int(count_correct(logits, jnp.array([[1, 1], [1, 1]]))) == 3
