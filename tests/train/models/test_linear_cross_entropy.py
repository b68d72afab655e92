"""linear_cross_entropy against optax on the logits themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.models.helpers import normal, relative_error
from train.models.linear_cross_entropy import linear_cross_entropy

SHAPE, WIDTH, VOCABULARY = (3, 4), 10, 53


def given(dtype, spread=1.0):
    hidden, kernel, bias = (
        jnp.asarray(spread * normal(seed, shape, dtype))
        for seed, shape in enumerate(((*SHAPE, WIDTH), (WIDTH, VOCABULARY), (VOCABULARY,)))
    )
    # Targets that repeat: their columns add up in the kernel's gradient.
    targets = jnp.asarray(np.random.default_rng(3).integers(0, 5, SHAPE))
    return (hidden, kernel, bias), targets


def optax_losses(hidden, kernel, bias, targets):
    logits = hidden @ kernel + bias[None, None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets), jnp.argmax(logits, axis=-1) == targets


def value_and_gradients(function, weights, targets):
    """A differently weighted sum of the losses, so that each token's gradient shows."""
    scale = jnp.asarray(normal(9, SHAPE, np.float64), weights[0].dtype)
    loss = lambda weights: jnp.sum(scale * function(*weights, targets)[0])  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(weights)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_losses_and_gradients_match_optax_in_float64(spread, x64):
    weights, targets = given(np.float64, spread)
    ours, optaxs = (value_and_gradients(f, weights, targets) for f in (linear_cross_entropy, optax_losses))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, optaxs)


def test_losses_and_gradients_match_optax_in_float32():
    weights, targets = given(np.float32)
    ours, optaxs = (value_and_gradients(f, weights, targets) for f in (linear_cross_entropy, optax_losses))
    for actual, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(optaxs), strict=True):
        assert relative_error(actual, expected) <= 1e-5


def test_each_token_has_its_loss_and_whether_it_is_the_largest():
    weights, targets = given(np.float32)
    targets = targets.at[0].set(jnp.argmax(weights[0] @ weights[1] + weights[2][None, None], axis=-1)[0])
    losses, correct = linear_cross_entropy(*weights, targets)
    expected_losses, expected_correct = optax_losses(*weights, targets)
    assert losses.shape == correct.shape == SHAPE
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(correct, expected_correct)
    assert correct[0].all()


def test_logits_beyond_the_range_of_exp_give_finite_losses():
    weights = (jnp.full((1, 1), 1000.0), jnp.asarray([[1.0, -1.0]]), jnp.zeros(2))
    losses, _ = linear_cross_entropy(*weights, jnp.asarray([1]))
    np.testing.assert_allclose(losses, [2000.0])
    assert np.isfinite(
        jax.grad(lambda h: linear_cross_entropy(h, *weights[1:], jnp.asarray([1]))[0].sum())(weights[0])
    ).all()


def test_one_array_of_the_size_of_the_logits_is_held():
    tokens, width, vocabulary = 128, 16, 4096
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((tokens, width), (width, vocabulary), (vocabulary,))]
    targets = jax.ShapeDtypeStruct((tokens,), jnp.int32)
    loss = lambda *given: linear_cross_entropy(*given)[0].sum()  # noqa: E731
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*shapes, targets).compile()
    logits_bytes = 4 * tokens * vocabulary
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * logits_bytes
