"""Warm-up, clipping, accumulation, moving averages and Optax's own optimizers, each against plain Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from train import averages
from train.config import Config, OptimizerConfig, differences, from_dict, to_dict, validate
from train.errors import UserError
from train.identity import run_id
from train.optimizer_options import AdamW, Lion, Muon, ScheduleFreeAdamW
from train.optimizers import make_inner_optimizer, make_optimizer, make_schedule

RATE, DECAY = 0.05, 0.01
START = {
    "kernel": jnp.linspace(-1.0, 1.0, 36).reshape(3, 3, 2, 2),
    "matrix": jnp.linspace(1.0, -2.0, 12).reshape(4, 3),
    "bias": jnp.array([0.5, -0.5, 2.0]),
}


def gradients(params, step):
    return jax.tree.map(lambda p: jnp.sin(3.0 * p + step) + 0.5 * p, params)


def walk(tx, steps, start=START):
    """Parameters after each call of update, and the last state."""
    params, state, found = start, tx.init(start), []
    update = jax.jit(tx.update)
    for step in range(steps):
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found, state


def assert_equal(ours, theirs, rtol=1e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


def matrix_as_hwio(params):
    """Optax's own rule on matrices [H W in, out]: what Muon is to do with kernels of convolutions."""
    return {**params, "kernel": params["kernel"].reshape(-1, params["kernel"].shape[-1])}


OPTAX = {
    "adamw": (AdamW(b2=0.99), lambda: optax.adamw(RATE, 0.9, 0.99, weight_decay=DECAY)),
    "nadamw": (AdamW(b1=0.8), lambda: optax.nadamw(RATE, 0.8, weight_decay=DECAY)),
    "lion": (Lion(b2=0.95), lambda: optax.lion(RATE, 0.9, 0.95, weight_decay=DECAY)),
    "muon": (
        Muon(beta=0.9, adam_ratio=0.5),
        lambda: optax.contrib.muon(
            RATE, beta=0.9, weight_decay=DECAY, adam_weight_decay=DECAY, adam_learning_rate=RATE / 2
        ),
    ),
    "schedule_free_adamw": (
        ScheduleFreeAdamW(b1=0.95),
        lambda: optax.contrib.schedule_free_adamw(RATE, b1=0.95, weight_decay=DECAY),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optaxs_own_with_options(name):
    options, reference = OPTAX[name]
    config = validate(Config(optimizer=OptimizerConfig(name=name, weight_decay=DECAY, options=options))).optimizer
    start = matrix_as_hwio(START) if name == "muon" else START
    ours, state = walk(make_inner_optimizer(config, optax.constant_schedule(RATE)), 6)
    theirs, their_state = walk(reference(), 6, start)
    assert_equal(matrix_as_hwio(ours[-1]) if name == "muon" else ours[-1], theirs[-1], rtol=2e-5)
    if name == "schedule_free_adamw":
        expected = optax.contrib.schedule_free_eval_params(their_state, theirs[-1])
        assert averages.is_schedule_free(state)
        assert_equal(averages.schedule_free_params(state, ours[-1]), expected)
        assert not np.allclose(expected["bias"], ours[-1]["bias"], rtol=1e-3)


def test_muon_leaves_convolutions_to_adamw_if_told_to():
    config = OptimizerConfig(name="muon", options=Muon(convolutions=False))
    ours, _ = walk(make_inner_optimizer(config, optax.constant_schedule(RATE)), 3)
    theirs, _ = walk(optax.contrib.muon(RATE), 3)
    assert_equal(ours[-1], theirs[-1])


def test_options_are_filled_in_and_make_another_run():
    plain = validate(Config(optimizer=OptimizerConfig(name="adamw")))
    other = validate(Config(optimizer=OptimizerConfig(name="adamw", options=AdamW(b2=0.95))))
    assert plain.optimizer.options == AdamW()
    assert run_id(plain, "data") != run_id(other, "data")
    assert differences(to_dict(plain), other) == ["optimizer.options.b2 was 0.999, is now 0.95"]
    assert from_dict(to_dict(other)) == other
    with pytest.raises(UserError, match=r"config\.optimizer\.options\.b2=1\.5 must be at most"):
        validate(Config(optimizer=OptimizerConfig(name="adamw", options=AdamW(b2=1.5))))


def test_schedule_free_inside_lookahead_is_refused():
    with pytest.raises(UserError, match="schedule_free_adamw"):
        validate(Config(optimizer=OptimizerConfig(name="schedule_free_adamw", lookahead=True)))


def test_settings_at_their_former_values_leave_a_run_what_it_was():
    config = Config(accumulate_steps=1, ema_decay=0.0, dtype="float32")
    assert run_id(config, "data") == run_id(Config(), "data")
    for changed in (Config(accumulate_steps=2), Config(ema_decay=0.9), Config(dtype="bfloat16")):
        assert run_id(changed, "data") != run_id(Config(), "data")


def test_warmup_and_cosine_are_optaxs():
    config = OptimizerConfig(learning_rate=0.3, schedule="cosine", warmup_epochs=1.5)
    ours = make_schedule(config, steps_per_epoch=10, epochs=4)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.3, 15, 40)
    for step in (0, 1, 14, 15, 16, 30, 40):
        assert float(ours(step)) == pytest.approx(float(theirs(step)), abs=1e-9)


def test_a_cosine_that_restarts_is_optaxs_again_and_again():
    config = OptimizerConfig(learning_rate=0.3, schedule="cosine", warmup_epochs=0.5, schedule_epochs=2)
    ours = make_schedule(config, steps_per_epoch=10, epochs=5)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.3, 5, 20)
    for step in (0, 3, 5, 19, 20, 21, 39, 40, 49):
        assert float(ours(step)) == pytest.approx(float(theirs(step % 20)), abs=1e-9)


def test_warmup_leaves_the_drops_where_they_are():
    config = OptimizerConfig(learning_rate=0.4, decay_epochs=(2,), decay_factor=0.5, warmup_epochs=1.0)
    schedule = make_schedule(config, steps_per_epoch=10, epochs=4)
    rates = [float(schedule(step)) for step in (0, 5, 10, 19, 20, 39)]
    np.testing.assert_allclose(rates, [0.0, 0.2, 0.4, 0.4, 0.2, 0.2], rtol=1e-6)


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(UserError, match=r"warmup_epochs=4\.0 must be less than the schedule's 4 epochs"):
        make_schedule(OptimizerConfig(warmup_epochs=4.0), steps_per_epoch=10, epochs=4)


@pytest.mark.parametrize("lookahead", [False, True])
def test_clipping_accumulation_and_schedule_are_those_of_plain_optax_on_mean_gradients(lookahead):
    """3 gradients to an update; plain Optax gets their mean, and counts updates."""
    every, updates = 3, 7
    config = OptimizerConfig(
        name="adam", learning_rate=RATE, clip_norm=1.0, warmup_epochs=1.0, lookahead=lookahead, sync_period=2
    )
    schedule = make_schedule(config, steps_per_epoch=6, epochs=4)
    ours, state = walk(make_optimizer(config, schedule, accumulate_steps=every), every * updates)

    rates = optax.linear_schedule(0.0, RATE, 2)  # 6 batches of warm-up are 2 updates
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates))
    tx = la.lookahead(tx, sync_period=2) if lookahead else tx
    params, expected = START, tx.init(START)
    for update in range(updates):
        found = [gradients(params, update * every + i) for i in range(every)]
        mean = jax.tree.map(lambda *g: sum(g) / every, *found)
        assert optax.tree.norm(mean) > 1.0  # clipping takes part
        step, expected = tx.update(mean, expected, params)
        params = optax.apply_updates(params, step)
        if update + 1 < updates:
            for i in range(every):  # the weights stand still while gradients are collected
                assert_equal(ours[(update + 1) * every - 1 + i], params, rtol=1e-5)
    assert_equal(ours[-1], params, rtol=1e-5)
    if lookahead:
        assert_equal(la.slow_params(state), la.slow_params(expected), rtol=1e-5)
        assert int(state.sync_count) == updates // 2


def test_before_the_first_update_the_moving_average_is_the_weights():
    tx = make_optimizer(OptimizerConfig(name="sgd"), optax.constant_schedule(RATE), accumulate_steps=4, ema_decay=0.8)
    params, state = walk(tx, 3)
    assert_equal(averages.ema_params(state, params[-1], 0.8), START)


def test_the_moving_average_goes_on_while_a_part_of_the_weights_accumulates():
    # MultiSteps in one branch of a partition says nothing of the other branch, which moves at each call.
    waiting = optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation()
    parts = optax.partition({"waits": waiting, "moves": optax.sgd(0.1)}, {"a": "waits", "b": "moves"})
    tx = averages.with_ema(optax.with_extra_args_support(parts), 0.5)
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state, total, weight = tx.init(params), 0.0, 0.0
    for _ in range(5):
        updates, state = tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, state, params)
        params = optax.apply_updates(params, updates)
        total, weight = 0.5 * total + params["b"], 0.5 * weight + 1.0
        np.testing.assert_allclose(averages.ema_params(state, params, 0.5)["b"], total / weight, rtol=1e-6)


def test_the_moving_average_leaves_out_sams_ascents():
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.5))
    sam = optax.contrib.sam(optax.sgd(0.1), adversary, sync_period=2)
    tx = averages.with_ema(optax.with_extra_args_support(sam), 0.5)
    params, total, weight = jnp.ones(3), 0.0, 0.0
    state = tx.init(params)
    for call in range(6):
        updates, state = tx.update(jnp.sin(params), state, params)
        params = optax.apply_updates(params, updates)
        if call % 2:  # the other calls climb
            total, weight = 0.5 * total + params, 0.5 * weight + 1.0
    np.testing.assert_allclose(averages.ema_params(state, params, 0.5), total / weight, rtol=1e-6)


@pytest.mark.parametrize("every", [1, 2])
def test_the_moving_average_is_optaxs_of_the_weights_after_each_update(every):
    config = OptimizerConfig(name="sgd", lookahead=True, sync_period=3)
    tx = make_optimizer(config, optax.constant_schedule(RATE), accumulate_steps=every, ema_decay=0.8)
    params, state = walk(tx, 8 * every)
    plain, _ = walk(make_optimizer(config, optax.constant_schedule(RATE), accumulate_steps=every), 8 * every)
    assert_equal(params[-1], plain[-1])
    ema = optax.ema(0.8, debias=True)
    average, theirs = None, ema.init(START)
    for after_update in params[every - 1 :: every]:
        average, theirs = ema.update(after_update, theirs)
    assert_equal(averages.ema_params(state, params[-1], 0.8), average)
    assert_equal(la.slow_params(state), la.slow_params(averages.without_ema(state)))
