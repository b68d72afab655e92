"""Slow weights live where their parameters live: four CPU devices, NamedSharding, no communication."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lookahead_jax as la

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.fixture
def sharded():
    if jax.device_count() < 4:
        pytest.skip("needs 4 devices: JAX_NUM_CPU_DEVICES=4")
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
    specs = {"w": P("x", "y"), "b": P("y"), "scale": P()}
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda s: isinstance(s, P))
    params = {"w": jnp.arange(32.0).reshape(4, 8), "b": jnp.arange(8.0), "scale": jnp.ones([])}
    return jax.device_put(params, shardings), shardings


OPTIONS = [{}, {"slow_dtype": jnp.bfloat16}, {"fast_state_at_sync": "pullback"}, {"slow_optimizer": optax.adam(0.1)}]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: next(iter(o), "plain"))
@pytest.mark.parametrize("jit_init", [False, True])
def test_slow_weights_carry_the_sharding_of_their_parameters(sharded, options, jit_init):
    params, shardings = sharded
    tx = la.lookahead(optax.adam(0.1), sync_period=2, **options)
    opt_state = (jax.jit(tx.init) if jit_init else tx.init)(params)
    if jit_init:
        # jit replicates what it computes from shapes alone; slow weights come from the parameters themselves.
        opt_state = optax.tree.map_params(tx, jax.device_put, opt_state, shardings)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled = step.lower(params, opt_state).compile().as_text()
    assert [name for name in COLLECTIVES if name in compiled] == []
    for _ in range(3):
        params, opt_state = step(params, opt_state)
        for name, slow in la.slow_params(opt_state).items():
            assert slow.sharding.is_equivalent_to(shardings[name], slow.ndim)


def test_sharded_and_unsharded_runs_agree(sharded):
    params, _ = sharded
    tx = la.lookahead(optax.adam(0.1), sync_period=2)
    results = []
    for start in (params, jax.device_get(params)):
        live, opt_state = start, tx.init(start)
        for _ in range(4):
            updates, opt_state = jax.jit(tx.update)(jax.tree.map(jnp.sin, live), opt_state, live)
            live = optax.apply_updates(live, updates)
        results.append(jax.device_get(live))
    jax.tree.map(np.testing.assert_array_equal, *results)
