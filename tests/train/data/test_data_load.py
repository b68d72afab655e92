"""`train.data.load`: names, subsets, and what an import costs."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from train import data
from train.data.dataset import Split, checked, subset, to_facts
from train.errors import UserError


def sorted_split():
    labels = np.repeat(np.arange(10, dtype=np.int32), 100)
    return Split(np.arange(1000, dtype=np.uint8).reshape(-1, 1, 1, 1), labels)


def test_importing_the_package_imports_no_jax_and_no_tfds():
    code = (
        "import sys, train.data; "
        "print([m for m in ('jax', 'tensorflow_datasets', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_zero_examples_means_all_in_their_order():
    split = sorted_split()
    assert subset(split, 0, field="train_examples", in_order=False) is split


def test_a_subset_of_a_class_sorted_set_is_a_random_sample_of_it():
    taken = subset(sorted_split(), 200, field="train_examples", in_order=False)
    counts = np.bincount(taken.targets, minlength=10)
    # Hypergeometric: 20 expected, standard deviation 3.8.
    assert counts.sum() == 200
    assert (np.abs(counts - 20) < 5 * 3.8).all()


def test_a_subset_keeps_inputs_targets_and_sizes_together():
    split = sorted_split()
    split = Split(split.targets.astype(np.uint8).reshape(-1, 1, 1, 1), split.targets, split.targets[:, None])
    taken = subset(split, 50, field="train_examples", in_order=False)
    np.testing.assert_array_equal(taken.inputs.ravel(), taken.targets)
    np.testing.assert_array_equal(taken.sizes.ravel(), taken.targets)


def test_a_smaller_subset_is_contained_in_a_larger_one():
    small, large = (subset(Split(np.arange(1000), np.arange(1000)), n, field="f", in_order=False) for n in (50, 300))
    assert set(small.targets) < set(large.targets)
    assert len(set(large.targets)) == 300


def test_a_subset_of_text_is_its_beginning():
    taken = subset(sorted_split(), 150, field="train_examples", in_order=True)
    np.testing.assert_array_equal(taken.targets, sorted_split().targets[:150])


@pytest.mark.parametrize("examples", [-1, 1001])
def test_a_subset_larger_than_the_set_or_negative_is_refused(examples):
    with pytest.raises(UserError, match=f"test_examples={examples}.*1000"):
        subset(sorted_split(), examples, field="test_examples", in_order=False)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown dataset 'cifar11'; choose one of digits, cifar10,"):
        data.load("cifar11")


def test_digits_are_all_of_scikit_learns_split_by_class():
    dataset = data.load("digits")
    assert dataset.train.inputs.shape == (1347, 8, 8, 1)
    assert dataset.train.inputs.dtype == np.uint8
    assert dataset.train.targets.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(dataset.test.targets), [45] * 10)
    whole = np.concatenate([dataset.train.inputs, dataset.test.inputs]).reshape(-1, 64)
    assert sorted(map(bytes, whole)) == sorted(map(bytes, sklearn_digits().data.astype(np.uint8)))


def test_digits_are_normalised_by_the_training_pixels():
    dataset = data.load("digits")
    pixels = (dataset.train.inputs - np.array(dataset.mean)) / np.array(dataset.std)
    assert abs(pixels.mean()) < 1e-9
    assert abs(pixels.std() - 1) < 1e-9


def test_train_examples_and_test_examples_reach_their_splits():
    dataset = data.load("digits", train_examples=100, test_examples=30)
    assert (len(dataset.train), len(dataset.test)) == (100, 30)


def of_images(**changes):
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6, dtype=np.int32) % 3
    split = Split(
        **{"inputs": images, "targets": labels} | {k: v for k, v in changes.items() if k in ("inputs", "targets")}
    )
    others = {k: v for k, v in changes.items() if k not in ("inputs", "targets")}
    channels = (128.0,) * 3
    plain = data.Dataset("mine", "image", split, split, 3, "none", channels, channels, shuffle=True)
    return dataclasses.replace(plain, **others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "images"}, "task='images' must be one of image, text, text_classification"),
        ({"augmentation": "pad_crop"}, "augmentation=.pad_crop. must be one of none, pad_crop_flip, random_re"),
        (
            {"inputs": np.zeros((6, 4, 4, 3), np.float32)},
            r"the train inputs are float32 \[6, 4, 4, 3\]; expected uint8",
        ),
        (
            {"inputs": np.zeros((6, 4, 4), np.uint8)},
            r"the train inputs are uint8 \[6, 4, 4\]; expected uint8 \[N, H, W, C\]",
        ),
        ({"targets": np.zeros(5, np.int32)}, r"the train targets are int32 \[5\]; expected int32 \[6\]"),
        ({"targets": np.zeros(6, np.float32)}, r"the train targets are float32 \[6\]; expected int32 \[6\]"),
        ({"num_classes": 2}, "train has the target 2; with num_classes=2 they are from 0 to 1"),
        ({"targets": np.arange(-1, 5, dtype=np.int32) % 3 - 1}, "train has the target -1"),
        ({"mean": ()}, "mean has 0 values; expected one for each of 3 channels"),
        (
            {"std": (1.0, 0.0, 1.0)},
            r"mean=\(128.0, 128.0, 128.0\) must be finite, and std=\(1.0, 0.0, 1.0\) finite and",
        ),
        ({"std": (1.0, np.nan, 1.0)}, "mean=.* must be finite, and std=.* finite and above 0"),
        ({"test": Split(np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.int32))}, "the test inputs are .*no examples"),
        (
            {"test": Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32))},
            "test has images of 1 channels, train of 3",
        ),
        (
            {"task": "text_classification", "vocab_size": 3, "inputs": np.full((6, 2), 3, np.int32)},
            "train has the token 3; with vocab_size=3 they are from 0 to 2",
        ),
    ],
)
def test_a_data_set_that_is_not_what_its_task_says_is_refused(changes, message):
    with pytest.raises(UserError, match=f"dataset 'mine': {message}"):
        checked(of_images(**changes))
    assert checked(of_images()).name == "mine"


def test_a_language_models_vocabulary_is_its_classes_unless_it_says_otherwise():
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4) % 5
    split = Split(tokens, tokens)
    words = data.Dataset("mine", "text", split, split, 5, "none", (), (), shuffle=False)
    assert checked(words).vocab_size == 5
    with pytest.raises(UserError, match="train has the token 4; with vocab_size=4 they are from 0 to 3"):
        checked(dataclasses.replace(words, vocab_size=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": 127.5}, "mean=127.5 must be a number for each channel"),
        ({"std": None}, "std=None must be a number for each channel"),
        ({"num_classes": 2.7}, "num_classes=2.7 must be a whole number"),
        ({"vocab_size": None}, "vocab_size=None must be a whole number"),
    ],
)
def test_a_value_of_another_kind_beside_the_arrays_is_named(changes, message):
    with pytest.raises(UserError, match=f"dataset 'mine': {message}"):
        checked(of_images(**changes))
    assert checked(of_images(class_names=None)).class_names == ()


def test_numpy_values_beside_the_arrays_become_plain_ones_that_json_holds():
    values = np.array([127.5, 128.0, 1.0])
    given = of_images(
        num_classes=np.int64(3), mean=values, std=tuple(np.float32(v) for v in values), shuffle=np.bool_(True)
    )
    found = to_facts(checked(dataclasses.replace(given, class_names=np.array(["a", "b", "c"]))))
    assert json.loads(json.dumps(found)) == found | {name: list(found[name]) for name in ("mean", "std", "class_names")}
    assert (found["num_classes"], found["mean"], found["class_names"]) == (3, (127.5, 128.0, 1.0), ("a", "b", "c"))
