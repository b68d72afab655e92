"""The GRU language model and the bidirectional LSTM against their equations, step by step in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.models.helpers import normal, parameter_count, path_names
from train.models import create_model
from train.models.bilstm import lstm_recurrence
from train.models.gru import GRULayer
from train.models.linear_cross_entropy import linear_cross_entropy

TOKENS = jax.ShapeDtypeStruct((2, 5), jnp.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_number_of_parameters():
    # 10,000 x 50 embedding, two GRU layers of 3 x 50 x (50 + 50 + 2), 50 x 10,000 + 10,000.
    assert parameter_count(create_model("gru", num_classes=10_000), TOKENS) == 500_000 + 2 * 15_300 + 510_000
    # torch.nn.LSTM(128, 128, 2, bidirectional=True): 264,192 and 395,264; then 256 to 128, and 128 to 2.
    bilstm = create_model("bilstm", num_classes=2, vocabulary_size=1000)
    assert parameter_count(bilstm, TOKENS) == 128_000 + 264_192 + 395_264 + 32_896 + 258


def test_gru_layer_follows_torchs_equations(x64):
    layer = GRULayer(4)
    x = normal(0, (6, 2, 3), np.float64)
    variables = jax.tree.map(lambda a: 4 * a.astype(jnp.float64), layer.init(jax.random.key(0), jnp.asarray(x)))
    w, u, b, c = (
        np.split(np.asarray(variables["params"][name]), 3, axis=-1)
        for name in ("input_kernel", "recurrent_kernel", "input_bias", "recurrent_bias")
    )
    hidden, expected = np.zeros((2, 4)), []
    for step in x:
        r = sigmoid(step @ w[0] + b[0] + hidden @ u[0] + c[0])
        z = sigmoid(step @ w[1] + b[1] + hidden @ u[1] + c[1])
        n = np.tanh(step @ w[2] + b[2] + r * (hidden @ u[2] + c[2]))
        hidden = (1 - z) * n + z * hidden
        expected.append(hidden)
    np.testing.assert_allclose(layer.apply(variables, jnp.asarray(x)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_follows_torchs_equations_in_both_directions(reverse, x64):
    projected, kernel = normal(0, (5, 2, 12), np.float64), normal(1, (3, 12), np.float64)
    hidden, cell, expected = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((5, 2, 3))
    for t in range(4, -1, -1) if reverse else range(5):
        i, f, g, o = np.split(projected[t] + hidden @ kernel, 4, axis=-1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        expected[t] = hidden
    actual = lstm_recurrence(jnp.asarray(projected), jnp.asarray(kernel), reverse)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def gru():
    model = create_model("gru", num_classes=200, embedding_size=20, hidden_size=30)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 200, (3, 7)))
    return model, jax.jit(lambda: model.init(jax.random.key(0), tokens, train=False))(), tokens


def test_gru_has_no_batch_stats_and_a_row_of_logits_a_token(gru):
    model, variables, tokens = gru
    assert set(variables) == {"params"}
    assert model.apply(variables, tokens, train=False).shape == (3, 7, 200)


def test_gru_initialisation_is_the_reports(gru):
    params = path_names(gru[1]["params"])
    for name in ("embedding", "fc.kernel"):
        assert np.abs(params[name]).max() <= 0.1
        assert params[name].std() == pytest.approx(0.1 / math.sqrt(3), rel=0.05), name
    np.testing.assert_array_equal(params["fc.bias"], 0)
    recurrent = {name: leaf for name, leaf in params.items() if name.startswith("gru")}
    assert len(recurrent) == 8
    for name, leaf in recurrent.items():
        assert np.abs(leaf).max() <= 1 / math.sqrt(30), name
        assert leaf.std() == pytest.approx(1 / math.sqrt(90), rel=0.15), name


def test_a_segment_starts_from_a_zero_state_and_reads_no_other_row_or_later_token(gru):
    model, variables, tokens = gru
    logits = model.apply(variables, tokens, train=False)
    changed = model.apply(variables, tokens.at[1].add(1).at[0, 4:].set(3), train=False)
    np.testing.assert_allclose(changed[2], logits[2], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(changed[0, :4], logits[0, :4], rtol=1e-6, atol=1e-7)
    assert np.abs(changed[0, 4:] - logits[0, 4:]).max() > 1e-4


def test_hidden_and_linear_cross_entropy_give_the_loss_of_the_logits(gru):
    model, variables, tokens = gru
    targets = jnp.roll(tokens, -1, axis=1)
    apply = lambda **how: model.apply(variables, tokens, train=True, rngs={"dropout": jax.random.key(1)}, **how)  # noqa: E731
    fc = variables["params"]["fc"]
    losses, _ = linear_cross_entropy(apply(method="hidden"), fc["kernel"], fc["bias"], targets)
    log_probabilities = jax.nn.log_softmax(apply())
    expected = -jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone_and_half_of_the_last_inputs_are_zero(gru):
    model, variables, tokens = gru
    hidden = lambda seed, train: model.apply(  # noqa: E731
        variables, tokens, train=train, rngs={"dropout": jax.random.key(seed)}, method="hidden"
    )
    np.testing.assert_array_equal(hidden(0, False), hidden(1, False))
    assert float(jnp.mean(hidden(0, True) == 0)) == pytest.approx(0.5, abs=0.08)
    assert np.abs(hidden(0, True) - hidden(1, True)).max() > 0


def test_bilstm_gives_a_row_of_logits_a_text_that_depends_on_every_token():
    model = create_model("bilstm", num_classes=2, vocabulary_size=50, embedding_size=6, hidden_size=5)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 49, (2, 6)))
    variables = jax.jit(lambda: model.init(jax.random.key(0), tokens, train=False))()
    assert set(variables) == {"params"}
    apply = jax.jit(lambda tokens: model.apply(variables, tokens, train=False))
    logits = apply(tokens)
    assert logits.shape == (2, 2)
    for position in range(6):
        assert np.abs(apply(tokens.at[0, position].add(1)) - logits)[0].max() > 1e-6
