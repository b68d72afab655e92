"""Lookahead inside and around what Optax, Flax and JAX compose, each against the NumPy oracle or a known trajectory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import lookahead_jax as la
from tests import reference
from tests.lookahead_jax.problems import as_pure, gradient, run, run_states, weights

K, ALPHA, STEPS = 3, 0.7, 20

pytestmark = pytest.mark.usefixtures("x64")


def sgd_oracle(learning_rate=0.1, momentum=0.0, sync_period=K, **options):
    return reference.Lookahead(reference.Sgd(learning_rate, momentum), sync_period, ALPHA, params=weights(), **options)


def assert_follows(actual, oracle, params=None, grad=gradient, steps=STEPS, rtol=1e-10):
    expected = reference.trajectory(oracle, weights() if params is None else params, grad, steps)
    np.testing.assert_allclose(np.stack(actual), np.stack(expected), rtol=rtol, atol=rtol)


def test_in_a_chain_after_clipping():
    tx = optax.chain(optax.clip_by_global_norm(1.0), la.lookahead(optax.sgd(0.1, 0.9), K, ALPHA))

    def clipped(params, step):
        grads = gradient(params, step)
        return grads / max(1.0, np.sqrt(np.sum(grads**2)))

    assert_follows(run(tx, jnp.asarray(weights()), STEPS), sgd_oracle(0.1, 0.9), grad=clipped)


def test_in_a_chain_after_add_decayed_weights():
    tx = optax.chain(optax.add_decayed_weights(0.2), la.lookahead(optax.sgd(0.1), K, ALPHA))
    oracle = reference.Lookahead(reference.Sgd(0.1, weight_decay=0.2), K, ALPHA, params=weights())
    assert_follows(run(tx, jnp.asarray(weights()), STEPS), oracle)


def test_around_a_chain_that_needs_params():
    inner = optax.chain(optax.scale_by_radam(), optax.add_decayed_weights(0.2), optax.scale_by_learning_rate(0.1))
    oracle = reference.Lookahead(reference.RAdam(0.1, weight_decay=0.2), K, ALPHA, params=weights())
    assert_follows(run(la.lookahead(inner, K, ALPHA), jnp.asarray(weights()), STEPS), oracle)


def split_gradient(params, step):
    return {name: gradient(p, step) for name, p in params.items()}


def run_split(tx, params, steps=STEPS):
    """As `run`, for a dictionary of parameters."""

    @jax.jit
    def trajectory(params):
        def step(carry, i):
            params, opt_state = carry
            updates, opt_state = tx.update(split_gradient(params, i), opt_state, params)
            params = optax.apply_updates(params, updates)
            return (params, opt_state), (params, la.slow_params(opt_state, params))

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[1]

    return trajectory(jax.tree.map(jnp.asarray, params))


def test_masked_to_some_parameters_and_plain_sgd_for_the_rest():
    params = {"a": weights(5, 1), "b": weights(4, 2)}
    tx = optax.chain(
        optax.masked(la.lookahead(optax.sgd(0.1), K, ALPHA), {"a": True, "b": False}),
        optax.masked(optax.sgd(0.1), {"a": False, "b": True}),
    )
    live, slow = run_split(tx, params)
    oracle = reference.Lookahead(reference.Sgd(0.1), K, ALPHA, params=params["a"])
    assert_follows((live["a"], slow["a"]), oracle, params["a"])
    assert_follows((live["b"], slow["b"]), reference.Sgd(0.1), params["b"])


def test_partitioned_with_another_period_for_each_group():
    params = {"a": weights(5, 1), "b": weights(4, 2)}
    tx = optax.partition(
        {"slow": la.lookahead(optax.adam(0.1), 4, 0.5), "fast": la.lookahead(optax.sgd(0.1), K, ALPHA)},
        {"a": "fast", "b": "slow"},
    )
    live, slow = run_split(tx, params)
    for name, inner, k, alpha in (("a", reference.Sgd(0.1), K, ALPHA), ("b", reference.Adam(0.1), 4, 0.5)):
        oracle = reference.Lookahead(inner, k, alpha, params=params[name])
        assert_follows((live[name], slow[name]), oracle, params[name])


def accumulating(oracle, every):
    """The oracle fed, on every `every`-th step, with the mean of the gradients since; else its weights stay."""

    class Accumulating:
        grads = ()
        slow = property(lambda self: oracle.slow)

        def step(self, params, grads):
            self.grads = (*self.grads, grads)
            if len(self.grads) < every:
                return params
            mean, self.grads = np.mean(self.grads, axis=0), ()
            return oracle.step(params, mean)

    return Accumulating()


@pytest.mark.parametrize("slow_step_size", [0.5, la.adaptive_step_size(b2=0.999)], ids=["number", "adaptive"])
def test_a_label_of_partition_that_no_parameter_has_does_no_harm(slow_step_size):
    used = la.lookahead(optax.adam(0.1), 2, 0.5)
    params = jnp.ones(2)
    tx = optax.partition({"used": used, "spare": la.lookahead(optax.adam(0.1), 1, slow_step_size)}, "used")
    opt_state, alone = tx.init(params), used.init(params)
    for _ in range(3):
        updates, opt_state = tx.update(params, opt_state, params)
        expected, alone = used.update(params, alone, params)
        np.testing.assert_array_equal(updates, expected)
    np.testing.assert_array_equal(la.slow_params(opt_state), alone.slow_params)


def test_multi_steps_around_lookahead_counts_emitted_updates():
    tx = optax.MultiSteps(la.lookahead(optax.sgd(0.1, 0.9), K, ALPHA), 4, accumulator_dtype=jnp.float64)
    actual = run(tx.gradient_transformation(), jnp.asarray(weights()), 29)
    assert_follows(actual, accumulating(sgd_oracle(0.1, 0.9), 4), steps=29)


@pytest.mark.parametrize("as_object", [True, False])
def test_multi_steps_inside_lookahead_counts_emitted_updates(as_object):
    inner = optax.MultiSteps(optax.sgd(0.1, 0.9), 4, accumulator_dtype=jnp.float64)
    tx = la.lookahead(inner if as_object else inner.gradient_transformation(), K, ALPHA)
    actual = run(tx, jnp.asarray(weights()), 29)
    assert_follows(actual, accumulating(sgd_oracle(0.1, 0.9), 4), steps=29)


def with_nans(params, step):
    """The gradient, but NaN on steps 1, 4, 5 and 11."""
    xp = np if isinstance(params, np.ndarray) else jnp
    return xp.where((step == 1) | (step == 4) | (step == 5) | (step == 11), xp.nan, gradient(params, step))


@pytest.mark.parametrize("finite_outside", [True, False])
def test_a_step_that_apply_if_finite_skips_does_not_count(finite_outside):
    if finite_outside:
        tx = optax.apply_if_finite(la.lookahead(optax.sgd(0.1, 0.9), K, ALPHA), 100)
    else:
        tx = la.lookahead(optax.apply_if_finite(optax.sgd(0.1, 0.9), 100), K, ALPHA)

    class Skipping:
        inner = sgd_oracle(0.1, 0.9)
        slow = property(lambda self: self.inner.slow)

        def step(self, params, grads):
            return params if np.isnan(grads).any() else self.inner.step(params, grads)

    params = jnp.asarray(weights())
    opt_state = tx.init(params)
    update = jax.jit(tx.update)
    live, slow = [], []
    for i in range(STEPS):
        updates, opt_state = update(with_nans(params, i), opt_state, params)
        params = optax.apply_updates(params, updates)
        live.append(params)
        slow.append(la.slow_params(opt_state))
    assert_follows((live, slow), Skipping(), grad=with_nans)


def test_injected_hyperparams_change_under_jit_without_compiling_again():
    tx = optax.inject_hyperparams(la.lookahead)(optax.sgd(0.1), sync_period=2, slow_step_size=0.5)
    params = jnp.asarray(weights())
    opt_state = tx.init(params)
    update = jax.jit(tx.update)
    oracle = reference.Lookahead(reference.Sgd(0.1), 2, 0.5, params=weights())
    expected = weights()
    for i in range(16):
        if i == 4:
            for name, value in (("sync_period", 3), ("slow_step_size", 0.9)):
                opt_state.hyperparams[name] = jnp.full_like(opt_state.hyperparams[name], value)
            oracle.sync_period, oracle.slow_step_size = 3, 0.9
        updates, opt_state = update(gradient(params, i), opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = oracle.step(expected, gradient(expected, i))
        np.testing.assert_allclose(params, expected, rtol=1e-10)
    assert update._cache_size() == 1
    np.testing.assert_allclose(la.slow_params(opt_state), oracle.slow, rtol=1e-10)


def test_reduce_on_plateau_inside_gets_its_value():
    inner = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))
    history = run_states(la.lookahead(inner, K, ALPHA), jnp.asarray(weights()), 8, value=jnp.asarray(1.0))

    # A constant value: 1 step sets the best, each 2 more halve the rate; the new rate holds from that step on.
    class Halving(reference.Sgd):
        calls = 0

        def step(self, params, grads):
            self.calls += 1
            self.learning_rate = 0.1 * 0.5 ** max(0, (self.calls - 1) // 2)
            return super().step(params, grads)

    oracle = reference.Lookahead(Halving(0.1), K, ALPHA, params=weights())
    actual = [p for p, _ in history], [la.slow_params(s) for _, s in history]
    assert_follows(actual, oracle, steps=8)


def test_nested_in_itself_is_lookahead_of_the_inner_lookahead():
    tx = la.lookahead(la.lookahead(optax.sgd(0.1, 0.9), 2, 0.5), K, ALPHA)
    inner = reference.Lookahead(reference.Sgd(0.1, 0.9), 2, 0.5, params=weights())
    oracle = reference.Lookahead(inner, K, ALPHA, params=weights())
    assert_follows(run(tx, jnp.asarray(weights()), STEPS), oracle)


@pytest.mark.parametrize(
    "frozen", [optax.set_to_zero(), optax.masked(optax.set_to_zero(), {"w": True})], ids=["set_to_zero", "masked"]
)
def test_frozen_parameters_and_their_slow_weights_do_not_move(frozen):
    params = {"w": jnp.asarray(weights())}
    tx = la.lookahead(optax.chain(optax.adam(0.1), frozen), K, ALPHA)
    opt_state = tx.init(params)
    for _ in range(2 * K):
        updates, opt_state = jax.jit(tx.update)(params, opt_state, params)
        assert not np.any(updates["w"])
    np.testing.assert_array_equal(la.slow_params(opt_state)["w"], weights())


def test_freezing_after_lookahead_keeps_what_is_frozen_and_lookahead_on_the_rest():
    params = {"a": weights(5, 1), "b": weights(4, 2)}
    tx = optax.chain(la.lookahead(optax.sgd(0.1), K, ALPHA), optax.masked(optax.set_to_zero(), {"a": False, "b": True}))
    live, slow = run_split(tx, params)
    oracle = reference.Lookahead(reference.Sgd(0.1), K, ALPHA, params=params["a"])
    assert_follows((live["a"], slow["a"]), oracle, params["a"])
    np.testing.assert_array_equal(live["b"], np.broadcast_to(params["b"], live["b"].shape))


def test_in_a_flax_train_state():
    state = TrainState.create(
        apply_fn=None, params={"w": jnp.asarray(weights())}, tx=la.lookahead(optax.sgd(0.1, 0.9), K, ALPHA)
    )
    apply = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    live, slow = [], []
    for i in range(STEPS):
        state = apply(state, split_gradient(state.params, i))
        live.append(state.params["w"])
        slow.append(la.slow_params(state)["w"])
    assert_follows((live, slow), sgd_oracle(0.1, 0.9))


def test_in_an_nnx_optimizer():
    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.asarray(weights()))

    model = Model()
    optimizer = nnx.Optimizer(model, la.lookahead(optax.sgd(0.1, 0.9), K, ALPHA), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, i):
        params = nnx.state(model, nnx.Param)
        optimizer.update(model, jax.tree.map(lambda p: gradient(p, i), params))

    live, slow = [], []
    for i in range(STEPS):
        step(model, optimizer, i)
        live.append(np.asarray(model.w[...]))
        averaged = nnx.clone(model)
        nnx.update(averaged, as_pure(la.slow_params(optimizer.opt_state)))
        slow.append(np.asarray(averaged.w[...]))
    assert_follows((live, slow), sgd_oracle(0.1, 0.9))


def test_vmapped_over_seeds_each_is_its_own_run():
    tx = la.lookahead(optax.adam(0.1), K, ALPHA)
    seeds = [weights(7, seed) for seed in range(3)]
    live, slow = jax.vmap(lambda p: run.__wrapped__(tx, p, STEPS))(jnp.asarray(seeds))
    for i, params in enumerate(seeds):
        oracle = reference.Lookahead(reference.Adam(0.1), K, ALPHA, params=params)
        assert_follows((live[i], slow[i]), oracle, params)


def test_jit_scan_and_plain_python_give_the_same_trajectory():
    tx = la.lookahead(optax.sgd(0.1, 0.9), K, ALPHA)
    params = jnp.asarray(weights())
    opt_state = tx.init(params)
    for i in range(5):
        updates, opt_state = tx.update(gradient(params, i), opt_state, params)
        params = optax.apply_updates(params, updates)
    jitted, jitted_state = run_states(tx, jnp.asarray(weights()), 5)[-1]
    live, slow = run(tx, jnp.asarray(weights()), 5)
    np.testing.assert_allclose([jitted, live[-1]], [params, params], rtol=1e-12)
    np.testing.assert_allclose(la.slow_params(jitted_state), slow[-1], rtol=1e-12)


def test_gradients_flow_through_the_updates():
    # On grad = a * p with SGD rate g, k = 2: p_2 = (1 - alpha + alpha (1 - g a)^2) p_0, differentiated in each.
    def after_a_cycle(p, g, alpha, a=3.0):
        tx = la.lookahead(optax.sgd(g), 2, alpha)
        opt_state = tx.init(p)
        for _ in range(2):
            updates, opt_state = tx.update(a * p, opt_state, p)
            p = optax.apply_updates(p, updates)
        return p

    p, g, alpha, a = 2.0, 0.1, 0.7, 3.0
    r = 1 - g * a
    expected = (1 - alpha + alpha * r**2, -2 * alpha * r * a * p, (r**2 - 1) * p)
    actual = jax.grad(after_a_cycle, argnums=(0, 1, 2))(*map(jnp.asarray, (p, g, alpha)))
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_gradients_flow_through_a_scanned_run_with_a_slow_optimizer():
    tx = la.lookahead(optax.sgd(0.1), 2, slow_optimizer=optax.sgd(0.5, 0.9, nesterov=True))
    final = functools.partial(lambda p: jnp.sum(run.__wrapped__(tx, p, 6)[0][-1]))
    params = jnp.asarray(weights())
    step = 1e-6 * jnp.ones_like(params)
    slope = (final(params + step) - final(params - step)) / 2e-6
    np.testing.assert_allclose(jnp.sum(jax.grad(final)(params)), slope, rtol=1e-6)


def sam(rate=0.1, period=2):
    return optax.contrib.sam(optax.sgd(rate), optax.sgd(0.5), sync_period=period)


def test_the_first_period_starts_from_where_sam_began_also_under_multi_steps():
    # MultiSteps of 1 changes nothing.
    ends = [
        run(la.lookahead(inner, 3, 0.5), jnp.asarray(weights()), 12) for inner in (sam(), optax.MultiSteps(sam(), 1))
    ]
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.parametrize("sync", [True, jnp.array(True)])
def test_sync_waits_where_sam_has_climbed(sync):
    """The weights there are not those that SAM goes on from, and it would undo the sync."""
    tx, params = la.lookahead(sam(), 100, 0.5), jnp.asarray(weights())
    opt_state, counts = tx.init(params), []
    for i in range(4):
        updates, opt_state = tx.update(gradient(params, i), opt_state, params, sync=sync)
        params = optax.apply_updates(params, updates)
        counts.append(int(opt_state.sync_count))
    assert counts == [0, 1, 1, 2]
    np.testing.assert_array_equal(params, la.slow_params(opt_state))


def test_a_lookahead_around_another_one_counts_the_same_steps():
    params = jnp.asarray(weights())
    inner = la.lookahead(optax.MultiSteps(optax.sgd(0.1), 2), 2, 0.5)
    states = [opt_state for _, opt_state in run_states(la.lookahead(inner, 3, 0.5), params, 12)]
    assert [int(state.sync_count) for state in states] == [0] * 5 + [1] * 6 + [2]
