"""Do the convolution lowerings train the same network? Losses of a run with them beside one with XLA's convolutions.

    python -m benchmarks.agreement [--steps=100] [--batch_size=16] [--learning_rate=0.01] [--recipe] [--out=FILE]

ResNet18 (7x7 stem) under Lookahead(SGD), from the same weights over the same made-up batches, with the lowerings and
with XLA's own convolutions. In float64, where rounding is too small to be multiplied into anything in so many steps,
the losses must agree. In float32 they do so only until rounding carries some activation across a kink of ReLU or of
max-pooling, of which a batch has some near enough at every step; then two runs part, whatever computes their
convolutions. So beside the float32 difference stands a control: XLA's own convolutions from weights of which every
other one differs in its last bit (a factor of 1 + 2^-23). `--recipe` takes the report's Lookahead(RAdam) at rate .1.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.ours import TrainingSteps, make_trainer
from benchmarks.rows import Row
from train.config import Config
from train.step import runtime

BOUND = 1e-4


def recipe(batch_size: int, learning_rate: float, *, own_optimizer: bool) -> tuple[Row, Config]:
    """The row whose data it is, and the config of the run."""
    changes = (("batch_size", batch_size),)
    row = Row("agreement", "agreement", "cifar10_resnet18", 10, 1, 0, 0, image_size=32, changes=changes)
    if own_optimizer:
        return row, row.config
    sgd = dataclasses.replace(row.config.optimizer, name="sgd", learning_rate=learning_rate)
    return row, dataclasses.replace(row.config, optimizer=sgd)


def losses(row: Row, config: Config, steps: int, dtype: Any, *, lowered: bool, perturbed: bool = False) -> np.ndarray:
    """The loss of each step, float64 [steps].

    Args:
      row: says which data.
      config: of the run.
      steps: how many.
      dtype: of images, weights and all computation; float32 or float64.
      lowered: with the lowerings, or XLA's own convolutions.
      perturbed: start from weights of which every other one differs in float32's last bit.
    """

    def start(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        every_other = jnp.arange(leaf.size).reshape(leaf.shape) % 2 == 0
        nudged = jnp.where(every_other, leaf * np.float32(1 + 2**-23), leaf) if perturbed else leaf
        return jnp.array(nudged, dtype, copy=True)

    with jax.enable_x64(dtype == np.float64):
        dataset = row.dataset()
        train = dataclasses.replace(dataset.train, inputs=dataset.train.inputs.astype(dtype))
        run = TrainingSteps(make_trainer(config, dataclasses.replace(dataset, train=train), lowered=lowered))
        run.state = jax.tree.map(start, run.state)
        return np.asarray(run.run(steps), np.float64)


def compare(row: Row, config: Config, steps: int) -> dict[str, Any]:
    """All runs, and the largest differences from the one with XLA's own convolutions."""
    runs = {
        "float64": {
            "xla": losses(row, config, steps, np.float64, lowered=False),
            "lowered": losses(row, config, steps, np.float64, lowered=True),
        },
        "float32": {
            "xla": losses(row, config, steps, np.float32, lowered=False),
            "lowered": losses(row, config, steps, np.float32, lowered=True),
            "last bit changed": losses(row, config, steps, np.float32, lowered=False, perturbed=True),
        },
    }
    return {
        "optimizer": dataclasses.asdict(config.optimizer),
        "batch_size": config.batch_size,
        "steps": steps,
        "largest_difference": {
            dtype: {name: float(np.max(np.abs(found["xla"] - values))) for name, values in found.items()}
            for dtype, found in runs.items()
        },
        "losses": {dtype: {name: list(values) for name, values in found.items()} for dtype, found in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--recipe", action="store_true", help="the report's own optimizer and rate")
    parser.add_argument("--out", default=str(harness.FOLDER / "agreement.json"), help="JSON file; empty writes none")
    flags = parser.parse_args()
    runtime.set_up()
    about = harness.machine()
    row, config = recipe(flags.batch_size, flags.learning_rate, own_optimizer=flags.recipe)
    result = compare(row, config, flags.steps)
    double, single = result["largest_difference"]["float64"], result["largest_difference"]["float32"]
    optimizer = f"{config.optimizer.name}, rate {config.optimizer.learning_rate:g}"
    what = f"losses of {flags.steps} steps with and without the lowerings ({optimizer}), largest difference"
    lines = [
        harness.table_line(
            f"{what}, float64", f"{double['lowered']:.1e}", "", None, f"at most {BOUND:.4f}", "", flags.steps
        ),
        harness.table_line(
            f"{what}, float32",
            f"{single['lowered']:.1e}",
            f"XLA's own, last bit of weights changed: {single['last bit changed']:.1e}",
            None,
            "",
            "",
            flags.steps,
        ),
    ]
    for line in lines:
        print(" ".join([f"{line['benchmark']}: {line['ours']}", f"({line['torch']})" if line["torch"] else ""]))
    print(harness.describe(about))
    if flags.out:
        key = f"{config.optimizer.name}_{config.optimizer.learning_rate:g}"
        harness.write_rows(Path(flags.out), {key: {"table": lines, **result}}, about)


if __name__ == "__main__":
    main()
