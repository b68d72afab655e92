"""`check_chain` finds transformations after Lookahead that change its updates, and lets good chains pass."""

import jax.numpy as jnp
import optax
import pytest

import lookahead_jax as la

PARAMS = {"a": jnp.ones([3]), "b": jnp.full([2], 0.5), "none": None}
LA = la.lookahead(optax.adam(0.1), 5, 0.5)

BAD = {
    "freeze": optax.masked(optax.set_to_zero(), {"a": False, "b": True, "none": None}),
    "ema": optax.ema(0.9),
    "ema without debias": optax.ema(0.9, debias=False),
    "reduce_on_plateau": optax.contrib.reduce_on_plateau(factor=0.5),
    "keep_params_nonnegative": optax.keep_params_nonnegative(),
    "clip": optax.clip(0.01),
    "clip_by_global_norm": optax.clip_by_global_norm(0.01),
    "learning rate": optax.scale(0.5),
    "weight decay": optax.add_decayed_weights(0.1),
    "schedule": optax.scale_by_schedule(lambda count: jnp.where(count < 3, 1.0, 0.1)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_changes_updates_after_lookahead_is_found(name):
    with pytest.raises(ValueError, match=r"after a sync, params\['\w'\] differs from its slow weights.*put it before"):
        la.check_chain(optax.chain(LA, BAD[name]), PARAMS)


GOOD = {
    "alone": LA,
    "identity after": optax.chain(LA, optax.identity()),
    "all of it before": optax.chain(optax.clip(0.01), optax.ema(0.9), optax.add_decayed_weights(0.1), LA),
    "all of it inside": la.lookahead(optax.chain(optax.adam(0.1), optax.scale(0.5)), slow_dtype=jnp.float32),
    "MultiSteps": optax.MultiSteps(LA, 2).gradient_transformation(),
    "partition": optax.partition({"x": LA, "y": optax.sgd(0.1)}, {"a": "x", "b": "y", "none": None}),
    "masked": optax.masked(LA, {"a": True, "b": False, "none": None}),
    "MultiSteps in a chain, which does not forward sync": optax.chain(
        optax.identity(), optax.MultiSteps(la.lookahead(optax.adam(0.1), 2), 2).gradient_transformation()
    ),
    "snoo": la.snoo(optax.adam(0.1), 5, 0.7, 0.5),
    "ranger": la.ranger(0.1, fast_state_at_sync="reset"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_chains_pass(name):
    la.check_chain(GOOD[name], PARAMS)


@pytest.mark.parametrize("tx", [optax.adam(0.1), la.primal_averaging(optax.adam(0.1), 0.9, 0.9)])
def test_a_chain_without_lookahead_has_nothing_to_check(tx):
    with pytest.raises(ValueError, match=r"tx contains no lookahead\(\), and so no sync to check"):
        la.check_chain(tx, PARAMS)


def test_a_chain_whose_syncs_do_not_come_is_not_called_good():
    unforwarded = optax.MultiSteps(la.lookahead(optax.adam(0.1), 100), 2).gradient_transformation()
    with pytest.raises(
        ValueError, match=r"no sync happened in 25 steps.*not forward extra arguments, or updates less.*sync_period=1"
    ):
        la.check_chain(optax.chain(unforwarded), PARAMS)


def test_bfloat16_parameters_and_what_update_takes_besides():
    def needs_scale(updates, state, params=None, *, scale, **extra_args):
        return {k: None if u is None else -scale * u for k, u in updates.items()}, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), needs_scale)
    params = {"a": jnp.ones([3], jnp.bfloat16)}
    la.check_chain(la.lookahead(inner), params, scale=0.1)
    with pytest.raises(ValueError, match="after a sync"):
        la.check_chain(optax.chain(la.lookahead(inner), optax.scale(0.3)), params, scale=0.1)


def test_an_optimizer_that_takes_no_value_is_checked_without_one():
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.5))
    params = {"a": jnp.ones([3])}
    la.check_chain(la.lookahead(sam), params, value=None)
    with pytest.raises(ValueError, match="after a sync"):
        la.check_chain(optax.chain(la.lookahead(sam), optax.scale(0.3)), params, value=None)
