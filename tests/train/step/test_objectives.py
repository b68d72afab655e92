"""Losses, hits and label smoothing of each task against optax on whole logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.models import create_model
from train.step.input_pipeline import Batch
from train.step.objectives import objective_of, sample_losses, score_classes, score_tokens

KEY = jax.random.PRNGKey(0)


def test_label_smoothing_is_cross_entropy_with_soft_labels():
    logits = jax.random.normal(KEY, (5, 7))
    targets = jnp.array([0, 6, 3, 3, 1])
    soft = 0.9 * jax.nn.one_hot(targets, 7) + 0.1 / 7
    expected = optax.softmax_cross_entropy(logits, soft)
    np.testing.assert_allclose(sample_losses(logits, targets, 0.1), expected, rtol=1e-5)


def test_losses_of_bfloat16_logits_are_float32():
    assert sample_losses(jnp.zeros((2, 3), jnp.bfloat16), jnp.zeros(2, jnp.int32)).dtype == jnp.float32


@pytest.fixture
def gru():
    """A small language model with weights of size 1 and a bias, so that no two logits are equal, and a batch for it."""
    model = create_model("gru", num_classes=11, embedding_size=4, hidden_size=5, dropout=0.5)
    tokens = jax.random.randint(KEY, (3, 8), 0, 11)
    params = jax.tree.map(lambda x: 5.0 * x, model.init(KEY, tokens[:, :7], train=False)["params"])
    params["fc"]["bias"] = jax.random.normal(KEY, (11,))
    return model, params, Batch(tokens[:, :7], tokens[:, 1:])


@pytest.mark.parametrize("dropout_key", [None, jax.random.PRNGKey(4)], ids=["evaluating", "training"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_tokens_score_and_learn_as_by_the_whole_logits(gru, dropout_key, label_smoothing):
    model, params, batch = gru

    def mean(objective):
        def value(params):
            scores, _ = objective(model, params, {}, batch, dropout_key=dropout_key, label_smoothing=label_smoothing)
            return jnp.mean(scores.objectives), scores

        return value

    ours, by_logits = (jax.grad(mean(f), has_aux=True)(params) for f in (score_tokens, score_classes))
    assert ours[1].losses.shape == (3, 7)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(by_logits), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_tokens_never_form_the_gradient_of_the_logits(gru):
    """One exp over [tokens, vocabulary] and no other array of that size that depends on the incoming gradient."""
    model, params, batch = gru
    gradient = jax.grad(lambda p: jnp.sum(score_tokens(model, p, {}, batch, dropout_key=KEY)[0].objectives))
    text = str(jax.make_jaxpr(gradient)(params))
    assert text.count(":f32[21,11] = exp ") == 1
    assert ":f32[21,11] = sub " in text  # logits - max, before the exp
    after = text.split(":f32[21,11] = exp ")[1]
    assert ":f32[21,11] =" not in after, "an array of the logits' size was formed on the way back"


def test_evaluating_leaves_the_running_statistics_and_training_moves_them():
    model = create_model("small_cnn", num_classes=3)
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    variables = model.init(KEY, images, train=False)
    args = model, variables["params"], variables["batch_stats"], Batch(images, jnp.array([0, 1, 2, 1]))
    assert score_classes(*args)[1] is variables["batch_stats"]
    moved = score_classes(*args, dropout_key=KEY)[1]
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(variables["batch_stats"]), strict=True):
        assert not np.array_equal(a, b)


def test_correct_counts_tokens_and_images():
    class Given:
        def apply(self, variables, inputs, train):
            return inputs

    logits = jnp.array([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 3.0]]])
    scores, _ = score_classes(Given(), {}, {}, Batch(logits, jnp.array([[1, 1], [1, 1]])))  # type: ignore[arg-type]
    np.testing.assert_array_equal(scores.correct, [[True, False], [True, True]])


def test_language_models_are_scored_by_their_hidden_states_where_they_say_so():
    gru, cnn = create_model("gru", num_classes=9), create_model("small_cnn", num_classes=9)

    class Bigrams(nn.Module):
        def hidden(self, tokens, train):  # of a user's, who may mean anything by it
            return tokens

    assert objective_of("text", gru) is score_tokens
    assert objective_of("text", Bigrams()) is score_classes
    assert objective_of("image", cnn) is objective_of("text_classification", gru) is score_classes
