"""`update(..., sync=...)`: the caller decides when to sync, and a Python bool compiles one half of the step only."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import lookahead_jax as la
from tests.lookahead_jax.problems import TEXT_ONLY, gradient, resnet18_shapes, weights

K = 3
PARAMS = {"w": jnp.asarray(weights(4001, 1), jnp.float32), "b": jnp.asarray(weights(5, 2), jnp.float32)}


def gradients(params, i):
    return jax.tree.map(lambda p: gradient(p, jnp.float32(i)) / jnp.sqrt(jnp.float32(p.size)), params)


@functools.partial(jax.jit, static_argnums=(0, 4))
def jitted_step(tx, params, opt_state, i, sync):
    updates, opt_state = tx.update(gradients(params, i), opt_state, params, sync=sync)
    return optax.apply_updates(params, updates), opt_state


def assert_same_bits(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


INNER = {"sgd": lambda: optax.sgd(0.1), "adam": lambda: optax.adam(0.05), "radam": lambda: optax.radam(0.05)}
OPTIONS = {
    "maintain": {},
    "reset": {"fast_state_at_sync": "reset"},
    "pullback": {"fast_state_at_sync": "pullback"},
    "nesterov": {"slow_optimizer": optax.sgd(0.7, 0.6, nesterov=True)},
    "slow_dtype": {"slow_dtype": jnp.float32},
    "schedule": {"slow_step_size": lambda n: 0.5 + 0.1 * n},
}
# Name -> (optimizer, calls of update in a sync period).
CASES = {
    **{
        f"{inner}, {name}": (la.lookahead(INNER[inner](), K, **OPTIONS[name]), K) for inner in INNER for name in OPTIONS
    },
    "adam, adaptive": (la.lookahead(optax.adam(0.05), K, la.adaptive_step_size(b2=0.999)), K),
    "MultiSteps outside": (optax.MultiSteps(la.lookahead(optax.adam(0.05), K), 2).gradient_transformation(), 2 * K),
    "MultiSteps inside": (la.lookahead(optax.MultiSteps(optax.adam(0.05), 2), K), 2 * K),
    "chain": (optax.chain(optax.clip_by_global_norm(1.0), la.lookahead(optax.adam(0.05), K)), K),
    "inject_hyperparams": (optax.inject_hyperparams(la.lookahead)(optax.adam(0.05), K, 0.7), K),
    "apply_if_finite": (optax.apply_if_finite(la.lookahead(optax.adam(0.05), K), 3), K),
    "partition": (
        optax.partition(
            {"a": la.lookahead(optax.adam(0.05), K), "b": la.lookahead(optax.sgd(0.1), K)}, {"w": "a", "b": "b"}
        ),
        K,
    ),
    "masked": (optax.masked(la.lookahead(optax.adam(0.05), K), {"w": True, "b": False}), K),
    "snoo": (la.snoo(optax.adamw(0.05), K, 0.7, 0.5), K),
}


@pytest.mark.parametrize("name", CASES)
def test_the_two_static_halves_are_the_dynamic_step_bit_for_bit_over_three_periods(name):
    tx, period = CASES[name]
    dynamic = static = (PARAMS, tx.init(PARAMS))
    for i in range(3 * period):
        dynamic = jitted_step(tx, *dynamic, i, None)
        static = jitted_step(tx, *static, i, la.is_sync_step(i + 1, period))
        assert_same_bits(static, dynamic)
    (states,) = [
        [s for s in jax.tree.leaves(static[1], is_leaf=is_lookahead) if is_lookahead(s)],
    ]
    assert {int(s.sync_count) for s in states} == {3}


def is_lookahead(x):
    return isinstance(x, la.LookaheadState)


def entry_uses(text, argument):
    """The instructions of the compiled entry computation that read the parameter named `argument`."""
    entry = text[text.index("ENTRY ") :]
    (name,) = re.findall(rf"(%[\w.-]+) = [^\n]* parameter\(\d+\)[^\n]*op_name=\"{re.escape(argument)}\"", entry)
    return [line.strip() for line in entry.splitlines() if re.search(rf"{re.escape(name)}[,)]", line)]


SLOW = r"opt_state.slow_params[\'w\']"  # as the compiler writes it


@pytest.mark.parametrize(
    "name", ["adam, maintain", "radam, reset", "adam, pullback", "sgd, nesterov", "adam, adaptive"]
)
@pytest.mark.parametrize("sync", [False, True, None], ids=["false", "true", "none"])
def test_the_half_without_a_sync_never_takes_the_slow_weights_as_an_operand(name, sync):
    tx, _ = CASES[name]
    step = jax.jit(functools.partial(_step, tx, sync), donate_argnums=(0, 1), keep_unused=True)
    uses = entry_uses(step.lower(PARAMS, tx.init(PARAMS), PARAMS).compile(TEXT_ONLY).as_text(), SLOW)
    # Handed through, they are part of the tuple of results and of nothing else.
    computed = [line for line in uses if " tuple(" not in line and " copy(" not in line]
    assert bool(computed) == (sync is not False), uses


def _step(tx, sync, params, opt_state, grads):
    updates, opt_state = tx.update(grads, opt_state, params, sync=sync)
    return optax.apply_updates(params, updates), opt_state


def test_without_a_sync_the_compiled_step_is_the_fast_optimizers_own():
    # The same kernels and no temporary memory: what a step costs on an accelerator.
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in resnet18_shapes()[:12]]

    def kernels(tx, **extra_args):
        def step(params, opt_state, grads):
            updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
            return optax.apply_updates(params, updates), opt_state

        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, jax.eval_shape(tx.init, params), params)
        compiled = lowered.compile(TEXT_ONLY)
        return compiled.as_text().count(" fusion("), compiled.memory_analysis().temp_size_in_bytes

    (alone, alone_bytes), (ours, our_bytes) = (
        kernels(optax.adam(1e-3)),
        kernels(la.lookahead(optax.adam(1e-3)), sync=False),
    )
    assert ours - alone in (0, 1)  # the count of steps
    assert our_bytes <= alone_bytes + 64


@pytest.mark.parametrize("kind", ["python", "numpy", "array"])
def test_true_syncs_now_and_starts_a_new_period_and_false_lets_an_overdue_sync_wait(kind):
    def given(value):
        return value if value is None or kind == "python" else {"numpy": np.bool_, "array": jnp.asarray}[kind](value)

    # Gradient 1, rate 1, k = 3, alpha = 1/2. After each step: the live weight.
    tx = la.lookahead(optax.sgd(1.0), 3, 0.5)
    plan = [(None, 7.0), (True, 7.0), (None, 6.0), (None, 5.0), (False, 4.0), (False, 3.0), (None, 4.5), (None, 3.5)]
    params = jnp.array(8.0)
    opt_state = tx.init(params)
    for sync, expected in plan:
        updates, opt_state = tx.update(jnp.array(1.0), opt_state, params, sync=given(sync))
        params = optax.apply_updates(params, updates)
        assert float(params) == expected
    assert (int(opt_state.sync_count), int(opt_state.steps_since_sync)) == (2, 1)


def test_a_traced_boolean_decides_without_compiling_again():
    tx = la.lookahead(optax.sgd(1.0), 3, 0.5)
    update = jax.jit(lambda g, s, p, sync: tx.update(g, s, p, sync=sync))
    params = jnp.array([8.0])
    opt_state = tx.init(params)
    live = []
    for sync in (False, True, False, True):
        updates, opt_state = update(jnp.array([1.0]), opt_state, params, jnp.asarray(sync))
        params = optax.apply_updates(params, updates)
        live.append(float(params[0]))
    assert live == [7.0, 7.0, 6.0, 6.0]
    assert update._cache_size() == 1


def test_the_outermost_lookahead_takes_the_argument_and_hands_it_not_on():
    inner = la.lookahead(optax.sgd(1.0), 2, 0.5)
    tx = la.lookahead(inner, 3, 0.5)
    params = jnp.array(8.0)
    _, opt_state = tx.update(jnp.array(1.0), tx.init(params), params, sync=True)
    assert int(opt_state.sync_count) == 1
    assert int(opt_state.fast_state.sync_count) == 0


def test_in_a_train_state_and_an_nnx_optimizer():
    tx = la.lookahead(optax.sgd(1.0), 3, 0.5)
    state = TrainState.create(apply_fn=None, params={"w": jnp.array(8.0)}, tx=tx)
    updates, _ = state.tx.update({"w": jnp.array(1.0)}, state.opt_state, state.params, sync=True)
    assert float(optax.apply_updates(state.params, updates)["w"]) == 7.5

    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.array(8.0))

    model = Model()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for sync, expected in ((False, 7.0), (True, 7.0), (None, 6.0)):
        optimizer.update(model, nnx.State({"w": nnx.Param(jnp.array(1.0))}), sync=sync)
        assert float(model.w[...]) == expected
    assert int(optimizer.opt_state.sync_count[...]) == 1


def test_vmapped_and_sharded_static_halves_are_those_of_each_alone():
    tx = la.lookahead(optax.adam(0.05), K)
    stacked = jnp.asarray(np.stack([weights(6, seed) for seed in range(4)]), jnp.float32)

    def two_halves(params):
        opt_state = tx.init(params)
        for i in range(2 * K):
            params, opt_state = _step(tx, la.is_sync_step(i + 1, K), params, opt_state, jnp.sin((i + 1) * params))
        return params, opt_state.slow_params

    alone = [jax.jit(two_halves)(p) for p in stacked]
    mapped = jax.jit(jax.vmap(two_halves))(stacked)
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    sharded = jax.jit(jax.shard_map(two_halves, mesh=mesh, in_specs=P("x"), out_specs=P("x")))(stacked)
    for result in (mapped, sharded):
        np.testing.assert_allclose(result, np.stack([[a[i] for a in alone] for i in range(2)]), rtol=1e-6)


@pytest.mark.parametrize("value", [1, 0.0, "yes", jnp.ones([1], bool), np.int32(1)], ids=repr)
def test_anything_else_is_refused(value):
    tx = la.lookahead(optax.sgd(1.0))
    with pytest.raises(
        ValueError, match=r"sync=.* use None \(the schedule decides\), True, False, or a boolean scalar"
    ):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), sync=value)


def test_is_sync_step_counts_from_one():
    assert [la.is_sync_step(i, 3) for i in range(1, 8)] == [False, False, True, False, False, True, False]
    assert type(la.is_sync_step(np.int64(3), 3)) is bool
    assert la.is_sync_step(jnp.int32(6), jnp.int32(3)) is True  # Flax's TrainState.step is such an array
    assert not la.is_sync_step(jnp.uint8(44), 300)  # in uint8 300 is 44
    assert not la.is_sync_step(np.int8(100), 500)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("step", (0, 3)),
        ("step", (1.0, 3)),
        ("sync_period", (3, 0)),
        ("step", (True, 1)),
        ("step", (jnp.ones(2, int), 3)),
    ],
)
def test_is_sync_step_refuses_what_is_no_number_of_steps(name, arguments):
    with pytest.raises(ValueError, match=rf"{name}=.* use an integer >= 1"):
        la.is_sync_step(*arguments)


def test_is_sync_step_inside_jit_says_what_to_do():
    with pytest.raises(ValueError, match="step is traced; call is_sync_step outside jit, and pass"):
        jax.jit(lambda step: la.is_sync_step(step, 2))(4)
