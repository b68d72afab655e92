"""Max-pooling whose gradient is a few selects.

XLA differentiates `reduce_window` into `select_and_scatter`, which the CPU backend expands into index maps the
size of the input. Here the forward pass records which tap of each window won, one byte per output, and the backward
pass uses that to place the gradient. Measured on two cores, float32, forward and backward, n = 7 alternations,
medians, XLA's / this one's: `[128, 16, 16, 64]` 3x3/2 45.5 / 7.4 ms, `[36, 109, 109, 96]` 2x2/2 551 / 118 ms;
forward only 2.4 / 1.3 and 22.5 / 18.3 ms.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax


def max_pool(x: Array, window: int, stride: int, padding: int = 0) -> Array:
    """Maximum over square windows of `[B, H, W, C]`, like `torch.nn.MaxPool2d(window, stride, padding)`.

    Padding never wins. Among equal values the first in the window, row by row, gets the gradient; a NaN wins over
    everything; both as in torch.
    """
    return _max_pool(x, window, stride, padding, x.shape[1:3])


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x: Array, window: int, stride: int, padding: int, size: tuple[int, int]) -> Array:
    return _best(x, window, stride, padding)[0]


def _best(x: Array, window: int, stride: int, padding: int) -> tuple[Array, Array]:
    """The maximum of each window, and the number of the first tap, row by row, that has it."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-jnp.inf)
    batch, height, width, channels = x.shape
    rows, columns = (height - window) // stride + 1, (width - window) // stride + 1

    def at(tap: int) -> Array:
        i, j = divmod(tap, window)
        limit = (batch, i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, channels)
        return lax.slice(x, (0, i, j, 0), limit, (1, stride, stride, 1))

    best = at(0)
    winner = jnp.zeros(best.shape, jnp.int8)
    for tap in range(1, window * window):
        value = at(tap)
        wins = (value > best) | jnp.isnan(value)
        best, winner = jnp.where(wins, value, best), jnp.where(wins, jnp.int8(tap), winner)
    return best, winner


def _max_pool_fwd(x: Array, window: int, stride: int, padding: int, size: tuple[int, int]):
    return _best(x, window, stride, padding)


def _max_pool_bwd(window: int, stride: int, padding: int, size: tuple[int, int], winner: Array, dy: Array):
    height, width = size
    # Tap (i, j) of window (o, p) is position (o * stride + i, p * stride + j) of the padded input, so it falls in
    # the plane of positions (i % stride, j % stride) modulo the stride, shifted there by (i // stride, j // stride).
    # Each plane is a sum of selects; interleaving the planes gives the gradient without any scatter.
    plane_rows = -(-(height + 2 * padding) // stride)
    plane_columns = -(-(width + 2 * padding) // stride)

    def plane(row: int, column: int) -> Array:
        total = jnp.zeros((dy.shape[0], plane_rows, plane_columns, dy.shape[3]), dy.dtype)
        for i in range(row, window, stride):
            for j in range(column, window, stride):
                given = jnp.where(winner == i * window + j, dy, jnp.zeros((), dy.dtype))
                down, right = i // stride, j // stride
                below, beyond = plane_rows - dy.shape[1] - down, plane_columns - dy.shape[2] - right
                shifted = lax.pad(
                    given,
                    jnp.zeros((), dy.dtype),
                    ((0, 0, 0), (down, below, 0), (right, beyond, 0), (0, 0, 0)),
                )
                total = total + shifted
        return total

    planes = jnp.stack(
        [jnp.stack([plane(row, column) for column in range(stride)], axis=3) for row in range(stride)], axis=2
    )
    padded = planes.reshape(dy.shape[0], plane_rows * stride, plane_columns * stride, dy.shape[3])
    return (padded[:, padding : padding + height, padding : padding + width],)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
