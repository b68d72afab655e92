"""Image folders of any size: decoding, bounds, every kind of bad tree, and TFDS's form of them."""

import contextlib
import logging
import os
import socket
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from train import data
from train.data import imagefolder, prepared_images
from train.errors import UserError


def save(path, height, width, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


@pytest.fixture
def tree(tmp_path):
    """Two classes in both splits, sizes and modes mixed; its pixels by file."""
    pixels = {}
    for split in ("train", "valid"):
        for label, name in enumerate(("ape", "bee")):
            for i, (height, width, mode) in enumerate([(20, 31, "RGB"), (40, 25, "L"), (16, 16, "RGB")]):
                path = tmp_path / split / name / f"{i}.png"
                pixels[path] = save(path, height, width, mode, seed=10 * label + i)
    return tmp_path, pixels


def test_every_image_lies_in_its_canvas_with_size_and_label(tree):
    root, pixels = tree
    dataset = data.load("imagefolder", data_dir=str(root))
    assert dataset.class_names == ("ape", "bee")
    assert dataset.augmentation == "random_resized_crop"
    for split, got in (("train", dataset.train), ("valid", dataset.test)):
        assert got.inputs.shape == (6, 40, 31, 3)
        assert (got.inputs.dtype, got.targets.dtype, got.sizes.dtype) == (np.uint8, np.int32, np.int32)
        np.testing.assert_array_equal(got.targets, [0, 0, 0, 1, 1, 1])
        files = sorted(path for path in pixels if path.parts[-3] == split)
        for canvas, (height, width), path in zip(got.inputs, got.sizes, files, strict=True):
            expected = pixels[path]
            if expected.ndim == 2:  # grey
                expected = np.repeat(expected[..., None], 3, axis=2)
            np.testing.assert_array_equal(canvas[:height, :width], expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "CMYK"])
def test_other_modes_become_rgb(mode, tree):
    root, _ = tree
    save(root / "train" / "ape" / ("x.jpg" if mode == "CMYK" else "x.png"), 10, 10, mode)
    with Image.open(next((root / "train" / "ape").glob("x.*"))) as image:
        expected = np.asarray(image.convert("RGB"))
    got = data.load("imagefolder", data_dir=str(root)).train
    np.testing.assert_array_equal(got.inputs[3, :10, :10], expected)


def test_hidden_files_are_passed_over_and_names_may_be_in_capitals(tree):
    root, _ = tree
    (root / "train" / ".DS_Store").touch()
    (root / "train" / "ape" / ".hidden").touch()
    (root / "train" / "ape" / "0.png").rename(root / "train" / "ape" / "0.PNG")
    assert len(data.load("imagefolder", data_dir=str(root)).train) == 6


def test_large_images_are_shrunk_as_pillow_does(tree):
    root, _ = tree
    pixels = save(root / "train" / "ape" / "x.png", 400, 480)
    got = data.load("imagefolder", data_dir=str(root)).train
    assert tuple(got.sizes[3]) == (320, 384)
    expected = Image.fromarray(pixels).resize((384, 320), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got.inputs[3, :320, :384], np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(21, 100), (100, 21), (20, 101)])
def test_what_is_cut_off_long_images_no_crop_would_see(height, width, tree):
    from train.step import resized_crop

    root, _ = tree
    pixels = save(root / "train" / "ape" / "x.png", height, width)
    got = data.load("imagefolder", data_dir=str(root)).train
    assert max(got.sizes[3]) <= 2 * min(got.sizes[3]) + 1
    uniforms = np.random.default_rng(0).random((1, resized_crop.UNIFORMS), np.float32)
    whole = np.zeros((1, 101, 101, 3), np.uint8)
    whole[0, :height, :width] = pixels
    sizes = np.array([[height, width]], np.int32)
    expected = resized_crop.random_resized_crop(whole, sizes, uniforms, size=32)
    kept = resized_crop.random_resized_crop(got.inputs[3:4], got.sizes[3:4], uniforms, size=32)
    np.testing.assert_allclose(kept, expected, atol=1e-3)


def _truncated(root):
    path = root / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])
    return path


def _text_as_png(root):
    path = root / "valid" / "ape" / "1.png"
    path.write_text("no image")
    return path


def _empty(root):
    path = root / "valid" / "ape" / "1.png"
    path.write_bytes(b"")
    return path


def _gif_as_png(root):
    path = root / "train" / "ape" / "x.png"
    Image.new("RGB", (4, 4)).save(path, "GIF")
    return path


def _other_suffix(root):
    path = root / "train" / "ape" / "notes.txt"
    path.write_text("notes")
    return path


def _sixteen_bits(root):
    path = root / "train" / "ape" / "x.png"
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000).save(path)
    return path


def _bomb(root):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path = root / "train" / "ape" / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    return path


CORRUPT = [_truncated, _text_as_png, _empty, _gif_as_png, _other_suffix, _sixteen_bits, _bomb]


@pytest.mark.parametrize("make", CORRUPT)
def test_a_file_that_is_no_readable_image_is_refused_by_name(make, tree):
    path = make(tree[0])
    with pytest.raises(UserError, match=f"{path} cannot be read as an image: .*skip_corrupt") as caught:
        data.load("imagefolder", data_dir=str(tree[0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", CORRUPT)
def test_skip_corrupt_leaves_it_out_with_a_warning_that_names_it(make, tree, caplog):
    before = data.load("imagefolder", data_dir=str(tree[0]))
    path = make(tree[0])
    with caplog.at_level(logging.WARNING):
        after = data.load("imagefolder", data_dir=str(tree[0]), skip_corrupt=True)
    assert [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
    replaced = (len(before.train), len(before.test))
    lost = path.name == "1.png"
    assert (len(after.train), len(after.test)) == (
        replaced[0] - (lost and "train" in path.parts),
        replaced[1] - (lost and "valid" in path.parts),
    )
    assert len(after.train.inputs) == len(after.train.sizes) == len(after.train.targets)


def _loop(root):
    (root / "train" / "ape" / "x.png").symlink_to(root / "train" / "ape" / "x.png")


def _dangling(root):
    (root / "train" / "cat").symlink_to(root / "nowhere")


def _loop_to_the_root(root):
    (root / "train" / "cat").symlink_to(root)
    (root / "valid" / "cat").symlink_to(root)


BAD_TREES = {
    "no train": (lambda root: (root / "train").rename(root / "training"), "train cannot be read as a folder"),
    "link to itself": (_loop, r"x\.png cannot be read: .*is it a link that leads nowhere"),
    "link to nothing": (_dangling, r"cat cannot be read: .*is it a link that leads nowhere"),
    "link to the root": (_loop_to_the_root, "is a folder, but images are expected here"),
    "empty class": (lambda root: (root / "valid" / "cat").mkdir(), "class folder .*cat is empty"),
    "more classes": (
        lambda root: save(root / "train" / "cat" / "0.png", 9, 9),
        "classes differ: cat in .*train but not in .*valid",
    ),
    "fewer classes": (
        lambda root: save(root / "valid" / "cat" / "0.png", 9, 9),
        "classes differ: cat in .*valid but not in .*train",
    ),
    "stray file": (lambda root: (root / "train" / "list.txt").touch(), r"list\.txt is not a folder"),
    "nested": (lambda root: save(root / "train" / "ape" / "in" / "0.png", 9, 9), "is a folder, but images"),
    "one class": (lambda root: (root / "train" / "bee").rename(root / "bee"), "contains 1 class folders"),
}


@pytest.mark.parametrize("case", BAD_TREES)
def test_a_bad_tree_is_refused_in_one_line(case, tree):
    make, message = BAD_TREES[case]
    make(tree[0])
    with pytest.raises(UserError, match=message) as caught:
        data.load("imagefolder", data_dir=str(tree[0]), skip_corrupt=True)
    assert "\n" not in str(caught.value)


def test_no_folder_is_refused(tmp_path):
    for where in ("", str(tmp_path / "absent")):
        with pytest.raises(UserError, match="need a data_dir with train"):
            data.load("imagefolder", data_dir=where)


def test_more_pixels_than_the_bound_are_refused_with_their_size(tree, monkeypatch):
    monkeypatch.setattr(imagefolder, "MAX_BYTES", 6 * 40 * 31 * 3 - 1)
    with pytest.raises(UserError, match=r"6 images need .* GiB as canvases of 40x31"):
        data.load("imagefolder", data_dir=str(tree[0]))


def by_content(split):
    return sorted(
        (canvas[:h, :w].tobytes(), h, w, label)
        for canvas, (h, w), label in zip(split.inputs, split.sizes.tolist(), split.targets.tolist(), strict=True)
    )


def test_the_prepared_set_holds_the_same_images(tree, tmp_path):
    root, _ = tree
    save(root / "train" / "ape" / "cmyk.jpg", 12, 14, "CMYK")
    prepared_images.prepare_images(str(tmp_path / "tfds"), from_dir=str(root))
    folder, prepared = (
        data.load("imagefolder", data_dir=str(root)),
        data.load("images", data_dir=str(tmp_path / "tfds")),
    )
    assert by_content(prepared.train) == by_content(folder.train)
    assert by_content(prepared.test) == by_content(folder.test)
    assert prepared.class_names == folder.class_names


def test_stock_tfds_reads_the_prepared_set(tree, tmp_path):
    import tensorflow_datasets as tfds

    root, pixels = tree
    prepared_images.prepare_images(str(tmp_path / "tfds"), from_dir=str(root))
    source = tfds.data_source("images", split="valid", data_dir=tmp_path / "tfds", download=False)
    assert len(source) == 6
    for example in source:
        expected = pixels[root / "valid" / example["image/filename"].decode()]
        np.testing.assert_array_equal(example["image"], np.dstack([expected] * 3) if expected.ndim == 2 else expected)


@pytest.mark.parametrize("make", [_truncated, _other_suffix])
def test_preparing_a_corrupt_tree_is_refused_and_leaves_nothing(make, tree, tmp_path):
    path = make(tree[0])
    with pytest.raises(UserError, match=f"{path} cannot be read as an image"):
        prepared_images.prepare_images(str(tmp_path / "tfds"), from_dir=str(tree[0]))
    assert os.listdir(tmp_path / "tfds") == []


@pytest.mark.data
def test_the_real_images20_are_1092_and_274_of_20_classes(real_data):
    dataset = data.load("imagefolder", data_dir=str(real_data("images20")))
    assert dataset.train.inputs.shape == (1092, 64, 64, 3)
    assert dataset.test.inputs.shape == (274, 64, 64, 3)
    assert len(set(dataset.train.targets)) == dataset.num_classes == 20


def _palette_with_transparency(path):
    image = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10), "P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path.with_suffix(".png"), transparency=bytes(range(256)))


def _damaged_exif(path):
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x05" + b"\xff" * 20
    Image.new("RGB", (10, 10), (1, 2, 3)).save(path.with_suffix(".jpg"), exif=exif)


def _malformed_mpo(path):
    Image.new("RGB", (10, 10), (1, 2, 3)).save(path.with_suffix(".jpg"))
    data = path.with_suffix(".jpg").read_bytes()
    segment = b"MPF\x00MM\x00*\x00\x00\x00\x08\x00\x01\xb0\x01\x00\x04\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00"
    app2 = b"\xff\xe2" + (len(segment) + 2).to_bytes(2, "big") + segment
    path.with_suffix(".jpg").write_bytes(data[:2] + app2 + data[2:])


def _odd_apng(path):
    Image.new("RGB", (10, 10), (1, 2, 3)).save(path.with_suffix(".png"))
    data = path.with_suffix(".png").read_bytes()
    body = b"acTL" + (0).to_bytes(4, "big") + (0).to_bytes(4, "big")
    chunk = (8).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    path.with_suffix(".png").write_bytes(data[:33] + chunk + data[33:])


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("make", [_palette_with_transparency, _damaged_exif, _malformed_mpo, _odd_apng])
def test_an_image_that_pillow_decodes_with_a_warning_is_an_image(make, tree):
    root, _ = tree
    for i in range(16):
        make(root / "train" / "ape" / f"odd{i}")
    filters = list(warnings.filters)
    assert len(data.load("imagefolder", data_dir=str(root)).train) == 22
    # They belong to the whole process: changed from a thread, they stay changed.
    assert warnings.filters == filters


def test_the_digest_is_that_of_the_files_and_their_labels(tree):
    root, pixels = tree
    before = data.load("imagefolder", data_dir=str(root)).digest
    assert data.load("imagefolder", data_dir=str(root), train_examples=3).digest == before
    files = sorted(path for path in pixels if "train" in path.parts)
    # Two images of different classes change places: the same files, sizes and counts.
    first, last = files[0].read_bytes(), files[-3].read_bytes()
    files[0].write_bytes(last)
    files[-3].write_bytes(first)
    assert data.load("imagefolder", data_dir=str(root)).digest != before
    files[0].write_bytes(first)
    files[-3].write_bytes(last)
    assert data.load("imagefolder", data_dir=str(root)).digest == before


def _special(kind):
    def make(root):
        path = root / "train" / "ape" / "x.png"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):  # its path must be short
                made.bind(path.name)
        else:
            path.symlink_to(kind)

    return make


@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero", "/dev/null"])
@pytest.mark.parametrize("use", ["imagefolder", "prepare"])
def test_a_special_file_is_refused_and_not_read(use, kind, tree, tmp_path_factory):
    """Reading one of them may never end."""
    root, _ = tree
    _special(kind)(root)
    read = {
        "imagefolder": lambda: data.load("imagefolder", data_dir=str(root), skip_corrupt=True),
        "prepare": lambda: prepared_images.prepare_images(str(tmp_path_factory.mktemp("tfds")), from_dir=str(root)),
    }[use]
    with pytest.raises(UserError, match=r"ape/x\.png is a pipe, a socket or a device, but images are expected here"):
        read()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two\nlines", r"the class folder 'two\\nlines' .* cannot be printed; rename it"),
        ("tab\there", "cannot be printed"),
        (os.fsdecode(b"caf\xe9"), "cannot be printed"),
        ("bee ", "'bee' and 'bee ' in .* differ only by blanks"),
        (" bee", "' bee' and 'bee' in .* differ only by blanks"),
    ],
)
def test_a_class_whose_name_would_be_lost_or_confused_is_refused(name, message, tree):
    root, _ = tree
    for split in ("train", "valid"):
        save(root / split / name / "0.png", 9, 9)
    with pytest.raises(UserError, match=message) as caught:
        data.load("imagefolder", data_dir=str(root))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.png"), "two\nlines.png", "é ü.png", "x" * 200 + ".png"])
def test_a_file_may_have_any_name(name, tree, tmp_path_factory):
    root, _ = tree
    pixels = save(root / "train" / "bee" / "odd.png", 11, 12, seed=99)
    (root / "train" / "bee" / "odd.png").rename(root / "train" / "bee" / name)
    tfds = str(tmp_path_factory.mktemp("tfds"))
    prepared_images.prepare_images(tfds, from_dir=str(root))
    for dataset in (data.load("imagefolder", data_dir=str(root)), data.load("images", data_dir=tfds)):
        assert len(dataset.train) == 7
        assert pixels.tobytes() in [c[:h, :w].tobytes() for c, (h, w) in zip(*_canvases(dataset.train), strict=True)]


def _canvases(split):
    return split.inputs, split.sizes.tolist()


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_orientation_in_exif_is_not_applied_as_in_torchvisions_imagefolder(
    suffix, orientation, tree, tmp_path_factory
):
    """torchvision's loader is `Image.open(file).convert("RGB")`; both of ours must give the same pixels as that."""
    root, _ = tree
    path = root / "train" / "ape" / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(5).integers(0, 256, (18, 30, 3), np.uint8)
    Image.fromarray(noise).save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == orientation
        torchvisions = np.asarray(image.convert("RGB"))
    assert torchvisions.shape == (18, 30, 3)
    tfds = str(tmp_path_factory.mktemp("tfds"))
    prepared_images.prepare_images(tfds, from_dir=str(root))
    for dataset in (data.load("imagefolder", data_dir=str(root)), data.load("images", data_dir=tfds)):
        found = [c[:h, :w].tobytes() for c, (h, w) in zip(*_canvases(dataset.train), strict=True)]
        assert torchvisions.tobytes() in found
