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


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_listed_and_says_how_to_run_it(path):
    assert len(path.read_text().splitlines()) < 60
    assert f"]({path.name})" in (EXAMPLES / "README.md").read_text()
    assert f"python examples/{path.name}" in path.read_text()


def test_a_line_is_fitted_in_a_loop_of_ones_own():
    slow = load("optax_loop").main()
    np.testing.assert_allclose([slow["slope"], slow["offset"]], [3, -1], atol=0.05)


@pytest.mark.parametrize("name", ["flax_train_state", "flax_nnx", "equinox_model"])
def test_a_classifier_is_trained_whatever_library_it_is_written_in(name):
    if name == "equinox_model":
        pytest.importorskip("equinox", reason="Equinox is not installed")
    assert load(name).main() > 0.95


def test_injected_hyperparameters_change_when_syncs_come():
    assert [i + 1 for i, sync in enumerate(load("inject_hyperparams").main()) if sync] == [5, 10, 15, 20, 30, 40]


def test_what_is_not_under_lookahead_has_its_live_weights():
    params, slow = load("masked").main()
    np.testing.assert_array_equal(slow["embedding"], params["embedding"])
    assert not np.array_equal(slow["dense"], params["dense"])  # 33 steps: three after a sync


def test_a_nesterov_outer_step_is_faster_on_a_long_valley():
    plain, inner, snoo = load("outer_nesterov").main().values()
    assert snoo < inner / 2 < plain / 2


def test_the_caller_syncs_every_fifth_step_and_at_the_end_of_an_epoch():
    assert load("callers_sync").main() == [5, 10, 12, 17, 22, 24, 29, 34, 36]


def test_workers_meet_at_the_last_sync():
    params = load("local_steps").main()
    np.testing.assert_allclose(params[0], params[1], rtol=1e-6)
    np.testing.assert_allclose(params[0], 1.0, atol=0.3)  # the weights that the data were made with


def test_a_run_resumed_with_orbax_is_the_same_run(tmp_path):
    assert load("resume_orbax").main(tmp_path)


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
