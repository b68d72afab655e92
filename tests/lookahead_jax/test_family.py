"""The outer-optimizer family against NumPy: SNOO, DiLoCo with one worker and several, primal averaging."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import lookahead_jax as la
from tests import reference
from tests.lookahead_jax.problems import gradient, run, weights

STEPS = 20

pytestmark = pytest.mark.usefixtures("x64")


def assert_follows(tx, oracle, rtol=1e-9):
    expected = reference.trajectory(oracle, weights(), gradient, STEPS)
    np.testing.assert_allclose(
        np.stack(run(tx, jnp.asarray(weights()), STEPS)), np.stack(expected), rtol=rtol, atol=rtol
    )


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_snoo_follows_the_oracle(momentum):
    tx = la.snoo(optax.adam(0.05), 3, 0.6, momentum)
    assert_follows(tx, reference.Snoo(reference.Adam(0.05), 3, 0.6, momentum, params=weights()))


def test_snoo_without_momentum_is_lookahead():
    assert_follows(
        la.snoo(optax.adam(0.05), 3, 0.6, 0.0), reference.Lookahead(reference.Adam(0.05), 3, 0.6, params=weights())
    )


@pytest.mark.parametrize("outer", [la.snoo, la.diloco])
def test_the_outer_step_takes_what_lookahead_takes(outer):
    """Float32 slow weights of bfloat16 parameters keep outer steps that rounding would lose; moments are reset."""
    params = jnp.full(3, 1.0, jnp.bfloat16)
    options = {"slow_dtype": "float32", "fast_state_at_sync": "reset"}
    tx = outer(optax.adam(1e-3), 2, 0.01, 0.0, **options)
    same = la.lookahead(optax.adam(1e-3), 2, slow_optimizer=optax.sgd(0.01, 0.0, nesterov=True), **options)
    states, live = [tx.init(params), same.init(params)], [params, params]
    for i in range(6):
        for which, one in enumerate((tx, same)):
            updates, states[which] = one.update(jnp.sin(live[which] + i), states[which], live[which])
            live[which] = optax.apply_updates(live[which], updates)
    jax.tree.map(np.testing.assert_array_equal, states[0], states[1])
    assert la.slow_params(states[0]).dtype == jnp.float32
    assert not np.array_equal(la.slow_params(states[0]), np.ones(3))


def test_diloco_with_one_worker_is_snoo_with_the_papers_defaults():
    tx = la.diloco(optax.adam(0.05), sync_period=4)
    assert_follows(tx, reference.Snoo(reference.Adam(0.05), 4, 0.7, 0.9, params=weights()))
    assert [p.default for p in [*inspect.signature(la.diloco).parameters.values()][1:4]] == [500, 0.7, 0.9]


@pytest.mark.parametrize(("mu_x", "mu_y"), [(0.9, 0.8), (0.99, 0.9), (0.5, 0.0), (0.0, 0.5), (1.0, 0.5)])
@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_primal_averaging_follows_the_oracle(inner, mu_x, mu_y):
    optimizer, oracle = {
        "sgd": (optax.sgd(0.1), reference.Sgd(0.1)),
        "adam": (optax.adam(0.05), reference.Adam(0.05)),
    }[inner]
    tx = la.primal_averaging(optimizer, mu_x, mu_y)
    assert_follows(tx, reference.PrimalAveraging(oracle, mu_x, mu_y, params=weights()))


def test_the_weight_decay_of_primal_averaging_acts_on_z():
    # z <- (1 - lr wd) z - lr g with the gradient at y, as in the paper.
    tx = la.primal_averaging(optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1)), 0.9, 0.8)

    class DecayedSgd(reference.Sgd):
        def step(self, params, grads):
            return (1 - 0.1 * 0.2) * params - 0.1 * grads

    assert_follows(tx, reference.PrimalAveraging(DecayedSgd(0.1), 0.9, 0.8, params=weights()))


def test_primal_averaging_takes_one_buffer_more_than_its_optimizer_and_no_copies():
    params = [jnp.ones([4, 5], jnp.float32), jnp.ones([7], jnp.float32)]
    sizes = [
        sum(x.size for x in jax.tree.leaves(tx.init(params)) if x.ndim)
        for tx in (optax.adam(0.1), la.primal_averaging(optax.adam(0.1), 0.9, 0.8))
    ]
    assert sizes[1] - sizes[0] == 27


def test_primal_averaging_starts_from_weights_loaded_after_init():
    tx = la.primal_averaging(optax.sgd(1.0), 0.5, 0.5)
    _, opt_state = tx.update(jnp.array([1.0]), tx.init(jnp.array([0.0])), jnp.array([8.0]))
    np.testing.assert_array_equal(la.slow_params(opt_state), [7.5])


def test_primal_averaging_moves_nothing_while_gradients_accumulate():
    # The average decays once per update of MultiSteps, as it does with the mean gradients and no MultiSteps.
    alone = la.primal_averaging(optax.sgd(0.5), 0.5, 0.5)
    around = la.primal_averaging(optax.MultiSteps(optax.sgd(0.5), 2), 0.5, 0.5)
    params = {tx: jnp.array([8.0, -2.0]) for tx in (alone, around)}
    states = {tx: tx.init(params[tx]) for tx in (alone, around)}
    for step in range(6):
        grads = [jnp.array([1.0, -3.0]) * step, jnp.array([0.5, 1.0])]
        for tx, given in ((alone, [sum(grads) / 2]), (around, grads)):
            for grad in given:
                updates, states[tx] = tx.update(grad, states[tx], params[tx])
                before, params[tx] = params[tx], optax.apply_updates(params[tx], updates)
                if tx is around and grad is grads[0]:
                    np.testing.assert_array_equal(params[tx], before)
        np.testing.assert_array_equal(params[around], params[alone])
        np.testing.assert_array_equal(la.slow_params(states[around]), la.slow_params(states[alone]))


def test_primal_averaging_takes_no_part_in_a_step_that_is_rejected():
    tx = la.primal_averaging(optax.apply_if_finite(optax.sgd(1.0), 3), 0.5, 0.5)
    params = jnp.array([8.0])
    opt_state = tx.init(params)
    for grad in (1.0, jnp.nan, jnp.inf, 1.0):  # as in the docstring, but for the two in the middle
        updates, opt_state = tx.update(jnp.array([grad]), opt_state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params, [6.375])
    np.testing.assert_array_equal(la.slow_params(opt_state), [6.75])


@pytest.mark.parametrize("wrap", [lambda tx: tx, la.lookahead, lambda tx: optax.MultiSteps(tx, 2)])
def test_primal_averaging_refuses_sam(wrap):
    tx = la.primal_averaging(wrap(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01))), 0.5, 0.5)
    with pytest.raises(ValueError, match=r"cannot be around optax\.contrib\.sam; lookahead\(\) can"):
        tx.init(jnp.ones(2))


# Several workers.

WORKERS = 4


def worker_gradients(params, step):
    """Of each worker, whose data differ."""
    return np.stack([gradient(p, step + 10.0 * w) for w, p in enumerate(np.asarray(params))])


def workers_by_hand(steps, k, learning_rate, momentum):
    """DiLoCo in NumPy: Adam of each worker, a Nesterov step of what they share."""
    slow, outer = weights(), reference.Sgd(learning_rate, momentum, nesterov=True)
    inner = [reference.Adam(0.05) for _ in range(WORKERS)]
    live = np.stack([slow] * WORKERS)
    for i in range(steps):
        grads = worker_gradients(live, i)
        live = np.stack([opt.step(p, g) for opt, p, g in zip(inner, live, grads, strict=True)])
        if i % k == k - 1:
            slow = outer.step(slow, np.mean(slow - live, axis=0))
            live = np.stack([slow] * WORKERS)
    return live, slow


def stacked_gradient(params, i):
    index = jax.lax.axis_index("workers").astype(params.dtype)
    n = jnp.arange(1, params.shape[-1] + 1)
    return n / 3.0 * params + jnp.sin(n * (1.0 + i + 10.0 * index)) * 0.3


def local_steps(tx, static, steps, k, params):
    opt_state = tx.init(params)
    for i in range(steps):
        sync = la.is_sync_step(i + 1, k) if static else None
        updates, opt_state = tx.update(stacked_gradient(params, i), opt_state, params, sync=sync)
        params = optax.apply_updates(params, updates)
    return params, la.slow_params(opt_state)


MAPS = {
    "vmap": lambda f: jax.vmap(f, axis_name="workers"),
    "pmap": lambda f: jax.pmap(f, axis_name="workers"),
}


@pytest.mark.devices(WORKERS)
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("map_name", MAPS)
def test_workers_average_their_outer_steps(map_name, static):
    tx = la.diloco(optax.adam(0.05), 3, 0.7, 0.5, axis_name="workers")
    mapped = MAPS[map_name](functools.partial(local_steps, tx, static, 7, 3))
    live, slow = mapped(jnp.asarray(np.stack([weights()] * WORKERS)))
    expected_live, expected_slow = workers_by_hand(7, 3, 0.7, 0.5)
    np.testing.assert_allclose(live, expected_live, rtol=1e-9)
    for of_worker in slow:
        np.testing.assert_array_equal(of_worker, slow[0])
        np.testing.assert_allclose(of_worker, expected_slow, rtol=1e-9)


def sharded_step(tx, sync):
    """One local step under shard_map: the slow weights are one copy for all, the rest is of each worker."""
    mesh = Mesh(np.array(jax.devices()[:WORKERS]), ("workers",))

    def step(params, opt_state, grads):
        own, state = jax.tree.map(lambda x: x[0], (params, opt_state.fast_state))
        opt_state = opt_state._replace(fast_state=state)
        updates, opt_state = tx.update(grads[0], opt_state, own, sync=sync)
        params = optax.apply_updates(own, updates)
        stack = functools.partial(jax.tree.map, lambda x: x[None])
        return stack(params), opt_state._replace(fast_state=stack(opt_state.fast_state))

    def state_specs(opt_state):
        return la.LookaheadState(
            fast_state=jax.tree.map(lambda _: P("workers"), opt_state.fast_state),
            slow_params=P(),
            steps_since_sync=P(),
            sync_count=P(),
            slow_state=jax.tree.map(lambda _: P(), opt_state.slow_state),
        )

    def make(opt_state):
        inout = (P("workers"), state_specs(opt_state))
        return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(*inout, P("workers")), out_specs=inout))

    return make


@pytest.mark.devices(WORKERS)
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_under_shard_map_the_slow_weights_are_checked_to_be_one_copy(static):
    # check_vma, on by default, proves that what out_specs calls replicated is the same on all workers.
    tx = la.diloco(optax.adam(0.05), 3, 0.7, 0.5, axis_name="workers")
    params = jnp.asarray(np.stack([weights()] * WORKERS))
    opt_state = tx.init(params[0])
    opt_state = opt_state._replace(fast_state=jax.tree.map(lambda x: jnp.stack([x] * WORKERS), opt_state.fast_state))
    for i in range(7):
        step = sharded_step(tx, la.is_sync_step(i + 1, 3) if static else None)(opt_state)
        params, opt_state = step(params, opt_state, jnp.asarray(worker_gradients(params, i)))
    expected_live, expected_slow = workers_by_hand(7, 3, 0.7, 0.5)
    np.testing.assert_allclose(params, expected_live, rtol=1e-9)
    np.testing.assert_allclose(la.slow_params(opt_state), expected_slow, rtol=1e-9)


@pytest.mark.parametrize(("sync", "reductions"), [(False, 0), (True, 1)])
def test_a_sync_sends_the_parameters_once_and_the_other_steps_nothing(sync, reductions):
    tx = la.diloco(optax.adam(0.05), 3, axis_name="workers")
    params = jnp.asarray(np.stack([weights()] * WORKERS))
    opt_state = tx.init(params[0])
    opt_state = opt_state._replace(fast_state=jax.tree.map(lambda x: jnp.stack([x] * WORKERS), opt_state.fast_state))
    text = sharded_step(tx, sync)(opt_state).lower(params, opt_state, params).as_text()
    assert text.count("stablehlo.all_reduce") == reductions


@pytest.mark.devices(WORKERS)
def test_a_worker_that_skips_a_step_makes_no_other_wait_alone():
    tx = la.lookahead(optax.apply_if_finite(optax.sgd(0.1), 5), 2, 0.5, axis_name="workers")

    def two_steps(params):
        opt_state = tx.init(params)
        for i in range(2):
            bad = (jax.lax.axis_index("workers") == 1) & (i == 0)
            updates, opt_state = tx.update(jnp.where(bad, jnp.nan, params), opt_state, params)
            params = optax.apply_updates(params, updates)
        return opt_state.steps_since_sync, opt_state.sync_count

    steps, syncs = MAPS["pmap"](two_steps)(jnp.ones([WORKERS, 3]))
    assert (steps.tolist(), syncs.tolist()) == ([1] * WORKERS, [0] * WORKERS)


def test_primal_averaging_leaves_integers_and_frozen_parameters_to_the_fast_optimizer():
    def moves_integers(updates, params=None):
        return jax.tree.map(lambda u: u if u.dtype == jnp.int32 else -0.1 * u, updates)

    tx = la.primal_averaging(optax.stateless(moves_integers), 0.9, 0.8)
    params = {"w": jnp.ones(2), "n": jnp.array(1, jnp.int32), "frozen": jnp.ones(3), "none": None}
    grads = {"w": jnp.ones(2), "n": jnp.array(2, jnp.int32), "frozen": None, "none": None}
    opt_state, update = tx.init(params), jax.jit(tx.update, donate_argnums=1)
    for step in range(1, 4):
        updates, opt_state = update(grads, opt_state, params)
        moved = {name: params[name] + updates[name] for name in ("w", "n")}
        params = params | moved | {"frozen": params["frozen"] + 1}
        assert int(la.slow_params(opt_state)["n"]) == int(params["n"]) == 1 + 2 * step
        np.testing.assert_array_equal(la.slow_params(opt_state)["frozen"], params["frozen"] - 1)


def test_primal_averaging_keeps_no_loss_that_a_line_search_has_cached_elsewhere():
    def loss(x):
        return jnp.sum(x**2)

    tx, params = la.primal_averaging(optax.lbfgs(), 0.9, 0.8), jnp.array([3.0])
    opt_state, value_and_grad = tx.init(params), optax.value_and_grad_from_state(loss)
    for _ in range(3):
        value, grad = value_and_grad(params, state=opt_state)
        np.testing.assert_allclose([value, grad[0]], [params[0] ** 2, 2 * params[0]])
        updates, opt_state = tx.update(grad, opt_state, params, value=value, grad=grad, value_fn=loss)
        params = optax.apply_updates(params, updates)


def test_workers_take_integers_booleans_and_random_keys_from_the_live_weights():
    tx = la.lookahead(optax.stateless(lambda updates, params: updates), 2, 1.0, axis_name="workers")

    def step(grads):
        params = {"w": jnp.ones(2), "n": jnp.array(1), "on": jnp.array(True), "key": jax.random.key(0)}
        updates = {"w": grads, "n": jnp.array(1), "on": jnp.array(False), "key": None}
        opt_state = tx.init(params)
        for _ in range(2):
            new, opt_state = tx.update(updates, opt_state, params)
            params = params | {name: params[name] + new[name] for name in ("w", "n")}
        return params, la.slow_params(opt_state)

    live, slow = jax.vmap(step, axis_name="workers")(jnp.array([[1.0, 1.0], [3.0, 3.0]]))
    np.testing.assert_allclose(slow["w"], 5.0)
    assert jax.tree.map(lambda x: str(x.dtype), slow) == jax.tree.map(lambda x: str(x.dtype), live)
    np.testing.assert_array_equal(slow["n"], live["n"])
    assert np.all(slow["on"])
