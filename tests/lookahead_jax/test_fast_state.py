"""The fast optimizer's state at a sync: moments maintained, reset or pulled back, and nothing else touched."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests import reference
from tests.lookahead_jax.problems import gradient, run, run_states, weights

K, ALPHA, STEPS = 3, 0.7, 20
MODES = ["maintain", "reset", "pullback"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "radam"])
def test_each_mode_follows_the_oracle(x64, mode, name):
    inner, oracle = {
        "momentum": (optax.sgd(0.05, 0.9), reference.Sgd(0.05, 0.9)),
        "nesterov": (optax.sgd(0.05, 0.9, nesterov=True), reference.Sgd(0.05, 0.9, nesterov=True)),
        "adam": (optax.adam(0.05), reference.Adam(0.05)),
        "radam": (optax.radam(0.05), reference.RAdam(0.05)),
    }[name]
    actual = run(la.lookahead(inner, K, ALPHA, fast_state_at_sync=mode), jnp.asarray(weights()), STEPS)
    oracle = reference.Lookahead(oracle, K, ALPHA, params=weights(), at_sync=mode)
    expected = reference.trajectory(oracle, weights(), gradient, STEPS)
    np.testing.assert_allclose(np.stack(actual), np.stack(expected), rtol=1e-9, atol=1e-9)


def test_pullback_interpolates_with_the_scheduled_step_size_of_that_sync(x64):
    alphas = jnp.array([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    tx = la.lookahead(optax.sgd(0.05, 0.9), K, lambda syncs: alphas[syncs], fast_state_at_sync="pullback")
    actual = run(tx, jnp.asarray(weights()), 12)

    class Scheduled(reference.Lookahead):
        def step(self, params, grads):
            self.slow_step_size = float(alphas[self.syncs // K])
            self.syncs += 1
            return super().step(params, grads)

    oracle = Scheduled(reference.Sgd(0.05, 0.9), K, params=weights(), at_sync="pullback")
    oracle.syncs = 0
    expected = reference.trajectory(oracle, weights(), gradient, 12)
    np.testing.assert_allclose(np.stack(actual), np.stack(expected), rtol=1e-10)


@pytest.mark.parametrize("mode", ["reset", "pullback"])
def test_schedules_and_random_keys_go_on_and_a_reset_takes_the_count_of_its_moments(mode):
    inner = optax.chain(
        optax.add_noise(0.1, 0.5, key=0),
        optax.scale_by_adam(),
        optax.inject_hyperparams(optax.scale)(step_size=lambda count: -0.1 / (1 + count)),
    )
    runs = {
        m: run_states(la.lookahead(inner, K, ALPHA, fast_state_at_sync=m), jnp.ones(4), 7) for m in ("maintain", mode)
    }
    for i, ((_, kept), (_, changed)) in enumerate(zip(*runs.values(), strict=True)):
        noise, adam, scale = kept.fast_state
        noise_, adam_, scale_ = changed.fast_state
        assert int(noise.count) == int(noise_.count)
        np.testing.assert_array_equal(jax.random.key_data(noise.rng_key), jax.random.key_data(noise_.rng_key))
        assert int(adam.count) == i + 1
        assert int(adam_.count) == (i % K + 1 if mode == "reset" else i + 1)
        jax.tree.map(np.testing.assert_array_equal, scale, scale_)


def test_after_a_reset_moments_are_those_of_a_first_step_and_only_then():
    history = run_states(la.lookahead(optax.adam(0.1), K, ALPHA, fast_state_at_sync="reset"), jnp.ones(4), 8)
    for i, (_, state) in enumerate(history):
        before = jnp.ones(4) if i == 0 else history[i - 1][0]
        first_step = np.allclose(state.fast_state[0].mu, 0.1 * gradient(before, i), rtol=1e-5)
        assert first_step == (i % K == 0)


def test_reset_restarts_an_inner_copy_of_the_weights_from_the_synced_ones():
    # schedule_free keeps its own iterate z, shaped like the parameters; its init copies the parameters.
    inner = optax.contrib.schedule_free_sgd(0.1)
    history = run_states(la.lookahead(inner, K, ALPHA, fast_state_at_sync="reset"), jnp.ones(4), K + 1)
    (synced, _), (_, state) = history[-2:]
    np.testing.assert_allclose(state.fast_state.z, synced - 0.1 * gradient(synced, K), rtol=1e-5)


def test_a_nan_in_the_moments_does_not_survive_a_reset():
    # zero_nans after the moments: updates stay finite, the moments would stay NaN for ever.
    inner = optax.chain(optax.trace(0.9), optax.zero_nans(), optax.scale(-0.1))
    tx = la.lookahead(inner, K, ALPHA, fast_state_at_sync="reset")
    params = jnp.ones(2)
    opt_state = tx.init(params)
    seen = []
    for i in range(K + 1):
        grads = jnp.array([jnp.nan if i == 0 else 1.0, 1.0])
        updates, opt_state = jax.jit(tx.update)(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        seen.append(bool(jnp.isfinite(opt_state.fast_state[0].trace).all()))
    assert seen == [False, False, False, True]
    assert bool(jnp.isfinite(params).all())


def test_pulled_back_moments_share_no_buffer_with_the_momentum():
    tx = la.lookahead(optax.sgd(0.1, 0.9), sync_period=2, fast_state_at_sync="pullback")
    params = jnp.ones(3)
    opt_state = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        for _ in range(4):
            pulled, trace = opt_state.after_sync.pulled[0], opt_state.fast_state[0].trace
            assert pulled.unsafe_buffer_pointer() != trace.unsafe_buffer_pointer()
            updates, opt_state = update(params, opt_state, params)
            params = optax.apply_updates(params, updates)
    step = jax.jit(tx.update, donate_argnums=(1,))
    for _ in range(3):
        _, opt_state = step(params, opt_state, params)


def test_pulled_moments_hold_nothing_but_moments():
    tx = la.lookahead(optax.adam(optax.linear_schedule(0.1, 0.0, 10)), fast_state_at_sync="pullback")
    pulled = tx.init({"w": jnp.ones([2, 3])}).after_sync.pulled
    assert [x.shape for x in jax.tree.leaves(pulled)] == [(2, 3), (2, 3)]


@pytest.mark.parametrize("mode", ["reset", "pullback"])
def test_masked_and_partitioned_inner_optimizers_have_their_moments_found(x64, mode):
    params = {"a": jnp.asarray(weights(5, 1)), "b": jnp.asarray(weights(4, 2))}
    labels = {"a": "momentum", "b": "adam"}
    inner = optax.partition({"momentum": optax.sgd(0.05, 0.9), "adam": optax.adam(0.05)}, labels)
    tx = la.lookahead(inner, K, ALPHA, fast_state_at_sync=mode)
    opt_state, live = tx.init(params), params
    oracles = {
        "a": reference.Lookahead(reference.Sgd(0.05, 0.9), K, ALPHA, params=params["a"], at_sync=mode),
        "b": reference.Lookahead(reference.Adam(0.05), K, ALPHA, params=params["b"], at_sync=mode),
    }
    expected = jax.tree.map(np.asarray, params)
    for i in range(10):
        grads = {name: gradient(p, i) for name, p in live.items()}
        updates, opt_state = jax.jit(tx.update)(grads, opt_state, live)
        live = optax.apply_updates(live, updates)
        expected = {name: oracles[name].step(p, gradient(p, i)) for name, p in expected.items()}
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9), live, expected)


def test_pullback_with_a_slow_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"pullback.*use \"maintain\" or \"reset\""):
        la.lookahead(optax.sgd(0.1), slow_optimizer=optax.sgd(0.5), fast_state_at_sync="pullback")


# A reset keeps the length of steps: the count of the bias correction goes with its moments.

CONSTANT_STEPS = {
    "adam": lambda: optax.adam(0.1),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.0),
    "nadam": lambda: optax.nadam(0.1),
    "adamax": lambda: optax.adamax(0.1),
    "amsgrad": lambda: optax.amsgrad(0.1),
    "adabelief": lambda: optax.adabelief(0.1, eps=1.0),
    "lion": lambda: optax.lion(0.1, weight_decay=0.0),
    "adan": lambda: optax.adan(0.1),
    "yogi": lambda: optax.yogi(0.1, eps=1e-8),
    "novograd": lambda: optax.novograd(0.1),
    "scheduled adam": lambda: optax.adam(lambda count: 0.1 * 0.9 ** (count / 2000)),
    "injected adam": lambda: optax.inject_hyperparams(optax.adam)(0.1),
    "masked adam": lambda: optax.masked(optax.adam(0.1), True),
    "adam in a chain": lambda: optax.chain(optax.clip_by_global_norm(9.0), optax.adam(0.1)),
}


@pytest.mark.parametrize("name", CONSTANT_STEPS)
def test_a_reset_after_many_steps_keeps_the_step_length_of_a_constant_gradient(x64, name):
    # The last six of 2,001 steps, with a reset before every third, are twice the optimizer's own first three. With
    # moments of zero and the bias correction of step 2,000 Adam's would be 3 to 5 times as long.
    tx = la.lookahead(CONSTANT_STEPS[name](), K, 1.0, fast_state_at_sync="reset")
    alone = CONSTANT_STEPS[name]()

    @jax.jit
    def lengths():
        def step(carry, _):
            states = carry
            out = []
            for i, optimizer in enumerate((tx, alone)):
                params, opt_state = states[i]
                updates, opt_state = optimizer.update(jnp.full(1, 2.0), opt_state, params)
                out.append(updates[0])
                states = (*states[:i], (optax.apply_updates(params, updates), opt_state), *states[i + 1 :])
            return states, jnp.stack(out)

        start = jnp.full(1, 1000.0)
        return jax.lax.scan(step, ((start, tx.init(start)), (start, alone.init(start))), length=2001)[1]

    ours, alone = np.asarray(lengths()).T
    first_steps = np.tile(alone[:K], 2) * (0.9 if name == "scheduled adam" else 1.0)
    np.testing.assert_allclose(ours[-2 * K :], first_steps, rtol=2e-3)
    if "adam" in name:
        np.testing.assert_allclose(ours[-2 * K :], alone[-2 * K :], rtol=0.5 if name == "nadam" else 2e-3)


def test_a_schedules_count_beside_no_moments_is_never_reset():
    inner = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.1, 0.0, 100), momentum=0.9)
    history = run_states(la.lookahead(inner, K, ALPHA, fast_state_at_sync="reset"), jnp.ones(4), 8)
    assert [int(state.fast_state.count) for _, state in history] == list(range(1, 9))


def test_accumulation_counts_beside_its_gradients_are_never_reset():
    inner = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
    history = run_states(la.lookahead(inner, 2, ALPHA, fast_state_at_sync="reset"), jnp.ones(4), 9)
    assert [int(state.fast_state.gradient_step) for _, state in history] == [i // 2 for i in range(1, 10)]


# What describes a point that the sync has left.

LINE_SEARCHES = {
    "lbfgs": lambda: optax.lbfgs(),
    "lbfgs, backtracking": lambda: optax.lbfgs(
        linesearch=optax.scale_by_backtracking_linesearch(max_backtracking_steps=15, store_grad=True)
    ),
    "sgd with backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=15, store_grad=True)
    ),
    "sgd with zoom": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(max_linesearch_steps=15)),
}


@pytest.mark.parametrize("name", LINE_SEARCHES)
def test_the_value_and_gradient_that_a_line_search_keeps_are_never_those_of_before_the_sync(name):
    def loss(x):
        return jnp.sum(jnp.arange(1.0, 4.0) * (x - 1.0) ** 2) + jnp.sum(x**4)

    tx = la.lookahead(LINE_SEARCHES[name](), 2, 0.5)
    value_and_grad = optax.value_and_grad_from_state(loss)
    params = jnp.array([2.0, -1.0, 3.0])
    opt_state = tx.init(params)
    for _ in range(6):
        value, grad = value_and_grad(params, state=opt_state.fast_state)
        np.testing.assert_allclose(value, loss(params), rtol=1e-5)
        np.testing.assert_allclose(grad, jax.grad(loss)(params), rtol=1e-4, atol=1e-5)
        updates, opt_state = tx.update(grad, opt_state, params, value=value, grad=grad, value_fn=loss)
        params = optax.apply_updates(params, updates)
    assert float(loss(params)) < 10.0


@pytest.mark.parametrize("mode", ["reset", "pullback"])
@pytest.mark.parametrize("inner", [optax.lbfgs(), optax.flatten(optax.adam(0.1))], ids=["lbfgs", "flatten"])
def test_moments_in_other_shapes_than_the_parameters_are_refused_by_name(mode, inner):
    tx = la.lookahead(inner, fast_state_at_sync=mode)
    with pytest.raises(ValueError, match=rf'fast_state_at_sync="{mode}".*optax.lbfgs and optax.flatten do.*"maintain"'):
        tx.init({"w": jnp.ones(3), "b": jnp.ones([])})


@pytest.mark.parametrize("ascent_steps", [1, 2])
def test_sams_ascent_steps_are_no_steps_and_no_sync_falls_on_one(x64, ascent_steps):
    # Rho small enough that the ascent is seen and the oracle's gradient is that at the point above.
    rho, rate = 0.05, 0.1
    every = ascent_steps + 1
    sam = optax.contrib.sam(optax.sgd(rate), optax.chain(optax.contrib.normalize(), optax.sgd(rho)), sync_period=every)
    tx = la.lookahead(sam, K, ALPHA)
    curvature = np.arange(1.0, 4.0)
    params = jnp.asarray([1.0, -2.0, 3.0])
    opt_state = tx.init(jnp.zeros(3))  # loaded after init: the first step, not the first ascent, takes them
    oracle = reference.Lookahead(reference.Sgd(rate), K, ALPHA, params=np.asarray(params))
    expected = np.asarray(params)
    for i in range(every * 2 * K):
        updates, opt_state = tx.update(curvature * params, opt_state, params)
        params = optax.apply_updates(params, updates)
        if i % every == every - 1:
            point = expected
            for _ in range(ascent_steps):
                grads = curvature * point
                point = point + rho * grads / np.linalg.norm(grads)
            expected = oracle.step(expected, curvature * point)
            np.testing.assert_allclose(params, expected, rtol=1e-9)
            np.testing.assert_allclose(la.slow_params(opt_state), oracle.slow, rtol=1e-9)
    assert int(opt_state.sync_count) == 2


def test_a_reset_takes_the_flag_of_the_first_step_with_the_gradient_before():
    # Otherwise the step after a sync is twice as long: the flag says that there was a gradient, which is zero.
    tx = la.lookahead(optax.optimistic_gradient_descent(0.1), 4, 1.0, fast_state_at_sync="reset")
    params = jnp.array([8.0])
    opt_state = tx.init(params)
    for _ in range(12):
        updates, opt_state = tx.update(jnp.ones(1), opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(updates, -0.1, rtol=1e-5)


@pytest.mark.parametrize("inner", [optax.contrib.momo(0.1), optax.contrib.momo_adam(0.1)])
def test_reset_is_refused_where_averages_of_the_loss_would_go_on(inner):
    with pytest.raises(ValueError, match=r'"reset" does not fit optax.contrib.momo.*use "maintain" or "pullback"'):
        la.lookahead(inner, fast_state_at_sync="reset").init(jnp.ones(2))


@pytest.mark.parametrize("mode", MODES)
def test_a_sync_between_two_gradients_of_one_update_loses_none_of_them(mode):
    tx = la.lookahead(optax.MultiSteps(optax.sgd(1.0), 4), 100, 0.5, fast_state_at_sync=mode)
    params = jnp.array([8.0])
    opt_state = tx.init(params)
    for i in range(4):
        updates, opt_state = tx.update(jnp.ones(1), opt_state, params, sync=jnp.array(i == 1))
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, 7.0)


@pytest.mark.parametrize("mode", MODES)
def test_optax_finds_and_sets_each_value_of_the_fast_state_once(mode):
    tx = la.lookahead(optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9), fast_state_at_sync=mode)
    opt_state = tx.init(jnp.ones(2))
    assert optax.tree.get(opt_state, "learning_rate") == np.float32(0.1)
    changed = optax.tree.set(opt_state, learning_rate=jnp.float32(0.01))
    assert jax.tree.structure(changed) == jax.tree.structure(opt_state)
    assert optax.tree.get(changed, "learning_rate") == np.float32(0.01)
    doubled = optax.tree.map_params(tx, lambda x: 2 * x, opt_state)
    np.testing.assert_array_equal(optax.tree.get(doubled, "trace"), 2 * optax.tree.get(opt_state, "trace"))
