"""Order, crops and flips on the device against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from train.sampling import CROP_PADDING, DeviceSplit, Drawn, Preprocessing, crop_and_flip, draw, epoch_order, load

KEY = jax.random.PRNGKey(3)


def draw_epoch(epoch, examples=50, batch_size=8):
    order = epoch_order(KEY, epoch, examples, shuffle=True)
    steps = -(-examples // batch_size)
    drawn = []
    for i in range(steps):
        size = min(batch_size, examples - i * batch_size)
        step = jnp.int32(epoch * steps + i)
        drawn.append(draw(KEY, step, order, batch_size=size, full_batch_size=batch_size, augmentation="pad_crop_flip"))
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
    found = crop_and_flip(jnp.asarray(images), Drawn(jnp.asarray(index), jnp.asarray(offset), jnp.asarray(flip)))
    p = CROP_PADDING
    padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
    for i in range(5):
        expected = padded[index[i], offset[i, 0] : offset[i, 0] + 32, offset[i, 1] : offset[i, 1] + 32]
        np.testing.assert_array_equal(found[i], expected[:, ::-1] if flip[i] else expected)


def test_padding_is_black_before_normalisation():
    split = DeviceSplit(jnp.full((1, 32, 32, 3), 200, jnp.uint8), jnp.zeros(1, jnp.int32))
    drawn = Drawn(jnp.zeros(1, jnp.int32), jnp.zeros((1, 2), jnp.int32), jnp.zeros(1, bool))
    spec = Preprocessing("pad_crop_flip", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), True)
    pixel = load(split, drawn, spec).inputs[0, 0, 0]
    np.testing.assert_allclose(pixel, [-125.3 / 63.0, -123.0 / 62.1, -113.9 / 66.7], rtol=1e-6)
