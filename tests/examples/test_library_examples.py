"""The examples of the library run, and do what they say."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["streaming_fragments", "host_offload"])
def test_an_example_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


def test_streaming_fragments_are_synchronised_in_turn():
    example = load("streaming_fragments")
    syncs = example.main()
    expected = [[] for _ in range(16)]
    for i in range(4):
        expected[2 * i + 1] = expected[2 * i + 9] = [f"layer{i}"]
    # Nothing moves before the first sync of a fragment, so only real syncs make live and slow weights equal.
    assert syncs == expected


def test_each_fragment_moves_as_under_a_lookahead_of_its_own():
    example = load("streaming_fragments")
    params = {"a": jnp.ones(3), "b": jnp.full(2, 2.0)}
    tx = example.streaming(params, optax.sgd(0.1))
    alone = {name: example.fragment(i, 2, optax.sgd(0.1)) for i, name in enumerate(params)}
    states = {name: alone[name].init(params[name]) for name in params}
    opt_state, live, expected = tx.init(params), params, dict(params)
    for _ in range(20):
        updates, opt_state = tx.update(live, opt_state, live)
        live = optax.apply_updates(live, updates)
        for name in params:
            update, states[name] = alone[name].update(expected[name], states[name], expected[name])
            expected[name] = optax.apply_updates(expected[name], update)
    jax.tree.map(np.testing.assert_array_equal, live, expected)


def test_offloaded_slow_weights_stay_on_the_host_and_change_nothing():
    if "pinned_host" not in {memory.kind for memory in jax.devices()[0].addressable_memories()}:
        pytest.skip("this backend has no pinned_host memory")
    params, opt_state = load("host_offload").main()
    assert la.slow_params(opt_state).sharding.memory_kind == "pinned_host"
    tx = la.lookahead(optax.adam(0.05), 5)
    expected = jnp.linspace(-1.0, 1.0, 1024)
    state = tx.init(expected)
    for _ in range(15):
        updates, state = jax.jit(tx.update)(expected, state, expected)
        expected = optax.apply_updates(expected, updates)
    np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(la.slow_params(opt_state)), np.asarray(params))
