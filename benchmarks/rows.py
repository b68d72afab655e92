"""What a row of a comparison is: a recipe of `configs/`, made-up data of its shape, and how much of it is a round.

Ours and torch's sides both read their data here, so that both are given the very same arrays: images already
augmented and normalised, float32, so that a row compares the networks and optimizers alone.
"""

import argparse
import dataclasses
import importlib
from typing import Literal

import numpy as np

from benchmarks import harness
from train.config import Config
from train.data import Dataset, Split


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      name: for `--rows`.
      title: for the table.
      recipe: name of a module in `configs/`: its model, optimizer and batch size.
      classes: of the images; words of the vocabulary for a language model.
      steps: training steps, or batches of evaluation, in a round.
      at_least, aim: ratios of throughput, ours over torch's.
      image_size: height and width; 0 for text.
      kind: "train", the whole training step; "evaluate", a pass over a test set.
      changes: fields of the recipe that this row sets, for instance a smaller batch.
    """

    name: str
    title: str
    recipe: str
    classes: int
    steps: int
    at_least: float
    aim: float
    image_size: int = 0
    kind: Literal["train", "evaluate"] = "train"
    changes: tuple[tuple[str, int], ...] = ()

    @property
    def config(self) -> Config:
        config: Config = importlib.import_module(f"configs.{self.recipe}").get_config()
        config = dataclasses.replace(config, **dict(self.changes))
        return dataclasses.replace(config, test_batch_size=config.batch_size)

    @property
    def samples(self) -> int:
        """Images or tokens of a step."""
        config = self.config
        return config.batch_size * (1 if self.image_size else config.sequence_length)

    @property
    def unit(self) -> str:
        return "images/s" if self.image_size else "tokens/s"

    def tiny(self) -> "Row":
        """The same row at a size that takes no time: to see that it runs."""
        return dataclasses.replace(
            self,
            classes=min(self.classes, 50),
            steps=1,
            image_size=min(self.image_size, 96),
            changes=(*self.changes, ("batch_size", 4)),
        )

    def dataset(self) -> Dataset:
        """Made-up examples: a few training batches, and for "evaluate" a test set of `steps` batches."""
        batch = self.config.batch_size
        train = self._split(0, (2 if self.image_size > 64 else 4) * batch)
        test = self._split(1, self.steps * batch if self.kind == "evaluate" else batch)
        task, words = ("image", 0) if self.image_size else ("text", self.classes)
        return Dataset("made-up", task, train, test, self.classes, "none", (), (), bool(self.image_size), words)

    def _split(self, seed: int, examples: int) -> Split:
        rng = np.random.default_rng(seed)
        shape = (examples,) if self.image_size else (examples, self.config.sequence_length)
        targets = rng.integers(0, self.classes, shape).astype(np.int32)
        if not self.image_size:
            return Split(rng.integers(0, self.classes, shape).astype(np.int32), targets)
        images = rng.standard_normal((examples, self.image_size, self.image_size, 3), np.float32)
        return Split(images, targets)


def parse_arguments(row: Row, description: str | None, *, rounds: int, tiny: str) -> tuple[argparse.Namespace, Row]:
    """The flags of a benchmark of one row, and the row as they have it.

    Args:
      row: at its own size.
      description: of the command.
      rounds: by default.
      tiny: what `--tiny` does, in words.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, row.name, rounds)
    parser.add_argument("--steps", type=int, default=row.steps, help=f"of a round (default {row.steps})")
    parser.add_argument("--tiny", action="store_true", help=f"{tiny}, to see that it runs")
    flags = parser.parse_args()
    return flags, dataclasses.replace(row.tiny() if flags.tiny else row, steps=flags.steps)
