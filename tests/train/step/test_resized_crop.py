"""Crops with resizing on the device against Pillow, and their boxes against torchvision's rule in plain Python."""

import jax
import numpy as np
import pytest
from PIL import Image

from train.step import resized_crop

SIZES = [(64, 64), (40, 64), (64, 40), (30, 61), (50, 20)]


def canvases(rng, smooth=False):
    """Images of several sizes in the corners of canvases whose rest is rubbish that must not show."""
    images = rng.integers(0, 256, (len(SIZES), 64, 64, 3), np.uint8)
    if smooth:
        ramp = np.linspace(0, 255, 64)
        images[..., 0], images[..., 1] = ramp[None, :, None], ramp[None, None, :]
    return images, np.array(SIZES, np.int32)


def boxes_one_by_one(sizes, uniforms, scale):
    """torchvision.transforms.RandomResizedCrop.get_params with ratio (1, 1), fed with given numbers."""
    for (height, width), u in zip(sizes, uniforms, strict=True):
        for t in range(resized_crop.TRIES):
            side = int(
                np.round(np.sqrt(np.float32(height * width) * np.float32(scale[0] + (scale[1] - scale[0]) * u[t])))
            )
            if 0 < side <= height and 0 < side <= width:
                yield int(u[-2] * (height - side + 1)), int(u[-1] * (width - side + 1)), side
                break
        else:
            side = min(height, width)
            yield (height - side) // 2, (width - side) // 2, side


@pytest.mark.parametrize("scale", [(0.64, 1.0), (0.08, 1.0)])
def test_boxes_follow_torchvisions_rule(scale):
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 200, (300, 2)).astype(np.int32)
    uniforms = rng.random((300, resized_crop.UNIFORMS), np.float32)
    top, left, side = jax.jit(lambda s, u: resized_crop.crop_boxes(s, u, scale=scale))(sizes, uniforms)
    expected = np.array(list(boxes_one_by_one(sizes, uniforms, scale)))
    np.testing.assert_array_equal(np.stack([top, left, side], 1), expected)


def test_boxes_lie_inside_at_the_ends_of_the_random_numbers():
    sizes = np.array([(64, 64), (64, 50), (1, 1), (1, 9), (200, 180)] * 2, np.int32)
    uniforms = np.zeros((10, resized_crop.UNIFORMS), np.float32)
    uniforms[5:] = np.nextafter(np.float32(1), np.float32(0))
    top, left, side = map(np.asarray, resized_crop.crop_boxes(sizes, uniforms))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (side >= 1).all()
    assert (top + side <= sizes[:, 0]).all()
    assert (left + side <= sizes[:, 1]).all()


def test_area_and_place_of_the_boxes_are_uniform():
    rng = np.random.default_rng(1)
    n = 20_000
    sizes = np.full((n, 2), 1000, np.int32)
    top, left, side = map(
        np.asarray, resized_crop.crop_boxes(sizes, rng.random((n, resized_crop.UNIFORMS), np.float32))
    )
    area = (side / 1000) ** 2
    # Means of uniform numbers, five standard errors.
    assert abs(area.mean() - 0.82) < 5 * 0.36 / np.sqrt(12 * n)
    free = 1000 - side
    for corner in (top, left):
        place = corner[free > 50] / free[free > 50]
        assert abs(place.mean() - 0.5) < 5 / np.sqrt(12 * len(place)) + 0.005


@pytest.mark.parametrize("size", [224, 32, 20])
@pytest.mark.parametrize("smooth", [False, True])
def test_random_crops_equal_pillows_to_one_level(size, smooth):
    rng = np.random.default_rng(2)
    images, sizes = canvases(rng, smooth)
    uniforms = rng.random((len(images), resized_crop.UNIFORMS), np.float32)
    got = jax.jit(resized_crop.random_resized_crop, static_argnames="size")(images, sizes, uniforms, size=size)
    assert got.shape == (len(images), size, size, 3)
    assert got.dtype == np.float32
    top, left, side = map(np.asarray, resized_crop.crop_boxes(sizes, uniforms))
    for i, (height, width) in enumerate(sizes):
        image = Image.fromarray(images[i, :height, :width])
        crop = image.crop((left[i], top[i], left[i] + side[i], top[i] + side[i]))
        expected = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(np.asarray(got[i]) - expected).max() <= 1.01


def test_without_antialiasing_a_shrunk_image_would_differ():
    """That the comparison above can tell: the nearest-four-pixels bilinear filter is far from Pillow's."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR), np.float32)
    plain = jax.image.resize(image.astype(np.float32), (20, 20, 3), "bilinear", antialias=False)
    assert np.abs(np.asarray(plain) - expected).max() > 20


@pytest.mark.parametrize("size", [224, 20])
def test_the_central_crop_equals_torchvisions_resize_and_center_crop(size):
    images, sizes = canvases(np.random.default_rng(4))
    got = np.asarray(resized_crop.resize_center_crop(images, sizes, size=size))
    for i, (height, width) in enumerate(sizes):
        shorter = min(height, width)
        new_height, new_width = int(size * height / shorter), int(size * width / shorter)
        resized = Image.fromarray(images[i, :height, :width]).resize((new_width, new_height), Image.Resampling.BILINEAR)
        top, left = round((new_height - size) / 2.0), round((new_width - size) / 2.0)
        expected = np.asarray(resized.crop((left, top, left + size, top + size)), np.float32)
        assert np.abs(got[i] - expected).max() <= 1.01


def test_what_lies_outside_an_image_in_its_canvas_does_not_show():
    images, sizes = canvases(np.random.default_rng(5))
    other = images.copy()
    for i, (height, width) in enumerate(sizes):
        other[i, height:] = 0
        other[i, :, width:] = 0
    uniforms = np.random.default_rng(6).random((len(images), resized_crop.UNIFORMS), np.float32)
    for crop in (
        lambda x: resized_crop.random_resized_crop(x, sizes, uniforms, size=48),
        lambda x: resized_crop.resize_center_crop(x, sizes, size=48),
    ):
        np.testing.assert_array_equal(crop(images), crop(other))


def test_the_form_for_accelerators_gives_the_same():
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (3, 30, 40, 3), np.uint8)
    index, part = rng.integers(0, 30, (3, 16, 4)), rng.random((3, 16, 4), np.float32)
    columns = rng.random((3, 16, 40), np.float32)
    got = jax.vmap(resized_crop._resample_one)(images, index, part, columns)
    rows = (part[..., None] * (index[..., None] == np.arange(30))).sum(2)
    expected = np.einsum("nih,nhwc,njw->nijc", rows, images.astype(np.float64), columns, optimize=True)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
