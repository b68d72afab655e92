"""Parameters of other people's libraries: trees with functions and None, weights that are loaded late, checkpoints."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import lookahead_jax as la
from tests import reference
from tests.lookahead_jax.problems import as_pure, gradient, weights

K, ALPHA = 2, 0.5


class Layer(NamedTuple):
    """A model as Equinox has them: arrays, a function, a number that is not trained, and None, in one tree."""

    weight: Any
    activation: Any
    dropout: Any
    bias: Any


MODEL = Layer(jnp.asarray([8.0, 4.0]), jax.nn.relu, 0.5, None)


def arrays_of(model):
    return jax.tree.map(lambda x: x if isinstance(x, jax.Array) else None, model)


MEMBERS = {
    "sgd": lambda: la.lookahead(optax.sgd(1.0), K, ALPHA),
    "adam": lambda: la.lookahead(optax.adam(1.0), K, ALPHA),
    "adamw": lambda: la.lookahead(optax.chain(optax.scale_by_adam(), optax.scale(-1.0)), K, ALPHA),
    "reset": lambda: la.lookahead(optax.adam(1.0), K, ALPHA, fast_state_at_sync="reset"),
    "pullback": lambda: la.lookahead(optax.adam(1.0), K, ALPHA, fast_state_at_sync="pullback"),
    "adaptive": lambda: la.lookahead(optax.adam(1.0), K, la.adaptive_step_size(b2=0.999)),
    "snoo": lambda: la.snoo(optax.adam(1.0), K, ALPHA, 0.5),
    "primal_averaging": lambda: la.primal_averaging(optax.sgd(1.0), 0.5, 0.5),
    "nested": lambda: la.lookahead(la.lookahead(optax.sgd(1.0), K, ALPHA), K, ALPHA),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_whole_model_as_params_moves_as_its_arrays_alone(name):
    tx = MEMBERS[name]()
    model, arrays = MODEL, arrays_of(MODEL)
    states = [tx.init(arrays), tx.init(arrays)]
    for i in range(2 * K):
        grads = jax.tree.map(lambda x, i=i: jnp.cos(x + i), arrays_of(model))
        updates, states[0] = tx.update(grads, states[0], model)
        model = model._replace(weight=model.weight + updates.weight)
        expected, states[1] = tx.update(grads, states[1], arrays)
        arrays = optax.apply_updates(arrays, expected)
        assert jax.tree.structure(updates) == jax.tree.structure(expected)
        np.testing.assert_array_equal(model.weight, arrays.weight)
    slow = la.slow_params(states[0], model)
    assert (slow.activation, slow.dropout, slow.bias) == (jax.nn.relu, 0.5, None)
    np.testing.assert_array_equal(slow.weight, la.slow_params(states[1]).weight)


# Not Adam: optax.adam itself refuses None where its moments have an array.
WITHOUT_MOMENTS = {
    "sgd": MEMBERS["sgd"],
    "slow_dtype": lambda: la.lookahead(optax.sgd(1.0), K, ALPHA, slow_dtype=jnp.float32),
    "reset": lambda: la.lookahead(optax.sgd(1.0), K, ALPHA, fast_state_at_sync="reset"),
    "pullback": lambda: la.lookahead(optax.sgd(1.0), K, ALPHA, fast_state_at_sync="pullback"),
    "snoo": lambda: la.snoo(optax.sgd(1.0), K, ALPHA, 0.5),
    "primal_averaging": MEMBERS["primal_averaging"],
    "nested": MEMBERS["nested"],
}


@pytest.mark.parametrize("name", WITHOUT_MOMENTS)
def test_none_as_the_gradient_of_a_leaf_leaves_it_alone(name):
    params = {"w": jnp.asarray([8.0]), "frozen": jnp.asarray([3.0])}
    tx = WITHOUT_MOMENTS[name]()
    opt_state = tx.init(params)
    for _ in range(2 * K):
        updates, opt_state = tx.update({"w": jnp.ones(1), "frozen": None}, opt_state, params)
        assert updates["frozen"] is None
        params = params | {"w": params["w"] + updates["w"]}
    assert float(params["frozen"][0]) == 3.0
    slow = la.slow_params(opt_state)
    assert float(slow["frozen"][0]) == 3.0
    assert float(slow["w"][0]) < 8.0


def test_in_equinox_with_the_model_itself_as_params():
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    tx = la.lookahead(optax.adam(0.05), 3)
    opt_state = tx.init(eqx.filter(model, eqx.is_array))
    x = jnp.asarray(weights(16).reshape(8, 2), jnp.float32)

    def loss(model):
        return jnp.mean((jax.vmap(model)(x) - 1.0) ** 2)

    @eqx.filter_jit
    def step(model, opt_state):
        updates, opt_state = tx.update(eqx.filter_grad(loss)(model), opt_state, model)
        return eqx.apply_updates(model, updates), opt_state

    before = float(loss(model))
    for _ in range(9):
        model, opt_state = step(model, opt_state)
    slow = la.slow_params(opt_state, model)
    assert float(loss(slow)) == float(loss(model)) < before


# Weights that change without `update`.


@pytest.mark.parametrize("home", ["plain", "train state", "nnx", "MultiSteps", "static sync"])
def test_weights_loaded_after_init_are_where_the_first_period_starts(home):
    # Gradient 1, rate 1, k = 2, alpha = 1/2: from 10, not from the 0 that init saw, to 10 - 2 / 2 = 9.
    tx = la.lookahead(optax.sgd(1.0), 2, 0.5)
    one, loaded = {"w": jnp.array([1.0])}, {"w": jnp.array([10.0])}
    initial = {"w": jnp.array([0.0])}
    if home == "train state":
        state = TrainState.create(apply_fn=None, params=initial, tx=tx).replace(params=loaded)
        for _ in range(2):
            state = state.apply_gradients(grads=one)
        live, slow = state.params, la.slow_params(state)
    elif home == "nnx":

        class Model(nnx.Module):
            def __init__(self):
                self.w = nnx.Param(jnp.array([0.0]))

        model = Model()
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        nnx.update(model, nnx.State({"w": nnx.Param(loaded["w"])}))
        for _ in range(2):
            optimizer.update(model, nnx.State({"w": nnx.Param(one["w"])}))
        live, slow = {"w": model.w[...]}, {"w": optimizer.opt_state.slow_params["w"][...]}
    else:
        if home == "MultiSteps":
            tx = optax.MultiSteps(tx, 2).gradient_transformation()
        syncs = [None, True] if home == "static sync" else [None] * (4 if home == "MultiSteps" else 2)
        live, opt_state = loaded, tx.init(initial)
        for sync in syncs:
            updates, opt_state = tx.update(one, opt_state, live, **({} if sync is None else {"sync": sync}))
            live = optax.apply_updates(live, updates)
        slow = la.slow_params(opt_state)
    assert (float(live["w"][0]), float(slow["w"][0])) == (9.0, 9.0)


HOMES = {
    "plain": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.clip(9.0), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.sgd(1.0)}, {"w": "a", "v": "b"}),
    "masked": lambda tx: optax.masked(tx, {"w": True, "v": False}),
    "nested": lambda tx: la.lookahead(tx, 2, 1.0),
    "slow_dtype": lambda tx: la.lookahead(optax.sgd(1.0), 2, 0.5, slow_dtype=jnp.float32),
}


@pytest.mark.parametrize("home", HOMES)
def test_resync_starts_a_new_period_from_weights_that_were_edited(home):
    tx = HOMES[home](la.lookahead(optax.sgd(1.0), 2, 0.5))
    params = {"w": jnp.array([0.0]), "v": jnp.array([0.0])}
    one = jax.tree.map(jnp.ones_like, params)
    opt_state = tx.init(params)
    step = jax.jit(tx.update)
    for _ in range(3):
        updates, opt_state = step(one, opt_state, params)
        params = optax.apply_updates(params, updates)
    params = {"w": jnp.array([10.0]), "v": jnp.array([0.0])}
    opt_state = la.resync(opt_state, params)
    assert la.slow_params(opt_state, params)["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()
    for _ in range(2):
        updates, opt_state = step(one, opt_state, params)
        params = optax.apply_updates(params, updates)
    assert float(params["w"][0]) == 9.0
    assert step._cache_size() == 1


def test_resync_of_an_nnx_optimizer():
    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.array([0.0]))

    model = Model()
    optimizer = nnx.Optimizer(model, la.lookahead(optax.sgd(1.0), 2, 0.5), wrt=nnx.Param)
    one = nnx.State({"w": nnx.Param(jnp.array([1.0]))})
    optimizer.update(model, one)
    nnx.update(model, nnx.State({"w": nnx.Param(jnp.array([10.0]))}))
    params = as_pure(nnx.state(model, nnx.Param))
    nnx.update(optimizer.opt_state, nnx.state(la.resync(as_pure(optimizer.opt_state), params)))
    for _ in range(2):
        optimizer.update(model, one)
    assert float(model.w[...][0]) == 9.0


def test_resync_without_a_lookahead_or_with_other_parameters_is_an_error():
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"no LookaheadState.*restore checkpoints into a target"):
        la.resync(optax.adam(0.1).init(params), params)
    opt_state = la.lookahead(optax.adam(0.1)).init(params)
    with pytest.raises(ValueError, match=r"params\['w'\] does not fit its slow weights, an array of shape \(2,\)"):
        la.resync(opt_state, {"w": jnp.ones(3)})


OTHERS = {
    "another name": {"v": jnp.ones(2)},
    "a tree for a leaf": {"w": {"a": jnp.ones(2)}},
    "another shape": {"w": jnp.ones([2, 1])},
    "an array for the tree": jnp.ones(2),
    "None for a leaf": {"w": None},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_slow_params_refuses_parameters_of_another_structure(kind):
    opt_state = la.lookahead(optax.adam(0.1)).init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="pass the parameters that the optimizer was initialised with"):
        la.slow_params(opt_state, OTHERS[kind])


@pytest.mark.parametrize("home", ["plain", "chain", "train state"])
def test_what_orbax_restores_without_a_target_is_recognised(home, tmp_path):
    import orbax.checkpoint as ocp

    tx = la.lookahead(optax.adam(0.1), 2)
    tx = optax.chain(optax.clip(1.0), tx) if home == "chain" else tx
    params = {"w": jnp.asarray(weights(3), jnp.float32)}
    state: Any = tx.init(params)
    if home == "train state":
        state = TrainState.create(apply_fn=None, params=params, tx=tx)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state")
    np.testing.assert_array_equal(la.slow_params(restored)["w"], params["w"])
    with pytest.raises(ValueError, match="restore checkpoints into a target"):
        la.resync(restored, params)


def test_the_ranger_that_a_chess_engine_builds_by_hand_in_one_call_on_an_nnx_optimizer():
    # k 6, alpha 0.5, b1 0.95, eps 1e-5, threshold 5, moments reset at each sync.
    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.asarray(weights(), jnp.float32))

    tx = la.ranger(
        0.02, b1=0.95, eps=1e-5, threshold=5.0, sync_period=6, slow_step_size=0.5, fast_state_at_sync="reset"
    )
    model = Model()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, i):
        grads = jax.tree.map(lambda p: gradient(p, i), nnx.state(model, nnx.Param))
        optimizer.update(model, grads)

    live = []
    for i in range(20):
        step(model, optimizer, i)
        live.append(np.asarray(model.w[...]))
    oracle = reference.Lookahead(reference.RAdam(0.02, 0.95, 0.999, 1e-5), 6, 0.5, params=weights(), at_sync="reset")
    expected, _ = reference.trajectory(oracle, weights(), gradient, 20)
    np.testing.assert_allclose(live, expected, rtol=2e-4, atol=1e-5)


def test_the_threshold_of_ranger_decides_when_steps_are_rectified(x64):
    # With b2 = 0.999 rho is 5.0 at step 6 and 4.99 at step 5; with b2 0.9 it never gets beyond 19 - ...
    run = functools.partial(jax.jit, static_argnums=0)

    @run
    def first_steps(threshold):
        tx = la.ranger(0.1, threshold=threshold, sync_period=100)
        params, out = jnp.ones(1), []
        opt_state = tx.init(params)
        for _ in range(8):
            updates, opt_state = tx.update(jnp.full(1, 5.0), opt_state, params)
            out.append(updates[0])
        return jnp.stack(out)

    # A momentum step with a constant gradient is lr * 5; a rectified one is at most lr.
    assert [bool(u < -0.45) for u in first_steps(5.0)] == [True] * 5 + [False] * 3
    assert [bool(u < -0.45) for u in first_steps(7.0)] == [True] * 7 + [False]


def test_random_keys_among_the_parameters_are_left_alone():
    params = {"w": jnp.ones(2), "key": jax.random.key(3)}
    for tx in (la.lookahead(optax.sgd(0.5), 2, 0.5), la.primal_averaging(optax.sgd(0.5), 0.5, 0.5)):
        opt_state, live = tx.init(params), params
        for _ in range(3):
            updates, opt_state = jax.jit(tx.update)({"w": jnp.ones(2), "key": None}, opt_state, live)
            live = live | {"w": live["w"] + updates["w"]}
        assert la.slow_params(opt_state)["key"] == params["key"]
