"""CIFAR from the publisher's files to TFDS's form and back, on made-up files and on the real ones."""

import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from train import data
from train.data import cifar, cifar_files
from train.data.__main__ import main
from train.data.storage import decoded_cache, prepared
from train.errors import UserError


def by_content(labels, images):
    """Examples in an order that does not depend on how they are stored."""
    return sorted((image.tobytes(), int(label)) for label, image in zip(labels, images, strict=True))


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_prepared_images_and_labels_are_the_publishers(name, version, published, tmp_path):
    folder, truth = published(name, version)
    cifar.prepare_cifar(name, str(tmp_path / "tfds"), from_dir=str(folder))
    dataset = data.load(name, data_dir=str(tmp_path / "tfds"))
    for split, got in (("train", dataset.train), ("test", dataset.test)):
        labels, images = truth[split]
        assert (got.inputs.dtype, got.targets.dtype) == (np.uint8, np.int32)
        # The last label is the fine one, where there are two.
        assert by_content(got.targets, got.inputs) == by_content(labels[:, -1], images)
    assert dataset.class_names == tuple(f"label-{i}" for i in range(dataset.num_classes))


def test_stock_tfds_reads_what_is_prepared(published, tmp_path):
    import tensorflow_datasets as tfds

    folder, truth = published("cifar100")
    cifar.prepare_cifar("cifar100", str(tmp_path / "tfds"), from_dir=str(folder))
    source = tfds.data_source("cifar100", split="test", data_dir=tmp_path / "tfds", download=False)
    labels, images = truth["test"]
    for example in source:
        index = int(example["id"].decode().removeprefix("test_"))
        np.testing.assert_array_equal(example["image"], images[index])
        assert [example["coarse_label"], example["label"]] == list(labels[index])


def test_what_stock_tfds_prepared_is_read(published, tmp_path, monkeypatch):
    """A set whose files and order come from TFDS's own generator, with only the PNG encoder replaced."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.features import image_feature
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    folder, truth = published("cifar10")

    def load_data(path, labels_number=1):
        rows = np.fromfile(path, np.uint8).reshape(-1, labels_number + 3072)
        for row in rows:
            yield row[:1], row[1:].reshape(3, 32, 32).transpose(1, 2, 0)

    monkeypatch.setattr(tfds_cifar, "_load_data", load_data)
    monkeypatch.setattr(
        image_feature._ImageEncoder, "_encode_image", lambda self, image: cifar.encode_png(np.array(image))
    )
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download_and_extract", lambda self, url: os.fspath(folder.parent)
    )
    builder = tfds_cifar.Cifar10(data_dir=tmp_path / "stock", file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(file_format="array_record", download_config=config)
    cifar.prepare_cifar("cifar10", str(tmp_path / "ours"), from_dir=str(folder))

    stock, ours = (data.load("cifar10", data_dir=str(tmp_path / where)) for where in ("stock", "ours"))
    labels, images = truth["train"]
    assert by_content(stock.train.targets, stock.train.inputs) == by_content(labels[:, 0], images)
    np.testing.assert_array_equal(stock.train.inputs, ours.train.inputs)  # in the same order, too


def test_the_parent_of_the_publishers_folder_will_do(published, tmp_path):
    folder, _ = published("cifar10")
    made = cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder.parent))
    assert made == tmp_path / "tfds" / "cifar10" / "3.0.2"


def test_nothing_but_the_set_is_left_after_preparing(published, tmp_path):
    folder, _ = published("cifar10")
    cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder))
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["cifar10"]
    assert [path.name for path in (tmp_path / "tfds" / "cifar10").iterdir()] == ["3.0.2"]


def test_a_file_with_another_md5_is_refused_by_name_found_and_expected(published, tmp_path):
    folder, _ = published("cifar10")
    changed = bytearray((folder / "data_batch_3.bin").read_bytes())
    changed[100] ^= 1
    (folder / "data_batch_3.bin").write_bytes(changed)
    expected = cifar_files.PUBLISHED["cifar10"].versions[0].files["train"]["data_batch_3.bin"]
    with pytest.raises(UserError, match=rf"data_batch_3\.bin.*MD5 [0-9a-f]{{32}}.*{expected}.*--allow-mismatch"):
        cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder))
    assert not (tmp_path / "tfds").exists()


def test_allow_mismatch_takes_it_and_says_so(published, tmp_path):
    folder, _ = published("cifar10")
    changed = bytearray((folder / "test_batch.bin").read_bytes())
    changed[100] ^= 1
    (folder / "test_batch.bin").write_bytes(changed)
    lines = []
    cifar.prepare_cifar(
        "cifar10", str(tmp_path / "tfds"), from_dir=str(folder), allow_mismatch=True, report=lines.append
    )
    assert sum("test_batch.bin" in line for line in lines) == 1
    assert len(data.load("cifar10", data_dir=str(tmp_path / "tfds")).test) == 40


def _truncate(folder: Path):
    path = folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])


def _label_out_of_range(folder: Path):
    path = folder / "train.bin"
    rows = bytearray(path.read_bytes())
    rows[3074 + 1] = 100  # the second record's fine label
    path.write_bytes(rows)


BAD_FILES = {
    "truncated": (_truncate, "train.bin has 122,959 bytes, but the publisher's has 122,960"),
    "label out of range": (_label_out_of_range, r"train\.bin \(label\): record 1 has label 100, outside 0\.\.99"),
    "missing": (lambda folder: (folder / "test.bin").unlink(), "lacks test.bin"),
    "no class names": (lambda folder: (folder / "fine_label_names.txt").unlink(), "fine_label_names.txt"),
    "class names short": (
        lambda folder: (folder / "fine_label_names.txt").write_text("apple\n"),
        "has 1 class names, not 100",
    ),
    "class names binary": (
        lambda folder: (folder / "fine_label_names.txt").write_bytes(b"\xff\xfe"),
        "cannot be read as ASCII",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_publishers_file_is_refused_and_leaves_nothing(case, published, tmp_path):
    folder, _ = published("cifar100")
    damage, message = BAD_FILES[case]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        cifar.prepare_cifar("cifar100", str(tmp_path / "tfds"), from_dir=str(folder), allow_mismatch=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tfds").exists()


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder cifar-10-batches-bin"):
        cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(tmp_path))


def test_an_interrupted_preparation_leaves_nothing(published, tmp_path, monkeypatch):
    folder, _ = published("cifar10")
    calls = []

    def interrupted(image):
        calls.append(image)
        if len(calls) == 150:
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr(cifar, "encode_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder))
    assert list((tmp_path / "tfds").iterdir()) == []


def test_a_preparation_that_does_not_read_back_is_not_kept(published, tmp_path, monkeypatch):
    folder, _ = published("cifar10")
    encode = cifar.encode_png
    monkeypatch.setattr(cifar, "encode_png", lambda image: encode(image ^ np.uint8(image[0, 0, 0] < 9)))
    with pytest.raises(RuntimeError, match="does not read back"):
        cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder))
    assert list((tmp_path / "tfds").iterdir()) == []


def test_a_set_that_is_not_there_is_refused_with_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError, match=f"python -m train.data prepare cifar10 --data-dir {tmp_path}"):
        data.load("cifar10", data_dir=str(tmp_path))


def test_the_default_folder_is_tfdss_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=r"elsewhere; run: python -m train\.data prepare cifar10$"):
        data.load("cifar10")


@pytest.fixture
def small_set(published, tmp_path):
    """The folder of a prepared made-up CIFAR-10, without its cache of decoded arrays."""
    folder, _ = published("cifar10")
    made = cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder))
    (made / "decoded.npz").unlink()
    return made


def records(made: Path) -> Path:
    return made / "cifar10-train.array_record-00000-of-00001"


def _flip(made: Path):
    stored = bytearray(records(made).read_bytes())
    stored[len(stored) // 8] ^= 1
    records(made).write_bytes(stored)


DAMAGE = {
    "bit flipped": _flip,
    "truncated": lambda made: os.truncate(records(made), records(made).stat().st_size // 2),
    "empty": lambda made: os.truncate(records(made), 0),
    "removed": lambda made: records(made).unlink(),
    "foreign": lambda made: records(made).write_bytes(b"foreign" * 20_000),
    "metadata no JSON": lambda made: (made / "dataset_info.json").write_text("{"),
    "metadata of nothing": lambda made: (made / "dataset_info.json").write_text("{}"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_prepared_set_is_refused_in_one_line(case, small_set):
    DAMAGE[case](small_set)
    with pytest.raises(UserError) as caught:
        data.load("cifar10", data_dir=str(small_set.parents[1]))
    assert "\n" not in str(caught.value)
    assert str(small_set.parents[1]) in str(caught.value)


def test_a_set_prepared_as_tfrecord_is_refused_with_the_way_out(small_set):
    info = small_set / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"as tfrecord, which only TensorFlow reads; .*--data-dir DIR"):
        data.load("cifar10", data_dir=str(small_set.parents[1]))


def test_decoded_arrays_are_cached_and_the_cache_is_used(small_set, monkeypatch):
    first = data.load("cifar10", data_dir=str(small_set.parents[1]))
    monkeypatch.setattr(cifar, "read_images", None)  # decoding again would fail
    again = data.load("cifar10", data_dir=str(small_set.parents[1]))
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    np.testing.assert_array_equal(first.test.targets, again.test.targets)


def test_a_cached_set_is_read_without_tfds(small_set):
    data_dir = str(small_set.parents[1])
    first = data.load("cifar10", data_dir=data_dir)
    code = (
        "import sys; sys.modules['tensorflow_datasets'] = None\n"  # its import would fail
        "from train import data; print(data.load('cifar10', data_dir=sys.argv[1]).digest)"
    )
    done = subprocess.run([sys.executable, "-c", code, data_dir], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first.digest


def test_the_cache_of_another_content_is_not_used(small_set, published, tmp_path):
    data.load("cifar10", data_dir=str(small_set.parents[1]))
    stale = (small_set / "decoded.npz").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(small_set, other / "cifar10" / "3.0.2")
    _flip(other / "cifar10" / "3.0.2")
    assert (other / "cifar10" / "3.0.2" / "decoded.npz").read_bytes() == stale
    with pytest.raises(UserError, match="damaged"):  # it was read, and not taken from the cache
        data.load("cifar10", data_dir=str(other))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "pickled", "empty"])
def test_a_damaged_cache_is_decoded_anew(damage, small_set):
    first = data.load("cifar10", data_dir=str(small_set.parents[1]))
    cache = small_set / "decoded.npz"
    good = cache.read_bytes()
    if damage == "truncated":
        cache.write_bytes(good[: len(good) // 2])
    elif damage == "flipped":
        cache.write_bytes(good[:50_000] + bytes([good[50_000] ^ 1]) + good[50_001:])
    elif damage == "empty":
        cache.write_bytes(b"")
    else:
        fields = {"fingerprint": np.array(decoded_cache.fingerprint(small_set)), "version": np.array("3.0.2")}
        np.savez(cache, train_inputs=np.array([{}], object), **fields)
    again = data.load("cifar10", data_dir=str(small_set.parents[1]))
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)


def test_a_prepared_label_out_of_range_is_refused(small_set):
    builder = prepared.open_prepared("cifar10", small_set.parents[1])
    builder.info.features["label"]._num_classes = 5  # the records keep their labels 0..9
    with pytest.raises(UserError, match=r"split 'train' in .* has label [5-9], outside 0\.\.4"):
        cifar.read_images(builder, "train")


# What people have, made of the publisher's folder: what they give as --from-dir.
GIVEN = {
    "the folder": lambda folder: folder,
    "the folder above": lambda folder: folder.parent,
    "a tar.gz": lambda folder: packed(folder, "w:gz"),
    "a tar": lambda folder: packed(folder, "w"),
    "a tar.xz": lambda folder: packed(folder, "w:xz"),
}


def packed(folder, mode):
    path = folder.parent / f"archive.{mode}"
    with tarfile.open(path, mode) as tar:
        tar.add(folder, arcname=folder.name)
    shutil.rmtree(folder)
    return path


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("given", GIVEN)
def test_from_dir_takes_either_version_as_folder_or_archive(given, version, published, tmp_path):
    folder, truth = published("cifar100", version)
    where = GIVEN[given](folder)
    command = ["prepare", "cifar100", f"--from-dir={where}", f"--data-dir={tmp_path / 'tfds'}"]
    assert main(command) == 0
    dataset = data.load("cifar100", data_dir=str(tmp_path / "tfds"))
    labels, images = truth["train"]
    assert by_content(dataset.train.targets, dataset.train.inputs) == by_content(labels[:, -1], images)
    assert os.listdir(tmp_path / "tfds") == ["cifar100"]


def test_an_archive_in_the_folder_is_named(tmp_path, capsys):
    """torchvision's root after a download that was never extracted."""
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert main(["prepare", "cifar10", f"--from-dir={tmp_path}", f"--data-dir={tmp_path / 'tfds'}"]) == 2
    assert "contains cifar-10-python.tar.gz, not extracted; pass that file as --from-dir" in capsys.readouterr().err


class _Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _batch(folder, **changes):
    """Rewrites a pickled batch with some of its entries changed."""
    path = folder / "data_batch_1"
    batch = pickle.loads(path.read_bytes(), encoding="latin1") | changes
    path.write_bytes(pickle.dumps({key: value for key, value in batch.items() if value is not None}, protocol=2))


BAD_PICKLES = {
    "calls a function": (
        lambda folder: _batch(folder, data=_Runs(os.mkdir, str(folder / "made"))),
        r"refers to (posix|nt)\.mkdir, which is not part of an array",
    ),
    "calls a builtin": (lambda folder: _batch(folder, data=_Runs(eval, "1")), "refers to .*eval, which is not part"),
    "cut off": (lambda folder: os.truncate(folder / "data_batch_1", 5000), "is not a pickle of arrays"),
    "no pickle": (lambda folder: (folder / "data_batch_1").write_bytes(b"foreign" * 99), "is not a pickle of arrays"),
    "a list": (lambda folder: (folder / "data_batch_1").write_bytes(pickle.dumps([1])), "contains a list, not a dict"),
    "no data": (lambda folder: _batch(folder, data=None), "has data of NoneType"),
    "half the data": (
        lambda folder: _batch(folder, data=np.zeros((20, 3072), np.uint8)),
        r"has data of uint8 \[20, 3072",
    ),
    "floats": (lambda folder: _batch(folder, data=np.zeros((40, 3072))), r"has data of float64"),
    "no labels": (lambda folder: _batch(folder, labels=None), "'labels' is not a list of 40 integers"),
    "words for labels": (
        lambda folder: _batch(folder, labels=["x"] * 40),
        "'labels' is not a list of 40 integers",
    ),
    "a label out of range": (lambda folder: _batch(folder, labels=[10] * 40), "record 0 has label 10, outside 0..9"),
    "no names": (lambda folder: (folder / "batches.meta").unlink(), "batches.meta cannot be read: No such file"),
    "too few names": (
        lambda folder: (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"]})),
        "has 1 class names, not 10",
    ),
}


@pytest.mark.parametrize("case", BAD_PICKLES)
def test_a_bad_pickle_is_refused_in_one_line_and_runs_nothing(case, published, tmp_path):
    folder, _ = published("cifar10", "python")
    damage, message = BAD_PICKLES[case]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        cifar.prepare_cifar("cifar10", str(tmp_path / "tfds"), from_dir=str(folder), allow_mismatch=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tfds").exists()
    assert not (folder / "made").exists()


@pytest.mark.data
def test_the_real_cifar100_is_the_publishers(real_data):
    splits, _ = cifar_files.read("cifar100", real_data("cifar100"), allow_mismatch=False, report=pytest.fail)
    for split, each in (("train", 500), ("test", 100)):
        labels, images = splits[split]
        assert images.shape == (100 * each, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(labels[:, 1]), [each] * 100)
        np.testing.assert_array_equal(np.bincount(labels[:, 0]), [5 * each] * 20)


@pytest.mark.data
def test_the_real_cifar10_has_the_reports_mean_and_its_test_file_is_refused(real_data):
    folder = real_data("cifar10")
    with pytest.raises(UserError, match=r"test_batch\.bin differs"):
        cifar_files.read("cifar10", folder, allow_mismatch=False, report=print)
    lines = []
    labels, images = cifar_files.read("cifar10", folder, allow_mismatch=True, report=lines.append)[0]["train"]
    assert len(lines) == 1  # the training files are the publisher's
    np.testing.assert_array_equal(np.bincount(labels[:, 0]), [5000] * 10)
    np.testing.assert_allclose(images.reshape(-1, 3).mean(0), cifar._MEAN, atol=0.06)
    assert prepared.first_line(ValueError("a\nb")) == "a"
