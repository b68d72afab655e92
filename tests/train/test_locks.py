"""One process at a time in a directory, and what happens where there are no locks."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from train.errors import InUse, UserError
from train.locks import exclusive, in_use

HOLD = """
import pathlib, sys, time
from train.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "it"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InUse, match="workdir w is in use by another process"), exclusive(tmp_path, "workdir w"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with exclusive(tmp_path, "workdir w"):
        assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def test_a_file_system_without_locks_is_a_warning(name, tmp_path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path, "workdir w"):
        ran = True
    assert ran
    assert f"workdir w cannot be locked ({os.strerror(getattr(errno, name))})" in caplog.text


@pytest.mark.parametrize("name", ["EWOULDBLOCK", "EACCES"])
def test_a_lock_that_another_has_is_no_missing_lock(name, tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InUse), exclusive(tmp_path, "workdir w", by="study"):
        raise AssertionError("not reached")


def test_a_file_where_the_directory_should_be_is_refused(tmp_path):
    (tmp_path / "w").write_text("")
    with (
        pytest.raises(UserError, match="workdir w cannot be used: File exists"),
        exclusive(tmp_path / "w", "workdir w"),
    ):
        pass


SOFT = [
    ("one that has died", {"host": socket.gethostname(), "pid": 2**22 + 1}, True),
    ("one that lives", {"host": socket.gethostname(), "pid": os.getpid()}, False),
    ("one on another host", {"host": "elsewhere", "pid": 2**22 + 1}, False),
    ("one that was killed while it wrote", None, False),
]


@pytest.mark.parametrize(("case", "owner", "free"), SOFT, ids=[case[0] for case in SOFT])
def test_without_locks_a_file_names_the_owner(case, owner, free, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    path = tmp_path / ".lock.owner"
    path.write_text(json.dumps(owner) if owner else "")
    if free:
        with exclusive(tmp_path, "it"):
            assert json.loads(path.read_text())["pid"] == os.getpid()
            with pytest.raises(InUse), exclusive(tmp_path, "it"):
                pass
        assert not path.exists()
    else:
        with pytest.raises(InUse, match=r"if it is gone, delete .*\.lock\.owner"), exclusive(tmp_path, "it"):
            pass
        assert path.exists()


def test_a_directory_in_which_nothing_was_written_is_as_it_was(tmp_path):
    with exclusive(tmp_path / "a" / "b", "it"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "a" / "b", "it"):
        (tmp_path / "a" / "b" / "file").write_text("")
    assert (tmp_path / "a" / "b" / "file").exists()


def test_whether_a_directory_is_in_use(tmp_path):
    assert not in_use(tmp_path / "none")
    with exclusive(tmp_path, "it"):
        (tmp_path / "file").touch()  # so that the lock stays
        assert in_use(tmp_path)
    assert not in_use(tmp_path)
    owner = tmp_path / ".lock.owner"
    for text, expected in (("", True), ("[1]", True), ("5", True)):  # as it is while it is written, or damaged
        owner.write_text(text)
        assert in_use(tmp_path) == expected
    for pid, expected in ((os.getpid(), True), (2**22 + 1, False), (2**40, False)):
        owner.write_text(json.dumps({"host": socket.gethostname(), "pid": pid}))
        assert in_use(tmp_path) == expected


def test_a_lock_that_is_held_for_an_instant_is_waited_for(tmp_path, monkeypatch):
    lock, refusals = fcntl.flock, [OSError(errno.EWOULDBLOCK, "taken")] * 2

    def flock(file, how):
        if refusals:
            raise refusals.pop()
        lock(file, how)

    monkeypatch.setattr("train.locks.fcntl.flock", flock)
    with exclusive(tmp_path, "it"):
        assert refusals == []
