"""What the compiled update does to memory: no copy of a parameter-sized buffer, nothing gathered between devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests.lookahead_jax.problems import TEXT_ONLY, resnet18_shapes

# The stem and the first two stages, one of each kind of parameter among them: every leaf is compiled alike.
SHAPES = resnet18_shapes()[:30]


def compiled_step(tx, dtype=jnp.float32):
    """The compiled text of update + apply_updates, donated, on parameters of SHAPES; nothing is allocated."""

    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = [jax.ShapeDtypeStruct(shape, dtype) for shape in SHAPES]
    opt_state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, params).compile(TEXT_ONLY)


def copied_arrays(text):
    """Element counts of the arrays that the program copies."""
    shapes = re.findall(r"= \w+\[([\d,]*)\][^ ]* copy\(", text)
    return [int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes if shape]


def test_the_shapes_are_resnet18s():
    shapes = resnet18_shapes()
    assert (len(shapes), sum(int(np.prod(shape)) for shape in shapes)) == (62, 11_181_642)


@pytest.mark.parametrize(
    "tx",
    [
        la.lookahead(optax.adam(1e-3)),
        la.lookahead(optax.adam(1e-3), slow_step_size=optax.linear_schedule(0.5, 0.8, 100)),
        la.lookahead(optax.adam(1e-3), slow_step_size=la.adaptive_step_size(b2=0.999)),
        la.lookahead(optax.adam(1e-3), fast_state_at_sync="reset"),
        la.lookahead(optax.adam(1e-3), fast_state_at_sync="pullback"),
    ],
    ids=["number", "schedule", "adaptive", "reset", "pullback"],
)
def test_the_donated_update_copies_no_parameter_sized_buffer(tx):
    compiled = compiled_step(tx)
    assert [n for n in copied_arrays(compiled.as_text()) if n > 1] == []
    # Parameters, slow weights and both moments are written where they were read.
    assert compiled.memory_analysis().alias_size_in_bytes >= 4 * 4 * sum(int(np.prod(shape)) for shape in SHAPES)


def test_the_search_for_copies_sees_those_of_optax_lookahead():
    fast = optax.lookahead(optax.adam(1e-3), 5, 0.8)

    def step(params, opt_state, grads):
        updates, opt_state = fast.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    grads = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES]
    params = optax.LookaheadParams.init_synced(grads)
    opt_state = jax.eval_shape(fast.init, params)
    text = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, grads).compile(TEXT_ONLY).as_text()
    assert sum(n > 1 for n in copied_arrays(text)) > 0.8 * len(SHAPES)


# Compile time grows with the kernels of a leaf: Adam has 3 (two moments and the parameters), Lookahead with all of its
# modes at most twice as many; the adaptive step size has to read everything once more.
KERNELS = {
    "plain": (la.lookahead(optax.adam(1e-3)), 5),
    "reset": (la.lookahead(optax.adam(1e-3), fast_state_at_sync="reset"), 5),
    "pullback": (la.lookahead(optax.adam(1e-3), fast_state_at_sync="pullback"), 7),
    "snoo": (la.snoo(optax.adam(1e-3), 5, 0.7, 0.9), 7),
    "adaptive": (la.lookahead(optax.adam(1e-3), slow_step_size=la.adaptive_step_size(b2=0.999)), 12),
    "primal_averaging": (la.primal_averaging(optax.adam(1e-3), 0.9, 0.9), 6),
}


@pytest.mark.parametrize("mode", KERNELS)
@pytest.mark.parametrize("sync", [None, False], ids=["dynamic", "no sync"])
def test_the_kernels_of_a_leaf_are_few(mode, sync):
    tx, most = KERNELS[mode]
    extra_args = {} if sync is None or mode == "primal_averaging" else {"sync": sync}
    params = [jax.ShapeDtypeStruct((16 + i, 16), jnp.float32) for i in range(20)]

    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
        return optax.apply_updates(params, updates), opt_state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, jax.eval_shape(tx.init, params), params)
    text = lowered.compile(TEXT_ONLY).as_text()
    kernels = text.count(" fusion(") / len(params)
    assert kernels < (3 if extra_args else most) + 0.5  # the rest are scalars
