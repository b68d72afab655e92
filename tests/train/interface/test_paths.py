"""Paths as users give them: expanded everywhere, and what cannot be used is one line before anything runs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import train.__main__
import train.data.__main__
import train.flags
import train.study.__main__
from train import data
from train.config import Config
from train.data.storage import prepared
from train.errors import UserError
from train.interface.paths import entries, read_bytes, user_path
from train.run.workdir import open_workdir
from train.step.runtime import enable_compilation_cache

ROOT = Path(__file__).resolve().parents[3]
DIGITS = f"--config={ROOT / 'configs' / 'digits_cnn.py'}"
STUDY = f"--study={ROOT / 'configs' / 'studies' / 'quick.py'}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text((ROOT / "configs" / "digits_cnn.py").read_text())
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("a b c\n" * 200)
    return tmp_path


def opened(workdir):
    """The workdir that `train(config, workdir)` opens."""
    with open_workdir(workdir, Config(dataset="digits")) as directory:
        return directory.path


# What is found where `~` is given, by flag.
EXPANDED = {
    "train.run.loop.train": lambda: opened("~/run"),
    "train --workdir": lambda: train.flags.parse([DIGITS, "--workdir=~/run"])[1],
    "train --workdir as two words": lambda: train.flags.parse([DIGITS, "--workdir", "~/run"])[1],
    "train --config": lambda: train.flags.parse(["--config=~/mine.py", "--workdir=~/run"])[1],
    "study --out": lambda: train.study.__main__.parse([STUDY, "--out=~/run"]).out,
    "study --study": lambda: train.study.__main__.parse(["--study=~/run", "--out=x"]).study,
    "study --data_dir": lambda: Path(train.study.__main__.parse([STUDY, "--out=x", "--data_dir=~/run"]).data_dir),
    "data --from-dir": lambda: Path(
        train.data.__main__._parser().parse_args(["prepare", "ptb", "--from-dir=~/run"]).from_dir
    ),
    "data --data-dir": lambda: Path(train.data.__main__._parser().parse_args(["list", "--data-dir=~/run"]).data_dir),
    "prepared data": lambda: prepared.resolve_data_dir("~/run"),
}


@pytest.mark.parametrize("where", EXPANDED)
def test_a_tilde_is_the_home_folder(where, home):
    assert EXPANDED[where]() == home / "run"


def test_a_tilde_in_data_dir_reaches_every_loader(home):
    assert len(data.load("text", data_dir="~", batch_size=2, sequence_length=4).train)
    with pytest.raises(UserError, match=str(home / "data")):
        data.load("imagefolder", data_dir="~/data")
    with pytest.raises(UserError, match=f"cifar10 is not prepared in {home / 'data'}"):
        data.load("cifar10", data_dir="~/data")


def test_the_tilde_of_another_user_is_theirs():
    assert user_path("~root/x", "--out") == Path(os.path.expanduser("~root")) / "x"


def test_a_folder_that_is_called_tilde_can_be_named():
    assert user_path("./~", "--out") == Path("~")


BAD = {
    "no such user": ("~nosuchuser/x", "home folder of a user 'nosuchuser' is not known"),
    "a line feed": ("two\nlines", "control characters"),
    "an escape": ("\x1b[31mred", "control characters"),
    "not UTF-8": (os.fsdecode(b"caf\xe9"), "not UTF-8"),
    "a long name": ("x" * 300, "File name too long"),
    "a long path": ("x/" * 2500, "is longer than"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize(
    ("main", "command"),
    [
        (train.__main__.main, (DIGITS, "--workdir={}")),
        (train.__main__.main, ("--config={}", "--workdir=x")),
        (train.study.__main__.main, (STUDY, "--out={}")),
        (train.study.__main__.main, ("--study={}", "--out=x")),
        (train.data.__main__.main, ("prepare", "ptb", "--from-dir={}")),
        (train.data.__main__.main, ("list", "--data_dir={}")),
    ],
    ids=["workdir", "config", "out", "study", "from-dir", "data_dir"],
)
def test_a_path_that_cannot_be_used_is_one_line(main, command, case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given, message = BAD[case]
    assert main([word.format(given) for word in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match=r"--out=.*Too many levels of symbolic links"):
        user_path(tmp_path / "a" / "x", "--out")


@pytest.mark.slow
def test_a_user_without_home_and_passwd_entry_trains(tmp_path):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user's process needs root and setpriv (util-linux)")
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is for its owner alone
        os.chown(folder, 54321, 54321)
        # It may read everything, since Python itself often lies in a folder of root's.
        user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
        user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        small = ["--config.epochs=1", "--config.train_examples=64", "--config.test_examples=64"]
        command = [*user, sys.executable, "-m", "train", DIGITS, f"--workdir={folder}/run", *small]
        environment = {n: v for n, v in os.environ.items() if n not in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert json.loads(Path(folder, "run", "run.json").read_text())["status"] == "finished"
        assert Path(folder, "run", "curves.png").stat().st_uid == 54321


@pytest.mark.usefixtures("nobody_home")
class TestWithoutAHome:
    """No HOME and no passwd entry, as with `docker run --user 12345`."""

    @pytest.mark.parametrize("flag", ["--workdir=~/x", "--config=~/x"])
    def test_a_tilde_is_refused_in_one_line(self, flag, capsys):
        assert train.__main__.main([DIGITS, "--workdir=x", flag]) == 2
        assert f"{flag}: the home folder of user" in capsys.readouterr().err

    def test_a_tilde_in_data_dir_is_refused(self):
        with pytest.raises(UserError, match=r"data_dir=~: the home folder of user .* is not known"):
            data.load("text", data_dir="~")

    def test_data_needs_a_data_dir(self, monkeypatch, capsys):
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
        assert train.data.__main__.main(["prepare", "cifar10"]) == 2
        assert "no home folder to look for data in" in capsys.readouterr().err

    def test_nothing_is_compiled_into_a_cache(self, monkeypatch):
        for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        enable_compilation_cache()


def write(path, content="", mode=0o000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def closed(path):
    path.mkdir(parents=True)
    path.chmod(0o000)
    return path


def text_with(folder, **modes):
    for name, mode in modes.items():
        write(folder / f"{name}.txt", "a b c\n" * 99, mode)
    return ["--config.dataset=text", "--config.model.name=gru", f"--data_dir={folder}", "--config.batch_size=2"]


# What an ordinary user may not read: the arguments, made in a folder, and words of the line.
UNREADABLE = {
    "a config file": (lambda d: [f"--config={write(d / 'c.py')}"], ("c.py", "Permission denied")),
    "a folder above the config file": (
        lambda d: [f"--config={closed(d / 'in') / 'c.py'}"],
        ("in/c.py", "Permission denied"),
    ),
    "a training text": (lambda d: text_with(d, train=0, valid=0o600), ("train.txt", "Permission denied")),
    "a validation text": (lambda d: text_with(d, train=0o600, valid=0), ("valid.txt", "Permission denied")),
    "the folder of a text": (
        lambda d: ["--config.dataset=text", "--config.model.name=gru", f"--data_dir={closed(d / 'in')}"],
        ("in", "Permission denied"),
    ),
    "a folder of images": (
        lambda d: ["--config.dataset=imagefolder", f"--data_dir={closed(d / 'in')}"],
        ("in", "Permission denied"),
    ),
    "prepared data": (
        lambda d: ["--config.dataset=cifar10", f"--data_dir={closed(d / 'cifar10').parent}"],
        ("cifar10", "Permission denied"),
    ),
    "a folder above the workdir": (
        lambda d: [f"--workdir={closed(d / 'in') / 'run'}"],
        ("in/run", "Permission denied"),
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_an_ordinary_user_may_not_read_is_one_line(case, ordinary_user, capsys):
    make, words = UNREADABLE[case]
    given = make(ordinary_user)
    assert train.__main__.main([DIGITS, f"--workdir={ordinary_user / 'run'}", *given]) == 2
    error = capsys.readouterr().err
    for path in ordinary_user.rglob("*"):
        path.chmod(0o700)
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


def test_a_study_file_and_a_from_dir_that_may_not_be_read_are_one_line(ordinary_user, capsys):
    study = write(ordinary_user / "s.py")
    assert train.study.__main__.main([f"--study={study}", f"--out={ordinary_user / 'out'}"]) == 2
    assert "s.py cannot be read: PermissionError: Permission denied" in capsys.readouterr().err
    source = write(ordinary_user / "ptb" / "ptb.train.txt").parent
    assert train.data.__main__.main(["prepare", "ptb", f"--from-dir={source}", f"--data-dir={ordinary_user}/d"]) == 2
    assert "ptb.train.txt cannot be read: Permission denied" in capsys.readouterr().err.splitlines()[-1]


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path)
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(tmp_path / "file") == b"content"


def test_entries_are_sorted_without_hidden_files(tmp_path):
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).touch()
    assert entries(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UserError, match="a cannot be read as a folder: Not a directory"):
        entries(tmp_path / "a")
