"""JAX's strict modes: no implicit promotion, every dtype, and types that vary over the axes of a shard_map."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import lookahead_jax as la
from tests.lookahead_jax.problems import weights

MODES = {
    "maintain": lambda fast: la.lookahead(fast, 2, 0.5),
    "reset": lambda fast: la.lookahead(fast, 2, 0.5, fast_state_at_sync="reset"),
    "pullback": lambda fast: la.lookahead(fast, 2, 0.5, fast_state_at_sync="pullback"),
    "slow_dtype": lambda fast: la.lookahead(fast, 2, 0.5, slow_dtype=jnp.float32),
    "schedules": lambda fast: la.lookahead(fast, optax.constant_schedule(2.0), optax.constant_schedule(0.5)),
    "snoo": lambda fast: la.snoo(fast, 2, 0.5, 0.5),
    "primal_averaging": lambda fast: la.primal_averaging(fast, 0.5, 0.5),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("mode", [*MODES, "adaptive"])
def test_nothing_is_promoted_in_silence(mode, dtype):
    fast = optax.sgd(0.1, 0.9)
    if mode == "adaptive":
        rule = la.adaptive_step_size(curvature=lambda state: state[0].trace)
        tx = la.lookahead(fast, 2, rule)
    else:
        tx = MODES[mode](fast)
    params = grads = {"w": jnp.ones([3], dtype)}
    opt_state = tx.init(params)
    with jax.numpy_dtype_promotion("strict"):
        for sync in (None, None, True, False, jnp.array(True)):
            extra = {} if mode == "primal_averaging" else {"sync": sync}
            updates, opt_state = tx.update(grads, opt_state, params, **extra)
            params = {"w": params["w"] + updates["w"].astype(dtype)}
    assert params["w"].dtype == dtype


FLOATS = [
    name
    for name in ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz")
    if hasattr(jnp, name)
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [*FLOATS, "complex64", "complex128"])
def test_every_dtype_as_parameters_in_every_mode_beside_integers_and_booleans(x64, mode, dtype):
    # Gradient 1 and rate 1/4: 8 - 1/4 - 1/4 with half of it taken back; all numbers are exact in the narrowest dtype.
    def sgd(updates, params=None):
        return jax.tree.map(lambda g: -g if jnp.issubdtype(g.dtype, jnp.inexact) else g, updates)

    tx = MODES[mode](optax.stateless(sgd))
    params = {
        "w": jnp.full([3], 2.0, dtype),
        "f32": jnp.full([2], 2.0, jnp.float32),
        "int": jnp.array([3]),
        "bool": jnp.array([True, False]),
    }
    grads = {**jax.tree.map(lambda p: jnp.full(p.shape, 0.25, p.dtype), params), "int": jnp.array([1])}
    grads["bool"] = jnp.array([False, False])
    opt_state = tx.init(params)
    dtypes = [x.dtype for x in jax.tree.leaves(opt_state)]
    step = jax.jit(tx.update)
    for _ in range(2):
        updates, opt_state = step(grads, opt_state, params)
        assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda g: g.dtype, grads)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
    assert [x.dtype for x in jax.tree.leaves(opt_state)] == dtypes
    slow = la.slow_params(opt_state)
    if mode == "primal_averaging":  # z = 1.75, x = 1.875, y = 1.8125; z = 1.5, x = 1.6875, y = 1.59375
        expected = {"float8_e4m3fn": None, "float8_e5m2": None, "float8_e4m3b11fnuz": None}.get(dtype, 1.59375)
    else:
        expected = 1.625 if mode == "snoo" else 1.75  # Nesterov: d = b = 0.5, step 0.5 (0.5 + 0.25)
    if expected is not None:
        np.testing.assert_allclose(params["w"].astype(complex), expected, rtol=0.13 if "float8" in dtype else 1e-2)
    if mode != "primal_averaging":
        np.testing.assert_array_equal(slow["w"].astype(dtype).astype(complex), params["w"].astype(complex))
        assert slow["int"].tolist() == params["int"].tolist() == [5]
        assert slow["bool"].tolist() == [True, False]


@pytest.fixture
def mesh():
    if jax.device_count() < 4:
        pytest.skip("needs 4 devices: JAX_NUM_CPU_DEVICES=4")
    return Mesh(np.array(jax.devices()[:4]), ("fsdp",))


FSDP = {
    "maintain": lambda: la.lookahead(optax.adam(0.1), 2),
    "reset": lambda: la.lookahead(optax.adam(0.1), 2, fast_state_at_sync="reset"),
    "pullback": lambda: la.lookahead(optax.adam(0.1), 2, fast_state_at_sync="pullback"),
    "snoo": lambda: la.snoo(optax.adam(0.1), 2, 0.5, 0.5),
    "primal_averaging": lambda: la.primal_averaging(optax.adam(0.1), 0.5, 0.5),
    "adaptive": lambda: la.lookahead(optax.adam(0.1), 2, la.adaptive_step_size(0.01, b2=0.999, axis_name="fsdp")),
    "adaptive of each shard": lambda: la.lookahead(optax.adam(0.1), 2, la.adaptive_step_size(0.01, b2=0.999)),
}


def trajectory(tx, params, sync=None):
    opt_state = tx.init(params)
    for i in range(4):
        extra = {} if sync is None else {"sync": la.is_sync_step(i + 1, 2)}
        updates, opt_state = tx.update(jnp.sin((i + 1) * params), opt_state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params, la.slow_params(opt_state)


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", FSDP)
def test_sharded_parameters_under_shard_map_move_as_whole_ones(mesh, name, check_vma, static):
    if static and name == "primal_averaging":
        pytest.skip("primal averaging has no sync to decide on")
    params = jnp.asarray(weights(12), jnp.float32)
    tx, static = FSDP[name](), static or None
    sharded = jax.shard_map(
        lambda p: trajectory(tx, p, static), mesh=mesh, in_specs=P("fsdp"), out_specs=P("fsdp"), check_vma=check_vma
    )
    if name == "adaptive of each shard":  # as documented
        pieces = [trajectory(tx, piece, static) for piece in params.reshape(4, 3)]
        expected = [np.concatenate([np.asarray(piece[i]) for piece in pieces]) for i in range(2)]
    else:
        without_axis = la.lookahead(optax.adam(0.1), 2, la.adaptive_step_size(0.01, b2=0.999))
        expected = trajectory(without_axis if name == "adaptive" else tx, params, static)
    np.testing.assert_allclose(jax.jit(sharded)(params), expected, rtol=1e-5)


def test_no_infinity_is_met_where_jax_looks_for_them():
    tx, params = la.lookahead(optax.adam(0.1), 2, 0.5), jnp.ones(3)
    opt_state = tx.init(params)
    with jax.debug_infs(True), jax.debug_nans(True):
        for _ in range(3):
            _, opt_state = tx.update(params, opt_state, params)
    assert int(opt_state.sync_count) == 1
