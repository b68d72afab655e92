"""The report's language model: a two-layer GRU with torch's equations.

A step of the recurrence holds only what depends on the step before: one matmul with the three gates side by side and
a few elementwise operations; the input projections of all steps are one matmul before the loop.

Measured at the report's sizes (T = 35, B = 20, H = 50, two cores shared with other work, n = 15 alternations, fastest):
forward and gradient of one layer 1.24 ms; unrolled by 5, 1.19; unrolled whole, 1.29; with a gradient of its own that
recomputes the gates of all steps at once and keeps the weights' gradient out of the loop, 1.7 to 2.2. The plain scan
it is: a step of training spends its time in the softmax and the optimizer.
"""

from __future__ import annotations

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from train.models.dropout import Dropout
from train.models.initializers import symmetric_uniform


def gru_recurrence(projected: Array, kernel: Array, bias: Array) -> Array:
    """Hidden states of a GRU that starts at zero.

    `r = sigmoid(p_r + h W_r)`, `z = sigmoid(p_z + h W_z)`, `n = tanh(p_n + r * (h W_n + bias))`,
    `h' = (1 - z) * n + z * h` (`torch.nn.GRU`).

    Args:
      projected: `[T, B, 3H]`, what reaches the gates r, z, n from the input, biases of r and z included.
      kernel: `[H, 3H]`, W_r, W_z, W_n side by side.
      bias: `[H]`, the recurrent bias of n.

    Returns:
      `[T, B, H]`.
    """
    size = kernel.shape[0]

    def step(hidden: Array, projected: Array) -> tuple[Array, Array]:
        recurrent = hidden @ kernel
        gates = nn.sigmoid(projected[:, : 2 * size] + recurrent[:, : 2 * size])
        reset, update = gates[:, :size], gates[:, size:]
        recurrent_new = recurrent[:, 2 * size :] + jnp.expand_dims(bias, 0)
        new = jnp.tanh(projected[:, 2 * size :] + reset * recurrent_new)
        hidden = new + update * (hidden - new)
        return hidden, hidden

    start = jnp.zeros((projected.shape[1], size), projected.dtype)
    return lax.scan(step, start, projected)[1]


class GRULayer(nn.Module):
    """One layer of `torch.nn.GRU`, time first: `[T, B, F]` to `[T, B, H]`, hidden state zero at the start.

    Variables, gates in torch's order r, z, n: input_kernel `[F, 3H]`, recurrent_kernel `[H, 3H]`, input_bias
    and recurrent_bias `[3H]`, all uniform over `±1/sqrt(H)`.
    """

    hidden_size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.hidden_size
        uniform = symmetric_uniform(1 / math.sqrt(size))
        input_kernel = self.param("input_kernel", uniform, (x.shape[-1], 3 * size))
        recurrent_kernel = self.param("recurrent_kernel", uniform, (size, 3 * size))
        input_bias = self.param("input_bias", uniform, (3 * size,))
        recurrent_bias = self.param("recurrent_bias", uniform, (3 * size,))
        # Outside the gate of r the recurrent bias is one more input bias; only n's stands inside.
        bias = input_bias + recurrent_bias.at[2 * size :].set(0)
        projected = x @ input_kernel + jnp.expand_dims(bias, (0, 1))
        return gru_recurrence(projected, recurrent_kernel, recurrent_bias[2 * size :])


class GRULanguageModel(nn.Module):
    """Tokens int32 `[B, T]` to logits `[B, T, num_classes]` of the token that follows each.

    Embedding, dropout, GRU layers, dropout, linear layer. The hidden state is zero at the start of each segment.
    There is no dropout between the GRU layers: the report's model has none.

    `apply(variables, tokens, train=..., method="hidden")` gives the inputs `[B, T, H]` of the last layer, whose
    `params["fc"]` holds kernel `[H, num_classes]` and bias: for
    `train.models.linear_cross_entropy.linear_cross_entropy`, which needs no logits. A model is scored in this way if
    its class says by `linear_last` what that layer is called.

    Attributes:
      num_classes: size of the vocabulary.
      dropout: rate of both dropouts; in training `rngs={"dropout": key}` is needed.
      axis_name: axis over which the batch is split, under `pmap` and `shard_map`.

    Initialised as the report's: embedding and last kernel uniform over ±0.1, last bias 0, GRU as torch.
    """

    num_classes: int
    embedding_size: int = 50
    hidden_size: int = 50
    num_layers: int = 2
    dropout: float = 0.5
    axis_name: str | None = None
    linear_last: ClassVar[str] = "fc"

    def setup(self) -> None:
        self.embedding = self.param("embedding", symmetric_uniform(0.1), (self.num_classes, self.embedding_size))
        self.layers = [GRULayer(self.hidden_size, name=f"gru{layer}") for layer in range(1, self.num_layers + 1)]
        self.drop = Dropout(self.dropout, batch_axis=1, axis_name=self.axis_name)
        self.fc = nn.Dense(self.num_classes, kernel_init=symmetric_uniform(0.1))

    def hidden(self, tokens: Array, train: bool, examples: int | Array | None = None) -> Array:
        """Tokens `[B, T]` to the inputs of the last layer, `[B, T, H]`, dropout applied."""
        x = self.drop(jnp.take(self.embedding, tokens.T, axis=0), not train, examples)
        for layer in self.layers:
            x = layer(x)
        return jnp.swapaxes(self.drop(x, not train, examples), 0, 1)

    def __call__(self, tokens: Array, train: bool, examples: int | Array | None = None) -> Array:
        return self.fc(self.hidden(tokens, train, examples))
