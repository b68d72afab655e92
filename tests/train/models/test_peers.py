"""Our models against the same in PyTorch, weights copied over, in float64: they are the same functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.models.helpers import normal, path_names
from train.models import create_model

# Convolutions of float64 are LLVM's own loops: slow where it optimizes little.
pytestmark = [pytest.mark.peers, pytest.mark.optimized]
STEPS, LEARNING_RATE, TOLERANCE = 3, 0.05, 1e-8


@functools.partial(jax.jit, static_argnums=0)
def step(model, variables, inputs, targets):
    """One step of plain SGD: new variables, and what it was made of."""

    def loss(params):
        logits, updated = model.apply({**variables, "params": params}, inputs, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(), (logits, updated)

    (value, (logits, updated)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, variables["params"], grads)
    return {**updated, "params": params}, (value, logits, grads)


def random_variables(model, inputs):
    """float64 variables of a usual size, none of them at a special value."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, train=False))
    rng = np.random.default_rng(7)

    def draw(path, shape):
        leaf = path[-1].key
        if leaf in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, shape.shape))
        spread = np.prod(shape.shape[:-1]) ** -0.5 if leaf.endswith("kernel") else 0.3
        return jnp.asarray(spread * rng.standard_normal(shape.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def assert_close(actual, expected, what):
    scale = max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale, err_msg=what)


def compare(model, theirs, inputs, targets, last_map=1):
    """Copies our weights into torch, takes STEPS steps of SGD in both, and compares all there is."""
    import torch

    from tests.train.models.torch_models import torch_layout, torch_name

    torch.set_num_threads(2)
    theirs = theirs.double().train()
    variables = random_variables(model, jnp.asarray(inputs[0][:1]))

    def exported(tree):
        return {torch_name(name): torch_layout(name, leaf, last_map) for name, leaf in path_names(tree).items()}

    def all_of(variables):
        return exported(variables["params"]) | exported(variables.get("batch_stats", {}))

    state = theirs.state_dict()
    copied = {name: torch.from_numpy(np.array(array)) for name, array in all_of(variables).items()}
    assert set(copied) == {name for name in state if not name.endswith("num_batches_tracked")}
    theirs.load_state_dict(copied, strict=False)
    optimizer = torch.optim.SGD(theirs.parameters(), LEARNING_RATE)
    for number in range(STEPS):
        x, y = inputs[number], targets[number]
        variables, (loss, logits, grads) = step(model, variables, jnp.asarray(x), jnp.asarray(y))
        their_x = torch.from_numpy(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)
        their_logits = theirs(their_x)
        their_loss = torch.nn.functional.cross_entropy(their_logits, torch.from_numpy(y))
        optimizer.zero_grad()
        their_loss.backward()
        ours = np.swapaxes(logits, 1, 2) if logits.ndim == 3 else logits
        assert_close(ours, their_logits.detach().numpy(), f"logits of step {number}")
        assert_close(loss, their_loss.item(), f"loss of step {number}")
        gradients = exported(grads)
        for name, parameter in theirs.named_parameters():
            assert_close(gradients[name], parameter.grad.numpy(), f"gradient of {name} at step {number}")
        optimizer.step()
    final, state = all_of(variables), theirs.state_dict()
    for name, array in final.items():
        assert_close(array, state[name].numpy(), f"{name} after {STEPS} steps")


def images(batch, size, classes):
    inputs = normal(0, (STEPS, batch, size, size, 3), np.float64)
    return inputs, np.random.default_rng(1).integers(0, classes, (STEPS, batch))


def texts(batch, length, vocabulary):
    return np.random.default_rng(0).integers(0, vocabulary, (STEPS, batch, length))


# 32x32 images end in 1x1 maps under the ImageNet stem, 16x16 in 2x2 ones under the CIFAR stem.
@pytest.mark.parametrize(("stem", "size"), [("imagenet", 32), ("cifar", 16)])
def test_resnet18_is_torchs(stem, size, x64):
    from tests.train.models import torch_models

    compare(create_model("resnet18", num_classes=10, stem=stem), torch_models.ResNet18(10, stem), *images(8, size, 10))


def test_cnn_is_torchs(x64):
    from tests.train.models import torch_models

    # 144x144: maps of 69, 34, 15, 5.
    compare(create_model("cnn", num_classes=5), torch_models.CNN(5, last_map=5), *images(2, 144, 5), last_map=5)


def test_gru_language_model_is_torchs(x64):
    from tests.train.models import torch_models

    model = create_model("gru", num_classes=97, embedding_size=20, hidden_size=20, dropout=0.0)
    tokens = texts(4, 13, 97)
    compare(model, torch_models.GRULanguageModel(97, 20), tokens[..., :-1], tokens[..., 1:])


def test_bilstm_is_torchs(x64):
    from tests.train.models import torch_models

    model = create_model("bilstm", num_classes=2, vocabulary_size=50, embedding_size=9, hidden_size=7, dropout=0.0)
    classes = np.random.default_rng(2).integers(0, 2, (STEPS, 4))
    compare(model, torch_models.BiLSTMClassifier(50, 9, 7, 2), texts(4, 8, 50), classes)
