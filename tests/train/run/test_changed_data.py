"""Data that changes between a stop and a resume is noticed: the run would be another one."""

import json

import numpy as np
import pytest
from PIL import Image

from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError
from train.run.loop import train


class AfterAStep:
    """A request to stop that comes with the first step."""

    signal, _asked = None, False

    def poll(self):
        self._asked = True

    def __bool__(self):
        return self._asked


def make_text(folder):
    for name in ("train.txt", "valid.txt"):
        (folder / name).write_text("one two three four five six\n" * 20)


def swap_words(folder):
    text = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text(text.replace("two three", "three two", 1))


def make_images(folder):
    for split in ("train", "valid"):
        for label, name in enumerate(("ape", "bee")):
            (folder / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = np.full((16, 16, 3), 40 * label + 10 * i, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def replace_an_image(folder):
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(folder / "train" / "ape" / "0.png")


def exchange_labels(folder):
    (folder / "train" / "ape" / "0.png").rename(folder / "x.png")
    (folder / "train" / "bee" / "0.png").rename(folder / "train" / "ape" / "0.png")
    (folder / "x.png").rename(folder / "train" / "bee" / "0.png")


SMALL = {"devices": 1, "optimizer": OptimizerConfig(name="sgd", learning_rate=0.1, lookahead=True)}
TEXT = Config(
    dataset="text",
    batch_size=2,
    sequence_length=5,
    model=ModelConfig(name="gru", embedding_size=4, hidden_size=4),
    **SMALL,
)
IMAGES = Config(dataset="imagefolder", batch_size=2, image_size=16, model=ModelConfig(name="small_cnn"), **SMALL)


@pytest.mark.parametrize(
    ("config", "make", "change"),
    [
        (TEXT, make_text, swap_words),
        (IMAGES, make_images, replace_an_image),
        (IMAGES, make_images, exchange_labels),
    ],
)
def test_a_run_whose_data_changed_is_not_resumed(config, make, change, tmp_path):
    data, workdir = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    make(data)
    config.data_dir = str(data)
    assert train(config, workdir, stop=AfterAStep(), quiet=True).status == "stopped"
    facts = json.loads((workdir / "run.json").read_text())
    assert len(facts["data"]["digest"]) == 64
    assert train(config, workdir, stop=AfterAStep(), quiet=True).status == "stopped"
    change(data)
    with pytest.raises(UserError, match=r"has changed since its run began: it was .*, is now .*; bring the data back"):
        train(config, workdir, stop=AfterAStep(), quiet=True)
    # Even where run.json is lost: the checkpoint knows.
    (workdir / "run.json").unlink()
    with pytest.raises(UserError, match="that run had other settings or other data"):
        train(config, workdir, stop=AfterAStep(), quiet=True)
