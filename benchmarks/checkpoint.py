"""What a checkpoint costs a run: the stall of the training loop, and the time until it is on the disk.

    python -m benchmarks.checkpoint [--rounds=7] [--out=results/checkpoint.json]

ResNet18 (7x7 stem, batch 128) with Lookahead(Adam), as in configs/cifar10_resnet18.py, on made-up images. A round
trains 40 steps, once without a save and once with a save before the first step, in turn; what the second takes longer
is what a checkpoint costs, set against an epoch of 391 steps.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from train import data
from train.checkpointing import Checkpoints
from train.compilation_cache import enable_compilation_cache
from train.config import OptimizerConfig
from train.models import create_model
from train.optimizers import make_optimizer, make_schedule
from train.parallel import Parallel
from train.position import Position
from train.programs import Programs

STEPS, EPOCH = 40, 391


def programs() -> Programs:
    """The programs of an Adam run on 5,120 made-up images: 40 steps an epoch."""
    rng = np.random.default_rng(0)
    split = data.Split(
        rng.integers(0, 256, (STEPS * 128, 32, 32, 3), np.uint8), rng.integers(0, 10, STEPS * 128).astype(np.int32)
    )
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    dataset = data.Dataset("made-up", "image", split, split, 10, "pad_crop_flip", mean, std, True)
    optimizer = OptimizerConfig(name="adam", learning_rate=0.001)
    schedule = make_schedule(optimizer, steps_per_epoch=STEPS, epochs=200)
    return Programs(
        create_model("resnet18", num_classes=10),
        make_optimizer(optimizer, schedule),
        dataset,
        Parallel.of(jax.local_devices()[:1], "pmap"),
        schedule=schedule,
        batch_size=128,
        test_batch_size=128,
        lookahead=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="results/checkpoint.json")
    flags = parser.parse_args()
    enable_compilation_cache()
    made = programs()
    position = Position(made.init(0), made.zero_metrics(), step=0)
    about = harness.machine()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(position.state))
    written: list[float] = []

    def train(save: bool) -> None:
        order = made.order(position.state)
        began = time.monotonic()
        if save:
            checkpoints.save(position.step, {"state": position.state, "metrics": position.metrics}, {})
        for _ in range(STEPS):
            position.advance(made, order)["loss"].block_until_ready()
        if save:
            checkpoints.wait()
            written.append(time.monotonic() - began)

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        sides = {"without": lambda: train(False), "with": lambda: train(True)}
        seconds = harness.seconds_in_turn(sides, flags.rounds, warm_up=1)
        checkpoints.close()
    costs = [more - plain for more, plain in zip(seconds["with"], seconds["without"], strict=True)]
    steps = harness.Summary.of([s / STEPS for s in seconds["without"]])
    cost = harness.Summary.of(costs)
    percent = harness.Summary.of(
        [100 * c / (EPOCH * s / STEPS) for c, s in zip(costs, seconds["without"], strict=True)]
    )
    results: dict[str, Any] = {
        "rounds": flags.rounds,
        "state_bytes": size,
        "seconds_a_step": steps,
        "seconds_a_checkpoint_costs": cost,
        "percent_of_an_epoch": percent,
        "seconds": seconds,
    }
    print(
        f"A checkpoint of {size / 1e6:.0f} MB costs {cost.text(2)} s of training, {percent.text(2)} % of an epoch of "
        f"{EPOCH} steps of {steps.text(3)} s; median (quartiles) of {flags.rounds} rounds of {STEPS} steps."
    )
    print("\n" + harness.describe(about))
    harness.write_json(flags.out, results, about)
    print(f"written to {flags.out}")


if __name__ == "__main__":
    main()
