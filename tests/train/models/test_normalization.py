"""BatchNorm against a NumPy oracle, and over four devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.train.models.helpers import normal
from train.models.normalization import BatchNorm


def oracle(x, scale, bias, mean, var, momentum=0.9, epsilon=1e-5):
    """torch.nn.BatchNorm2d in training, in NumPy: output and running statistics."""
    axes = tuple(range(x.ndim - 1))
    n = x.size // x.shape[-1]
    batch_mean, batch_var = x.mean(axes), x.var(axes)
    y = (x - batch_mean) / np.sqrt(batch_var + epsilon) * scale + bias
    running_mean = momentum * mean + (1 - momentum) * batch_mean
    running_var = momentum * var + (1 - momentum) * batch_var * n / (n - 1)
    return y, running_mean, running_var


def variables(channels, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    draw = lambda low, high: jnp.asarray(rng.uniform(low, high, channels), dtype)  # noqa: E731
    return {
        "params": {"scale": draw(0.5, 2), "bias": draw(-1, 1)},
        "batch_stats": {"mean": draw(-1, 1), "var": draw(0.5, 2)},
    }


def apply(batch_norm, variables, x):
    return batch_norm.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (4, 3, 5, 2), (6, 2)])
def test_training_matches_the_oracle_with_the_unbiased_running_variance(shape, x64):
    x, v = 3 * normal(0, shape, np.float64) + 1, variables(shape[-1], dtype=np.float64)
    y, updated = apply(BatchNorm(), v, jnp.asarray(x))
    expected = oracle(x, *map(np.asarray, (*v["params"].values(), *v["batch_stats"].values())))
    np.testing.assert_allclose(y, expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], expected[1], rtol=1e-12)
    np.testing.assert_allclose(updated["batch_stats"]["var"], expected[2], rtol=1e-12)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    x, v = normal(0, (4, 2, 2, 3)), variables(3)
    y, updated = BatchNorm().apply(v, x, train=False, mutable=["batch_stats"])
    mean, var = np.asarray(v["batch_stats"]["mean"]), np.asarray(v["batch_stats"]["var"])
    expected = (x - mean) / np.sqrt(var + 1e-5) * np.asarray(v["params"]["scale"]) + np.asarray(v["params"]["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(updated["batch_stats"]["mean"], mean)
    np.testing.assert_array_equal(updated["batch_stats"]["var"], var)


def test_it_starts_at_identity_statistics():
    v = BatchNorm().init(jax.random.key(0), jnp.full((2, 1, 1, 4), 5.0), train=True)
    np.testing.assert_array_equal(v["params"]["scale"], np.ones(4))
    np.testing.assert_array_equal(v["params"]["bias"], np.zeros(4))
    np.testing.assert_array_equal(v["batch_stats"]["mean"], np.zeros(4))
    np.testing.assert_array_equal(v["batch_stats"]["var"], np.ones(4))


def test_a_large_offset_does_not_cancel_the_variance():
    x = (1e4 + normal(0, (64, 2, 2, 1))).astype(np.float32)
    v = {"params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)}}
    v["batch_stats"] = {"mean": jnp.zeros(1), "var": jnp.zeros(1)}
    _, updated = apply(BatchNorm(), v, x)
    assert updated["batch_stats"]["var"][0] == pytest.approx(0.1 * x.astype(np.float64).var(ddof=1), rel=1e-3)


def test_statistics_are_float32_for_a_bfloat16_input():
    x = jnp.asarray(normal(0, (512, 1, 1, 1)), jnp.bfloat16)
    v = BatchNorm().init(jax.random.key(0), x, train=False)
    y, updated = apply(BatchNorm(), v, x)
    assert y.dtype == jnp.bfloat16
    assert updated["batch_stats"]["var"].dtype == jnp.float32
    expected = 0.9 + 0.1 * np.asarray(x, np.float64).var(ddof=1)
    np.testing.assert_allclose(updated["batch_stats"]["var"][0], expected, rtol=1e-6)


def loss_and_state(batch_norm, v, x, weights):
    y, updated = apply(batch_norm, v, x)
    return jnp.sum(jnp.square(y) * weights), (y, updated["batch_stats"])


@pytest.fixture(scope="module")
def whole():
    """Gradients, outputs and statistics of one device on the global batch of eight."""
    x, weights, v = normal(0, (8, 2, 1, 3)), normal(1, (8, 2, 1, 3)), variables(3)
    value = jax.value_and_grad(functools.partial(loss_and_state, BatchNorm()), argnums=(0, 1), has_aux=True)
    (_, (y, stats)), (dv, dx) = jax.jit(value)(v, x, weights)
    return v, x, weights, y, stats, dv["params"], dx


def assert_same(whole, y, stats, dparams, dx):
    for actual, expected in zip((y, stats, dparams, dx), whole[3:], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), actual, expected)


def test_four_devices_under_pmap_equal_one(whole):
    v, x, weights = whole[:3]
    batch_norm = BatchNorm(axis_name="batch")

    @functools.partial(jax.pmap, axis_name="batch", in_axes=(None, 0, 0), out_axes=(0, None, None, 0))
    def parallel(v, x, weights):
        value = jax.value_and_grad(functools.partial(loss_and_state, batch_norm), argnums=(0, 1), has_aux=True)
        (_, (y, stats)), (dv, dx) = value(v, x, weights)
        return y, stats, jax.lax.psum(dv["params"], "batch"), dx

    split = lambda a: a.reshape(4, 2, *a.shape[1:])  # noqa: E731
    y, stats, dparams, dx = parallel(v, split(x), split(weights))
    assert_same(whole, y.reshape(x.shape), stats, dparams, dx.reshape(x.shape))


def test_four_devices_under_jit_with_a_sharded_batch_equal_one(whole):
    v, x, weights = whole[:3]
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), P("batch"))
    value = jax.value_and_grad(functools.partial(loss_and_state, BatchNorm()), argnums=(0, 1), has_aux=True)
    (_, (y, stats)), (dv, dx) = jax.jit(value)(v, *jax.device_put((x, weights), sharding))
    assert_same(whole, y, stats, dv["params"], dx)


def plain(x, scale, bias, examples):
    """The formula, for JAX to derive: statistics of the first examples, by which all are normalised."""
    axes = tuple(range(x.ndim - 1))
    counted = x[:examples]
    mean, var = counted.mean(axes, keepdims=True), counted.var(axes, keepdims=True)
    scale, bias = (p.reshape(mean.shape) for p in (scale, bias))
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize("counted", ["all", "number", "traced"])
@pytest.mark.parametrize("shape", [(5, 1, 1, 3), (5, 3, 2, 2), (6, 4)])
def test_the_gradient_is_that_of_the_formula(shape, counted, x64):
    x, weights = 3 * normal(0, shape, np.float64) + 1, normal(1, shape, np.float64)
    v = variables(shape[-1], dtype=np.float64)
    real = shape[0] if counted == "all" else 3

    def ours(params, x, examples):
        model = BatchNorm()
        y, _ = model.apply(v | {"params": params}, x, train=True, examples=examples, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y) * weights)  # of what is padding, too

    def theirs(params, x):
        return jnp.sum(jnp.sin(plain(x, params["scale"], params["bias"], real)) * weights)

    given = {"all": None, "number": 3, "traced": jnp.asarray(3)}[counted]
    gradient = jax.grad(ours, argnums=(0, 1))
    found = gradient(v["params"], x, given) if counted != "traced" else jax.jit(gradient)(v["params"], x, given)
    expected = jax.grad(theirs, argnums=(0, 1))(v["params"], jnp.asarray(x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)


def test_an_empty_share_of_the_batch_has_no_statistics_and_finite_gradients():
    x, v = jnp.asarray(normal(0, (4, 2, 2, 3))), variables(3)

    def loss(params, x, examples, weight):
        y, updated = BatchNorm().apply(
            v | {"params": params}, x, train=True, examples=examples, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(y) * weight), updated

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    found, updated = gradient(v["params"], x, jnp.asarray(0), 1.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], v["batch_stats"])
    # As in training, where the loss leaves out what is padding.
    found, _ = gradient(v["params"], x, jnp.asarray(0), 0.0)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), found)
