"""Where the real data sets are, and made-up ones in the publishers' form."""

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "cifar10": "cifar-10-batches-bin",
    "cifar100": "cifar-100-binary",
    "ptb": "ptb",
    "images20": "images20",
}


@pytest.fixture(scope="session")
def real_data():
    """A function from a set's name to the folder with its publisher's files; skips where it is not there.

    LOOKAHEAD_DATA is a folder that holds them unpacked; without it they are unpacked by ../shared/data's own
    script into a folder of the system's temporary one, and stay there for the next time.
    """

    def folder(name: str) -> Path:
        if "LOOKAHEAD_DATA" in os.environ:
            found = Path(os.environ["LOOKAHEAD_DATA"]) / FOLDERS[name]
            if not found.is_dir():
                pytest.skip(f"LOOKAHEAD_DATA has no {FOLDERS[name]}")
            return found
        packed = ROOT.parent / "shared" / "data"
        if not (packed / "unpack.py").is_file():
            pytest.skip("no real data: set LOOKAHEAD_DATA to the folder that holds it unpacked")
        if name.startswith("cifar") and importlib.util.find_spec("imagecodecs") is None:
            pytest.skip("unpacking CIFAR needs imagecodecs (pip install imagecodecs), or set LOOKAHEAD_DATA")
        cache = cache_folder()
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes share the folder
            subprocess.run([sys.executable, packed / "unpack.py", cache, name], check=True)
        return cache / FOLDERS[name]

    return folder


def cache_folder() -> Path:
    """A folder of ours in the system's temporary one."""
    cache = Path(tempfile.gettempdir()) / f"lookahead-data-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        pytest.skip(f"{cache} belongs to another user")
    return cache


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that writes made-up CIFAR files of 40 records each and makes their MD5s the expected ones.

    Returns the folder and, by split, the labels and images as they should be read.
    """
    import dataclasses

    from train.data import cifar

    def write(name: str):
        spec = cifar._PUBLISHED[name]
        folder = tmp_path / "published" / spec.folder
        folder.mkdir(parents=True)
        rng = np.random.default_rng(7)
        truth, md5s = {}, {}
        for split, files in spec.files.items():
            parts = []
            for file in files:
                images = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
                labels = np.stack([rng.integers(0, n, 40).astype(np.uint8) for _, n in spec.labels], 1)
                # The publisher's order: label bytes, then red, green and blue planes.
                data = b"".join(
                    bytes(label) + image[..., 0].tobytes() + image[..., 1].tobytes() + image[..., 2].tobytes()
                    for label, image in zip(labels, images, strict=True)
                )
                (folder / file).write_bytes(data)
                md5s.setdefault(split, {})[file] = hashlib.md5(data).hexdigest()
                parts.append((labels, images))
            truth[split] = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
        for feature, classes in spec.labels:
            names = "\n".join(f"{feature}-{i}" for i in range(classes))
            (folder / spec.names[feature]).write_text(f"{names}\n\n")
        small = dataclasses.replace(spec, files=md5s, file_records={"train": 40, "test": 40})
        monkeypatch.setitem(cifar._PUBLISHED, name, small)
        return folder, truth

    return write
