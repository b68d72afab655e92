"""A bidirectional LSTM that classifies texts, with torch's equations: for IMDB reviews."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from train.models.dropout import Dropout
from train.models.initializers import symmetric_uniform, torch_uniform


def lstm_recurrence(projected: Array, kernel: Array, reverse: bool = False) -> Array:
    """Hidden states of an LSTM that starts at zero.

    ``i, f, o = sigmoid(p + h W)``, ``g = tanh(p_g + h W_g)``, ``c' = f * c + i * g``, ``h' = o * tanh(c')``
    (``torch.nn.LSTM``).

    Args:
        projected: ``[T, B, 4H]``, what reaches the gates i, f, g, o from the input, all biases included.
        kernel: ``[H, 4H]``, the gates side by side.
        reverse: run from the last step to the first.

    Returns:
        ``[T, B, H]``, in the order of the input whichever way it ran.
    """
    size = kernel.shape[0]

    def step(state: tuple[Array, Array], projected: Array) -> tuple[tuple[Array, Array], Array]:
        hidden, cell = state
        gates = projected + hidden @ kernel
        input_gate = nn.sigmoid(gates[:, :size])
        forget_gate = nn.sigmoid(gates[:, size : 2 * size])
        new = jnp.tanh(gates[:, 2 * size : 3 * size])
        output_gate = nn.sigmoid(gates[:, 3 * size :])
        cell = forget_gate * cell + input_gate * new
        hidden = output_gate * jnp.tanh(cell)
        return (hidden, cell), hidden

    zero = jnp.zeros((projected.shape[1], size), projected.dtype)
    return lax.scan(step, (zero, zero), projected, reverse=reverse)[1]


class LSTMLayer(nn.Module):
    """One direction of one layer of ``torch.nn.LSTM``, time first: ``[T, B, F]`` to ``[T, B, H]``.

    Variables, gates in torch's order i, f, g, o: input_kernel ``[F, 4H]``, recurrent_kernel ``[H, 4H]``, input_bias and
    recurrent_bias ``[4H]``, all uniform over ``±1/sqrt(H)``.
    """

    hidden_size: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.hidden_size
        uniform = symmetric_uniform(1 / math.sqrt(size))
        input_kernel = self.param("input_kernel", uniform, (x.shape[-1], 4 * size))
        recurrent_kernel = self.param("recurrent_kernel", uniform, (size, 4 * size))
        input_bias = self.param("input_bias", uniform, (4 * size,))
        recurrent_bias = self.param("recurrent_bias", uniform, (4 * size,))
        projected = x @ input_kernel + jnp.expand_dims(input_bias + recurrent_bias, (0, 1))
        return lstm_recurrence(projected, recurrent_kernel, self.reverse)


class BiLSTMClassifier(nn.Module):
    """Tokens int32 ``[B, T]`` to logits ``[B, num_classes]``: the report's network for IMDB reviews.

    Embedding, dropout, bidirectional LSTM layers, dropout; at every position a linear layer to ``hidden_size`` units
    and a ReLU; their mean over the positions; a linear layer. Texts come cut or padded to one length, and a position of
    padding counts like any other.

    Attributes:
        num_classes: width of the output.
        vocabulary_size: tokens are in ``[0, vocabulary_size)``.
        dropout: rate of both dropouts; in training ``rngs={"dropout": key}`` is needed.
        axis_name: axis over which the batch is split, under ``pmap`` and ``shard_map``.

    Initialised as torch's layers: embedding standard normal, the rest uniform.
    """

    num_classes: int
    vocabulary_size: int = 10_000
    embedding_size: int = 128
    hidden_size: int = 128
    num_layers: int = 2
    dropout: float = 0.2
    axis_name: str | None = None

    @nn.compact
    def __call__(self, tokens: Array, train: bool, examples: int | Array | None = None) -> Array:
        embedding = self.param("embedding", nn.initializers.normal(1.0), (self.vocabulary_size, self.embedding_size))
        x = jnp.take(embedding, tokens.T, axis=0)
        x = Dropout(self.dropout, batch_axis=1, axis_name=self.axis_name)(x, not train, examples)
        for layer in range(1, self.num_layers + 1):
            forward = LSTMLayer(self.hidden_size, name=f"lstm{layer}_forward")(x)
            backward = LSTMLayer(self.hidden_size, reverse=True, name=f"lstm{layer}_backward")(x)
            x = jnp.concatenate([forward, backward], axis=-1)
        x = Dropout(self.dropout, batch_axis=1, axis_name=self.axis_name)(x, not train, examples)
        x = jnp.mean(nn.relu(self._linear(self.hidden_size, "position_fc", x)), axis=0)
        return self._linear(self.num_classes, "fc", x)

    def _linear(self, features: int, name: str, x: Array) -> Array:
        uniform = torch_uniform(x.shape[-1])
        return nn.Dense(features, kernel_init=uniform, bias_init=uniform, name=name)(x)
