"""What several devices, workers and seeds cost: results/scaling.md.

    python -m benchmarks.scaling [--stages=collectives,equality,seeds] [--rows=small_cnn,gru,resnet18] [--rounds=5]

Each stage keeps its figures in results/scaling/STAGE.json; the page is made of all that are there. "collectives"
compiles the training step for four CPU devices and reads what it sends; "equality" trains on 1, 2, 3, 4 and 8 CPU
devices; "seeds" times S seeds in one program against S steps of one, on one device.
"""

import argparse
import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from benchmarks import harness, ours
from benchmarks.aot.collectives import collectives
from train.config import Config
from train.data import Dataset, Split
from train.experiment import XLA, make_experiment
from train.files import read_json, write_atomic, write_json
from train.run.provenance import machine_words
from train.run.trainer import Trainer
from train.step import steps
from train.step.dispatch import Call

FOLDER, PAGE = Path("results/scaling"), Path("results/scaling.md")
DEVICES = (1, 2, 3, 4, 8)
SEEDS = (1, 2, 4, 8)
MODES = ("pmap", "jit", "local")


def made_up(row: str, batch_size: int) -> tuple[Config, Dataset]:
    """A recipe of `configs/` over made-up data of its shape: seven batches and a short one."""
    name, side, classes = {"small_cnn": ("digits_cnn", 8, 10), "resnet18": ("cifar10_resnet18", 32, 10)}.get(
        row, ("ptb_gru", 0, 10_000)
    )
    config: Config = importlib.import_module(f"configs.{name}").get_config()
    rng, examples = np.random.default_rng(0), 7 * batch_size + 3
    if side:
        channels = 1 if side == 8 else 3
        images = rng.integers(0, 256, (examples, side, side, channels), np.uint8)
        split = Split(images, rng.integers(0, classes, examples).astype(np.int32))
        levels = (128.0,) * channels
        dataset = Dataset("made-up", "image", split, split, classes, "none", levels, levels, shuffle=True)
    else:
        tokens = rng.integers(0, classes, (2, examples, config.sequence_length)).astype(np.int32)
        split = Split(tokens[0], tokens[1])
        dataset = Dataset("made-up", "text", split, split, classes, "none", (), (), False, vocab_size=classes)
    return dataclasses.replace(config, batch_size=batch_size, test_batch_size=0), dataset


def trainer_of(config: Config, dataset: Dataset, devices: int, mode: str) -> Trainer:
    """The trainer on the first devices of this process."""
    config = dataclasses.replace(config, devices=devices, parallel=mode)
    return Trainer(make_experiment(config, dataset, convolutions=XLA))


def collectives_stage(rows: list[str], rounds: int) -> dict[str, Any]:
    """Collectives and bytes a step, from the compiled text, on four devices."""
    del rounds
    found = []
    for row in rows:
        for mode in MODES:
            trainer = trainer_of(*made_up(row, 8), 4, mode)
            state, metrics = trainer.abstract_state(), trainer.abstract_metrics()
            examples = jax.ShapeDtypeStruct((trainer.recipe.train_examples,), np.int32)
            program = trainer.train_program(state, metrics, trainer.parallel.placed(examples))
            compiled = trainer.compiled(program)
            sent = collectives(getattr(compiled, "func", compiled).as_text())
            params = jax.tree.leaves(steps.abstract_state(trainer.recipe).params)
            size = sum(4 * leaf.size for leaf in params)
            found.append({"row": row, "mode": mode, "parameters": size, **sent._asdict()})
    return {"rows": found}


def equality_stage(rows: list[str], rounds: int) -> dict[str, Any]:
    """Largest differences from one device after an epoch whose batches, of 13 and 3 examples, divide by no number."""
    del rounds
    config, dataset = made_up(rows[0], 13)
    optimizer = dataclasses.replace(config.optimizer, name="sgd", learning_rate=0.05)
    config = dataclasses.replace(config, optimizer=optimizer)

    def trained(devices: int, mode: str) -> dict[str, Any]:
        trainer = trainer_of(config, dataset, devices, mode)
        state, metrics = trainer.init(0), trainer.zero_metrics()
        order = trainer.order(state)
        for step in range(trainer.recipe.steps_per_epoch):
            last = step + 1 == trainer.recipe.steps_per_epoch
            state, metrics, _ = trainer.train(state, metrics, order, Call(1, last=last))
        tested = trainer.evaluate(state)
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves((state.params, state.batch_stats))]
        return {"training loss": metrics.means()[0], "test loss": tested.means()[0], "state": np.concatenate(leaves)}

    one = trained(1, "single")
    found = []
    for mode in ("pmap", "jit"):
        for devices in DEVICES[1:]:
            several = trained(devices, mode)
            differences = {name: float(np.max(np.abs(several[name] - one[name]))) for name in one}
            found.append({"mode": mode, "devices": devices, **differences})
    return {"row": rows[0], "rows": found}


def seeds_stage(rows: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds of a step of S seeds in one program, and of S steps of one."""
    found = []
    for row in rows:
        config, dataset = made_up(row, {"small_cnn": 64, "gru": 20}.get(row, 128))
        trainer = trainer_of(config, dataset, 1, "single")
        count = {"resnet18": 1}.get(row, 7)

        sides = {"alone": ours.seeds_side(trainer, count, 0)}
        sides |= {
            str(seeds): ours.seeds_side(trainer, count, seeds) for seeds in SEEDS if row != "resnet18" or seeds <= 2
        }
        seconds = harness.seconds_in_turn(sides, rounds)
        for name, values in seconds.items():
            if name != "alone":
                times = int(name)
                ratio = harness.ratio([times * s for s in seconds["alone"]], values)
                milliseconds = harness.Summary.of([1e3 * s / count for s in values])
                found.append({"row": row, "seeds": times, "milliseconds": milliseconds, "times_as_fast": ratio})
    return {"rounds": rounds, "rows": [dataclasses_out(one) for one in found]}


def dataclasses_out(row: dict[str, Any]) -> dict[str, Any]:
    """The row with summaries as plain values."""
    return {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in row.items()}  # type: ignore[arg-type]


STAGES = {"collectives": collectives_stage, "equality": equality_stage, "seeds": seeds_stage}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--rows", default="small_cnn,gru")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for stage in flags.stages.split(","):
        made = STAGES[stage](flags.rows.split(","), flags.rounds)
        about = {
            "command": f"python -m benchmarks.scaling --stages={stage} --rows={flags.rows} --rounds={flags.rounds}"
        }
        load = os.getloadavg()[0]
        about |= {"machine": machine_words(), "load": round(load, 1), "versions": {"jax": jax.__version__}}
        write_json(FOLDER / f"{stage}.json", about | made)
    from benchmarks.scaling_page import page

    write_atomic(PAGE, page({path.stem: read_json(path) for path in FOLDER.glob("*.json")}))


if __name__ == "__main__":
    main()
