"""`python -m train.data`: exit status, one line for an error, and what is left behind."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from train.data.__main__ import _parser, main
from train.data.storage import download, prepared
from train.data.storage.preparation import PREPARATIONS

BAD_COMMANDS = [
    [],
    ["prepare"],
    ["fetch", "cifar10"],
    ["prepare", "cifar11"],
    ["prepare", "digits"],
    ["prepare", "cifar10", "--from", "x", "--unknown"],
    ["prepare", "cifar10", "--from-dir", "{tmp}/absent"],
    ["prepare", "cifar100", "--from-dir", "{tmp}"],
    ["prepare", "ptb"],
    ["prepare", "ptb", "--from-dir", "{tmp}"],
    ["prepare", "images"],
    ["prepare", "images", "--from-dir", "{tmp}"],
    ["prepare", "imdb_reviews", "--from-dir", "{tmp}"],
]


@pytest.mark.parametrize("command", BAD_COMMANDS, ids=" ".join)
def test_a_bad_command_ends_with_2_and_one_line(command, tmp_path, capsys):
    data_dir = ["--data-dir", str(tmp_path / "data")] if command else []
    status = main([word.format(tmp=tmp_path) for word in command] + data_dir)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_line_says_how_to_use_from_dir(tmp_path, capsys, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    assert main(["prepare", "cifar10", "--data-dir", str(tmp_path / "data")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: cannot download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
    assert last.endswith(f"python -m train.data prepare cifar10 --data-dir {tmp_path}/data --from-dir DIR")
    assert os.listdir(tmp_path / "data") == []


def test_a_downloaded_archive_is_checked_unpacked_and_prepared(tmp_path, capsys, monkeypatch, published):
    import hashlib
    import tarfile

    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    folder, _ = published("cifar100")
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    content = (tmp_path / "archive.tar.gz").read_bytes()
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    assert url in tfds_cifar.Cifar100.url_infos  # that is TFDS's own entry
    info = UrlInfo(len(content), hashlib.sha256(content).hexdigest(), "cifar-100-binary.tar.gz")
    monkeypatch.setitem(tfds_cifar.Cifar100.url_infos, url, info)
    real = download.urllib.request.urlopen
    monkeypatch.setattr(
        download.urllib.request,
        "urlopen",
        lambda asked, timeout: real((tmp_path / "archive.tar.gz").as_uri()) if asked == url else pytest.fail(asked),
    )
    assert main(["prepare", "cifar100", "--data-dir", str(tmp_path / "data")]) == 0
    assert capsys.readouterr().out == f"cifar100 is ready: {tmp_path}/data/cifar100/3.0.2\n"
    assert os.listdir(tmp_path / "data") == ["cifar100"]


def test_a_set_that_is_there_is_left_alone(published, tmp_path, capsys):
    folder, _ = published("cifar10")
    command = ["prepare", "cifar10", "--data-dir", str(tmp_path / "data")]
    assert main([*command, "--from-dir", str(folder)]) == 0
    made = tmp_path / "data" / "cifar10" / "3.0.2"
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out == f"cifar10 is already prepared: {made}\n"
    assert main([*command, "--from-dir", str(tmp_path / "elsewhere")]) == 0
    said = capsys.readouterr()
    assert said.out == f"cifar10 is already prepared: {made}\n"
    assert said.err.startswith(
        f"warning: --from-dir={tmp_path}/elsewhere was not read; to prepare cifar10 from it, remove"
    )
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_a_source_that_is_not_there_is_said_so(tmp_path, capsys):
    assert main(["prepare", "cifar10", "--data-dir", str(tmp_path), "--from-dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"error: --from-dir={tmp_path}/none does not exist\n"


def test_a_folder_that_tfds_takes_for_a_pattern_is_refused(published, tmp_path, capsys):
    folder, _ = published("cifar10")
    assert main(["prepare", "cifar10", "--data-dir", str(tmp_path / "da ta [1]"), "--from-dir", str(folder)]) == 2
    assert "da ta [1] has '[' in it, and TFDS takes it for a pattern" in capsys.readouterr().err
    assert not (tmp_path / "da ta [1]").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(published, tmp_path, capsys):
    folder, _ = published("cifar10")
    (tmp_path / "data").mkdir(mode=0o500)
    assert main(["prepare", "cifar10", "--from-dir", str(folder), "--data-dir", str(tmp_path / "data")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_data_dir_that_is_a_file_is_refused(published, tmp_path, capsys):
    folder, _ = published("cifar10")
    (tmp_path / "data").touch()
    assert main(["prepare", "cifar10", "--from-dir", str(folder), "--data-dir", str(tmp_path / "data")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot write to")


def empty(folder, name):
    (folder / name).mkdir(parents=True)


def only_a_version(folder, name):
    (folder / name / "3.0.2").mkdir(parents=True)


def other_files(folder, name):
    empty(folder, name)
    (folder / name / "notes.txt").touch()


def link_to_nowhere(folder, name):
    folder.mkdir()
    (folder / name).symlink_to(folder / "nowhere")


@pytest.mark.parametrize("make", [empty, only_a_version, other_files, link_to_nowhere])
@pytest.mark.parametrize("name", ["cifar10", "ptb", "images", "imdb_reviews"])
def test_a_folder_without_the_set_is_not_a_prepared_set(make, name, tmp_path, capsys):
    from train import data
    from train.errors import UserError

    make(tmp_path / "data", name)
    said = f"{name} is not prepared in .*data; run: python -m train.data (prepare {name}.*)"
    with pytest.raises(UserError, match=said) as caught:
        data.load(name, data_dir=str(tmp_path / "data"))
    advised = _parser().parse_args(shlex.split(re.search(said, str(caught.value))[1].split(" (")[0]))
    assert advised.data_dir == str(tmp_path / "data")
    assert bool(advised.from_dir) == PREPARATIONS[name].required
    assert main(["list", f"--data-dir={tmp_path / 'data'}"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} "))
    assert "not prepared" in line
    assert main(["prepare", name, f"--data-dir={tmp_path / 'data'}", f"--from-dir={tmp_path}"]) == 2
    assert "is already prepared" not in capsys.readouterr().out


def test_a_set_is_prepared_into_its_empty_folder(published, tmp_path, capsys):
    folder, _ = published("cifar10")
    only_a_version(tmp_path / "data", "cifar10")
    assert main(["prepare", "cifar10", f"--from-dir={folder}", f"--data-dir={tmp_path / 'data'}"]) == 0
    assert "cifar10 is ready" in capsys.readouterr().out


def test_a_set_that_lost_its_records_is_not_there_already(published, tmp_path, capsys):
    folder, _ = published("cifar10")
    command = ["prepare", "cifar10", f"--from-dir={folder}", f"--data-dir={tmp_path / 'data'}"]
    assert main(command) == 0
    (tmp_path / "data/cifar10/3.0.2/cifar10-test.array_record-00000-of-00001").unlink()
    assert main(command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "3.0.2 lacks cifar10-test.array_record-00000-of-00001; remove that folder, then run: python -m" in last


def test_the_list_has_every_set_its_state_and_size(published, tmp_path, capsys, monkeypatch):
    from train.data import DATASETS

    folder, _ = published("cifar10")
    data_dir = tmp_path / "data"
    assert main(["prepare", "cifar10", f"--from-dir={folder}", f"--data-dir={data_dir}"]) == 0
    (data_dir / "ptb").mkdir()
    for split in ("train", "valid", "test"):
        (data_dir / "ptb" / f"ptb.{split}.txt").write_bytes(b"a b\n" * 125_000)
    capsys.readouterr()
    assert main(["list", f"--data_dir={data_dir}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["set", "state", "size", "where"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert list(rows) == list(DATASETS)
    assert rows["ptb"].split()[1:] == ["prepared", "1.5", "MB", str(data_dir / "ptb")]
    size = sum(path.stat().st_size for path in (data_dir / "cifar10").rglob("*") if path.is_file()) / 1e6
    assert rows["cifar10"].split()[1:] == ["prepared", f"{size:.1f}", "MB", str(data_dir / "cifar10")]
    assert rows["cifar100"].endswith(f"python -m train.data prepare cifar100 --data-dir {data_dir}")
    assert rows["images"].endswith("--from-dir DIR")
    assert "your folder" in rows["text"]
    assert "your folder" in rows["imagefolder"]
    assert "built in" in rows["digits"]
    assert "built in" in rows["pydoc"]


@pytest.mark.parametrize("command", [["--help"], ["prepare", "--help"]])
def test_help_names_every_set_and_what_from_dir_takes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for words in (
        "cifar10 ",
        "cifar-10-batches-py",
        "cifar100 ",
        "ptb.test.txt",
        "images ",
        "aclImdb",
        "imdb_reviews",
        "digits and pydoc",
        "imagefolder and text",
    ):
        assert words in said


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(signum, tmp_path):
    """While many images are being checked and stored, which takes seconds."""
    from PIL import Image

    for split in ("train", "valid"):
        for name in ("a", "b"):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            Image.effect_noise((1500, 1500), 50).save(tmp_path / "tree" / split / name / "0.png")
            for i in range(1, 40):
                (tmp_path / "tree" / split / name / f"{i}.png").hardlink_to(tmp_path / "tree" / split / name / "0.png")
    command = [sys.executable, "-m", "train.data", "prepare", "images"]
    command += ["--from-dir", str(tmp_path / "tree"), "--data-dir", str(tmp_path / "data")]
    # An interrupt in the middle of an import leaves a file to the garbage collector, which would warn of it.
    environment = os.environ | {"PYTHONWARNINGS": "ignore::ResourceWarning"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "data").glob(".incomplete-images-*/images/incomplete*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)  # past the imports of image plugins, in which Python reports an interrupt on its own
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; nothing was left behind"
    assert "Traceback" not in err
    assert os.listdir(tmp_path / "data") == []


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002])
def test_a_prepared_set_is_for_whom_the_umask_says(umask, tmp_path):
    before = os.umask(umask)
    try:
        with prepared.temporary_folder(tmp_path / "data", "ours") as temporary:
            (temporary / "1.0.0").mkdir(mode=0o700)  # as TFDS makes it
            prepared.move_into_place(temporary / "1.0.0", tmp_path / "data" / "ours" / "1.0.0")
    finally:
        os.umask(before)
    for folder in (tmp_path / "data", tmp_path / "data" / "ours", tmp_path / "data" / "ours" / "1.0.0"):
        assert folder.stat().st_mode & 0o777 == 0o777 & ~umask, folder
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ours"]
