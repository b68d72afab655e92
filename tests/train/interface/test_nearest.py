"""A misspelt flag, field, name or value gets the nearest that there is, in every command."""

from pathlib import Path

import pytest

import train.__main__
import train.data.__main__
import train.flags
import train.study.__main__
from train.config import Config, from_dict, to_dict
from train.interface.nearest import did_you_mean

ROOT = Path(__file__).resolve().parents[3]
DIGITS = f"--config={ROOT / 'configs' / 'digits_cnn.py'}"


@pytest.mark.parametrize(
    ("given", "known", "nearest"),
    [
        ("--form-dir", ["--from-dir", "--data-dir"], "--from-dir"),
        ("--data_dri", ["--from-dir", "--data-dir"], "--data-dir"),
        ("optimiser.name", ["model.name", "optimizer.name"], "optimizer.name"),
        ("optimizer.lr", ["optimizer.name", "optimizer.learning_rate"], "optimizer.learning_rate"),
        ("learning_rate", ["epochs", "optimizer.learning_rate"], "optimizer.learning_rate"),
        ("RAdam", ["sgd", "radam"], "radam"),
        ("imdb", ["digits", "imdb_reviews"], "imdb_reviews"),
        ("mnist", ["digits", "cifar10"], ""),
        ("x", ["sgd", "adam"], ""),
        ("", ["sgd"], ""),
        ("sgd", [], ""),
    ],
)
def test_the_nearest_name(given, known, nearest):
    assert did_you_mean(given, known) == (f" (did you mean {nearest!r}?)" if nearest else "")


TRAIN, STUDY, DATA = train.__main__.main, train.study.__main__.main, train.data.__main__.main
QUICK = f"--study={ROOT / 'configs' / 'studies' / 'quick.py'}"
MISSPELT = {
    "a flag of train": (TRAIN, [DIGITS, "--workdri=x"], "--workdir"),
    "a field": (TRAIN, [DIGITS, "--workdir=x", "--config.epoch=3"], "--config.epochs"),
    "a field's group": (
        TRAIN,
        [DIGITS, "--workdir=x", "--config.optimiser.sync_period=3"],
        "--config.optimizer.sync_period",
    ),
    "a field without --config": (TRAIN, [DIGITS, "--workdir=x", "--batch_size=3"], "--config.batch_size"),
    "an optimizer": (TRAIN, [DIGITS, "--workdir=x", "--config.optimizer.name=adamm"], "adam"),
    "a model": (TRAIN, [DIGITS, "--workdir=x", "--config.model.name=resnet19"], "resnet18"),
    "a data set": (TRAIN, [DIGITS, "--workdir=x", "--config.dataset=cifar-10"], "cifar10"),
    "a choice": (TRAIN, [DIGITS, "--workdir=x", "--config.on_nonfinite=skipp"], "skip"),
    "a truth value": (TRAIN, [DIGITS, "--workdir=x", "--config.resume=ture"], "true"),
    "a config file": (TRAIN, ["--config=configs/digit_cnn.py", "--workdir=x"], "configs/digits_cnn.py"),
    "a flag of the study": (STUDY, [QUICK, "--out=x", "--job=2"], "--jobs"),
    "a choice of the study": (STUDY, [QUICK, "--out=x", "--until=resolve"], "resolved"),
    "a section": (STUDY, [QUICK, "--out=x", "--only=quik:digit"], "quick:digits"),
    "a scale": (STUDY, ["--study=configs/studies/report.py", "--out=x", "--scale=smok"], "smoke"),
    "a study file": (STUDY, ["--study=configs/studies/quik.py", "--out=x"], "configs/studies/quick.py"),
    "a command": (DATA, ["perpare", "cifar10"], "prepare"),
    "a set to prepare": (DATA, ["prepare", "imdb"], "imdb_reviews"),
    "a flag of data": (DATA, ["prepare", "cifar10", "--form-dir=x"], "--from-dir"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_a_misspelt_word_gets_the_nearest_in_one_line(case, capsys, monkeypatch, tmp_path):
    main, arguments, nearest = MISSPELT[case]
    monkeypatch.chdir(ROOT)
    assert main([word.replace("=x", f"={tmp_path / 'x'}") for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert f"(did you mean {nearest!r}?)" in error


def test_a_stored_config_with_a_misspelt_setting_gets_the_nearest():
    stored = to_dict(Config())
    stored["model"]["drop_out"] = 0.5
    with pytest.raises(
        ValueError, match=r"config\.model\.drop_out is not a setting \(did you mean 'model\.dropout'\?\)"
    ):
        from_dict(stored)


# The same flag in both spellings, on every command.
SPELT = {
    "train": lambda flag: train.flags.parse([DIGITS, "--workdir=x", f"{flag}=/d"])[0].data_dir,
    "train, as a field": lambda flag: train.flags.parse([DIGITS, "--workdir=x", f"--config.{flag[2:]}=/d"])[0].data_dir,
    "study": lambda flag: train.study.__main__.parse([QUICK, "--out=x", f"{flag}=/d"]).data_dir,
    "data prepare": lambda flag: train.data.__main__._parser().parse_args(["prepare", "ptb", f"{flag}=/d"]).data_dir,
    "data list": lambda flag: train.data.__main__._parser().parse_args(["list", flag, "/d"]).data_dir,
}


@pytest.mark.parametrize("flag", ["--data-dir", "--data_dir"])
@pytest.mark.parametrize("command", SPELT)
def test_dashes_and_underscores_are_the_same_flag(command, flag):
    assert SPELT[command](flag) == "/d"


def test_other_flags_have_both_spellings_too():
    for flag in ("--report-only", "--report_only"):
        assert train.study.__main__.parse([QUICK, "--out=x", flag]).report_only
    for flag in ("--allow-mismatch", "--allow_mismatch"):
        assert train.data.__main__._parser().parse_args(["prepare", "ptb", flag]).allow_mismatch
    config, _ = train.flags.parse([DIGITS, "--workdir=x", "--config.optimizer.sync-period=7"])
    assert config.optimizer.sync_period == 7
