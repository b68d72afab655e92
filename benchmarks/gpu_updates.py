"""What an update of the parameters takes on a GPU: the stage "updates" of `benchmarks.gpu`."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import lookahead_jax as la
from benchmarks import harness
from benchmarks.optimizer import SLOW_STEP_SIZE, SYNC_PERIOD, resnet18_shapes

SETS = ("ResNet18", "100 million")
LARGE = ((2048, 4096),) * 12  # 100.7 million parameters


def updates_side(
    tx: optax.GradientTransformation, shapes: Any, *, steps: int, caller_sync: bool = False
) -> Callable[[], Any]:
    """A round of `steps` donated updates of the same gradients, each dispatched by itself.

    Several in one program would say nothing: XLA fuses them into one pass over the parameters.

    Args:
        tx: the optimizer.
        shapes: of the parameters.
        steps: a multiple of the sync period.
        caller_sync: the caller says which updates synchronise.
    """
    key = jax.random.key(0)
    grads = [0.01 * jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes)]
    params = [0.05 * jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes, 1000)]

    @functools.partial(jax.jit, donate_argnums=(0, 1), static_argnames="sync")
    def update(params, opt_state, grads, sync=None):
        extra_args: dict[str, Any] = {} if sync is None else {"sync": sync}
        updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
        return optax.apply_updates(params, updates), opt_state

    syncs = [la.is_sync_step(i + 1, SYNC_PERIOD) if caller_sync else None for i in range(SYNC_PERIOD)]
    state = [params, tx.init(params)]

    def run() -> None:
        for i in range(steps):
            state[:] = update(*state, grads, sync=syncs[i % SYNC_PERIOD])
        jax.block_until_ready(state)

    return run


def updates(tiny: bool, rounds: int, names: list[str]) -> dict[str, Any]:
    """Milliseconds an update, and ratios to the inner optimizer alone."""
    sets = {"ResNet18": resnet18_shapes(), "100 million": LARGE}
    sets = {"tiny": ((8, 8),) * 3} if tiny else {name: sets[name] for name in names}
    steps = 10 if tiny else 50
    inners = {"adam": optax.adam(1e-3), "sgd, momentum 0.9": optax.sgd(1e-2, 0.9)}
    results = []
    for (params, shapes), (name, inner) in itertools.product(sets.items(), inners.items()):
        wrapped = la.lookahead(inner, SYNC_PERIOD, SLOW_STEP_SIZE)
        nesterov = la.snoo(inner, SYNC_PERIOD, 0.7, 0.9)
        side = functools.partial(updates_side, shapes=shapes, steps=steps)
        sides = {
            "alone": side(inner),
            "lookahead": side(wrapped),
            "lookahead, caller's sync": side(wrapped, caller_sync=True),
            "nesterov outer step": side(nesterov),
            "nesterov, caller's sync": side(nesterov, caller_sync=True),
        }
        seconds = harness.seconds_in_turn(sides, rounds)
        results.append(
            {
                "params": params,
                "parameters": int(sum(map(np.prod, shapes))),
                "arrays": len(shapes),
                "inner": name,
                "milliseconds": {k: harness.Summary.of([1e3 * s / steps for s in v]) for k, v in seconds.items()},
                "ratio": {k: harness.ratio(v, seconds["alone"]) for k, v in seconds.items()},
            }
        )
    return {"rounds": rounds, "steps_a_round": steps, "rows": results}
