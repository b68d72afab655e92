"""Order, crops, flips, cutout and resizing on the device against NumPy and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from train import data
from train.errors import UserError
from train.step.input_pipeline import (
    CROP_PADDING,
    DeviceSplit,
    Drawn,
    Preprocessing,
    crop_and_flip,
    draw,
    epoch_order,
    erase_square,
    load,
    slice_batch,
)
from train.step.resized_crop import crop_boxes, resize_center_crop

CIFAR = Preprocessing("pad_crop_flip", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), shuffle=True)
KEY = jax.random.PRNGKey(3)


def draw_epoch(epoch, examples=50, batch_size=8):
    order = epoch_order(KEY, epoch, examples, shuffle=True)
    steps = -(-examples // batch_size)
    drawn = []
    for i in range(steps):
        size = min(batch_size, examples - i * batch_size)
        step = jnp.int32(epoch * steps + i)
        drawn.append(draw(KEY, step, order, start=i * batch_size, batch_size=size, preprocessing=CIFAR))
    return drawn


def test_an_epoch_draws_every_example_once():
    indices = np.concatenate([d.index for d in draw_epoch(2)])
    assert sorted(indices) == list(range(50))


def test_epochs_have_different_orders():
    first, second = (np.concatenate([d.index for d in draw_epoch(e)]) for e in (0, 1))
    assert not np.array_equal(first, second)


def test_text_is_read_in_order():
    np.testing.assert_array_equal(epoch_order(KEY, 4, 7, shuffle=False), np.arange(7))


def test_crops_and_flips_take_all_their_values():
    drawn = [d for epoch in range(40) for d in draw_epoch(epoch)]
    offsets = np.concatenate([d.offset for d in drawn])
    for axis in (0, 1):
        counts = np.bincount(offsets[:, axis], minlength=9)
        assert len(counts) == 9
        # 2000 draws over 9 values: 222 expected, standard deviation 14.
        assert counts.min() > 222 - 70
        assert counts.max() < 222 + 70
    assert abs(np.concatenate([d.flip for d in drawn]).mean() - 0.5) < 0.06


def test_crop_and_flip_equals_padding_and_slicing():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    index = np.array([5, 0, 3, 3, 1], np.int32)
    offset = np.array([[0, 0], [8, 8], [4, 4], [2, 7], [8, 1]], np.int32)
    flip = np.array([False, True, False, True, True])
    found = crop_and_flip(jnp.asarray(images), jnp.asarray(index), jnp.asarray(offset), jnp.asarray(flip))
    p = CROP_PADDING
    padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
    for i in range(5):
        expected = padded[index[i], offset[i, 0] : offset[i, 0] + 32, offset[i, 1] : offset[i, 1] + 32]
        np.testing.assert_array_equal(found[i], expected[:, ::-1] if flip[i] else expected)


def test_padding_is_black_before_normalisation():
    split = DeviceSplit(jnp.full((1, 32, 32, 3), 200, jnp.uint8), jnp.zeros(1, jnp.int32))
    drawn = Drawn(jnp.zeros(1, jnp.int32), jnp.zeros((1, 2), jnp.int32), jnp.zeros(1, bool))
    pixel = load(split, drawn, CIFAR).inputs[0, 0, 0]
    np.testing.assert_allclose(pixel, [-125.3 / 63.0, -123.0 / 62.1, -113.9 / 66.7], rtol=1e-6)


def test_without_augmentation_nothing_but_the_index_is_drawn():
    order = epoch_order(KEY, 0, 6, shuffle=False)
    plain = Preprocessing("none", (), (), shuffle=False)
    drawn = draw(KEY, jnp.int32(1), order, start=3, batch_size=3, preprocessing=plain)
    np.testing.assert_array_equal(drawn.index, [3, 4, 5])
    assert drawn[1:] == (None,) * 4


def test_cutout_erases_the_square_that_was_drawn():
    images = np.random.default_rng(0).normal(size=(5, 9, 12, 3)).astype(np.float32)
    erased = np.array([[0.0, 0.0], [0.5, 0.5], [0.999, 0.999], [0.0, 0.6], [0.34, 0.17]], np.float32)
    for size in (1, 4, 5, 9):
        expected = images.copy()
        for image, (y, x) in zip(expected, (erased * [9, 12]).astype(int), strict=True):
            top, left = y - size // 2, x - size // 2
            image[max(top, 0) : top + size, max(left, 0) : left + size] = 0.0
        np.testing.assert_array_equal(erase_square(jnp.asarray(images), jnp.asarray(erased), size), expected)


def test_cutout_is_drawn_anew_each_step_with_its_centre_anywhere():
    spec = CIFAR._replace(cutout=16)
    split = DeviceSplit(jnp.full((64, 32, 32, 3), 200, jnp.uint8), jnp.zeros(64, jnp.int32))
    order, area, centres = epoch_order(KEY, 0, 64, shuffle=True), [], []
    for step in range(20):
        drawn = draw(KEY, jnp.int32(step), order, start=0, batch_size=64, preprocessing=spec)
        gone = np.asarray(load(split, drawn, spec).inputs == 0.0).all(-1)
        area.append(gone.mean())
        centres.append(drawn.erased)
    # Along an axis of 32 a square of 16 with its centre on any pixel covers (16 * 32 - 36 - 28) / 32 = 14 on average.
    np.testing.assert_allclose(np.mean(area), (14 / 32) ** 2, rtol=0.03)
    counts, _ = np.histogram(np.concatenate(centres), bins=32, range=(0, 1))
    assert counts.min() > 80 - 40  # 2,560 draws over 32 pixels
    assert counts.max() < 80 + 40


def test_cutout_leaves_crops_and_flips_as_they_are_without_it():
    order = epoch_order(KEY, 0, 16, shuffle=True)
    plain, cut = (
        draw(KEY, jnp.int32(0), order, start=0, batch_size=8, preprocessing=CIFAR._replace(cutout=size))
        for size in (0, 8)
    )
    assert plain.erased is None
    np.testing.assert_array_equal(plain.offset, cut.offset)
    np.testing.assert_array_equal(plain.flip, cut.flip)


@pytest.mark.parametrize(
    ("dataset", "cutout", "message"),
    [("digits", 4, "cutout=4 is for the CIFAR sets"), ("made-up", 40, "larger than the images of made-up, 32x32")],
)
def test_cutout_that_cannot_be_is_refused(dataset, cutout, message):
    if dataset == "digits":
        loaded = data.load("digits")
    else:
        split = data.Split(np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, np.int32))
        loaded = data.Dataset(dataset, "image", split, split, 2, "pad_crop_flip", CIFAR.mean, CIFAR.std, True)
    with pytest.raises(UserError, match=message):
        Preprocessing.of(loaded, cutout=cutout)


@pytest.fixture
def canvases():
    """Three images of differing sizes in canvases of 40x60; what lies outside an image is noise nobody should see."""
    rng = np.random.default_rng(2)
    sizes = np.array([[40, 60], [30, 30], [33, 24]], np.int32)
    inputs = rng.integers(0, 256, (3, 40, 60, 3), np.uint8)
    return DeviceSplit(jnp.asarray(inputs), jnp.arange(3, dtype=jnp.int32), jnp.asarray(sizes))


FOLDER = Preprocessing(
    "random_resized_crop", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), shuffle=True, image_size=20
)


def imagenet(levels):
    """torchvision's ToTensor and Normalize."""
    return (np.asarray(levels) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def test_image_folders_train_on_random_resized_crops(canvases):
    order = jnp.array([2, 0, 1], jnp.int32)
    drawn = draw(KEY, jnp.int32(5), order, start=0, batch_size=3, preprocessing=FOLDER)
    batch = load(canvases, drawn, FOLDER)
    np.testing.assert_array_equal(batch.targets, order)
    top, left, side = crop_boxes(canvases.sizes[order], drawn.uniforms)
    for i, example in enumerate(order):
        box = (left[i], top[i], left[i] + side[i], top[i] + side[i])
        crop = Image.fromarray(np.asarray(canvases.inputs[example])).crop([int(edge) for edge in box])
        expected = imagenet(crop.resize((20, 20), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(batch.inputs[i], expected, atol=1.01 / (255 * 0.224))  # Pillow rounds to levels


def test_image_folders_are_tested_on_central_crops_of_resized_images(canvases):
    batch = slice_batch(canvases, 1, 2, FOLDER)
    np.testing.assert_array_equal(batch.targets, [1, 2])
    levels = resize_center_crop(canvases.inputs[1:], canvases.sizes[1:], size=20)
    np.testing.assert_allclose(batch.inputs, imagenet(levels), atol=1e-5)


def test_images_that_fill_their_arrays_need_no_sizes(canvases):
    whole = DeviceSplit(canvases.inputs, canvases.targets)
    given = DeviceSplit(canvases.inputs, canvases.targets, jnp.full((3, 2), jnp.array([40, 60])))
    for spec in (FOLDER, FOLDER._replace(image_size=33)):
        ours, theirs = (slice_batch(split, 0, 3, spec).inputs for split in (whole, given))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.shape == (3, spec.image_size, spec.image_size, 3)


def test_the_crops_of_an_image_differ_from_step_to_step(canvases):
    order = jnp.arange(3, dtype=jnp.int32)
    uniforms = [
        draw(KEY, jnp.int32(step), order, start=0, batch_size=3, preprocessing=FOLDER).uniforms for step in range(3)
    ]
    assert len(np.unique(np.concatenate(uniforms))) == 3 * 3 * 12
