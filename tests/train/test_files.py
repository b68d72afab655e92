"""Files that other programs may have touched: what is read, and what is refused in words."""

import errno
import os

import pytest

from train.files import read_json, read_text, write_together

# Bytes: what reading them says.
REFUSED = {
    "a list": (b"[]", "it holds a JSON list, not an object"),
    "null": (b"null", "it holds a JSON null, not an object"),
    "a number": (b"3.5", "it holds a JSON float, not an object"),
    "cut off": (b'{"a": ', "Expecting value"),
    "empty": (b"", "Expecting value"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "codec can't decode"),
    "an unfinished merge": (b'{\n<<<<<<< HEAD\n"a": 1\n=======\n', "line 2 is a conflict marker of a merge"),
    "the end of a merge": (b'{"a": 1}\n>>>>>>> theirs\n', "line 2 is a conflict marker of a merge"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_json_object_is_refused_in_words(case, tmp_path):
    content, message = REFUSED[case]
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_passed_over(mark, tmp_path):
    (tmp_path / "x.json").write_bytes(mark + '{"a": "é <<<<<<< "}'.encode())
    assert read_json(tmp_path / "x.json") == {"a": "é <<<<<<< "}
    assert read_text(tmp_path / "x.json").startswith("{")


def test_files_that_belong_together_are_as_they_were_if_one_cannot_be_written(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).write_text("old")
    with pytest.raises(FileNotFoundError):
        write_together({tmp_path / "a": b"new", tmp_path / "none" / "b": b"new"})
    assert [(tmp_path / name).read_text() for name in "ab"] == ["old", "old"]
    write_together({tmp_path / "a": b"new a", tmp_path / "b": b"new b"})
    assert [(tmp_path / name).read_text() for name in "ab"] == ["new a", "new b"]

    replace = os.replace

    def not_the_second(source, target):
        if target == tmp_path / "b":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("os.replace", not_the_second)
    with pytest.raises(OSError, match="Input/output"):
        write_together({tmp_path / "a": b"newer", tmp_path / "b": b"newer"})
    assert [(tmp_path / name).read_text() for name in "ab"] == ["newer", "new b"]  # each whole, the first first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
