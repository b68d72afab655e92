"""Downloads are checked, and archives are unpacked without trusting them."""

import hashlib
import http.client
import io
import tarfile

import numpy as np
import pytest

from train.data.storage import download
from train.errors import UserError


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content.decode()
                tar.addfile(info)
    return path


GOOD = ("folder/file.bin", tarfile.REGTYPE, b"content")


def test_files_and_folders_are_unpacked(tmp_path):
    path = archive(tmp_path / "a.tar.gz", ("folder", tarfile.DIRTYPE, b""), GOOD)
    download.extract(path, tmp_path / "out")
    assert (tmp_path / "out/folder/file.bin").read_bytes() == b"content"


@pytest.mark.parametrize(
    "member",
    [
        ("../outside", tarfile.REGTYPE, b"x"),
        ("folder/../../outside", tarfile.REGTYPE, b"x"),
        ("/tmp/lookahead-outside", tarfile.REGTYPE, b"x"),
        ("link", tarfile.SYMTYPE, b"/etc/passwd"),
        ("link", tarfile.SYMTYPE, b"folder"),
        ("link", tarfile.LNKTYPE, b"../../outside"),
        ("pipe", tarfile.FIFOTYPE, b""),
        ("device", tarfile.CHRTYPE, b""),
    ],
    ids=lambda member: f"{member[0]}-{member[1].decode()}",
)
def test_a_member_outside_the_folder_or_no_plain_file_is_refused_and_nothing_unpacked(member, tmp_path):
    path = archive(tmp_path / "a.tar.gz", GOOD, member)
    with pytest.raises(UserError, match=member[0]):
        download.extract(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("error", [http.client.BadStatusLine("HELLO"), http.client.IncompleteRead(b"abc")])
def test_what_does_not_speak_http_is_an_address_that_cannot_be_reached(error, tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise error

    monkeypatch.setattr(download.urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match=r"cannot download http://a/b \(.*\); use --from-dir"):
        download.fetch(
            "http://a/b", tmp_path / "file", size=3, sha256="0", report=lambda line: None, advice="use --from-dir"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no archive at all", None])
def test_what_is_no_whole_archive_is_refused(content, tmp_path):
    path = tmp_path / "a.tar.gz"
    if content is None:
        archive(path, ("file", tarfile.REGTYPE, bytes(range(256)) * 400))
        content = path.read_bytes()[:-40]
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        download.extract(path, tmp_path / "out")


@pytest.mark.parametrize("bit", range(400, 20_000, 1_777))
def test_one_flipped_bit_in_an_archive_is_noticed(bit, tmp_path):
    # Incompressible, so that most bits are content: tarfile alone would unpack it, altered.
    random = np.random.default_rng(0)
    members = [(f"file{i}", tarfile.REGTYPE, random.bytes(500)) for i in range(6)]
    path = archive(tmp_path / "a.tar.gz", *members)
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        download.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def fetch(source, target, **changed):
    content = source.read_bytes()
    options = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | changed
    return download.fetch(source.as_uri(), target, **options, report=lambda line: None, advice="use --from-dir DIR")


def test_the_registered_file_is_fetched(tmp_path):
    (tmp_path / "source").write_bytes(b"abc" * 1000)
    assert fetch(tmp_path / "source", tmp_path / "target").read_bytes() == b"abc" * 1000


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"size": 2999}, {"size": 3001}])
def test_another_file_is_refused_and_removed(changed, tmp_path):
    (tmp_path / "source").write_bytes(b"abc" * 1000)
    with pytest.raises(UserError, match="is not the registered file"):
        fetch(tmp_path / "source", tmp_path / "target", **changed)
    assert not (tmp_path / "target").exists()


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"cannot download http://127\.0\.0\.1:9/ .*use --from-dir DIR"):
        download.fetch(
            "http://127.0.0.1:9/",
            tmp_path / "target",
            size=1,
            sha256="",
            report=lambda line: None,
            advice="use --from-dir DIR",
        )
    assert not (tmp_path / "target").exists()
