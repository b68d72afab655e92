"""The outer step: schedules, the adaptive step size and a general slow optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests import reference
from tests.lookahead_jax.problems import gradient, run, run_states, weights

STEPS = 20


def assert_follows(tx, oracle, steps=STEPS):
    expected = reference.trajectory(oracle, weights(), gradient, steps)
    actual = run(tx, jnp.asarray(weights()), steps)
    np.testing.assert_allclose(np.stack(actual), np.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["array", "numpy"])
def test_arrays_serve_as_period_and_step_size(x64, kind):
    xp = {"array": jnp, "numpy": np}[kind]
    tx = la.lookahead(optax.sgd(0.1), xp.asarray(3), xp.asarray(0.7))
    assert_follows(tx, reference.Lookahead(reference.Sgd(0.1), 3, 0.7, params=weights()))


class Scheduled(reference.Lookahead):
    """The oracle with a schedule of the number of completed syncs."""

    def __init__(self, inner, periods, step_sizes, **options):
        super().__init__(inner, periods[0], step_sizes[0], **options)
        self.periods, self.step_sizes, self.syncs = periods, step_sizes, 0

    def step(self, params, grads):
        self.sync_period = self.periods[self.syncs]
        self.slow_step_size = self.step_sizes[self.syncs]
        params = super().step(params, grads)
        self.syncs += self.steps == 0
        return params


def test_schedules_are_functions_of_the_number_of_completed_syncs(x64):
    periods, step_sizes = [2, 5, 1, 3, 4, 50], [0.5, 1.0, 0.2, 0.9, 0.4, 0.8]
    tx = la.lookahead(optax.sgd(0.1, 0.9), lambda n: jnp.array(periods)[n], lambda n: jnp.array(step_sizes)[n])
    assert_follows(tx, Scheduled(reference.Sgd(0.1, 0.9), periods, step_sizes, params=weights()))


def test_optax_schedules_serve_with_their_floats(x64):
    # One sync with k = 2.0, then k = 3.0.
    tx = la.lookahead(optax.sgd(0.1), optax.piecewise_constant_schedule(2.0, {1: 1.5}), 0.7)
    oracle = Scheduled(reference.Sgd(0.1), [2, *[3] * 11], [0.7] * 12, params=weights())
    assert_follows(tx, oracle)


def test_a_period_shortened_below_the_steps_already_taken_syncs_at_once():
    tx = optax.inject_hyperparams(la.lookahead)(optax.sgd(0.1), sync_period=10, slow_step_size=0.5)
    params = jnp.ones(2)
    opt_state = tx.init(params)
    for _ in range(4):
        _, opt_state = tx.update(params, opt_state, params)
    opt_state.hyperparams["sync_period"] = jnp.asarray(3)
    _, opt_state = tx.update(params, opt_state, params)
    assert int(opt_state.inner_state.sync_count) == 1
    assert int(opt_state.inner_state.steps_since_sync) == 0


# A general slow optimizer.


def test_sgd_as_the_slow_optimizer_is_plain_lookahead(x64):
    tx = la.lookahead(optax.adam(0.1), 3, slow_optimizer=optax.sgd(0.7))
    assert_follows(tx, reference.Lookahead(reference.Adam(0.1), 3, 0.7, params=weights()))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_as_the_slow_optimizer_follows_the_oracle(x64, nesterov):
    tx = la.lookahead(optax.adam(0.1), 3, slow_optimizer=optax.sgd(0.7, 0.6, nesterov=nesterov))
    outer = reference.Sgd(0.7, 0.6, nesterov=nesterov)
    assert_follows(tx, reference.Lookahead(reference.Adam(0.1), 3, params=weights(), outer=outer))


def test_a_slow_optimizer_that_needs_params_gets_the_slow_weights(x64):
    outer = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.3))
    tx = la.lookahead(optax.sgd(0.1), 3, slow_optimizer=outer)
    oracle = reference.Adam(0.3, weight_decay=0.1)
    assert_follows(tx, reference.Lookahead(reference.Sgd(0.1), 3, params=weights(), outer=oracle))


def test_the_slow_optimizer_steps_at_syncs_only():
    tx = la.lookahead(optax.sgd(0.1), 3, slow_optimizer=optax.adam(0.3))
    history = run_states(tx, jnp.ones(2), 7)
    assert [int(state.slow_state[0].count) for _, state in history] == [0, 0, 1, 1, 1, 2, 2]


def test_live_weights_equal_the_slow_ones_after_a_step_of_the_slow_optimizer():
    tx = la.lookahead(optax.adam(0.1), 3, slow_optimizer=optax.sgd(0.7, 0.6, nesterov=True))
    live, slow = run(tx, jnp.asarray(weights(), jnp.float32), 12)
    np.testing.assert_array_equal(live[2::3], slow[2::3])


def test_a_step_size_beside_a_slow_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"slow_step_size=0.5 cannot be combined with slow_optimizer"):
        la.lookahead(optax.sgd(0.1), slow_step_size=0.5, slow_optimizer=optax.sgd(0.5))


# The adaptive step size, on f(x) = <x - t, A (x - t)> / 2 with a diagonal A that `curvature` knows.

A = np.array([0.5, 1.0, 4.0])
MINIMUM = np.array([1.0, -2.0, 0.5])


def cycle_on_the_quadratic(sync_period, learning_rate, minimum):
    """Slow weights before and after one cycle, and the fast weights at its end, before the sync."""
    rule = la.adaptive_step_size(minimum=minimum, curvature=lambda fast_state: jnp.asarray(A))
    tx = la.lookahead(optax.sgd(learning_rate), sync_period, rule)
    start = np.array([3.0, 1.0, 2.0])
    params = jnp.asarray(start)
    opt_state = tx.init(params)
    fast = start
    for _ in range(sync_period):
        updates, opt_state = jax.jit(tx.update)(A * (params - MINIMUM), opt_state, params)
        params = optax.apply_updates(params, updates)
        fast = fast - learning_rate * A * (fast - MINIMUM)
    return start, np.asarray(la.slow_params(opt_state)), fast


@pytest.mark.parametrize("learning_rate", [0.3, 0.45, 0.49])
def test_the_adaptive_step_size_is_the_closed_form_on_a_quadratic(x64, learning_rate):
    start, end, fast = cycle_on_the_quadratic(5, learning_rate, 0.01)
    d = start - fast
    alpha = np.clip(((start - MINIMUM) @ (A * d)) / (d @ (A * d)), 0.01, 1.0)
    np.testing.assert_allclose(end, start + alpha * (fast - start), rtol=1e-10)


def test_the_adaptive_step_size_minimises_the_loss_between_slow_and_fast_weights(x64):
    # A rate near the limit 2 / 4 overshoots, so the best point lies inside the segment.
    start, end, fast = cycle_on_the_quadratic(3, 0.6, 0.01)
    points = start + np.linspace(0, 1, 10_001)[:, None] * (fast - start)
    losses = np.sum(A * (points - MINIMUM) ** 2, axis=1) / 2
    assert 0.05 < np.argmin(losses) / 10_000 < 0.95
    np.testing.assert_allclose(end, points[np.argmin(losses)], atol=1e-3)


@pytest.mark.parametrize(("learning_rate", "minimum", "expected"), [(0.01, 0.3, 1.0), (3.0, 0.3, 0.3)])
def test_the_adaptive_step_size_is_clipped_to_minimum_and_one(x64, learning_rate, minimum, expected):
    # Small steps stop short of the optimum (alpha > 1); diverging ones ask for a step size near zero.
    start, end, fast = cycle_on_the_quadratic(3, learning_rate, minimum)
    np.testing.assert_allclose(end, start + expected * (fast - start), rtol=1e-10)


def test_by_default_the_curvature_is_adams_corrected_second_moment(x64):
    tx = la.lookahead(optax.adam(0.4), 4, la.adaptive_step_size(minimum=0.05, b2=0.999))
    adam, start = reference.Adam(0.4), weights()
    fast = start
    for i in range(4):
        before, grads = fast, gradient(fast, i)
        fast = adam.step(fast, grads)
    curvature = adam.nu / (1 - 0.999**4)
    d = start - fast
    target = before - grads / curvature
    alpha = np.clip(((start - target) @ (curvature * d)) / (d @ (curvature * d)), 0.05, 1.0)
    _, slow = run(tx, jnp.asarray(start), 4)
    assert 0.05 < alpha < 1.0
    np.testing.assert_allclose(slow[-1], start + alpha * (fast - start), rtol=1e-9)


def test_fast_weights_that_did_not_move_give_no_nan():
    tx = la.lookahead(optax.adam(0.1), 2, la.adaptive_step_size(b2=0.999))
    params = jnp.ones(3)
    opt_state = tx.init(params)
    for _ in range(2):
        updates, opt_state = tx.update(jnp.zeros(3), opt_state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(la.slow_params(opt_state), 1.0)


def test_the_gradient_through_an_adaptive_step_size_that_has_nothing_to_adapt_to_is_a_number():
    tx = la.lookahead(optax.sgd(0.1), 1, la.adaptive_step_size(curvature=lambda fast_state: jnp.ones(2)))

    def moved(x):
        updates, _ = tx.update(x, tx.init(x), x, sync=True)
        return jnp.sum(updates)

    with jax.debug_nans(True):
        assert np.all(np.isfinite(jax.grad(moved)(jnp.zeros(2))))


def test_pullback_takes_the_adaptive_step_size(x64):
    rule = la.adaptive_step_size(minimum=1.0, b2=0.999)  # clipped to [1, 1]: nothing is pulled back
    tx = la.lookahead(optax.adam(0.1), 3, rule, fast_state_at_sync="pullback")
    assert_follows(tx, reference.Lookahead(reference.Adam(0.1), 3, 1.0, params=weights()))


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.rmsprop])  # the latter's `nu` has no count beside it
def test_an_optimizer_without_second_moment_is_refused_with_the_remedy(optimizer):
    tx = la.lookahead(optimizer(0.1), 2, la.adaptive_step_size(b2=0.999))
    with pytest.raises(ValueError, match=r"0 second moments `nu`.*give curvature="):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))


@pytest.mark.parametrize("minimum", [1.5, -0.1, np.float32(2.0), jnp.array(2.0), float("nan"), "0.5"])
def test_a_minimum_outside_0_1_is_refused(minimum):
    with pytest.raises(ValueError, match=r"minimum=.*\[0, 1\]"):
        la.adaptive_step_size(minimum=minimum, b2=0.999)


# Where only part of the parameters has a second moment.


def adaptive_by_hand(slow, before, grads, fast, curvature, minimum):
    d = slow - fast
    return np.clip(
        np.sum(np.real(np.conj(curvature * (slow - before) + grads) * d)) / np.sum(curvature * np.abs(d) ** 2),
        minimum,
        1.0,
    )


PARTS = {
    "masked adam": lambda: optax.chain(
        optax.masked(optax.adam(0.4), {"a": True, "b": False}), optax.masked(optax.sgd(0.1), {"a": False, "b": True})
    ),
    "adam and sgd": lambda: optax.partition(
        {"adam": optax.adam(0.4), "sgd": optax.sgd(0.1)}, {"a": "adam", "b": "sgd"}
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parameters_without_second_moment_take_no_part_in_the_adaptive_step_size(x64, name):
    tx = la.lookahead(PARTS[name](), 4, la.adaptive_step_size(minimum=0.05, b2=0.999))
    start = {"a": weights(5, 1), "b": weights(3, 2)}
    adam, sgd = reference.Adam(0.4), reference.Sgd(0.1)
    params = jax.tree.map(jnp.asarray, start)
    opt_state, fast = tx.init(params), dict(start)
    for i in range(4):
        before = fast
        grads = {name: gradient(x, i) for name, x in fast.items()}
        fast = {"a": adam.step(fast["a"], grads["a"]), "b": sgd.step(fast["b"], grads["b"])}
        updates, opt_state = jax.jit(tx.update)({n: gradient(x, i) for n, x in params.items()}, opt_state, params)
        params = optax.apply_updates(params, updates)
    curvature = adam.nu / (1 - 0.999**4)
    alpha = adaptive_by_hand(start["a"], before["a"], grads["a"], fast["a"], curvature, 0.05)
    assert 0.05 < alpha < 1.0
    slow = la.slow_params(opt_state)
    for leaf in start:
        np.testing.assert_allclose(slow[leaf], start[leaf] + alpha * (fast[leaf] - start[leaf]), rtol=1e-9)


@pytest.mark.parametrize("labels", [{"a": "x", "b": "y"}, "y"], ids=["leaves", "a prefix"])
def test_partitions_of_several_adams_have_their_second_moments_merged(x64, labels):
    whole = la.lookahead(optax.adam(0.1), 3, la.adaptive_step_size(minimum=0.05, b2=0.999))
    parts = optax.partition({"x": optax.adam(0.1), "y": optax.adam(0.1)}, labels)
    split = la.lookahead(parts, 3, la.adaptive_step_size(minimum=0.05, b2=0.999))
    params = {"a": jnp.asarray(weights(5, 1)), "b": jnp.asarray(weights(3, 2))}
    results = []
    for tx in (whole, split):
        live, opt_state = params, tx.init(params)
        for i in range(6):
            updates, opt_state = tx.update({n: gradient(x, i) for n, x in live.items()}, opt_state, live)
            live = optax.apply_updates(live, updates)
        results.append(live)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), *results)


def test_muons_matrices_move_by_the_step_size_of_the_rest():
    tx = la.lookahead(optax.contrib.muon(0.02), 3, la.adaptive_step_size(minimum=0.3, b2=0.999))
    params = {"matrix": jnp.asarray(weights(12).reshape(4, 3), jnp.float32), "bias": jnp.ones(3)}
    opt_state = tx.init(params)
    for _ in range(6):
        updates, opt_state = jax.jit(tx.update)(jax.tree.map(jnp.sin, params), opt_state, params)
        params = optax.apply_updates(params, updates)
    assert int(opt_state.sync_count) == 2
    jax.tree.map(np.testing.assert_array_equal, la.slow_params(opt_state), params)


def test_complex_parameters_count_by_their_real_and_imaginary_parts(x64):
    # A complex number is two real ones: the same step size as in two dimensions.
    def slow_after_a_cycle(params, curvature, minimum):
        rule = la.adaptive_step_size(minimum=0.01, curvature=lambda _: curvature)
        tx = la.lookahead(optax.sgd(0.6), 3, rule)
        opt_state = tx.init(params)
        for _ in range(3):
            updates, opt_state = tx.update(curvature * (params - minimum), opt_state, params)
            params = optax.apply_updates(params, updates)
        return np.asarray(la.slow_params(opt_state))

    a, start, minimum = A[:2], np.array([3.0 + 1.0j, 1.0 - 2.0j]), np.array([1.0 + 2.0j, -2.0 + 0.5j])
    split = slow_after_a_cycle(
        *(
            jnp.asarray(np.concatenate([x, y]))
            for x, y in ((start.real, start.imag), (a, a), (minimum.real, minimum.imag))
        )
    )
    whole = slow_after_a_cycle(jnp.asarray(start), jnp.asarray(a), jnp.asarray(minimum))
    np.testing.assert_allclose(np.concatenate([whole.real, whole.imag]), split, rtol=1e-10)
