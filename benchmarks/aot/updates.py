"""The library's optimizer updates, compiled for a chip on the parameters of ResNet18."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la
from benchmarks.aot.chips import Chip, compile_for, knows_host_memory, on_chip
from benchmarks.aot.facts import Facts, facts
from benchmarks.optimizer import SLOW_STEP_SIZE, SYNC_PERIOD, adaptive, nesterov, plain, resnet18_shapes
from train.step.steps import tree_bytes

Transformation = optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class Update:
    """An optimizer whose update is compiled.

    Attributes:
        title: for the table.
        inner: title of the optimizer that it is compared with; its own if it is one.
        make: the transformation.
        static: whether the caller may say when to sync: compiled for both answers too.
        on_host: whether the slow weights stay in the host's memory.
        pairs: whether its parameters are optax's pairs of fast and slow weights.
    """

    title: str
    inner: str
    make: Callable[[], Transformation]
    static: bool = False
    on_host: bool = False
    pairs: bool = False


def _with_state(fast_state_at_sync: Any) -> Callable[[Transformation], Transformation]:
    return lambda inner: la.lookahead(inner, SYNC_PERIOD, SLOW_STEP_SIZE, fast_state_at_sync=fast_state_at_sync)


INNER: dict[str, Callable[[], Transformation]] = {
    "Adam": lambda: optax.adam(1e-3),
    "RAdam": lambda: optax.radam(1e-3),
    "SGD, momentum 0.9": lambda: optax.sgd(1e-2, 0.9),
}
AROUND_ADAM: dict[str, Callable[[Transformation], Transformation]] = {
    'Lookahead(Adam), "reset"': _with_state("reset"),
    'Lookahead(Adam), "pullback"': _with_state("pullback"),
    "Nesterov outer step (Adam)": nesterov,
    "adaptive step size (Adam)": adaptive,
}


def updates() -> list[Update]:
    """Every optimizer of the table."""
    found = []
    for name, inner in INNER.items():
        found.append(Update(name, name, inner))
        found.append(Update(f"Lookahead({name})", name, lambda inner=inner: plain(inner()), static=True))
        pair = functools.partial(lambda inner: optax.lookahead(inner(), SYNC_PERIOD, SLOW_STEP_SIZE), inner)
        found.append(Update(f"optax.lookahead({name})", name, pair, pairs=True))
    adam = INNER["Adam"]
    found += [
        Update(title, "Adam", lambda around=around: around(adam()), static=True)
        for title, around in AROUND_ADAM.items()
    ]
    found.append(
        Update("Lookahead(Adam), slow weights on the host", "Adam", lambda: plain(adam()), static=True, on_host=True)
    )
    found.append(Update("primal averaging (Adam)", "Adam", lambda: la.primal_averaging(adam(), 0.9, 0.9)))
    return found


def compile_update(chip: Chip, update: Update, sync: bool | None = None) -> tuple[Any, float, Any]:
    """Compiles update and `optax.apply_updates`, parameters and state donated.

    Args:
        chip: what for.
        update: which one.
        sync: the argument of `update`; None leaves it out.

    Returns:
        The compiled program, the seconds it took, and the shapes of the donated arguments.

    Raises:
        ValueError: the slow weights are to be in the host's memory, of which JAX's stand-in for the chip knows nothing.
    """
    if update.on_host and not knows_host_memory(chip):
        raise ValueError(
            f"JAX's stand-in for the {chip.name} has no host memory, so this cannot be compiled without one"
        )
    tx = update.make()
    extra_args = {} if sync is None else {"sync": sync}
    grads: Any = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in resnet18_shapes()]
    params: Any = optax.LookaheadParams(fast=grads, slow=grads) if update.pairs else grads
    opt_state: Any = on_chip(chip, jax.eval_shape(tx.init, params))
    where = jax.tree.map(lambda x: x.sharding, opt_state)
    params = on_chip(chip, params)
    options = {}
    if update.on_host:
        on_host = opt_state._replace(slow_params=on_chip(chip, opt_state.slow_params, "pinned_host"))
        opt_state = on_host
        options["out_shardings"] = jax.tree.map(lambda x: x.sharding, (params, on_host))

    def step(params, opt_state, grads):
        if update.on_host and sync:
            opt_state = jax.device_put(opt_state, where)
        changes, opt_state = tx.update(grads, opt_state, params, **extra_args)
        return optax.apply_updates(params, changes), opt_state

    donated = (params, opt_state)
    compiled, seconds = compile_for(chip, step, (*donated, on_chip(chip, grads)), (0, 1), **options)
    return compiled, seconds, donated


def measure_update(chip: Chip, update: Update, sync: bool | None = None) -> Facts:
    """As `compile_update`, read."""
    compiled, seconds, donated = compile_update(chip, update, sync)
    return facts(compiled, seconds, donated)


def parameter_bytes() -> int:
    """Bytes of ResNet18's parameters."""
    return sum(jax.ShapeDtypeStruct(shape, jnp.float32).size for shape in resnet18_shapes()) * 4


def least_traffic(update: Update) -> float:
    """Bytes that an update must move on average: gradients read; what every step changes, read and written; what only
    a sync changes, read and written at every k-th step.
    """
    tx = update.make()
    grads: Any = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in resnet18_shapes()]
    size = parameter_bytes()
    if update.pairs:
        opt_state = jax.eval_shape(tx.init, optax.LookaheadParams(grads, grads))
        return 3 * size + 2 * tree_bytes(opt_state) + 2 * size / SYNC_PERIOD
    opt_state = jax.eval_shape(tx.init, grads)
    if not isinstance(opt_state, la.LookaheadState):
        return 3 * size + 2 * tree_bytes(opt_state)
    every = tree_bytes(opt_state.fast_state)
    return 3 * size + 2 * every + 2 * (tree_bytes(opt_state) - every) / SYNC_PERIOD
