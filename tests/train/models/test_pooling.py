"""max_pool against loops over the windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.models.helpers import normal
from train.models.pooling import max_pool


def oracle(x, dy, window, stride, padding):
    """Values, and gradients given to the first maximum of each window, by loops."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-np.inf)
    y, gradient = np.zeros_like(dy), np.zeros_like(padded)
    for b, o, p, c in np.ndindex(dy.shape):
        row, column = o * stride, p * stride
        patch = padded[b, row : row + window, column : column + window, c]
        i, j = np.unravel_index(np.argmax(patch), patch.shape)
        y[b, o, p, c] = patch[i, j]
        gradient[b, row + i, column + j, c] += dy[b, o, p, c]
    return y, gradient[:, padding : padding + x.shape[1], padding : padding + x.shape[2]]


CASES = [((2, 8, 8, 2), 3, 2, 1), ((2, 5, 7, 1), 2, 2, 0), ((1, 6, 6, 2), 3, 3, 0), ((1, 5, 5, 1), 3, 1, 1)]


@pytest.mark.parametrize(("shape", "window", "stride", "padding"), CASES)
@pytest.mark.parametrize("ties", [False, True])
def test_values_and_gradients_match_loops_where_the_first_of_equal_maxima_takes_the_gradient(
    shape, window, stride, padding, ties
):
    x = normal(0, shape)
    if ties:
        x = np.maximum(np.round(x), 0).astype(np.float32)
    y, gradient = jax.vjp(lambda x: max_pool(x, window, stride, padding), jnp.asarray(x))
    dy = normal(1, y.shape)
    expected_y, expected_dx = oracle(x, dy, window, stride, padding)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(gradient(jnp.asarray(dy))[0], expected_dx, rtol=1e-6, atol=1e-6)


def test_the_value_without_a_gradient_is_the_same():
    x = normal(0, (2, 8, 8, 2))
    np.testing.assert_array_equal(max_pool(x, 3, 2, 1), jax.vjp(lambda x: max_pool(x, 3, 2, 1), x)[0])


def test_a_nan_wins():
    x = np.ones((1, 2, 2, 1), np.float32)
    for position in range(4):
        x_nan = x.copy()
        x_nan.reshape(-1)[position] = np.nan
        assert np.isnan(max_pool(jnp.asarray(x_nan), 2, 2)).all()
