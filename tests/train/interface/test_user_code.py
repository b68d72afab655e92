"""Config and study files, and packages of users, that raise, exit or return nothing: one line with the place."""

import os
import sys

import pytest

import train.__main__
import train.study.__main__
from train.errors import UserError
from train.interface.user_code import load_module
from train.registry import DATASETS, MODELS, OPTIMIZERS, Entry, Registry

# A file's content ({get} is its function): what the line says.
FAULTS = {
    "raises": ("x = 1\nx / 0\n", "line 2: ZeroDivisionError: division by zero"),
    "raises in its function": ("def {get}():\n    raise KeyError('rate')\n", "line 2: KeyError: 'rate'"),
    "raises without words": ("assert 1 == 2\n", "line 1: AssertionError"),
    "exits": ("import sys\nsys.exit(3)\n", "line 2: it ends the process (exit 3)"),
    "exits in its function": ("def {get}():\n    raise SystemExit\n", "line 2: it ends the process (exit 0)"),
    "calls itself": ("def {get}():\n    return {get}()\n", "line 2: RecursionError"),
    "reads a file that is not there": ("open('/nowhere/x')\n", "line 1: FileNotFoundError: No such file"),
    "imports what is not there": ("import no_such_module\n", "line 1: No module named 'no_such_module'"),
    "is no Python": ("def {get}(:\n", "line 1: invalid syntax"),
    "has NUL characters": ("x = 1\0\n", "null bytes"),
    "is not text": (b"\xff\xfe\x00", "cannot be read"),
    "is indented wrongly": ("def {get}():\n  x = 1\n    y = 2\n", "line 3: unexpected indent"),
    "has no function": ("x = 1\n", "has no {get}()"),
    "has something else of that name": ("{get} = 3\n", "has no {get}()"),
    "returns nothing": ("def {get}():\n    pass\n", "{get}()"),
    "returns a dictionary": ("def {get}():\n    return dict(epochs=3)\n", "{get}()"),
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("get", ["get_config", "get_study"])
def test_a_fault_in_a_users_file_is_one_line_with_its_place(get, case, tmp_path, capsys):
    content, message = FAULTS[case]
    path = tmp_path / "mine.py"
    path.write_bytes(content if isinstance(content, bytes) else content.replace("{get}", get).encode())
    if get == "get_config":
        status = train.__main__.main([f"--config={path}", f"--workdir={tmp_path / 'run'}"])
    else:
        status = train.study.__main__.main([f"--study={path}", f"--out={tmp_path / 'out'}"])
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith(f"error: --{get.removeprefix('get_')}={path}")
    assert error.count("\n") == 1, error
    assert message.replace("{get}", get) in error
    assert not {"run", "out"} & set(os.listdir(tmp_path))


def test_a_neighbour_may_be_imported_in_a_function(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "neighbour_of_a_config.py").write_text("rate = 0.5\n")
    (tmp_path / "mine.py").write_text("def rate():\n    import neighbour_of_a_config as n\n    return n.rate\n")
    assert load_module(tmp_path / "mine.py", "--config").rate() == 0.5
    assert sys.path[-1] == str(tmp_path)  # behind everything else


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(2)\n", "ends the process"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("def other(): pass\n", "has no attribute 'mine'"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_line(content, message, tmp_path, monkeypatch):
    (tmp_path / "faulty_package.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "faulty_package", raising=False)
    for registry in (OPTIMIZERS, MODELS, DATASETS):
        with pytest.raises(UserError, match="'faulty_package:mine' cannot be imported: .*" + message) as caught:
            registry["faulty_package:mine"]
        assert "\n" not in str(caught.value)


def test_a_data_set_that_returns_nothing_is_refused(monkeypatch):
    from train import data

    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    DATASETS.add(Entry("forgot", lambda batch_size: None))
    with pytest.raises(UserError, match=r"dataset 'forgot' returned NoneType; expected a train\.data\.Dataset"):
        data.load("forgot")


@pytest.mark.parametrize("name", ["", " ", "lion ", " lion", "li  on", "li\non", "li\ton", "a:b", "\udcff", 3])
def test_a_name_that_looks_like_another_is_refused(name):
    with pytest.raises(UserError, match=r"optimizer name .* must be printable"):
        Registry("optimizer").add(Entry(name, print))
