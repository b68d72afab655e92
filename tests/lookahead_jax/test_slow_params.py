"""Finding the slow weights wherever the state sits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import lookahead_jax as la

PARAMS = {"a": jnp.arange(3.0), "b": {"c": jnp.ones([2]), "d": jnp.zeros([])}}
# Nodes without children, which a tree of parameters may hold.
CHILDLESS = {"none": None, "dict": {}, "tuple": ()}
LA = la.lookahead(optax.adam(0.1), sync_period=2, slow_step_size=0.5)

HOMES = {
    "alone": LA,
    "chain": optax.chain(optax.clip(1.0), LA),
    "named_chain": optax.named_chain(("clip", optax.clip(1.0)), ("opt", LA)),
    "chain in a chain": optax.chain(optax.chain(LA), optax.identity()),
    "inject_hyperparams": optax.inject_hyperparams(la.lookahead)(optax.adam(0.1), 2, 0.5),
    "MultiSteps": optax.MultiSteps(LA, 1).gradient_transformation(),
    "apply_if_finite": optax.apply_if_finite(LA, 3),
    "conditionally_transform": optax.conditionally_transform(LA, lambda step: step >= 0),
    "masked, nothing masked out": optax.masked(LA, {"a": True, "b": True}),
    "partition": optax.partition({"x": LA, "y": LA}, {"a": "x", "b": {"c": "y", "d": "x"}}),
    "partition by a function": optax.partition(
        {"x": LA, "y": LA}, lambda p: jax.tree.map(lambda x: "x" if x.ndim else "y", p)
    ),
}


def two_steps(tx):
    opt_state, params = tx.init(PARAMS), PARAMS
    for _ in range(2):
        updates, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), opt_state, params)
        params = optax.apply_updates(params, updates)
    return params, opt_state


@pytest.mark.parametrize("home", HOMES)
def test_found_whole_and_equal_to_the_live_weights_after_a_sync(home):
    params, opt_state = two_steps(HOMES[home])
    slow = la.slow_params(opt_state)
    assert jax.tree.structure(slow) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, slow, params)
    jax.tree.map(lambda s, p: np.testing.assert_allclose(s, p - 0.1, rtol=1e-5, atol=1e-6), slow, PARAMS)


def test_found_in_a_train_state_and_any_other_pytree():
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=LA)
    jax.tree.map(np.testing.assert_array_equal, la.slow_params(state), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, la.slow_params({"opt": [state.opt_state, 3]}), PARAMS)


def test_of_nested_lookaheads_the_outermost():
    tx = la.lookahead(la.lookahead(optax.sgd(1.0), 1, 0.5), 2, 0.5)
    _, opt_state = two_steps(tx)
    # The inner one moves by 1/2 a step: 1 in all; the outer one half of that.
    jax.tree.map(lambda s, p: np.testing.assert_allclose(s, p - 0.5), la.slow_params(opt_state), PARAMS)


PREFIXES = [{"a": "x", "b": "y"}, {"a": "y", "b": "x"}]


@pytest.mark.parametrize("labels", PREFIXES)
def test_found_whole_where_a_label_of_partition_stands_for_a_subtree(labels):
    params, opt_state = two_steps(optax.partition({"x": LA, "y": LA}, labels))
    slow = la.slow_params(opt_state)
    assert jax.tree.structure(slow) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, slow, params)


def test_found_whole_beside_nodes_without_children():
    params, labels = PARAMS | CHILDLESS, {"a": "x", "b": "y"} | CHILDLESS
    slow = la.slow_params(optax.partition({"x": LA, "y": LA}, labels).init(params))
    assert jax.tree.structure(slow) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, slow, params)


@pytest.mark.parametrize("labels", PREFIXES)
def test_live_weights_fill_in_for_a_subtree_without_lookahead(labels):
    opt_state = optax.partition({"x": LA, "y": optax.sgd(0.1)}, labels).init(PARAMS)
    live = jax.tree.map(lambda p: p + 7, PARAMS)
    expected = {key: (PARAMS if label == "x" else live)[key] for key, label in labels.items()}
    jax.tree.map(np.testing.assert_array_equal, la.slow_params(opt_state, live), expected)


def test_live_weights_fill_in_where_lookahead_is_masked_out():
    tx = optax.masked(LA, {"a": True, "b": False})
    opt_state = tx.init(PARAMS)
    live = jax.tree.map(lambda p: p + 7, PARAMS)
    expected = {"a": PARAMS["a"], "b": live["b"]}
    jax.tree.map(np.testing.assert_array_equal, la.slow_params(opt_state, live), expected)


def test_without_the_live_weights_a_masked_out_part_is_an_error():
    tx = optax.masked(LA, {"a": True, "b": False})
    with pytest.raises(ValueError, match=r"masked out of Lookahead.*slow_params\(opt_state, params\)"):
        la.slow_params(tx.init(PARAMS))


def test_no_lookahead_is_an_error_that_says_so():
    with pytest.raises(ValueError, match=r"no LookaheadState.*wrap the optimizer in lookahead\(\)"):
        la.slow_params(optax.adam(0.1).init(PARAMS))


def test_two_lookaheads_for_the_same_parameters_are_ambiguous():
    with pytest.raises(ValueError, match="several LookaheadStates for the same parameters"):
        la.slow_params(optax.chain(LA, LA).init(PARAMS))


def test_lookaheads_of_different_models_are_ambiguous():
    states = {"generator": LA.init(PARAMS), "discriminator": LA.init({"a": jnp.ones(2)})}
    with pytest.raises(ValueError, match="different parameter trees; pass slow_params the part"):
        la.slow_params(states)


def test_works_on_traced_and_abstract_states():
    abstract = la.slow_params(jax.eval_shape(LA.init, PARAMS))
    assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, PARAMS)
    jitted = jax.jit(lambda p: la.slow_params(LA.init(p)))(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, jitted, PARAMS)


def as_orbax_restores(tree):
    """Named tuples as dictionaries, masked nodes as None, as Orbax gives them without a target."""
    if isinstance(tree, optax.MaskedNode):
        return None
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return {name: as_orbax_restores(getattr(tree, name)) for name in tree._fields}
    if isinstance(tree, dict):
        return {key: as_orbax_restores(value) for key, value in tree.items()}
    return [as_orbax_restores(x) for x in tree] if isinstance(tree, list | tuple) else tree


def test_found_in_what_orbax_restores_where_partition_or_masked_split_the_tree():
    split = as_orbax_restores(optax.partition({"x": LA, "y": LA}, {"a": "x", "b": "y"}).init(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, la.slow_params(split), PARAMS)
    part = as_orbax_restores(optax.masked(LA, {"a": True, "b": False}).init(PARAMS))
    with pytest.raises(ValueError, match=r"use slow_params\(opt_state, params\)"):
        la.slow_params(part)
    jax.tree.map(np.testing.assert_array_equal, la.slow_params(part, PARAMS), PARAMS)


def test_resync_invalidates_what_a_line_search_has_cached():
    def loss(x):
        return jnp.sum(x**2)

    tx, params = la.lookahead(optax.lbfgs(), 5, 0.5), jnp.array([3.0])
    opt_state, value_and_grad = tx.init(params), optax.value_and_grad_from_state(loss)
    value, grad = value_and_grad(params, state=opt_state)
    _, opt_state = tx.update(grad, opt_state, params, value=value, grad=grad, value_fn=loss)
    params = jnp.array([9.0])
    value, grad = value_and_grad(params, state=la.resync(opt_state, params))
    assert (float(value), float(grad[0])) == (81.0, 18.0)


def test_what_orbax_restores_does_not_tell_masked_from_none():
    params = {"w": jnp.ones(2), "bias": None}
    restored = as_orbax_restores(LA.init(params))
    with pytest.raises(
        ValueError, match=r"or None \(a restored state does not tell which\).*slow_params\(opt_state, par"
    ):
        la.slow_params(restored)
    assert la.slow_params(restored, params)["bias"] is None
