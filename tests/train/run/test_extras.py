"""What a run draws and tells: any name, any stream, any state of TensorBoard's files; and a run goes on without it."""

import errno
import io
import json
import os
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto import event_pb2

from tests.train.interface.test_output import STREAMS
from train.interface.output import Extras
from train.run.figures import draw_curves
from train.run.loop import train
from train.run.progress import Progress
from train.run.tensorboard import TensorBoard

ROW = {"epoch": 1, "train_loss": 1.5, "test_loss": 1.0, "slow_test_loss": None}
ROW |= {"train_accuracy": 0.5, "test_accuracy": 0.4, "slow_test_accuracy": None}


@pytest.mark.parametrize(
    "title", ["price$_$", r"$\frac$", r"a\$b$^$", os.fsdecode(b"caf\xe9"), "x" * 300, "a\nb", "{}%s &<>", "", "$$ $$"]
)
def test_curves_are_drawn_under_any_name(title, tmp_path):
    draw_curves([ROW], title, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


SETTINGS = {
    "Jupyter's backend": ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, ""),
    "no backend of that name": ({"MPLBACKEND": "nonsense"}, ""),
    "a backend that needs a display": ({"MPLBACKEND": "gtk4agg"}, ""),
    "TeX that is not installed": ({}, "text.usetex: True\n"),
    "a font size of nothing, another format": ({}, "font.size: 0\nsavefig.format: pdf\nsavefig.dpi: 100000\n"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_curves_are_drawn_whatever_the_user_set_for_matplotlib(case, tmp_path):
    variables, settings = SETTINGS[case]
    (tmp_path / "matplotlibrc").write_text(settings)
    code = (
        f"from train.run.figures import draw_curves; import pathlib; draw_curves([{ROW}], 't', pathlib.Path('c.png'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | variables
    environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("case", STREAMS)
def test_progress_is_lost_where_it_cannot_be_written(case, caplog):
    extras = Extras()
    progress = Progress(20, 0, 10, 16, "img", stream=STREAMS[case](), extras=extras)
    for _ in range(10):
        progress.step(1)
    progress.say("a line")
    progress.go_to(3)
    progress.close()
    assert list(extras.missing) == ["progress on the terminal"]
    assert len(caplog.records) == 1


# TensorBoard


def events(directory):
    """All events in the order in which TensorBoard reads them, with every checksum's place where it belongs."""
    found = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data = io.BytesIO(path.read_bytes())
        while head := data.read(12):
            (length,) = struct.unpack("<Q", head[:8])
            event = event_pb2.Event()
            event.ParseFromString(data.read(length))
            assert len(data.read(4)) == 4
            found.append(event)
    return found


def epochs_shown(directory):
    """Epochs of the training loss as TensorBoard shows them: the start of a session drops what is not before it."""
    shown = []
    for event in events(directory):
        if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
            shown = [epoch for epoch in shown if epoch < event.step]
        shown += [event.step for value in event.summary.value if value.tag == "train_loss"]
    return shown


def write(directory, *, after, until):
    board = TensorBoard(directory, after_epoch=after)
    for epoch in range(after + 1, until + 1):
        board.append(ROW | {"epoch": epoch})
    board.close()


@pytest.mark.parametrize(
    "starts",
    [
        [(0, 3), (0, 5)],  # killed before the first checkpoint
        [(0, 3), (2, 5)],
        [(0, 1), (0, 2), (0, 3), (1, 5)],
        [(0, 5), (4, 5), (0, 5)],
        [(0, 2), (2, 2), (2, 5)],
    ],
)
def test_every_epoch_is_shown_once_however_often_it_was_trained(starts, tmp_path, monkeypatch):
    clock = iter(range(2_000_000_000, 0, -1000))  # set back between any two starts
    monkeypatch.setattr("train.run.tensorboard.time.time", lambda: next(clock))
    for after, until in starts:
        write(tmp_path, after=after, until=until)
    assert epochs_shown(tmp_path) == [1, 2, 3, 4, 5]


def test_epochs_that_a_run_went_back_behind_are_shown_once(tmp_path):
    board = TensorBoard(tmp_path, after_epoch=0)
    board.go_back(0)  # before anything was written
    for after, until in ((0, 3), (1, 3), (1, 2), (2, 5)):
        board.go_back(after)
        for epoch in range(after + 1, until + 1):
            board.append(ROW | {"epoch": epoch})
    board.close()
    assert epochs_shown(tmp_path) == [1, 2, 3, 4, 5]


class Disk:
    """A file that takes so many bytes more, until it is emptied."""

    def __init__(self, file, room):
        self._file, self.room = file, room

    def write(self, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1, 11, 100, 250])
def test_a_disk_that_fills_in_the_middle_of_a_record_and_empties_loses_no_epoch(room, tmp_path):
    board, extras = TensorBoard(tmp_path, after_epoch=0), Extras()
    board.append(ROW)
    board._file = Disk(board._file, room)
    for epoch in range(2, 6):
        board._file.room = room if epoch < 5 else 10**6
        with extras.best_effort("tensorboard/"):
            board.append(ROW | {"epoch": epoch})
    board.close()
    assert epochs_shown(tmp_path) == [1, 2, 3, 4, 5]
    assert extras.missing == {}


# A whole run


def test_a_run_ends_well_and_with_the_same_numbers_though_everything_beside_them_fails(
    small_config, replace, tmp_path, monkeypatch, assert_same_run, caplog
):
    config = replace(small_config, epochs=2)
    train(config, tmp_path / "whole", quiet=True)
    workdir = tmp_path / "price$_$"
    workdir.mkdir()
    (workdir / "tensorboard").write_text("a file where the folder should be")
    (workdir / "curves.png").mkdir()
    monkeypatch.setattr(sys, "stderr", STREAMS["a full disk"]())
    outcome = train(config, workdir)
    assert outcome.status == "finished"
    assert_same_run(tmp_path / "whole", workdir)
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["missing"].keys() == {"curves.png", "tensorboard/", "progress on the terminal"}
    said = [record.getMessage() for record in caplog.records]
    assert all(sum(text.startswith(what) for text in said) == 1 for what in facts["missing"]), said


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (
            {"train_accuracy": 0.5, "test_accuracy": 0.25, "slow_test_accuracy": None},
            "loss 1.2346  accuracy 50.00%  test 25.00%",
        ),
        (
            {"train_accuracy": 0.5, "test_accuracy": 0.25, "slow_test_accuracy": 0.3, "ema_test_accuracy": 0.4}
            | {"validation_accuracy": 0.125},
            "loss 1.2346  accuracy 50.00%  test 25.00%  slow 30.00%  ema 40.00%  validation 12.50%",
        ),
        (
            {"train_perplexity": 123.44, "test_perplexity": 99.0, "slow_test_perplexity": 98.75}
            | {"train_accuracy": 0.5, "test_accuracy": 0.5, "validation_perplexity": 97.0},
            "perplexity 123.4  test 99.0  slow 98.8  validation 97.0",
        ),
    ],
)
def test_the_line_of_an_epoch_has_what_its_task_is_scored_by(scores, said):
    stream = io.StringIO()
    progress = Progress(10, 0, 5, 16, "img", stream=stream)
    row = {"epoch": 1, "step": 5, "learning_rate": 0.1, "train_loss": 1.23456, "examples_per_second": 1000.4}
    progress.epoch(row | scores)
    assert stream.getvalue().startswith(f"epoch   1/2  lr 0.1  {said}  1000 img/s  left ")
