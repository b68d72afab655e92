"""Cross-entropy of a linear layer over a large vocabulary, without forming the logits' gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


def linear_cross_entropy(hidden: Array, kernel: Array, bias: Array, targets: Array) -> tuple[Array, Array]:
    """Cross-entropy of `softmax(hidden @ kernel + bias)` with gradients, using one array of the logits' size.

    With `E = exp(logits - max)` and `s = 1 / sum(E)`, the gradient of a token's loss with respect to its logits is
    `s E - onehot`. Neither `s E` nor the difference is formed: for incoming gradients `g`,
    `d_kernel = (g s hidden)^T E` and `d_hidden = g s (E kernel^T)`, with the scales on the narrow side, and the one-hot
    is subtracted by a gather of `kernel`'s columns and a scatter into `d_kernel`'s.

    Measured with gradients, 700 tokens, H = 50, V = 10,000, two cores shared with other work, n = 25
    alternations, fastest: 29 to 36 ms, compared with 145 to 178 ms for the expression in optax.

    Args:
      hidden: float `[..., H]`.
      kernel: `[H, V]`.
      bias: `[V]`.
      targets: int `[...]`, each in `[0, V)`.

    Returns:
      losses: `[...]`, in nats.
      correct: bool `[...]`, whether no logit is larger than the target's.
    """
    losses, correct = _linear_cross_entropy(hidden.reshape(-1, hidden.shape[-1]), kernel, bias, targets.reshape(-1))
    return losses.reshape(targets.shape), correct.reshape(targets.shape)


@jax.custom_vjp
def _linear_cross_entropy(hidden: Array, kernel: Array, bias: Array, targets: Array) -> tuple[Array, Array]:
    return _forward(hidden, kernel, bias, targets)[0]


def _with_ones(hidden: Array) -> Array:
    """Appends ones, so that the bias is a row of the kernel: adding it and its gradient need no extra pass."""
    return jnp.concatenate([hidden, jnp.ones((hidden.shape[0], 1), hidden.dtype)], axis=1)


def _forward(hidden: Array, kernel: Array, bias: Array, targets: Array):
    logits = _with_ones(hidden) @ jnp.concatenate([kernel, jnp.expand_dims(bias, 0)])
    target_logits = jnp.take_along_axis(logits, jnp.expand_dims(targets, 1), axis=1)[:, 0]
    largest = jnp.max(logits, axis=1)
    exponentials = jnp.exp(logits - jnp.expand_dims(largest, 1))
    total = jnp.sum(exponentials, axis=1)
    losses = jnp.log(total) + (largest - target_logits)
    return (losses, target_logits >= largest), (hidden, kernel, targets, exponentials, 1 / total)


def _backward(residuals: tuple[Array, Array, Array, Array, Array], gradients: tuple[Array, Array]):
    hidden, kernel, targets, exponentials, inverse_total = residuals
    by_loss = jnp.expand_dims(gradients[0], 1)
    scale = by_loss * jnp.expand_dims(inverse_total, 1)
    width = hidden.shape[1]
    # Padded to whole vectors and transposed beforehand: [700, 10000] x [10000, 50] takes the CPU backend 4.7 ms like
    # this and 13.2 ms without.
    columns = lax.optimization_barrier(jnp.pad(kernel, ((0, -width % 16), (0, 0))).T)
    d_hidden = scale * (exponentials @ columns)[:, :width] - by_loss * jnp.take(kernel, targets, axis=1).T
    d_weights = (scale * _with_ones(hidden)).T @ exponentials
    d_weights = d_weights.at[:, targets].add(-(by_loss * _with_ones(hidden)).T)
    return d_hidden, d_weights[:width], d_weights[width], None


_linear_cross_entropy.defvjp(_forward, _backward)
