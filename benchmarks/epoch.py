"""The real trainer against the bare step, images a second: what a run loses to its loop, its data and its logging.

    python -m benchmarks.epoch [--rows=resnet18,cnn,cnn-large] [--rounds=5] [--out=FILE]

The trainer is `train.run.loop.Run`, what `python -m train` runs, over an epoch in a workdir of its own: order,
augmentation on the device, metrics, progress, and behind the epoch evaluation, row and checkpoint. The bare step is
the same network's compiled step on float batches that are augmented already (`benchmarks.resnet18` and `.cnn` time
the same), called without looking at anything but its loss. Both in one process, in turn. The trainer's rate is that
of its training steps, as in metrics.csv; what evaluation, row, checkpoint and figure take beside them is given in the
file.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.rows import Row
from train.config import Config
from train.data import Dataset, Split
from train.run.provenance import cores

AT_LEAST, AIM = 0.95, 0.98


@dataclasses.dataclass(frozen=True)
class Epoch:
    """A row: the bare step's, whose `steps` are those of the epoch, and the data that the trainer reads."""

    row: Row
    dataset: Callable[[Row], Dataset]


def cifar_shaped(row: Row) -> Dataset:
    """An epoch of 32x32 images of 0..255 to be cropped and flipped, and a batch to test on."""
    train, test = (_images(seed, count, 32, row.classes) for seed, count in _counts(row))
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    return Dataset("made-up", "image", train, test, row.classes, "pad_crop_flip", mean, std, True)


def image_folder_shaped(row: Row, canvas: int) -> Dataset:
    """An epoch of images of differing sizes in square canvases, to be cropped and resized, and a batch to test on."""

    def split(seed: int, examples: int) -> Split:
        images = _images(seed, examples, canvas, row.classes)
        sizes = np.random.default_rng(seed).integers(canvas * 2 // 3, canvas + 1, (examples, 2)).astype(np.int32)
        return dataclasses.replace(images, sizes=sizes)

    train, test = (split(seed, count) for seed, count in _counts(row))
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return Dataset("made-up", "image", train, test, row.classes, "random_resized_crop", mean, std, True)


def _counts(row: Row) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, row.steps * row.config.batch_size), (1, row.config.batch_size)


def _images(seed: int, examples: int, size: int, classes: int) -> Split:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (examples, size, size, 3), np.uint8)
    return Split(pixels, rng.integers(0, classes, examples).astype(np.int32))


EPOCHS = (
    Epoch(
        Row("resnet18", "ResNet18, 7x7 stem, batch 128", "cifar10_resnet18", 10, 16, AT_LEAST, AIM, image_size=32),
        cifar_shaped,
    ),
    # Images smaller than what is cropped from them, as those of Tiny ImageNet are, and larger ones.
    Epoch(
        Row("cnn", "CNN 224x224 of images up to 64x64, batch 36", "hw2_cnn", 20, 8, AT_LEAST, AIM, image_size=224),
        functools.partial(image_folder_shaped, canvas=64),
    ),
    Epoch(
        Row(
            "cnn-large",
            "CNN 224x224 of images up to 384x384, batch 36",
            "hw2_cnn",
            20,
            8,
            AT_LEAST,
            AIM,
            image_size=224,
        ),
        functools.partial(image_folder_shaped, canvas=384),
    ),
)


class Trainer:
    """Epochs of `train.run.loop.Run`, each a run of its own over programs that are compiled once."""

    def __init__(self, config: Config, dataset: Dataset):
        from benchmarks import ours

        self._config = dataclasses.replace(config, epochs=1)
        self._trainer = ours.make_trainer(self._config, dataset)
        self.rates: list[float] = []  # images a second of training, by the run's own count
        self.seconds: list[float] = []  # of the whole run: also evaluation, row, checkpoint and figure

    def epoch(self) -> None:
        from train.interface.signals import StopRequest
        from train.run.loop import Run
        from train.run.workdir import open_workdir

        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            began = time.perf_counter()
            with StopRequest() as stop, open_workdir(Path(folder) / "run", self._config) as directory:
                outcome = Run(self._config, directory, self._trainer, stop, quiet=False).run()
            self.seconds.append(time.perf_counter() - began)
        self.rates.append(outcome.rows[-1]["examples_per_second"])


def compare(epoch: Epoch, rounds: int) -> dict[str, Any]:
    """Rates of the trainer and of the bare step in turn."""
    from benchmarks import ours

    row, config = epoch.row, epoch.row.config
    trainer = Trainer(config, epoch.dataset(row))
    steps = ours.TrainingSteps(ours.make_trainer(config, row.dataset()))
    sides = {"trainer": trainer.epoch, "bare": lambda: steps.run(row.steps)}
    seconds = harness.seconds_in_turn(sides, rounds, warm_up=1)
    rates, whole = trainer.rates[-rounds:], trainer.seconds[-rounds:]
    bare = [row.samples * row.steps / s for s in seconds["bare"]]
    ratio = harness.ratio(rates, bare)
    beside = [all_of_it - row.samples * row.steps / rate for all_of_it, rate in zip(whole, rates, strict=True)]
    line = harness.table_line(
        f"real trainer / bare step: {row.title}, images/s",
        harness.Summary.of(rates).text(0),
        f"bare step {harness.Summary.of(bare).text(0)}",
        ratio,
        f"{AT_LEAST}",
        f"{AIM}",
        rounds,
    )
    return {
        "title": row.title,
        "steps_an_epoch": row.steps,
        "rounds": rounds,
        "table": [line],
        "ratio": ratio,
        "trainer_per_second": harness.Summary.of(rates),
        "bare_per_second": harness.Summary.of(bare),
        "seconds_beside_training": harness.Summary.of(beside),
        "rates": {"trainer": rates, "bare": bare},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [epoch.row.name for epoch in EPOCHS]
    harness.add_arguments(parser, "epoch", rounds=5)
    parser.add_argument("--rows", default=",".join(names), help=f"which of {','.join(names)} (default: all)")
    parser.add_argument("--steps", type=int, default=0, help="training steps in the epoch")
    parser.add_argument("--tiny", action="store_true", help="a few examples only, to see that it runs")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a core")
    flags = parser.parse_args()
    harness.use_cores(flags.threads)
    from train.step import runtime

    runtime.set_up()
    about = harness.machine()
    for epoch in EPOCHS:
        if epoch.row.name not in flags.rows.split(","):
            continue
        row = dataclasses.replace(epoch.row.tiny(), steps=2) if flags.tiny else epoch.row
        row = dataclasses.replace(row, steps=flags.steps or row.steps)
        result = compare(dataclasses.replace(epoch, row=row), flags.rounds)
        (line,) = result["table"]
        print(
            f"{line['benchmark']}: {line['ours']}, {line['torch']}, ratio {line['ratio'].text(3)} "
            f"(at least {AT_LEAST}, aim {AIM}); beside an epoch of {row.steps} steps, evaluation, row, checkpoint and "
            f"figure take {result['seconds_beside_training'].text()} s"
        )
        harness.write_rows(harness.result_path("epoch", flags), {row.name: result}, about)
    print("\n" + harness.describe(about))


if __name__ == "__main__":
    main()
