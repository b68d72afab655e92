"""Building onednn.cc: once, in the user's cache, and one reason where that is impossible."""

import concurrent.futures

import pytest

from train.models.cpu import native, onednn

LIBRARY = onednn._library()  # a process registers one library only
installed = pytest.mark.skipif(LIBRARY is None, reason="oneDNN or a compiler is missing (extra onednn)")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lookahead_jax" / "onednn"


def compiler(path, body):
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


@installed
def test_two_that_start_at_once_build_one_library(tmp_path, cache, monkeypatch):
    body = f'echo built >> {tmp_path}/log; sleep 0.5; cp {LIBRARY._name} "${{@: -1}}"'
    monkeypatch.setenv("CXX", compiler(tmp_path / "slow", body))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        libraries = [task.result()._name for task in [pool.submit(native.load) for _ in range(2)]]
    assert libraries[0] == libraries[1]
    assert (tmp_path / "log").read_text() == "built\n"
    assert {path.suffix for path in cache.iterdir()} == {"", ".so"}  # the lock and the library
    assert cache.stat().st_mode & 0o077 == 0


@installed
@pytest.mark.parametrize(
    ("body", "reason"),
    [("echo 'x.cc:1: error: no such thing' >&2; exit 1", "error: no such thing"), ("true", "No such file")],
    ids=["fails", "makes nothing"],
)
def test_a_failing_compiler_is_a_reason_and_leaves_nothing(tmp_path, cache, monkeypatch, body, reason):
    monkeypatch.setenv("CXX", compiler(tmp_path / "bad", f"cd {tmp_path}; {body}"))
    with pytest.raises(native.Unavailable, match=reason):
        native.load()
    assert [path.name for path in cache.iterdir()] == [".lock"]


@installed
def test_no_compiler_is_a_reason(cache, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(native.Unavailable, match="no C\\+\\+ compiler is found \\(/nowhere/g\\+\\+\\)"):
        native.load()


@installed
def test_a_library_that_another_user_could_have_written_is_not_loaded(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(native.Unavailable, match="cache folder"):
        native.load()


def test_what_is_not_installed_is_named():
    with pytest.raises(native.NotInstalled, match="no-such-distribution is not installed"):
        native._installed("no-such-distribution", "libdnnl.so.3")
