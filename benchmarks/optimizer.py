"""What Lookahead costs on top of its inner optimizer, on the parameters of ResNet18 (11.2 million, float32).

    python -m benchmarks.optimizer [--rounds=30] [--torch] [--out=FILE]

One program applies one update: inner optimizer, Lookahead, `optax.apply_updates`; jitted, parameters and state donated.
A round is two whole sync periods (k = 5), so that syncs weigh as they do in training. "Static sync" compiles two
programs, `update(..., sync=False)` and `sync=True`, and calls the second on every fifth step. All sides of an inner
optimizer run in one process, in turn. `--torch` adds Lookahead(Adam) in JAX, with one program and with two, against
plain torch.optim.Adam, foreach and fused, in processes that run in turn with the same number of threads.
"""

import argparse
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lookahead_jax as la
from benchmarks import harness
from train.models import create_model
from train.run.provenance import cores

SYNC_PERIOD, SLOW_STEP_SIZE = 5, 0.8
STEPS = 2 * SYNC_PERIOD
TINY_SHAPES = ((8, 8), (8,))
WORKERS = ("jax", "jax-static", "torch-foreach", "torch-fused")


@dataclasses.dataclass(frozen=True)
class Row:
    """An inner optimizer and a Lookahead around it.

    Attributes:
      title: of the Lookahead.
      inner: makes the inner optimizer.
      wrapped: makes Lookahead around it.
      allowed: ratio of time to the inner optimizer alone with one program; 0 for no bound.
      allowed_static: the same with two programs.
    """

    title: str
    inner: Callable[[], optax.GradientTransformation]
    wrapped: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    allowed: float
    allowed_static: float


def plain(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return la.lookahead(inner, SYNC_PERIOD, SLOW_STEP_SIZE)


def nesterov(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return la.snoo(inner, SYNC_PERIOD, 0.7, 0.9)


def adaptive(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return la.lookahead(inner, SYNC_PERIOD, la.adaptive_step_size(b2=0.999))


ROWS = (
    Row("Lookahead(adam)", lambda: optax.adam(1e-3), plain, 1.15, 1.06),
    Row("Lookahead(radam)", lambda: optax.radam(1e-3), plain, 1.15, 0),
    Row("Lookahead(sgd, momentum 0.9)", lambda: optax.sgd(1e-2, 0.9), plain, 1.20, 1.12),
    Row("Nesterov outer step(adam)", lambda: optax.adam(1e-3), nesterov, 0, 1.30),
    Row("adaptive step size(adam)", lambda: optax.adam(1e-3), adaptive, 0, 1.30),
)


def resnet18_shapes() -> list[tuple[int, ...]]:
    """The shapes of ResNet18's parameters, with 10 classes."""
    model, images = create_model("resnet18", num_classes=10), jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))
    return [leaf.shape for leaf in jax.tree.leaves(variables["params"])]


def arrays(scale: float, shapes: Sequence[tuple[int, ...]] | None = None) -> list[jax.Array]:
    key = jax.random.key(0)
    shapes = resnet18_shapes() if shapes is None else shapes
    return [scale * jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes)]


def side(
    tx: optax.GradientTransformation,
    wrap_params: Callable[[Any], Any] = lambda params: params,
    static_sync: bool = False,
    *,
    shapes: Sequence[tuple[int, ...]] | None = None,
    steps: int = STEPS,
):
    """A round of `tx`: `steps` donated updates of the same gradients, one a dispatch, and the wait for the last.

    Several in one program would say nothing: XLA fuses them into one pass over the parameters.
    """
    grads = arrays(0.01, shapes)

    @functools.partial(jax.jit, donate_argnums=(0, 1), static_argnames="sync")
    def step(params, opt_state, grads, sync=None):
        extra_args = {} if sync is None else {"sync": sync}
        updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
        return optax.apply_updates(params, updates), opt_state

    params = wrap_params(arrays(0.05, shapes))
    state = [params, tx.init(params)]

    def run() -> None:
        for i in range(steps):
            sync = la.is_sync_step(i + 1, SYNC_PERIOD) if static_sync else None
            state[:] = step(state[0], state[1], grads, sync=sync)
        jax.block_until_ready(state)

    return run


def optax_lookahead(inner: optax.GradientTransformation, shapes: Sequence[tuple[int, ...]]):
    """A round of optax.lookahead, whose parameters are pairs; `fast` and `slow` start in buffers of their own."""
    tx = optax.lookahead(inner, SYNC_PERIOD, SLOW_STEP_SIZE)
    return side(tx, lambda p: optax.LookaheadParams(fast=p, slow=jax.tree.map(jnp.copy, p)), shapes=shapes)


def against_inner(rounds: int, shapes: Sequence[tuple[int, ...]]) -> list[dict[str, Any]]:
    """For each row: milliseconds a step alone, and the ratios of the Lookaheads to it, on parameters of `shapes`."""
    results = []
    for row in ROWS:
        tx = row.wrapped(row.inner())
        sides = {
            "alone": side(row.inner(), shapes=shapes),
            "lookahead_jax": side(tx, shapes=shapes),
            "static sync": side(tx, static_sync=True, shapes=shapes),
            "optax.lookahead": optax_lookahead(row.inner(), shapes),
        }
        seconds = harness.seconds_in_turn(sides, rounds)
        results.append(
            {
                "title": row.title,
                "allowed": row.allowed,
                "allowed_static": row.allowed_static,
                "milliseconds_alone": harness.Summary.of([1e3 * s / STEPS for s in seconds["alone"]]),
                "ratio": harness.ratio(seconds["lookahead_jax"], seconds["alone"]),
                "ratio_static": harness.ratio(seconds["static sync"], seconds["alone"]),
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
        harness.serve(side(plain(optax.adam(1e-3)), static_sync=worker == "jax-static"), threads=threads)


def against_torch(rounds: int) -> dict[str, Any]:
    """Updates a second of Lookahead(Adam) in JAX over those of torch's Adam, in alternating processes."""
    threads = cores()
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
    pairs = [(ours, theirs) for ours in WORKERS[:2] for theirs in WORKERS[2:]]
    ratios = {f"{ours} / {theirs}": harness.ratio(seconds[theirs], seconds[ours]) for ours, theirs in pairs}
    bounds = {"torch-foreach": ("1.4", "1.8"), "torch-fused": ("0.9", "")}
    programs = {"jax": "", "jax-static": ", static sync"}
    return {
        "threads": threads,
        "updates_per_second": speeds,
        "ratio": ratios,
        "table": [
            harness.table_line(
                f"Lookahead(Adam) of ours{programs[ours]} / Adam({theirs.removeprefix('torch-')}) of torch, updates/s",
                speeds[ours].text(1),
                speeds[theirs].text(1),
                ratios[f"{ours} / {theirs}"],
                *bounds[theirs],
                rounds,
            )
            for ours, theirs in pairs
        ],
        "seconds": seconds,
    }


def bound(allowed: float) -> str:
    return f"at most {allowed:.2f}" if allowed else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, "optimizer", rounds=30)
    parser.add_argument("--torch", action="store_true", help="also compare with torch.optim.Adam")
    parser.add_argument("--tiny", action="store_true", help="a few small parameters, to see that it runs")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker, args.threads)
        return

    about = harness.machine()
    shapes = TINY_SHAPES if args.tiny else resnet18_shapes()
    whose = "" if args.tiny else " of ResNet18"
    inner = against_inner(args.rounds, shapes)
    lines = [
        harness.table_line(
            f"time of {r['title']}{programs} / its inner optimizer alone",
            "",
            "",
            r[ratio],
            bound(r[allowed]),
            "",
            args.rounds,
        )
        for r in inner
        for programs, ratio, allowed in (("", "ratio", "allowed"), (", static sync", "ratio_static", "allowed_static"))
    ]
    rows = {"against_inner": {"rounds": args.rounds, "steps_per_round": STEPS, "table": lines, "inner": inner}}
    header = [
        "optimizer",
        "inner alone, ms a step",
        "lookahead_jax",
        "bound",
        "static sync",
        "bound",
        "optax.lookahead",
    ]
    cells = [
        [
            r["title"],
            r["milliseconds_alone"].text(1),
            r["ratio"].text(),
            bound(r["allowed"]),
            r["ratio_static"].text(),
            bound(r["allowed_static"]),
            r["ratio_of_optax_lookahead"].text(),
        ]
        for r in inner
    ]
    print(harness.table(header, cells))
    print(
        f"\nTime of Lookahead(inner) over inner's, {sum(map(np.prod, shapes)):,} float32 "
        f"parameters{whose}, k = {SYNC_PERIOD}; median (quartiles) of {args.rounds} rounds of {STEPS} steps."
    )
    if args.torch:
        rows["against_torch"] = against_torch(args.rounds)
        for line in rows["against_torch"]["table"]:
            print(f"\n{line['benchmark']}: {line['ours']} against {line['torch']}, ratio {line['ratio'].text()}")
    print("\n" + harness.describe(about))
    harness.write_rows(harness.result_path("optimizer", args), rows, about)


if __name__ == "__main__":
    main()
