"""Consoles that cannot show every character lose the character, not the command."""

import io
import sys

import pytest

import train.__main__
import train.data.__main__
import train.study.__main__
from train.interface.output import accept_any_text

TEXT = "0.5 ± 0.1 – 3 × 4 — “quoted” ζ \udcff"
CONSOLES = {
    "ascii": "0.5 +/- 0.1 - 3 x 4 - ?quoted? ? ?",
    "latin-1": "0.5 ± 0.1 - 3 × 4 - ?quoted? ? ?",
    "cp1252": "0.5 ± 0.1 – 3 × 4 — “quoted” ? ?",
    "utf-8": "0.5 ± 0.1 – 3 × 4 — “quoted” ζ ?",
    "koi8-r": "0.5 +/- 0.1 - 3 x 4 - ?quoted? ? ?",
}


def console(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


@pytest.mark.parametrize("encoding", CONSOLES)
def test_what_a_console_cannot_show_is_written_plainly(encoding, monkeypatch):
    out, err = console(encoding), console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    accept_any_text()
    print(TEXT)
    print(TEXT, file=sys.stderr)
    for stream in (out, err):
        assert stream.buffer.getvalue().decode(encoding) == CONSOLES[encoding] + "\n"


STUDY = """
from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Section, Study, Variant

def get_study():
    optimizer = OptimizerConfig(name="adam", learning_rate=0.01, lookahead=False, decay_epochs=())
    config = Config(dataset="digits", epochs=1, devices=1, model=ModelConfig(name="small_cnn"), optimizer=optimizer)
    variants = Variant("α – β", config), Variant("“b”", config.__class__(**{**config.__dict__, "batch_size": 64}))
    return Study(name="s", title="Adam – and ± its rate", sections=[Section(key="1", variants=variants, title="T – t")])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["train", "study", "data"])
def test_every_command_writes_to_such_a_console(command, encoding, tmp_path, monkeypatch):
    study = tmp_path / "étude – ζ.py"
    study.write_text(STUDY)
    out, err = console(encoding), console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    status = {
        "train": lambda: train.__main__.main([f"--config={tmp_path / 'ζ – missing.py'}", "--workdir=x"]),
        "study": lambda: train.study.__main__.main([f"--study={study}", f"--out={tmp_path / 'ζ'}", "--dry_run"]),
        "data": lambda: train.data.__main__.main(["list", f"--data-dir={tmp_path / 'ζ – data'}"]),
    }[command]()
    said = (out if command != "train" else err).buffer.getvalue().decode(encoding)
    assert status == (2 if command == "train" else 0), err.buffer.getvalue()
    assert {"train": "missing.py", "study": "to do: 6 of 6 runs", "data": "cifar10"}[command] in said


def test_without_a_console_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    accept_any_text()
