"""Made-up data sets in the publishers' form."""

import dataclasses
import hashlib
import io
import pickle

import numpy as np
import pytest

from train.data import cifar_files


class _AsPython2(pickle._Pickler):
    """Writes strings and bytes as Python 2 wrote its strings, which is what the publisher's pickles hold."""

    def save_string(self, text):
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def python2_pickle(value) -> bytes:
    buffer = io.BytesIO()
    _AsPython2(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")


def _write(folder, version, spec, split_files, records=40):
    """Writes one version's files; returns their MD5s and, by split, labels and images as they should be read."""
    rng = np.random.default_rng(7)
    truth, md5s = {}, {}
    for split, files in split_files.items():
        parts = []
        for file in files:
            images = rng.integers(0, 256, (records, 32, 32, 3), np.uint8)
            labels = np.stack([rng.integers(0, n, records).astype(np.uint8) for _, n in spec.labels], 1)
            # The publisher's order: red, green and blue planes.
            planes = [b"".join(image[..., channel].tobytes() for channel in range(3)) for image in images]
            if version.meta:
                batch = {"data": np.frombuffer(b"".join(planes), np.uint8).reshape(records, 3072)}
                batch |= {key: labels[:, i].tolist() for i, key in enumerate(version.labels)}
                data = python2_pickle(batch | {"batch_label": "made up", "filenames": ["a.png"] * records})
            else:
                data = b"".join(bytes(label) + plane for label, plane in zip(labels, planes, strict=True))
            (folder / file).write_bytes(data)
            md5s.setdefault(split, {})[file] = hashlib.md5(data).hexdigest()
            parts.append((labels, images))
        truth[split] = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    return md5s, truth


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that writes made-up CIFAR files of 40 records each and makes their MD5s the expected ones.

    `published(name)` is the binary version, `published(name, "python")` the other. Returns the folder and, by split,
    the labels and images as they should be read.
    """

    def write(name: str, which: str = "binary"):
        spec = cifar_files.PUBLISHED[name]
        version = spec.versions[which == "python"]
        folder = tmp_path / "published" / version.folder
        folder.mkdir(parents=True)
        md5s, truth = _write(folder, version, spec, version.files)
        names = {feature: [f"{feature}-{i}" for i in range(classes)] for feature, classes in spec.labels}
        if version.meta:
            meta = {version.names[feature]: words for feature, words in names.items()}
            (folder / version.meta).write_bytes(python2_pickle(meta))
        else:
            for feature, words in names.items():
                (folder / version.names[feature]).write_text("\n".join(words) + "\n\n")
        versions = tuple(dataclasses.replace(v, files=md5s) if v is version else v for v in spec.versions)
        small = dataclasses.replace(spec, versions=versions, file_records={"train": 40, "test": 40})
        monkeypatch.setitem(cifar_files.PUBLISHED, name, small)
        return folder, truth

    return write
