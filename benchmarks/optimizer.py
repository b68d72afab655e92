"""What Lookahead costs on top of its inner optimizer, on the parameters of ResNet18 (11.2 million, float32).

    python -m benchmarks.optimizer [--rounds=30] [--torch] [--out=FILE]

One program applies one update: inner optimizer, Lookahead, `optax.apply_updates`; jitted, parameters and state donated.
A round is two whole sync periods (k = 5), so that syncs weigh as they do in training. All sides of an inner optimizer
run in one process, in turn. `--torch` adds Lookahead(Adam) in JAX against plain torch.optim.Adam, foreach and fused,
in processes that run in turn with the same number of threads.
"""

import argparse
import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lookahead_jax as la
from benchmarks import harness
from train.models import create_model

SYNC_PERIOD, SLOW_STEP_SIZE = 5, 0.8
STEPS = 2 * SYNC_PERIOD
WORKERS = ("jax", "torch-foreach", "torch-fused")

INNER: dict[str, tuple[Callable[[], optax.GradientTransformation], float]] = {
    "adam": (lambda: optax.adam(1e-3), 1.15),
    "radam": (lambda: optax.radam(1e-3), 1.15),
    "sgd, momentum 0.9": (lambda: optax.sgd(1e-2, 0.9), 1.20),
}


def resnet18_shapes() -> list[tuple[int, ...]]:
    """The shapes of ResNet18's parameters, with 10 classes."""
    model, images = create_model("resnet18", num_classes=10), jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))
    return [leaf.shape for leaf in jax.tree.leaves(variables["params"])]


def arrays(scale: float) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(scale=scale, size=shape), jnp.float32) for shape in resnet18_shapes()]


def side(tx: optax.GradientTransformation, wrap_params: Callable[[Any], Any] = lambda params: params):
    """A round of `tx`: STEPS donated updates of the same gradients, and the wait for the last."""
    grads = arrays(0.01)

    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = wrap_params(arrays(0.05))
    state = [params, tx.init(params)]

    def run() -> None:
        for _ in range(STEPS):
            state[:] = step(state[0], state[1], grads)
        jax.block_until_ready(state)

    return run


def optax_lookahead(inner: optax.GradientTransformation):
    """A round of optax.lookahead, whose parameters are pairs; `fast` and `slow` start in buffers of their own."""
    tx = optax.lookahead(inner, SYNC_PERIOD, SLOW_STEP_SIZE)
    return side(tx, lambda p: optax.LookaheadParams(fast=p, slow=jax.tree.map(jnp.copy, p)))


def against_inner(rounds: int) -> list[dict[str, Any]]:
    """For each inner optimizer: milliseconds a step alone, and the ratios of both Lookaheads to it."""
    results = []
    for name, (inner, target) in INNER.items():
        sides = {
            "alone": side(inner()),
            "lookahead_jax": side(la.lookahead(inner(), SYNC_PERIOD, SLOW_STEP_SIZE)),
            "optax.lookahead": optax_lookahead(inner()),
        }
        seconds = harness.seconds_in_turn(sides, rounds)
        results.append(
            {
                "inner": name,
                "target": target,
                "milliseconds_alone": harness.Summary.of([1e3 * s / STEPS for s in seconds["alone"]]),
                "ratio": harness.ratio(seconds["lookahead_jax"], seconds["alone"]),
                "ratio_of_minima": min(seconds["lookahead_jax"]) / min(seconds["alone"]),
                "ratio_of_optax_lookahead": harness.ratio(seconds["optax.lookahead"], seconds["alone"]),
                "seconds": seconds,
            }
        )
    return results


def torch_adam(fused: bool) -> Callable[[], None]:
    """A round of torch.optim.Adam, fused or foreach, on the same arrays, in place."""
    import torch

    params = [torch.tensor(np.asarray(x), requires_grad=True) for x in arrays(0.05)]
    for param, grad in zip(params, arrays(0.01), strict=True):
        param.grad = torch.tensor(np.asarray(grad))
    optimizer = torch.optim.Adam(params, lr=1e-3, fused=fused, foreach=not fused)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.step()

    return run


def serve(worker: str, threads: int) -> None:
    harness.use_cores(threads)
    if worker.startswith("torch"):
        import torch

        torch.set_num_threads(threads)
        harness.serve(torch_adam(fused="fused" in worker), threads=torch.get_num_threads())
    else:
        harness.serve(side(la.lookahead(optax.adam(1e-3), SYNC_PERIOD, SLOW_STEP_SIZE)), threads=threads)


def against_torch(rounds: int) -> dict[str, Any]:
    """Updates a second of Lookahead(Adam) in JAX over those of torch's Adam, in alternating processes."""
    threads = harness.available_cores()
    command = ["-m", "benchmarks.optimizer", f"--threads={threads}"]
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                harness.Worker(
                    [*command, f"--worker={name}"], {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)}
                )
            )
            for name in WORKERS
        }
        seconds = harness.workers_in_turn(workers, rounds)
    speeds = {name: harness.Summary.of([STEPS / s for s in values]) for name, values in seconds.items()}
    ratios = {name: harness.ratio(seconds[name], seconds["jax"]) for name in WORKERS[1:]}
    bounds = {"torch-foreach": ("1.4", "1.8"), "torch-fused": ("", "")}
    return {
        "threads": threads,
        "updates_per_second": speeds,
        "ratio": ratios,
        "table": [
            harness.table_line(
                f"Lookahead(Adam) of ours / Adam({name.removeprefix('torch-')}) of torch, updates/s",
                speeds["jax"].text(1),
                speeds[name].text(1),
                ratios[name],
                *bounds[name],
                rounds,
            )
            for name in ratios
        ],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, "optimizer", rounds=30)
    parser.add_argument("--torch", action="store_true", help="also compare with torch.optim.Adam")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker, args.threads)
        return

    about = harness.machine()
    inner = against_inner(args.rounds)
    lines = [
        harness.table_line(
            f"time of Lookahead({r['inner']}) / {r['inner']} alone",
            "",
            "",
            r["ratio"],
            f"at most {r['target']:.2f}",
            "",
            args.rounds,
        )
        for r in inner
    ]
    rows = {"against_inner": {"rounds": args.rounds, "steps_per_round": STEPS, "table": lines, "inner": inner}}
    header = ["inner optimizer", "alone, ms a step", "lookahead_jax", "allowed", "optax.lookahead"]
    cells = [
        [
            r["inner"],
            r["milliseconds_alone"].text(1),
            r["ratio"].text(),
            f"{r['target']:.2f}",
            r["ratio_of_optax_lookahead"].text(),
        ]
        for r in inner
    ]
    print(harness.table(header, cells))
    print(
        f"\nTime of Lookahead(inner) over inner's, ResNet18's {sum(map(np.prod, resnet18_shapes())):,} float32 "
        f"parameters, k = {SYNC_PERIOD}; median (quartiles) of {args.rounds} rounds of {STEPS} steps."
    )
    if args.torch:
        rows["against_torch"] = against_torch(args.rounds)
        for line in rows["against_torch"]["table"]:
            print(f"\n{line['benchmark']}: {line['ours']} against {line['torch']}, ratio {line['ratio'].text()}")
    print("\n" + harness.describe(about))
    harness.write_rows(harness.result_path("optimizer", args), rows, about)


if __name__ == "__main__":
    main()
