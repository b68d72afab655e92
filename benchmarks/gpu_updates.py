"""What an update of the parameters takes on a GPU: the stage "updates" of `benchmarks.gpu`."""

import functools
import itertools
from typing import Any

import numpy as np
import optax

import lookahead_jax as la
from benchmarks import harness
from benchmarks.optimizer import SLOW_STEP_SIZE, SYNC_PERIOD, resnet18_shapes, side

SETS = ("ResNet18", "100 million")
LARGE = ((2048, 4096),) * 12  # 100.7 million parameters


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
        one = functools.partial(side, shapes=shapes, steps=steps)
        sides = {
            "alone": one(inner),
            "lookahead": one(wrapped),
            "lookahead, caller's sync": one(wrapped, static_sync=True),
            "nesterov outer step": one(nesterov),
            "nesterov, caller's sync": one(nesterov, static_sync=True),
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
