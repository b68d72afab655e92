"""Every public first-order optimizer of optax and optax.contrib as the inner one, by the textbook loop."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests.conftest import QUICK

K, ALPHA, STEPS = 3, 0.7, 8
# The textbook is compiled in less time, where XLA's CPU compiler compiles it; ours as users do.
TEXTBOOK_OPTIONS = {"xla_backend_optimization_level": 0, **QUICK} if QUICK else {}

# Arguments where an optimizer needs more than a learning rate, or does another thing with tiny parameters.
ARGUMENTS = {
    "adafactor": {"learning_rate": 0.01, "min_dim_size_to_factor": 2},
    "cocob": {},
    "dog": {"learning_rate": 1.0},  # its first steps are a millionth of this
    "galore": {"learning_rate": 0.01, "rank": 2},
    "noisy_sgd": {"learning_rate": 0.01, "key": 0},
    "polyak_sgd": {},
}

EXCLUDED = {
    "dpsgd": "takes per-example gradients: its input has a batch axis that the parameters have not",
    "lbfgs": "second order, with a line search that evaluates the loss at the fast weights",
    "optimistic_adam": "deprecated in favour of optimistic_adam_v2",
    "lookahead": "takes LookaheadParams for parameters; this library stands in its place",
    "schedule_free": "a wrapper; tried around SGD below",
    "sophia": "second order: estimates the Hessian from the loss function",
}

# Wrappers of Optax, around an optimizer of the list.
WRAPPED = {
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.01), 1),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.sgd(0.01), 3),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(0.01),
    "masked": lambda: optax.masked(optax.adam(0.01), {"w": True, "b": False}),
    "mechanize": lambda: optax.contrib.mechanize(optax.sgd(0.01), weight_decay=0.0),
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau()),
    "schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(0.01), 0.01),
    "split_real_and_imaginary": lambda: optax.contrib.split_real_and_imaginary(optax.sgd(0.01)),
}


def optimizers():
    """Name -> a function that makes the optimizer: whatever public takes a learning rate, and WRAPPED."""
    makers = {}
    for module in (optax, optax.contrib):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            takes_a_rate = "learning_rate" in inspect.signature(function).parameters
            if name.startswith("_") or name in EXCLUDED or not (takes_a_rate or name in ARGUMENTS):
                continue
            arguments = ARGUMENTS.get(name, {"learning_rate": 0.01})
            makers[name] = lambda f=function, a=arguments: f(**a)
    return makers | {f"wrapped by {name}": make for name, make in WRAPPED.items()}


OPTIMIZERS = optimizers()


def loss(params):
    return 0.5 * sum(jnp.sum((x - 0.3) ** 2).astype(jnp.float32) for x in jax.tree.leaves(params))


def textbook_step(inner):
    """Algorithm 1 as it is written: fast weights, and every K steps the slow ones. In float32 between roundings."""

    def step(carry, i):
        fast, slow, state = carry
        value, grads = jax.value_and_grad(loss)(fast)
        updates, state = inner.update(grads, state, fast, value=value)
        moved = jax.tree.map(lambda p, u: p.astype(jnp.float32) + u.astype(jnp.float32), fast, updates)
        averaged = jax.tree.map(
            lambda s, m: (s.astype(jnp.float32) + ALPHA * (m - s.astype(jnp.float32))).astype(s.dtype), slow, moved
        )
        sync = i % K == K - 1
        fast = jax.tree.map(lambda a, p, u: jnp.where(sync, a, (p + u).astype(p.dtype)), averaged, fast, updates)
        slow = jax.tree.map(lambda a, s: jnp.where(sync, a, s), averaged, slow)
        return (fast, slow, state), (fast, slow)

    return step


def lookahead_step(tx):
    def step(carry, _):
        params, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params, value=value)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (params, la.slow_params(opt_state))

    return step


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lookahead_around_it_is_the_textbook_loop_under_jit_and_scan(name, dtype):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 3)), dtype), "b": jnp.asarray(rng.normal(size=3), dtype)}
    inner = OPTIMIZERS[name]()
    if isinstance(inner, optax.MultiSteps):
        inner = inner.gradient_transformation()
    inner = optax.with_extra_args_support(inner)
    tx = la.lookahead(inner, K, ALPHA)

    @functools.partial(jax.jit, compiler_options=TEXTBOOK_OPTIONS)
    def textbook(params):
        return jax.lax.scan(textbook_step(inner), (params, params, inner.init(params)), jnp.arange(STEPS))[1]

    @jax.jit
    def scan(params):
        opt_state = tx.init(params)
        return jax.lax.scan(lookahead_step(tx), (params, opt_state), jnp.arange(STEPS))[1], opt_state

    expected, (scanned, opt_state) = textbook(params), scan(params)
    step = jax.jit(lookahead_step(tx))
    state, jitted = (params, opt_state), []
    for i in range(STEPS):
        state, out = step(state, i)
        jitted.append(out)
    jitted = jax.tree.map(lambda *xs: np.stack(xs), *jitted)

    tolerance = 2e-5 if dtype == jnp.float32 else 2e-2
    in_float32 = [jax.tree.map(lambda x: np.asarray(x).astype(np.float32), t) for t in (expected, scanned, jitted)]
    for live, slow in in_float32[1:]:
        for name in params:
            np.testing.assert_allclose(live[name], in_float32[0][0][name], rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(slow[name], in_float32[0][1][name], rtol=tolerance, atol=tolerance)
            np.testing.assert_array_equal(live[name][K - 1 :: K], slow[name][K - 1 :: K])
    if dtype == jnp.float32:  # the first steps of some are too small for bfloat16
        assert any(np.any(live[name][-1] != live[name][0]) for name in params)
