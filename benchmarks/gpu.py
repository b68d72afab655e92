"""What a GPU makes of the project, in the minutes that there are: `make gpu`, or

    python -m benchmarks.gpu [--stages=tests,updates,steps,study] [--budget_s=600] [--data_dir=DIR] [--scale=full]
                             [--only=2.1] [--jobs=4] [--out=results/gpu] [--tiny]

tests     tests/gpu, and the library's own tests, on this GPU.
updates   an update of ResNet18's parameters, and of 100 million in twelve arrays: Adam and SGD alone, with Lookahead,
          with the caller's sync, with `optax.lookahead`; each update dispatched by itself, and fifty in one program.
steps     training steps of the networks: ours, ten a dispatch, several seeds in one program, and PyTorch if it is
          installed.
study     runs of a study for what is left of the budget; the same command later goes on where it stopped.

A stage writes OUT/STAGE.json when it is done, and is not done again for the same commit on the same device unless
--again is given. OUT/README.md is made anew from what there is. Sides of a comparison run in turn in one process, and
each waits for its own work. Without a GPU everything runs on the CPU: to see that it does (`--tiny`).
"""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import lookahead_jax as la
from benchmarks import gpu_page, harness
from benchmarks.optimizer import SLOW_STEP_SIZE, SYNC_PERIOD, resnet18_shapes
from benchmarks.rows import Row
from train.run.provenance import source_commit

STAGES = ("tests", "updates", "steps", "study")
LARGE = ((2048, 4096),) * 12  # 100.7 million parameters
ROWS = (
    Row("resnet18", "ResNet18, 7x7 stem, batch 128", "cifar10_resnet18", 10, 20, 0, 0, image_size=32),
    Row("resnet18-cifar", "ResNet18, CIFAR stem, batch 128", "cifar10_modern", 10, 20, 0, 0, image_size=32),
    Row("cnn", "CNN 224x224, batch 36", "hw2_cnn", 20, 20, 0, 0, image_size=224),
    Row("gru", "GRU language model, 20 x 35 tokens", "ptb_gru", 10_000, 20, 0, 0),
)


def device() -> dict[str, Any]:
    """The first device and its driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        smi = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        smi = ""
    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "nvidia_smi": smi}


# Updates


def updates_side(
    tx: optax.GradientTransformation, shapes: Any, *, steps: int, together: bool = False, caller_sync: bool = False
) -> Callable[[], Any]:
    """A round of `steps` donated updates of the same gradients.

    Args:
        tx: the optimizer.
        shapes: of the parameters.
        steps: a multiple of the sync period.
        together: all in one program, by `lax.scan` over whole periods.
        caller_sync: the caller says which updates synchronise.
    """
    key = jax.random.key(0)
    grads = [0.01 * jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes)]
    params = [0.05 * jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes, 1000)]
    if caller_sync and not isinstance(tx, optax.GradientTransformationExtraArgs):
        raise ValueError("caller_sync is for an optimizer that takes sync=")

    def update(params, opt_state, grads, *, sync=None):
        extra_args = {} if sync is None else {"sync": sync}
        updates, opt_state = tx.update(grads, opt_state, params, **extra_args)
        return optax.apply_updates(params, updates), opt_state

    syncs = [la.is_sync_step(i + 1, SYNC_PERIOD) if caller_sync else None for i in range(SYNC_PERIOD)]

    def periods(params, opt_state, grads):
        def period(carried, _):
            for sync in syncs:
                carried = update(*carried, grads, sync=sync)
            return carried, None

        return jax.lax.scan(period, (params, opt_state), length=steps // SYNC_PERIOD)[0]

    one = jax.jit(update, donate_argnums=(0, 1), static_argnames="sync")
    many = jax.jit(periods, donate_argnums=(0, 1))
    state = [params, tx.init(params)]

    def run() -> None:
        if together:
            state[:] = many(*state, grads)
        else:
            for i in range(steps):
                state[:] = one(*state, grads, sync=syncs[i % SYNC_PERIOD])
        jax.block_until_ready(state)

    return run


def updates(tiny: bool, rounds: int, names: list[str]) -> dict[str, Any]:
    """Milliseconds an update, and ratios to the inner optimizer alone."""
    sets = {"tiny": ((8, 8),) * 3} if tiny else {"ResNet18": resnet18_shapes(), "100 million": LARGE}
    sets = sets if tiny else {name: sets[name] for name in names}
    steps = 10 if tiny else 50
    inners = {"adam": optax.adam(1e-3), "sgd, momentum 0.9": optax.sgd(1e-2, 0.9)}
    results = []
    for (params, shapes), (name, inner), together in itertools.product(sets.items(), inners.items(), (False, True)):
        wrapped = la.lookahead(inner, SYNC_PERIOD, SLOW_STEP_SIZE)
        nesterov = la.snoo(inner, SYNC_PERIOD, 0.7, 0.9)
        side = functools.partial(updates_side, shapes=shapes, steps=steps, together=together)
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
                "updates_a_program": steps if together else 1,
                "milliseconds": {k: harness.Summary.of([1e3 * s / steps for s in v]) for k, v in seconds.items()},
                "ratio": {k: harness.ratio(v, seconds["alone"]) for k, v in seconds.items()},
            }
        )
    return {"rounds": rounds, "steps_a_round": steps, "rows": results}


# Training steps


def seeds_side(row: Row, seeds: int) -> Callable[[], Any]:
    """A round of the row's steps with several seeds in one program."""
    from benchmarks import ours
    from train.step import steps
    from train.step.metrics import Metrics

    trainer = ours.make_trainer(row.config, row.dataset())
    recipe, data = trainer.recipe, trainer.train_data
    keys = jax.vmap(jax.random.PRNGKey)(np.arange(seeds))
    state = jax.jit(jax.vmap(functools.partial(steps.init_state, recipe)))(keys)
    metrics = jax.vmap(lambda _: Metrics.zeros())(np.arange(seeds))
    order = jax.jit(jax.vmap(functools.partial(steps.epoch_order, recipe)))(state.key, state.step)
    step = jax.vmap(functools.partial(steps.train_step, recipe), in_axes=(0, 0, None, 0))
    program = jax.jit(step, donate_argnums=(0, 1))
    carried = [state, metrics]

    def run() -> None:
        for _ in range(row.steps):
            carried[0], carried[1], _ = program(carried[0], carried[1], data, order)
        jax.block_until_ready(carried)

    return run


def float32_side(row: Row) -> Callable[[], Any]:
    """A round of the row's steps with products in full float32, where a GPU takes TF32 by default."""
    from benchmarks import ours

    with jax.default_matmul_precision("float32"):
        side = ours.TrainingSteps(ours.make_trainer(row.config, row.dataset()))
        side.run(1)
    return functools.partial(side.run, row.steps)


def steps(tiny: bool, rounds: int, names: list[str], seeds_a_program: list[int]) -> dict[str, Any]:
    """Milliseconds a training step of each side."""
    from benchmarks import ours

    results = []
    for row in [row.tiny() if tiny else row for row in ROWS if row.name in names]:
        steps = 2 if tiny else row.steps
        row = dataclasses.replace(row, steps=steps)
        scan = 2 if tiny else 10
        sides: dict[str, Callable[[], Any]] = {
            "ours": functools.partial(ours.TrainingSteps(ours.make_trainer(row.config, row.dataset())).run, steps),
            f"ours, {scan} a dispatch": functools.partial(
                ours.ScannedSteps(ours.make_trainer(row.config, row.dataset()), scan).run, steps
            ),
        }
        if row.image_size:
            sides["ours, float32 products"] = float32_side(row)
        for seeds in seeds_a_program:
            sides[f"{seeds} seeds in one program"] = seeds_side(row, seeds)
        if importlib.util.find_spec("torch") is not None:
            from benchmarks import torch_peer

            sides["torch"] = torch_peer.side(row, frozenset({"cuda"}))[0]
        seconds = harness.seconds_in_turn(sides, rounds)
        results.append(
            {
                "title": row.title,
                "samples_a_step": row.samples,
                "unit": row.unit,
                "milliseconds": {k: harness.Summary.of([1e3 * s / steps for s in v]) for k, v in seconds.items()},
                "times_as_fast_as_torch": (
                    {k: harness.ratio(seconds["torch"], v) for k, v in seconds.items()} if "torch" in seconds else {}
                ),
            }
        )
    return {"rounds": rounds, "rows": results}


# Other programs


def run_tests(tiny: bool, limit: float) -> dict[str, Any]:
    """Runs the tests that make sense on one GPU; their last lines and status."""
    paths = ["tests/gpu"] if tiny else ["tests/gpu", "tests/lookahead_jax"]
    workers = [] if tiny else ["-n", str(max(1, min(12, harness.available_cores() - 2)))]
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if jax.devices()[0].platform == "gpu":
        environment["JAX_PLATFORMS"] = "cuda,cpu"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not peers", *workers, *paths]
    status, output = _run(command, environment, limit)
    return {"command": " ".join(["python", *command[1:]]), "status": status, "output": output[-12_000:]}


def run_study(flags: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Goes on with a study until the limit; what is finished is in OUT/study."""
    command = [
        *(sys.executable, "-m", "train.study", f"--study={flags.study}", f"--out={flags.out / 'study'}"),
        *(f"--jobs={flags.jobs}", *([f"--scale={flags.scale}"] if flags.scale else [])),
        *([f"--only={flags.only}"] if flags.only else []),
        *([f"--data_dir={flags.data_dir}"] if flags.data_dir else []),
    ]
    status, output = _run(command, {}, limit)
    return {"command": " ".join(["python", *command[1:]]), "status": status, "output": output[-4_000:]}


def _run(command: list[str], environment: dict[str, str], limit: float) -> tuple[int, str]:
    """Runs a command; asks it to stop at the limit, and gives it half a minute to save."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=max(limit, 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    print(output[-3000:], flush=True)
    return process.returncode, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES), help=f"which of {','.join(STAGES)} (default: all)")
    parser.add_argument("--budget_s", type=float, default=600, help="seconds for all stages together (default 600)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each side (default 7)")
    parser.add_argument("--rows", default=",".join(row.name for row in ROWS), help="of the training steps")
    parser.add_argument("--seeds", default="1,2,4,8,16", help="seeds in one program, of the training steps")
    parser.add_argument("--sets", default="ResNet18,100 million", help="of parameters, for the updates")
    parser.add_argument("--study", default="configs/studies/report.py", help="study file")
    parser.add_argument("--scale", default="full", help="of the study; empty for a study that has none")
    parser.add_argument("--only", default="2.1", help="sections of the study; empty for all")
    parser.add_argument("--jobs", type=int, default=2, help="runs of the study at once")
    parser.add_argument("--data_dir", default="", help="where prepared data sets lie")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--again", action="store_true", help="do stages again that are done")
    parser.add_argument("--tiny", action="store_true", help="sizes that say nothing, to see that it runs")
    flags = parser.parse_args()
    stages = flags.stages.split(",")
    if unknown := sorted(set(stages) - set(STAGES)):
        parser.error(f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    began = time.monotonic()
    flags.out.mkdir(parents=True, exist_ok=True)
    # Stages run programs of their own on the device, and PyTorch beside JAX.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    about = harness.machine() | {"device": device(), "commit": source_commit()}
    rounds = 2 if flags.tiny else flags.rounds
    for stage in stages:
        file = flags.out / f"{stage}.json"
        left = flags.budget_s - (time.monotonic() - began)
        if stage != "study" and not flags.again and _is_done(file, about):
            print(f"{stage}: done before ({file})", flush=True)
            continue
        if left <= 0:
            print(f"{stage}: no time left", flush=True)
            continue
        print(f"{stage}: {left:.0f} s left", flush=True)
        since = time.monotonic()
        match stage:
            case "tests":
                result = run_tests(flags.tiny, left)
            case "updates":
                result = updates(flags.tiny, rounds, flags.sets.split(","))
            case "steps":
                seeds = [int(count) for count in flags.seeds.split(",")]
                result = steps(flags.tiny, rounds, flags.rows.split(","), seeds)
            case _:
                result = run_study(flags, left)
        result |= {"machine": about, "seconds": round(time.monotonic() - since, 1), "tiny": flags.tiny}
        file.write_text(json.dumps(result, indent=2, default=dataclasses.asdict) + "\n")
        gpu_page.write(flags.out)
    print(f"page: {flags.out / 'README.md'}")


def _is_done(file: Path, about: dict[str, Any]) -> bool:
    try:
        there = json.loads(file.read_text())["machine"]
    except (OSError, ValueError, KeyError):
        return False
    return (there["commit"], there["device"]["kind"]) == (about["commit"], about["device"]["kind"])


if __name__ == "__main__":
    main()
