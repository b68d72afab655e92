"""Slow weights in float32 over bfloat16 parameters: dtypes, drift, and live weights that are the slow ones rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests.lookahead_jax.problems import run, weights


def test_dtypes_of_params_updates_and_moments_are_those_of_the_fast_optimizer():
    params = {"w": jnp.ones([3], jnp.bfloat16), "b": jnp.ones([2], jnp.float32)}
    tx = la.lookahead(optax.adam(0.1), sync_period=2, slow_dtype=jnp.float32)
    opt_state = tx.init(params)
    for _ in range(3):
        updates, opt_state = tx.update(params, opt_state, params)
        params = optax.apply_updates(params, updates)
    for tree in (params, updates, opt_state.fast_state[0].mu):
        assert jax.tree.map(lambda x: x.dtype, tree) == {"w": jnp.bfloat16, "b": jnp.float32}
    assert {x.dtype for x in jax.tree.leaves(la.slow_params(opt_state))} == {jnp.dtype(jnp.float32)}


def test_float32_updates_for_bfloat16_parameters_are_kept_in_float32():
    tx = la.lookahead(optax.scale(-0.1), sync_period=2)
    params = jnp.ones(3, jnp.bfloat16)
    updates, _ = tx.update(jnp.ones(3, jnp.float32), tx.init(params), params)
    assert updates.dtype == jnp.float32


def test_float32_slow_weights_add_up_outer_steps_that_bfloat16_ones_lose():
    # Each cycle moves the fast weights by 0.02 and the slow ones by 0.05 of that, 0.001: less than half of
    # bfloat16's spacing at 1 (0.0078 above, 0.0039 below). In bfloat16 slow weights never move; in float32 they do
    # as in a float32 run, although the fast weights start each cycle from the rounded ones.
    def after(cycles, dtype, slow_dtype):
        tx = la.lookahead(optax.scale(-1.0), 2, 0.05, slow_dtype=slow_dtype)
        params = jnp.ones(1, dtype)
        opt_state = tx.init(params)
        grads = jnp.full(1, 0.01, dtype)

        @jax.jit
        def step(params, opt_state):
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        for _ in range(2 * cycles):
            params, opt_state = step(params, opt_state)
        return float(params[0]), float(la.slow_params(opt_state)[0])

    assert after(100, jnp.bfloat16, None) == (1.0, 1.0)
    exact = after(100, jnp.float32, None)[1]
    np.testing.assert_allclose(exact, 0.9, atol=1e-5)
    live, slow = after(100, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(slow, exact, atol=0.02)
    assert live == float(jnp.asarray(slow, jnp.bfloat16))


def test_drift_from_a_float32_run_is_smaller_with_float32_slow_weights():
    start = jnp.asarray(weights(4000), jnp.float32)
    target = jnp.asarray(weights(4000, seed=1), jnp.float32)

    def slow_after(steps, dtype, slow_dtype):
        tx = la.lookahead(optax.sgd(0.05), 5, 0.1, slow_dtype=slow_dtype)

        def step(carry, _):
            params, opt_state = carry
            updates, opt_state = tx.update(params - target.astype(dtype), opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        params = start.astype(dtype)
        (_, opt_state), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
        return la.slow_params(opt_state).astype(jnp.float32)

    exact = slow_after(200, jnp.float32, None)
    drift = {d: float(jnp.mean(jnp.abs(slow_after(200, jnp.bfloat16, d) - exact))) for d in (None, jnp.float32)}
    assert drift[jnp.float32] < drift[None] / 2


def test_float64_parameters_stay_float64(x64):
    params = jnp.asarray(weights())
    live, slow = run(la.lookahead(optax.adam(0.1)), params, 6)
    assert live.dtype == slow.dtype == jnp.float64


@pytest.mark.parametrize("dtype", ["int32", "complex64", bool])
def test_a_slow_dtype_that_is_not_floating_point_is_refused(dtype):
    with pytest.raises(ValueError, match=r"slow_dtype=.* must be a floating-point dtype"):
        la.lookahead(optax.sgd(0.1), slow_dtype=dtype)


@pytest.mark.parametrize("slow_dtype", [jnp.bfloat16, jnp.float32])
def test_wider_and_complex_parameters_keep_their_dtype_and_every_bit(slow_dtype):
    params = {"real": jnp.float32([1.001]), "complex": jnp.complex64([1 + 1j])}
    tx = la.lookahead(optax.sgd(0.1), 1, 0.5, slow_dtype=slow_dtype)
    opt_state = tx.init(params)
    for _ in range(2):
        updates, opt_state = tx.update(jax.tree.map(jnp.zeros_like, params), opt_state, params)
        assert jax.tree.map(np.asarray, optax.apply_updates(params, updates)) == params
    slow = la.slow_params(opt_state)
    assert jax.tree.map(np.asarray, slow) == params
    assert jax.tree.map(lambda x: x.dtype, slow) == {"real": jnp.float32, "complex": jnp.complex64}
