"""The noisy quadratic of the paper (section 3): the expected iterate and the stationary variance of Lookahead.

Loss a (x - c)^2 / 2 with c ~ N(0, S) drawn at each step; the inner optimizer is SGD at rate g, r = 1 - g a.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la

CURVATURE, NOISE, RATE = 0.8, 0.5, 0.4
R = 1 - RATE * CURVATURE
CHAINS = 20_000


@functools.partial(jax.jit, static_argnums=(0, 1))
def slow_after(cycles, k, alpha, start):
    """Slow weights of CHAINS independent chains after `cycles` cycles."""
    tx = la.lookahead(optax.sgd(RATE), k, alpha)

    def chain(key):
        def step(carry, key):
            x, opt_state = carry
            grads = CURVATURE * (x - jnp.sqrt(NOISE) * jax.random.normal(key))
            updates, opt_state = tx.update(grads, opt_state, x)
            return (optax.apply_updates(x, updates), opt_state), None

        (_, opt_state), _ = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, cycles * k))
        return la.slow_params(opt_state)

    return jax.vmap(chain)(jax.random.split(jax.random.key(k), CHAINS))


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (5, 0.8), (10, 0.3)])
def test_the_expected_iterate_contracts_by_one_minus_alpha_plus_alpha_r_to_the_k_each_cycle(k, alpha):
    cycles, start = 2, 3.0
    slow = np.asarray(slow_after(cycles, k, alpha, jnp.asarray(start)))
    expected = (1 - alpha + alpha * R**k) ** cycles * start
    assert abs(slow.mean() - expected) < 3 * slow.std() / np.sqrt(CHAINS)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (5, 0.8), (5, 1.0), (10, 0.3)])
def test_the_stationary_variance_is_the_papers_fixed_point(k, alpha):
    # The deviation from it decays by (1 - alpha + alpha r^k)^2 a cycle: below 1e-5 after this many.
    contraction = 1 - alpha + alpha * R**k
    cycles = max(2, int(np.ceil(np.log(1e-5) / (2 * np.log(abs(contraction))))))
    slow = np.asarray(slow_after(cycles, k, alpha, jnp.asarray(0.0)))

    v_sgd = RATE**2 * CURVATURE**2 * NOISE / (1 - R**2)
    numerator = alpha**2 * (1 - R ** (2 * k))
    expected = numerator / (numerator + 2 * alpha * (1 - alpha) * (1 - R**k)) * v_sgd
    # The variance of n normal draws has the standard error V sqrt(2 / n).
    assert abs(slow.var() - expected) < 3 * expected * np.sqrt(2 / CHAINS)
    assert abs(slow.mean()) < 3 * slow.std() / np.sqrt(CHAINS)
    assert expected <= v_sgd
