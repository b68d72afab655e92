"""The library's updates, compiled by the accelerators' own compilers: buffers, copies, traffic, communication."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lookahead_jax as la
from benchmarks.aot import chips
from benchmarks.aot.facts import LARGE, facts
from benchmarks.aot.hlo import Program

pytestmark = pytest.mark.aot

SHAPES = [(512, 512), (3, 3, 64, 128), (1024,), (64,)]
PARAMETERS = sum(jax.ShapeDtypeStruct(shape, jnp.float32).size for shape in SHAPES)
SIZE = 4 * PARAMETERS

ADAM = optax.adam(1e-3)
LOOKAHEADS = {
    "lookahead": la.lookahead(ADAM),
    "reset": la.lookahead(ADAM, fast_state_at_sync="reset"),
    "pullback": la.lookahead(ADAM, fast_state_at_sync="pullback"),
    "snoo": la.snoo(ADAM, 5, 0.7, 0.9),
    "sgd": la.lookahead(optax.sgd(1e-2, 0.9)),
}


@functools.cache
def compiled(chip, tx, sync=None, donate=(0, 1)):
    """Facts of update and apply_updates, the parameters and the state donated."""
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES]
    donated = chips.on_chip(chip, (params, jax.eval_shape(tx.init, params)))
    extra_args = {} if sync is None else {"sync": sync}

    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
        return optax.apply_updates(params, updates), opt_state

    args = (*donated, chips.on_chip(chip, params))
    return facts(*chips.compile_for(chip, step, args, donate), donated)


def passes(found):
    """Traffic over the bytes of the parameters; counters are less than a thousandth."""
    return round(found.traffic / SIZE, 2)


@pytest.mark.parametrize(
    ("name", "sync"),
    [(name, sync) for name in ("lookahead", "sgd") for sync in (None, False, True)]
    # With a Nesterov outer step the v5e's compiler copies the momentum in programs that sync.
    + [("reset", None), ("pullback", False), ("snoo", False)],
)
def test_every_donated_buffer_is_taken_and_nothing_is_copied(chip, name, sync):
    found = compiled(chip, LOOKAHEADS[name], sync)
    assert found.aliased == found.donated > 8
    assert found.copies == found.transposes == 0
    assert found.callbacks == found.float64 == found.dynamic == 0
    assert found.temporaries < SIZE / 10


def test_without_a_donation_the_buffers_are_not_taken(chip):
    # The test above can see one: the state is not donated.
    assert compiled(chip, LOOKAHEADS["lookahead"], donate=(0,)).aliased == len(SHAPES)


@pytest.mark.parametrize(("name", "inner", "alone"), [("lookahead", ADAM, 7), ("sgd", optax.sgd(1e-2, 0.9), 5)])
def test_lookahead_adds_one_pass_at_a_sync_and_none_elsewhere(chip, name, inner, alone):
    # A pass: the slow weights are read once and written once, in the kernels that are there already.
    plain = compiled(chip, inner)
    assert passes(plain) == alone
    assert passes(compiled(chip, LOOKAHEADS[name])) == alone + 2
    assert passes(compiled(chip, LOOKAHEADS[name], True)) == alone + 2
    assert passes(compiled(chip, LOOKAHEADS[name], False)) == alone


def test_lookahead_adds_no_kernel_of_a_parameters_size(chip):
    def count(tx, **extra_args):
        params = chips.on_chip(chip, [jax.ShapeDtypeStruct((512, 512 + i), jnp.float32) for i in range(3)])
        state = chips.on_chip(chip, jax.eval_shape(tx.init, params))

        def step(params, opt_state, grads):
            updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
            return optax.apply_updates(params, updates), opt_state

        program = Program(chips.compile_for(chip, step, (params, state, params), (0, 1))[0].as_text())
        return sum(
            i.opcode == "fusion" and any(array.size >= LARGE for array in i.arrays) for i, _ in program.launched()
        )

    assert count(ADAM) == 3
    assert [count(LOOKAHEADS["lookahead"], sync=sync) for sync in (None, False, True)] == [3, 3, 3]


def test_slow_weights_on_the_host_take_no_memory_of_the_chip(v5e):
    # H100: JAX's stand-in for a GPU knows no host memory.
    tx = LOOKAHEADS["lookahead"]
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES]
    state = chips.on_chip(v5e, jax.eval_shape(tx.init, params))
    on_chip = jax.tree.map(lambda x: x.sharding, state)
    params = chips.on_chip(v5e, params)
    state = state._replace(slow_params=chips.on_chip(v5e, state.slow_params, "pinned_host"))
    places = jax.tree.map(lambda x: x.sharding, (params, state))

    def measured(sync):
        def step(params, opt_state, grads):
            if sync:
                opt_state = jax.device_put(opt_state, on_chip)
            updates, opt_state = tx.update(grads, opt_state, params, sync=sync)
            return optax.apply_updates(params, updates), opt_state

        program = chips.compile_for(v5e, step, (params, state, params), (0, 1), out_shardings=places)
        return facts(*program, (params, state))

    alone, quiet, sync = compiled(v5e, ADAM), measured(False), measured(True)
    counters = 2 * 512  # steps_since_sync and sync_count, each in a tile of its own
    assert quiet.memory <= alone.memory + 2 * counters
    assert quiet.host_traffic == 0
    assert quiet.aliased == quiet.donated
    assert quiet.host_arguments == pytest.approx(SIZE, rel=0.05)
    assert sync.host_traffic == 2 * SIZE
    assert sync.aliased == sync.donated


def collectives(chip, tx, sync, axis_name="workers"):
    """Of a step in which each chip of the topology is a worker with fast weights of its own."""
    count = len(chips.devices(chip))
    mesh = chips.mesh(chip, count, axis_name)
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES]
    place = NamedSharding(mesh, P(axis_name))

    def one_each(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype, sharding=place), tree)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P(axis_name), out_specs=P(axis_name), check_vma=False)
    def step(params, opt_state, grads):
        params, opt_state, grads = jax.tree.map(lambda x: x[0], (params, opt_state, grads))
        updates, opt_state = tx.update(grads, opt_state, params, sync=sync)
        return jax.tree.map(lambda x: x[None], (optax.apply_updates(params, updates), opt_state))

    args = one_each((params, jax.eval_shape(tx.init, params), params))
    return Program(chips.compile_for(chip, step, args, (0, 1))[0].as_text()).collectives()


def test_workers_talk_once_a_period(v5e_pod):
    tx = la.diloco(ADAM, 5, axis_name="workers")
    assert collectives(v5e_pod, tx, sync=False) == []
    assert collectives(v5e_pod, tx, sync=True) == [("all-reduce", SIZE)]


def test_without_the_axis_name_no_worker_talks(v5e):
    # The test above can see it.
    assert collectives(v5e, la.diloco(ADAM, 5), sync=True) == []
