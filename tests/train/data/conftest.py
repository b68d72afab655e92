"""Where the real data sets are, and made-up ones in the publishers' form."""

import hashlib

import numpy as np
import pytest


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
