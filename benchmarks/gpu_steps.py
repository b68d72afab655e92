"""What a training step takes on a GPU: the stage "steps" of `benchmarks.gpu`."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import harness
from benchmarks.rows import Row

ROWS = (
    Row("resnet18", "ResNet18, 7x7 stem, batch 128", "cifar10_resnet18", 10, 20, 0, 0, image_size=32),
    Row("resnet18-cifar", "ResNet18, CIFAR stem, batch 128", "cifar10_modern", 10, 20, 0, 0, image_size=32),
    Row("cnn", "CNN 224x224, batch 36", "hw2_cnn", 20, 20, 0, 0, image_size=224),
    Row("gru", "GRU language model, 20 x 35 tokens", "ptb_gru", 10_000, 20, 0, 0),
)


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
            sides[f"{seeds} seeds in one program"] = ours.seeds_side(
                ours.make_trainer(row.config, row.dataset()), steps, seeds
            )
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
