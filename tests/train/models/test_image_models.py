"""ResNet18, the CNN and the small CNN: sizes, initialisation, shapes, and that the small one learns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from tests.train.models.helpers import parameter_count, path_names
from train.models import create_model


def image(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("name", "options", "shape", "classes", "count"),
    [
        # torchvision's resnet18() has 11,689,512 with 1000 classes, 513 fewer for each class less.
        ("resnet18", {"stem": "imagenet"}, (1, 32, 32, 3), 10, 11_181_642),
        ("resnet18", {"stem": "imagenet"}, (1, 224, 224, 3), 1000, 11_689_512),
        # The usual CIFAR ResNet18.
        ("resnet18", {"stem": "cifar"}, (1, 32, 32, 3), 10, 11_173_962),
        ("resnet18", {"stem": "cifar"}, (1, 32, 32, 3), 100, 11_220_132),
        # 7*7*3*96+96, 5*5*96*128+128, 7*7*128*256+256, 25600*20+20, and 2*(96+128+256) of BatchNorm.
        ("cnn", {}, (1, 224, 224, 3), 20, 14_208 + 307_328 + 1_605_888 + 512_020 + 960),
        ("small_cnn", {}, (1, 8, 8, 1), 10, 20_202),
    ],
)
def test_number_of_parameters(name, options, shape, classes, count):
    assert parameter_count(create_model(name, num_classes=classes, **options), image(*shape)) == count


@pytest.mark.parametrize("name", ["resnet18", "cnn", "small_cnn"])
def test_logits_have_a_row_an_image_and_a_column_a_class(name):
    model = create_model(name, num_classes=7)
    x = image(3, 224, 224, 3)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    assert set(variables) == {"params", "batch_stats"}
    logits, updated = jax.eval_shape(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), variables, x)
    assert logits.shape == (3, 7)
    assert jax.tree.structure(updated["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


@pytest.fixture(scope="module")
def resnet18():
    model = create_model("resnet18", num_classes=10)
    return path_names(jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))())


def test_resnet_convolutions_are_kaiming_normal_over_fan_out(resnet18):
    kernels = {name: leaf for name, leaf in resnet18.items() if "conv" in name}
    assert len(kernels) == 20  # the stem, 16 of the blocks, 3 of the shortcuts
    for name, kernel in kernels.items():
        fan_out = kernel.shape[0] * kernel.shape[1] * kernel.shape[3]
        expected = math.sqrt(2 / fan_out)
        # Standard error of the deviation of n normal numbers: 1/sqrt(2n).
        assert kernel.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * kernel.size)), name
        assert abs(kernel.mean()) < 5 * expected / math.sqrt(kernel.size), name
        # Normal, not truncated: about 4.6 % beyond two deviations.
        assert np.mean(np.abs(kernel) > 2 * expected) == pytest.approx(0.0455, abs=0.01), name


def test_resnet_last_layer_is_uniform_within_one_over_root_fan_in(resnet18):
    bound = 1 / math.sqrt(512)
    for leaf in (resnet18["params.fc.kernel"], resnet18["params.fc.bias"]):
        assert np.abs(leaf).max() <= bound
    assert resnet18["params.fc.kernel"].std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert resnet18["params.fc.bias"].std() > 0


def test_resnet_batch_norm_starts_at_one_and_zero(resnet18):
    for name, leaf in resnet18.items():
        if name.endswith(("scale", "var")):
            np.testing.assert_array_equal(leaf, 1, err_msg=name)
        elif "norm" in name:
            np.testing.assert_array_equal(leaf, 0, err_msg=name)


def test_cnn_layers_are_uniform_within_one_over_root_fan_in():
    model = create_model("cnn", num_classes=20)
    params = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 144, 144, 3)), train=False))()["params"]
    for name in ("conv1", "conv2", "conv3", "fc"):
        kernel, bias = np.asarray(params[name]["kernel"]), np.asarray(params[name]["bias"])
        bound = 1 / math.sqrt(kernel[..., 0].size)
        assert max(np.abs(kernel).max(), np.abs(bias).max()) <= bound
        assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
        assert bias.std() > 0


def test_small_cnn_learns_digits():
    digits = load_digits()
    shuffled = np.random.default_rng(1).permutation(len(digits.target))
    x = jnp.asarray(digits.images[shuffled, :, :, None] / 16.0 - 0.3, jnp.float32)
    y = jnp.asarray(digits.target[shuffled], jnp.int32)
    model = create_model("small_cnn", num_classes=10)
    variables = model.init(jax.random.key(0), x[:1], train=False)
    tx = optax.adam(3e-3)

    @jax.jit
    def step(carry, batch):
        variables, opt_state = carry

        def loss(params):
            logits, updated = model.apply(
                {**variables, "params": params}, x[batch], train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[batch]).mean(), updated

        grads, updated = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = tx.update(grads, opt_state)
        return ({"params": optax.apply_updates(variables["params"], updates), **updated}, opt_state), None

    carry = (variables, tx.init(variables["params"]))
    rng = np.random.default_rng(0)
    for _ in range(4):
        for batch in rng.permutation(1400)[:1344].reshape(-1, 64):
            carry, _ = step(carry, jnp.asarray(batch))
    predictions = jnp.argmax(model.apply(carry[0], x[1400:], train=False), axis=-1)
    assert float(jnp.mean(predictions == y[1400:])) >= 0.97
