"""Malformed input of every kind at the command lines: one line naming it, status 2, and every file as it was."""

import json
import os
from pathlib import Path

import pytest

import train.__main__
import train.data.__main__

ROOT = Path(__file__).resolve().parents[2]

# A config field and its value, for the default digits run.
FIELDS = [
    "epochs=0",
    "epochs=-3",
    "epochs=1.5",
    "epochs=ten",
    "epochs=",
    "batch_size=0",
    "batch_size=-1",
    "batch_size=1e3",
    "test_batch_size=-1",
    "sequence_length=0",
    "seed=-1",
    "seed=4294967296",
    "train_examples=-5",
    "test_examples=-5",
    "train_examples=1000000",
    "test_examples=1000000",
    "skip_corrupt=perhaps",
    "label_smoothing=1.0",
    "label_smoothing=-0.1",
    "label_smoothing=nan",
    "parallel=ddp",
    "devices=-1",
    "devices=512",
    "on_nonfinite=ignore",
    "disk_wait=-1",
    "checkpoint_every=0",
    "resume=2",
    "dataset=",
    "dataset=imagenet",
    "model.name=resnet19",
    "model.stem=big",
    "model.dropout=1.0",
    "model.hidden_size=0",
    "model.embedding_size=-50",
    "model.width=2",
    "optimizer.name=adamx",
    "optimizer.learning_rate=0",
    "optimizer.learning_rate=-0.1",
    "optimizer.learning_rate=inf",
    "optimizer.weight_decay=-1",
    "optimizer.momentum=1.0",
    "optimizer.momentum=0.9",  # with radam
    "optimizer.nesterov=true",  # without momentum
    "optimizer.schedule=linear",
    "optimizer.decay_epochs=5,3",
    "optimizer.decay_epochs=x",
    "optimizer.decay_epochs=1.5,2.5",
    "optimizer.decay_factor=0",
    "optimizer.decay_factor=2",
    "optimizer.decay_delay=-1",
    "optimizer.lookahead=maybe",
    "optimizer.sync_period=0",
    "optimizer.sync_period=2.5",
    "optimizer.slow_step_size=1.01",
    "optimizer.slow_step_size=-0.01",
    "optimizer=adam",
    "optimiser.name=adam",
]


def everything(folder):
    """What lies in a folder: kinds, sizes and bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = ("link", os.readlink(path))
        elif path.is_file():
            found[path] = ("file", path.read_bytes())
        else:
            found[path] = ("folder", None)
    return found


def assert_one_line(capsys, *words):
    stderr = capsys.readouterr().err
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("field", FIELDS)
def test_config_field(field, tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "notes.txt").write_text("precious")
    before = everything(tmp_path)
    flags = [f"--config={ROOT / 'configs' / 'digits_cnn.py'}", f"--workdir={workdir}", f"--config.{field}"]
    assert train.__main__.main(flags) == 2
    name = field.split("=")[0]
    assert_one_line(capsys, name.split(".")[-1].removesuffix("r"))
    after = everything(tmp_path)
    assert {p: v for p, v in after.items() if p in before} == before
    assert not {p.name for p in after} & {"metrics.csv", "checkpoints"}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def text_tree(folder, **files):
    for name, content in {"train": b"a b c\n" * 50, "valid": b"a b c\n" * 50, **files}.items():
        if content is not None:
            write(folder / f"{name}.txt", content)


def image_tree(folder, data=None):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    for split in ("train", "valid"):
        for name in ("cat", "dog"):
            write(folder / split / name / "1.png", buffer.getvalue() if data is None else data)
    return buffer.getvalue()


def loop_of_links(folder):
    image_tree(folder)
    (folder / "train" / "cat" / "again").symlink_to(folder / "train", target_is_directory=True)


def empty_class(folder):
    image_tree(folder)
    (folder / "train" / "cat" / "1.png").unlink()


def other_classes(folder):
    image_tree(folder)
    (folder / "valid" / "cat").rename(folder / "valid" / "cow")


def truncated_image(folder):
    image_tree(folder, data=image_tree(folder)[:60])


def only_train(folder):
    import shutil

    image_tree(folder)
    shutil.rmtree(folder / "valid")


# name: (makes the folder, flags, words of the line)
TEXT, IMAGES = ["--config.dataset=text", "--config.model.name=gru"], ["--config.dataset=imagefolder"]
DATA = {
    "text that is not UTF-8": (lambda d: text_tree(d, train=b"a \xff b\n" * 50), TEXT, "train.txt"),
    "text that is empty": (lambda d: text_tree(d, train=b""), TEXT, "train.txt"),
    "text with NUL bytes": (lambda d: text_tree(d, train=b"\x00\xff\xfe" * 9), TEXT, "train.txt"),
    "text with no valid file": (lambda d: text_tree(d, valid=None), TEXT, "valid"),
    "text with an unknown word": (
        lambda d: text_tree(d, valid=b"a zebra\n" * 50),
        [*TEXT, "--config.add_unk=false"],
        "zebra",
    ),
    "text too short for a segment": (lambda d: text_tree(d, train=b"a b c\n"), TEXT, "sequence_length"),
    "images that are cut off": (truncated_image, IMAGES, "1.png"),
    "images that are not images": (lambda d: image_tree(d, b"hello"), IMAGES, "1.png"),
    "an empty image": (lambda d: image_tree(d, b""), IMAGES, "1.png"),
    "a loop of links": (loop_of_links, IMAGES, "again"),
    "an empty class": (empty_class, IMAGES, "cat"),
    "classes that differ": (other_classes, IMAGES, "cat"),
    "no valid folder": (only_train, IMAGES, "valid"),
    "no folder at all": (lambda d: None, IMAGES, "data"),
    "CIFAR that is not prepared": (lambda d: None, ["--config.dataset=cifar10"], "prepare cifar10"),
    "PTB that is not prepared": (lambda d: None, ["--config.dataset=ptb"], "prepare ptb"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_files(case, tmp_path, capsys):
    make, flags, word = DATA[case]
    folder = tmp_path / "data"
    make(folder)
    before = everything(tmp_path)
    command = [f"--config={ROOT / 'configs' / 'digits_cnn.py'}", f"--workdir={tmp_path / 'run'}"]
    assert train.__main__.main([*command, f"--config.data_dir={folder}", "--config.batch_size=2", *flags]) == 2
    assert_one_line(capsys, word)
    assert {p: v for p, v in everything(tmp_path).items() if p in before} == before


def cifar_files(folder, size=30_730_000, skip=None):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin", "batches.meta.txt"]
    for name in names:
        if name != skip:
            write(folder / name, b"\0" * (size if name.endswith(".bin") else 10))


PREPARE = {
    "nothing there": (lambda d: None, "cifar10", "data"),
    "an empty folder": (lambda d: d.mkdir(), "cifar10", "data_batch_1.bin"),
    "a file is missing": (lambda d: cifar_files(d, 10, skip="data_batch_3.bin"), "cifar10", "data_batch_3.bin"),
    "files of another size": (lambda d: cifar_files(d, 10), "cifar10", "data_batch_1.bin"),
    "an unknown set": (lambda d: None, "mnist", "mnist"),
    "a foreign PTB": (
        lambda d: [write(d / f"ptb.{s}.txt", b"a b\n") for s in ("train", "valid", "test")],
        "ptb",
        "ptb.",
    ),
    "a PTB that lacks a file": (lambda d: write(d / "ptb.train.txt", b"a b\n"), "ptb", "ptb."),
    "images of no class": (lambda d: write(d / "train" / "stray.png", b"x"), "images", "train"),
    "a broken image": (lambda d: image_tree(d, b"hello"), "images", "1.png"),
}


@pytest.mark.parametrize("case", PREPARE)
def test_preparing(case, tmp_path, capsys):
    make, name, word = PREPARE[case]
    folder = tmp_path / "data"
    make(folder)
    before = everything(tmp_path)
    flags = ["prepare", name, f"--from-dir={folder}", f"--data-dir={tmp_path / 'prepared'}"]
    assert train.data.__main__.main(flags) == 2
    assert_one_line(capsys, word)
    assert {p: v for p, v in everything(tmp_path).items() if p in before} == before
    left = [p for p in (tmp_path / "prepared").rglob("*") if p.is_file()]
    assert left == []


def damaged_run(tmp_path, damage):
    workdir = tmp_path / "run"
    command = [f"--config={ROOT / 'configs' / 'digits_cnn.py'}", f"--workdir={workdir}", "--config.devices=1"]
    command += ["--config.epochs=1", "--config.train_examples=64", "--config.test_examples=20"]
    assert train.__main__.main(command) == 0
    (workdir / "run.json").unlink()
    damage(workdir)
    return workdir, command


def damage_checkpoints(workdir):
    for path in (workdir / "checkpoints").rglob("progress.json"):
        path.write_text("{}")


def foreign_config(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    stored["seed"] = 99
    (workdir / "config.json").write_text(json.dumps(stored))


RUNS = {
    "checkpoints that are damaged": (damage_checkpoints, "every checkpoint"),
    "metrics that are no table": (lambda w: (w / "metrics.csv").write_text("hello\n"), "metrics.csv"),
    "metrics with words for numbers": (
        lambda w: (w / "metrics.csv").write_text((w / "metrics.csv").read_text().replace("\n1,", "\none,")),
        "metrics.csv",
    ),
    "metrics that lack a row": (
        lambda w: (w / "metrics.csv").write_text((w / "metrics.csv").read_text().splitlines()[0] + "\n"),
        "metrics.csv",
    ),
    "a config that is not JSON": (lambda w: (w / "config.json").write_text("{"), "config.json"),
    "a config of another run": (foreign_config, "seed was 99, is now 0"),
    "no config": (lambda w: (w / "config.json").unlink(), "config.json"),
}


@pytest.mark.parametrize("case", RUNS)
def test_workdir(case, tmp_path, capsys):
    damage, word = RUNS[case]
    workdir, command = damaged_run(tmp_path, damage)
    capsys.readouterr()
    before = everything(workdir)
    assert train.__main__.main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert word in lines[0]
    assert {p: v for p, v in everything(workdir).items() if p in before} == before
