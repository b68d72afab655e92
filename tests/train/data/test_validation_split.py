"""Which training examples are set aside for validation: fixed by their number alone, and never trained on."""

import numpy as np
import pytest

from train import data
from train.data.dataset import Split, held_out
from train.errors import UserError


def numbered(count):
    return Split(np.arange(count)[:, None], np.arange(count, dtype=np.int32))


def test_it_is_the_end_of_the_order_that_subsets_are_the_beginning_of():
    whole = numbered(1000)
    order = [held_out(whole, n, 0, in_order=False)[0].targets[-1] for n in range(1, 1000)]
    train, validation = held_out(whole, 0, 200, in_order=False)
    assert set(train.targets) == set(order[:800])
    assert list(train.targets) == sorted(train.targets)  # as they are on the disk
    assert set(validation.targets) == set(range(1000)) - set(order[:800])
    assert abs(np.mean(validation.targets) - 500) < 80  # spread over the set, which may be sorted by class


def test_a_part_of_the_training_set_is_the_same_with_a_validation_set_or_without():
    whole = numbered(1000)
    alone, none = held_out(whole, 300, 0, in_order=False)
    beside, validation = held_out(whole, 300, 200, in_order=False)
    assert none is None
    np.testing.assert_array_equal(beside.targets, alone.targets)
    np.testing.assert_array_equal(validation.targets, held_out(whole, 0, 200, in_order=False)[1].targets)
    assert not set(beside.targets) & set(validation.targets)


def test_of_a_text_it_is_the_last_segments():
    train, validation = held_out(numbered(50), 0, 20, in_order=True)
    np.testing.assert_array_equal(train.targets, np.arange(30))
    np.testing.assert_array_equal(validation.targets, np.arange(30, 50))


def test_the_test_set_and_the_digest_stay():
    plain, with_validation = data.load("digits"), data.load("digits", validation_examples=300)
    assert plain.validation is None
    assert (len(with_validation.train), len(with_validation.validation)) == (1047, 300)
    assert with_validation.digest == plain.digest
    np.testing.assert_array_equal(with_validation.test.inputs, plain.test.inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_examples": 2000}, "validation_examples=2000, but the data set has 1347"),
        (
            {"validation_examples": -5},
            "validation_examples=-5 is negative; the data set has 1347 examples, and 0 means",
        ),
        ({"validation_examples": 5, "train_examples": -3}, "train_examples=-3 is negative"),
    ],
)
def test_numbers_that_no_split_can_have_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        data.load("digits", **settings)


@pytest.mark.parametrize(("train", "validation"), [(0, 1347), (1000, 348)])
def test_more_than_there_are_is_refused(train, validation):
    with pytest.raises(UserError, match=rf"validation_examples={validation} with train_examples={train or 'all'}, but"):
        data.load("digits", train_examples=train, validation_examples=validation)
