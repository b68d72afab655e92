"""Lookahead against the NumPy oracle, trajectories checkable by hand, and the contract of Optax's transforms."""

import functools
import itertools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests import reference
from tests.lookahead_jax.problems import gradient, run, run_states, weights

STEPS = 57  # 57 = 3 * 19 is a multiple of none of 2, 5, 7, so runs end inside a sync period

INNER = {
    "sgd": (lambda: optax.sgd(0.1), lambda: reference.Sgd(0.1)),
    "momentum": (lambda: optax.sgd(0.05, momentum=0.9), lambda: reference.Sgd(0.05, 0.9)),
    "nesterov": (lambda: optax.sgd(0.05, 0.9, nesterov=True), lambda: reference.Sgd(0.05, 0.9, nesterov=True)),
    "adam": (lambda: optax.adam(0.05), lambda: reference.Adam(0.05)),
    "radam": (lambda: optax.radam(0.05), lambda: reference.RAdam(0.05)),
}
SYNC_PERIODS, SLOW_STEP_SIZES = (1, 2, 5, 7), (0.0, 0.5, 0.8, 1.0)


def assert_equals_oracle(actual, inner, sync_period, slow_step_size, rtol=1e-10, **options):
    w = weights()
    oracle = reference.Lookahead(inner, sync_period, slow_step_size, params=w, **options)
    live, slow = reference.trajectory(oracle, w, gradient, STEPS)
    scale = np.abs(live).max()
    np.testing.assert_allclose(actual[0], live, rtol=rtol, atol=rtol * scale)
    np.testing.assert_allclose(actual[1], slow, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("name", INNER)
def test_live_and_slow_weights_follow_the_oracle_for_every_period_and_step_size(x64, name):
    optimizer, oracle = INNER[name]
    grid = list(itertools.product(SYNC_PERIODS, SLOW_STEP_SIZES))

    @jax.jit
    @jax.vmap
    def trajectories(sync_period, slow_step_size):
        return run.__wrapped__(la.lookahead(optimizer(), sync_period, slow_step_size), weights_, STEPS)

    weights_ = jnp.asarray(weights())
    live, slow = trajectories(jnp.array([k for k, _ in grid]), jnp.array([a for _, a in grid]))
    for i, (sync_period, slow_step_size) in enumerate(grid):
        assert_equals_oracle((live[i], slow[i]), oracle(), sync_period, slow_step_size)


@pytest.mark.parametrize("sync_period", SYNC_PERIODS)
@pytest.mark.parametrize("slow_step_size", SLOW_STEP_SIZES)
def test_static_period_and_step_size_follow_the_oracle(x64, sync_period, slow_step_size):
    actual = run(la.lookahead(optax.adam(0.05), sync_period, slow_step_size), jnp.asarray(weights()), STEPS)
    assert_equals_oracle(actual, reference.Adam(0.05), sync_period, slow_step_size)


def test_defaults_are_the_papers_period_5_and_step_size_08(x64):
    actual = run(la.lookahead(optax.sgd(0.1)), jnp.asarray(weights()), STEPS)
    assert_equals_oracle(actual, reference.Sgd(0.1), 5, 0.8)


def test_ranger_is_lookahead_around_radam_with_decoupled_weight_decay(x64):
    actual = run(la.ranger(0.05, weight_decay=0.1), jnp.asarray(weights()), STEPS)
    assert_equals_oracle(actual, reference.RAdam(0.05, weight_decay=0.1), 5, 0.8)


def test_a_trajectory_checked_by_hand():
    # Gradient 1, learning rate 1, k = 3, alpha = 1/3: 3 -> 2 -> 1 -> (0, pulled to 3 + (0 - 3) / 3 = 2).
    tx = la.lookahead(optax.sgd(1.0), sync_period=3, slow_step_size=1 / 3)
    params = jnp.array(3.0)
    opt_state = tx.init(params)
    live, slow = [], []
    for _ in range(6):
        updates, opt_state = tx.update(jnp.array(1.0), opt_state, params)
        params = optax.apply_updates(params, updates)
        live.append(float(params))
        slow.append(float(la.slow_params(opt_state)))
    np.testing.assert_allclose(live, [2, 1, 2, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(slow, [3, 3, 2, 2, 2, 1], atol=1e-6)


def test_step_size_1_leaves_the_fast_optimizer_alone():
    params = jnp.asarray(weights(), jnp.float32)
    live, _ = run(la.lookahead(optax.adam(0.05), slow_step_size=1.0), params, STEPS)
    expected, _ = reference.trajectory(reference.Adam(0.05), weights(), gradient, STEPS)
    np.testing.assert_allclose(live, expected, rtol=1e-4, atol=1e-5)


def test_step_size_0_returns_to_the_initial_weights_at_every_sync():
    params = jnp.asarray(weights(), jnp.float32)
    live, slow = run(la.lookahead(optax.adam(0.05), slow_step_size=0.0), params, 20)
    # Up to the last bit: what apply_updates makes of params + (slow - params).
    np.testing.assert_allclose(slow, np.broadcast_to(params, slow.shape), rtol=1e-6)
    np.testing.assert_array_equal(live[4::5], slow[4::5])


def test_counters_tell_the_phase_and_the_number_of_syncs():
    history = run_states(la.lookahead(optax.sgd(0.1), sync_period=3), jnp.ones(2), 7)
    assert [int(s.steps_since_sync) for _, s in history] == [1, 2, 0, 1, 2, 0, 1]
    assert [int(s.sync_count) for _, s in history] == [0, 0, 1, 1, 1, 2, 2]


PRECISIONS = [(jnp.float32, None), (jnp.bfloat16, None), (jnp.float16, None), (jnp.bfloat16, jnp.float32)]


@pytest.mark.parametrize(("dtype", "slow_dtype"), PRECISIONS, ids=["f32", "bf16", "f16", "bf16-slow-f32"])
@pytest.mark.parametrize("programs", ["one", "two", "eager"])
def test_live_and_slow_weights_are_bit_identical_after_every_sync(dtype, slow_dtype, programs):
    # XLA may contract a * b + c and skip roundings differently in different programs, so update and apply_updates
    # are tried in one program, in two, and operation by operation. float16 is scaled to keep Adam's eps in range.
    params = {n: jnp.asarray(weights(4001, seed), dtype) for seed, n in enumerate(["a", "b"])}
    make = [lambda: optax.sgd(0.013, 0.9), lambda: optax.adam(1e-2, eps=1e-3), lambda: optax.radam(1e-2, eps=1e-3)]
    for inner in make[: 1 if programs == "eager" else 3]:
        tx = la.lookahead(inner(), sync_period=3, slow_step_size=0.7, slow_dtype=slow_dtype)

        def step(grads, opt_state, params, tx=tx):
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        if programs == "one":
            step = jax.jit(step)
        elif programs == "two":
            update, apply = jax.jit(tx.update), jax.jit(optax.apply_updates)

            def step(grads, opt_state, params, update=update, apply=apply):
                updates, opt_state = update(grads, opt_state, params)
                return apply(params, updates), opt_state

        opt_state = tx.init(params)
        live = params
        for i in range(12):
            grads = jax.tree.map(lambda p, i=i: jnp.sin(p * (i + 1)).astype(p.dtype), live)
            live, opt_state = step(grads, opt_state, live)
            if i % 3 == 2:
                slow = la.slow_params(opt_state)
                for name in live:
                    assert live[name].dtype == dtype
                    assert slow[name].dtype == (slow_dtype or dtype)
                    assert np.isfinite(live[name].astype(jnp.float32)).all()
                    rounded = np.asarray(slow[name].astype(dtype))
                    np.testing.assert_array_equal(np.asarray(live[name]).view("u1"), rounded.view("u1"))


def test_slow_weights_have_buffers_of_their_own_so_that_both_can_be_donated():
    params = {"w": jnp.ones([4]), "b": jnp.zeros([2])}
    tx = la.lookahead(optax.sgd(0.1, momentum=0.9), sync_period=2)
    opt_state = tx.init(params)

    def step(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(5):
        params, opt_state = step(params, opt_state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((params, opt_state)))


def test_a_nan_in_the_branch_that_is_not_chosen_does_not_spread():
    tx = la.lookahead(optax.sgd(1.0), sync_period=2, slow_step_size=0.5)
    params = jnp.array([1.0, 2.0])
    opt_state = tx.init(params)
    # Without a sync the slow weights must not see the NaN of the fast ones.
    _, opt_state = tx.update(jnp.array([jnp.nan, 1.0]), opt_state, params)
    np.testing.assert_array_equal(la.slow_params(opt_state), [1.0, 2.0])


def test_a_schedule_inside_the_fast_optimizer_runs_on_through_syncs(x64):
    tx = la.lookahead(optax.sgd(lambda count: 0.2 * 0.9 ** count.astype(float)), 3, 0.5)
    live, slow = run(tx, jnp.asarray(weights()), 12)

    class DecayingSgd(reference.Sgd):
        def step(self, params, grads):
            params = super().step(params, grads)
            self.learning_rate *= 0.9
            return params

    oracle = reference.Lookahead(DecayingSgd(0.2), 3, 0.5, params=weights())
    expected = reference.trajectory(oracle, weights(), gradient, 12)
    np.testing.assert_allclose((live, slow), expected, rtol=1e-10)


# The contract, in the form of optax's own tests.


def test_params_none_raises_optaxs_own_error():
    from optax._src import base

    tx = la.lookahead(optax.sgd(0.1))
    opt_state = tx.init(jnp.ones(2))
    with pytest.raises(ValueError, match="^" + re.escape(base.NO_PARAMS_MSG) + "$"):
        tx.update(jnp.ones(2), opt_state)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "5", None])
def test_a_static_sync_period_that_is_no_positive_integer_is_refused(value):
    with pytest.raises(ValueError, match=r"sync_period=.*use an integer >= 1") as error:
        la.lookahead(optax.sgd(0.1), sync_period=value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True, "half", (0.5,)])
def test_a_static_slow_step_size_outside_0_1_is_refused(value):
    with pytest.raises(ValueError, match=r"slow_step_size=.*use a number in \[0, 1\]") as error:
        la.lookahead(optax.sgd(0.1), slow_step_size=value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("arguments", [{"fast_optimizer": optax.adam}, {"slow_optimizer": 0.5}])
def test_what_is_no_optimizer_is_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}: expected an optax.GradientTransformation, got .*; for example"):
        la.lookahead(**{"fast_optimizer": optax.sgd(0.1)} | arguments)


def test_an_unknown_fast_state_at_sync_is_refused():
    with pytest.raises(ValueError, match=r"fast_state_at_sync='keep' is unknown.*maintain.*reset.*pullback"):
        la.lookahead(optax.sgd(0.1), fast_state_at_sync="keep")


@pytest.mark.parametrize("fast_state_at_sync", ["maintain", "reset", "pullback"])
def test_state_structure_shapes_and_dtypes_are_stable_and_known_without_computing(fast_state_at_sync):
    tx = la.lookahead(optax.adam(0.1), fast_state_at_sync=fast_state_at_sync)
    params = {"w": jnp.ones([2, 3], jnp.bfloat16), "b": jnp.ones([3]), "scale": jnp.ones([])}
    abstract = jax.eval_shape(tx.init, params)
    concrete = tx.init(params)
    updates, after = jax.jit(tx.update)(params, concrete, params)
    described = [
        jax.tree.map(lambda x: (x.shape, x.dtype, bool(x.weak_type)), jax.eval_shape(lambda x: x, tree))
        for tree in (abstract, concrete, after)
    ]
    assert described[0] == described[1] == described[2]
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)


def test_the_second_call_does_not_compile_again(caplog):
    tx = la.lookahead(optax.adam(0.1))
    params = {"w": jnp.ones([]), "b": jnp.ones([3])}
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params, unexpected_extra_arg=1)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = step(params, opt_state)
    params, opt_state = step(params, opt_state)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        step(params, opt_state)
    assert not caplog.records


def weak_leaves(tree):
    return [path for path, x in jax.tree_util.tree_leaves_with_path(tree) if getattr(x, "weak_type", False)]


@pytest.mark.parametrize("mode", ["maintain", "reset", "pullback"])
def test_static_syncs_and_resync_leave_the_types_of_the_state_and_compile_once_each(mode):
    tx, params = la.lookahead(optax.adam(0.1), 3, fast_state_at_sync=mode), {"w": jnp.ones([3])}

    @functools.partial(jax.jit, static_argnames="sync")
    def step(params, opt_state, sync):
        updates, opt_state = tx.update(params, opt_state, params, sync=sync)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    for i in range(1, 10):
        params, opt_state = step(params, opt_state, sync=la.is_sync_step(i, 3))
        opt_state = la.resync(opt_state, params) if i == 6 else opt_state
        assert weak_leaves(opt_state) == []
    assert step._cache_size() == 2


def test_what_a_line_search_has_cached_keeps_its_shape_and_type():
    """Also for several seeds at once, whose states are stacked."""
    params = jnp.ones([4, 2])
    tx = la.lookahead(optax.lbfgs(), 2)
    opt_state = jax.vmap(tx.init)(params)
    described = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (opt_state, la.resync(opt_state, params))]
    assert described[0] == described[1]
    averaged = la.primal_averaging(optax.lbfgs(), 0.9, 0.8)
    _, state = averaged.update(
        params, averaged.init(params), params, value=1.0, grad=params, value_fn=lambda x: jnp.sum(x**2)
    )
    for cache in (state, la.resync(state, params), la.resync(opt_state, params)):
        assert not [path for path in weak_leaves(cache) if path[-1].name == "value"]


def test_unknown_extra_args_are_accepted_and_known_ones_reach_the_fast_optimizer():
    def update(updates, state, params=None, *, factor=1.0, **extra_args):
        return jax.tree.map(lambda u: -factor * u, updates), state

    fast = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = la.lookahead(fast)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), factor=3.0, other=None)
    np.testing.assert_array_equal(updates, [-3.0, -3.0])


def test_tree_map_params_finds_slow_weights_as_parameters():
    tx = la.lookahead(optax.adam(0.1))
    params = {"w": jnp.ones([2])}
    marked = optax.tree.map_params(tx, lambda x: "param", tx.init(params), transform_non_params=lambda x: "other")
    assert marked.slow_params == {"w": "param"}
    assert marked.fast_state[0].mu == {"w": "param"}
    assert marked.steps_since_sync == "other"


def test_params_with_none_and_integer_leaves_pass_through():
    params = {"w": jnp.array([8.0]), "none": None, "step": jnp.array(3)}
    grads = {"w": jnp.array([1.0]), "none": None, "step": jnp.array(1)}
    fast = optax.stateless(lambda updates, params: jax.tree.map(lambda g: -g, updates))
    tx = la.lookahead(fast, sync_period=2, slow_step_size=0.5)
    opt_state = tx.init(params)
    for _ in range(2):
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    assert params["none"] is None
    assert (float(params["w"][0]), int(params["step"])) == (7.0, 1)
    assert int(la.slow_params(opt_state)["step"]) == 1
    assert params["step"].dtype == jnp.int32
