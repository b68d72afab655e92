"""The documented recipe for BatchNorm statistics of slow weights, against NumPy, in Linen and NNX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import lookahead_jax as la
from tests.examples.test_library_examples import load

BATCHES = np.random.default_rng(0).normal(2.0, 3.0, (4, 16, 5)).astype(np.float32)


def expected(kernel, bias):
    """Mean over the batches of mean and (biased) variance of `x @ kernel + bias`."""
    outputs = BATCHES.astype(float) @ np.asarray(kernel, float) + np.asarray(bias, float)
    return outputs.mean(1).mean(0), outputs.var(1).mean(0)


def test_linen_with_a_momentum_of_its_own():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(momentum=0.8, use_running_average=not train, name="norm")(nn.Dense(3, name="fc")(x))

    example, model = load("recalibrate_batch_stats"), Net()
    variables = model.init(jax.random.key(0), BATCHES[0], True)
    tx = la.lookahead(optax.sgd(0.3), 5)
    state = tx.init(variables["params"])
    _, state = tx.update(jax.tree.map(jnp.ones_like, variables["params"]), state, variables["params"])
    slow = la.slow_params(state)
    found = example.recalibrated(example.linen_update(model, slow), variables["batch_stats"], BATCHES, momentum=0.8)
    mean, var = expected(slow["fc"]["kernel"], slow["fc"]["bias"])
    np.testing.assert_allclose(found["norm"]["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(found["norm"]["var"], var, rtol=1e-4)


def test_nnx_leaves_the_model_as_it_is():
    example = load("recalibrate_batch_stats")
    model = nnx.Sequential(nnx.Linear(5, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    before = nnx.state(model, nnx.BatchStat)
    found = example.recalibrated(example.nnx_update(model), before, BATCHES, momentum=0.99)
    np.testing.assert_array_equal(model.layers[1].mean[...], jnp.zeros(3))
    nnx.update(model, found)
    mean, var = expected(model.layers[0].kernel[...], model.layers[0].bias[...])
    np.testing.assert_allclose(model.layers[1].mean[...], mean, rtol=1e-4)
    np.testing.assert_allclose(model.layers[1].var[...], var, rtol=1e-4)


def test_it_runs_and_finds_what_it_says():
    mean, var = load("recalibrate_batch_stats").main()
    np.testing.assert_allclose(mean, 2.0, atol=0.1)
    np.testing.assert_allclose(var, 4.0, atol=0.2)
