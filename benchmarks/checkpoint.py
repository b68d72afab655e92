"""What a checkpoint costs a run: the stall of the training loop, and the time until it is on the disk.

    python -m benchmarks.checkpoint [--rounds=5] [--steps=20] [--out=FILE]

ResNet18 (7x7 stem, batch 128) with Lookahead(Adam), as in configs/cifar10_resnet18.py, on made-up images. A round
trains some steps, once without a save and once with a save before the first step, in turn; what the second takes longer
is what a checkpoint costs, set against an epoch of 391 steps.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import harness
from benchmarks.epoch import cifar_shaped
from benchmarks.ours import make_trainer
from benchmarks.rows import Row, parse_arguments
from train.run.checkpointing import Checkpoints
from train.run.recovery import Position
from train.run.trainer import Trainer
from train.step import runtime

EPOCH = 391
ROW = Row("checkpoint", "checkpoint of ResNet18", "cifar10_resnet18", 10, 20, 0, 0, image_size=32)


def make_adam_trainer(row: Row) -> Trainer:
    """The trainer of an Adam run whose epoch is a round."""
    config = row.config
    adam = dataclasses.replace(config.optimizer, name="adam", learning_rate=0.001)
    return make_trainer(dataclasses.replace(config, optimizer=adam), cifar_shaped(row))


def main() -> None:
    flags, row = parse_arguments(ROW, __doc__, rounds=5, tiny="batches of 4")
    runtime.set_up()
    made = make_adam_trainer(row)
    position = Position(made.init(0), made.zero_metrics(), step=0)
    about = harness.machine()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(position.state))
    written: list[float] = []

    def train(save: bool) -> None:
        order = made.order(position.state)
        began = time.monotonic()
        if save:
            checkpoints.save(position.step, {"state": position.state, "metrics": position.metrics}, {})
        for _ in range(row.steps):
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
    steps = harness.Summary.of([s / row.steps for s in seconds["without"]])
    cost = harness.Summary.of(costs)
    percent = harness.Summary.of(
        [100 * c / (EPOCH * s / row.steps) for c, s in zip(costs, seconds["without"], strict=True)]
    )
    line = harness.table_line(
        f"a checkpoint of {size / 1e6:.0f} MB, of an epoch of {EPOCH} steps",
        f"{percent.text(2)} %",
        "",
        None,
        "",
        "",
        flags.rounds,
    )
    results: dict[str, Any] = {
        "table": [line],
        "rounds": flags.rounds,
        "state_bytes": size,
        "seconds_a_step": steps,
        "seconds_a_checkpoint_costs": cost,
        "percent_of_an_epoch": percent,
        "seconds": seconds,
    }
    print(
        f"A checkpoint of {size / 1e6:.0f} MB costs {cost.text(2)} s of training, {percent.text(2)} % of an epoch of "
        f"{EPOCH} steps of {steps.text(3)} s; median (quartiles) of {flags.rounds} rounds of {row.steps} steps."
    )
    print("\n" + harness.describe(about))
    harness.write_rows(harness.result_path("checkpoint", flags), {"checkpoint": results}, about)


if __name__ == "__main__":
    main()
