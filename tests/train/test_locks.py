"""One process at a time in a directory, and what happens where there are no locks."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from train.errors import InUse, UserError
from train.locks import exclusive

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
        pytest.raises(UserError, match="it cannot be used: File exists"),
        exclusive(tmp_path / "w", "it"),
    ):
        pass
