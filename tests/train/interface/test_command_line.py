"""python -m train: what is typed, what is refused in one line, and what stays untouched."""

import subprocess
import sys
from pathlib import Path

import pytest

from train.__main__ import main
from train.errors import UserError
from train.flags import parse

ROOT = Path(__file__).resolve().parents[3]
DIGITS = f"--config={ROOT / 'configs' / 'digits_cnn.py'}"


def test_overrides_are_typed(tmp_path):
    config, workdir = parse(
        [
            DIGITS,
            f"--workdir={tmp_path}",
            "--config.optimizer.sync_period=10",
            "--config.optimizer.lookahead=false",
            "--config.optimizer.learning_rate=1",
            "--config.optimizer.decay_epochs=30,48",
        ]
    )
    assert config.optimizer.sync_period == 10
    assert config.optimizer.lookahead is False
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.optimizer.decay_epochs == (30, 48)
    assert workdir == tmp_path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_file_is_valid_and_says_how_to_run_it(path):
    config, _ = parse([f"--config={path}", "--workdir=anywhere"])
    assert f"--config=configs/{path.name}" in path.read_text()
    assert config.epochs > 0


BAD = {
    "an unknown field": (["--config.learning_rat=0.1"], "learning_rat"),
    "an unknown nested field": (["--config.optimizer.lr=0.1"], "lr"),
    "a word for a number": (["--config.epochs=many"], "config.epochs"),
    "a fraction for a whole number": (["--config.epochs=2.5"], "config.epochs"),
    "a word for a bool": (["--config.optimizer.lookahead=perhaps"], "config.optimizer.lookahead"),
    "words for a tuple": (["--config.optimizer.decay_epochs=a,b"], "config.optimizer.decay_epochs"),
    "no value": (["--config.epochs"], "config.epochs"),
    "a batch of nothing": (["--config.batch_size=0"], "config.batch_size=0 must be at least 1"),
    "a batch larger than the set": (["--config.batch_size=5000"], "larger than the"),
    "more examples than there are": (["--config.train_examples=99999"], "train_examples=99999"),
    "an unknown optimizer": (["--config.optimizer.name=adadelta"], "choose one of sgd, adam, radam"),
    "an unknown model": (["--config.model.name=vit"], "config.model.name='vit' is not known; choose one of resnet18"),
    "an unknown data set": (["--config.dataset=mnist"], "config.dataset='mnist' is not known; choose one of digits"),
    "an unknown flag": (["--epochs=3"], "epochs"),
    "a stray word": (["resume"], "'resume' is not a flag"),
    "a period of zero": (["--config.optimizer.sync_period=0"], "config.optimizer.sync_period=0 must be at least 1"),
    "an alpha above one": (["--config.optimizer.slow_step_size=1.5"], "config.optimizer.slow_step_size=1.5"),
    "too many devices": (["--config.devices=64"], "config.devices=64"),
    "missing data": (
        ["--config.dataset=cifar10", "--config.data_dir=/nonexistent", "--config.model.name=resnet18"],
        "python -m train.data prepare cifar10",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, tmp_path, capsys):
    flags, message = BAD[case]
    workdir = tmp_path / "run"
    assert main([DIGITS, f"--workdir={workdir}", *flags]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1, stderr
    assert message in stderr
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config():\n    return 3\n", "must return a train.config.Config"),
        ("x = 1\n", "get_config"),
        ("def get_config(:\n", "syntax"),
        ("import no_such_module\n", "no_such_module"),
    ],
)
def test_a_broken_config_file_is_one_line(content, message, tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text(content)
    assert main([f"--config={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1, stderr
    assert message in stderr


@pytest.mark.parametrize(("flags", "message"), [([], "--config=FILE"), ([DIGITS], "--workdir=DIR")])
def test_a_missing_flag_says_what_it_looks_like(flags, message):
    with pytest.raises(UserError, match=message):
        parse(flags)


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.py"):
        parse(["--config=nowhere.py", f"--workdir={tmp_path}"])


def test_a_workdir_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    assert main([DIGITS, f"--workdir={tmp_path / 'file'}"]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_typo_has_no_traceback_in_a_real_process(tmp_path):
    command = [sys.executable, "-m", "train", DIGITS, f"--workdir={tmp_path}", "--config.epoch=3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_field_and_what_it_may_be():
    done = subprocess.run([sys.executable, "-m", "train", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "--config.optimizer.sync_period=5\n      at least 1; of Lookahead: k\n" in done.stdout
    assert "--config.parallel='pmap'\n      one of pmap, jit; " in done.stdout


def test_without_arguments_three_examples_that_parse_are_shown_with_status_2(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) < 12
    examples = [line.split()[3:] for line in err.splitlines() if line.startswith("  python -m train ")]
    assert len(examples) == 3
    for example in examples:
        parse(example)
    assert "python -m train --help" in err
    assert "python -m train.data list" in err


@pytest.mark.parametrize("name", ["nowhere.py", "configs/digits_cn.py", "configs", "", "~/nowhere.py"])
def test_a_config_file_that_is_none_is_one_plain_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main([f"--config={name}", f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --config")
    assert error.count("\n") == 1
    assert any(words in error for words in ("does not exist", "is not a file", "has no value"))
    for absl in ("Errno", "Traceback", "FlagValues", "Fail"):
        assert absl not in error


def test_help_counts_a_language_models_examples_in_segments(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    for field in ("train_examples", "test_examples"):
        assert (
            f"--config.{field}=0\n      at least 0; 0: all; language models: segments of sequence_length tokens\n"
            in said
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--config=digits_cnn", "does not exist (did you mean 'configs/digits_cnn.py'?)"),
        ("--config=configs/digits_cnn.py --config.optimizer.k=3", "(did you mean '--config.optimizer.sync_period'?)"),
        (
            "--config=configs/digits_cnn.py --config.optimizer.alpha=1",
            "did you mean '--config.optimizer.slow_step_size'",
        ),
        (
            "--config=configs/digits_cnn.py --register=x.py",
            "has no --register: the file given as --config may register",
        ),
        ("--config=configs/digits_cnn.py --config.optimizer.options.b2=1", "this optimizer has no options"),
        (
            "--config=configs/digits_cnn.py --config.optimizer.name=lionn --config.optimizer.options.b2=1",
            "config.optimizer.name='lionn' is not known",
        ),
        ("--config=configs/digits_cnn.py --config.optimizer.K=3", "(did you mean '--config.optimizer.sync_period'?)"),
        (
            "--config=configs/digits_cnn.py --config.optimizer.name=lion --config.optimizer.options.beta=1",
            "there is no flag --config.optimizer.options.beta: this optimizer has the options b1, b2",
        ),
    ],
)
def test_what_newcomers_try_is_answered(flags, message):
    with pytest.raises(UserError) as error:
        parse([*flags.split(), "--workdir=x"])
    assert message in str(error.value)


def test_one_dash_is_as_good_as_two(tmp_path):
    words = "-config=configs/digits_cnn.py -workdir=x -config.optimizer.name=adamw -config.optimizer.options.b1=.8"
    config, _ = parse(words.split())
    assert (config.optimizer.name, config.optimizer.options.b1) == ("adamw", 0.8)


def test_help_needs_no_jax():
    code = "import sys, train.__main__ as m; m.main(['--config=configs/digits_cnn.py']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0
