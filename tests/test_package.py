"""What is shipped: the wheel has the library alone, the source distribution the whole repository."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tracked():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing to compare the distribution with")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The paths in a wheel and in a source distribution that were built from a copy of the tracked files."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for kind in ("sdist", "wheel"):
        build = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
        subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel, tarfile.open(next(out.glob("*.tar.gz"))) as source:
        return wheel.namelist(), [name.partition("/")[2] for name in source.getnames()]


def test_the_wheel_has_the_library_alone(distributions):
    wheel, _ = distributions
    library = [name for name in tracked() if name.startswith("lookahead_jax/")]
    assert sorted(name for name in wheel if ".dist-info/" not in name) == sorted(library)
    assert "lookahead_jax/py.typed" in wheel


def test_the_source_distribution_has_every_tracked_file(distributions):
    _, source = distributions
    assert sorted(set(tracked()) - set(source) - {".gitignore"}) == []
