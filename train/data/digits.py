"""scikit-learn's handwritten digits: 1,797 grey images of 8x8, the default that needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np

from train.data.dataset import Dataset, Split

_SPLIT_SEED = 0
_TEST_PER_CLASS = 45


def load_digits() -> Dataset:
    """1,347 training and 450 test images, uint8 [N, 8, 8, 1] with values 0..16, classes 0..9.

    The split is fixed and stratified: 45 examples of each class, drawn with a constant seed, are the test
    set. Mean and deviation are those of all training pixels.

    Source: Optical Recognition of Handwritten Digits, UCI (Alpaydin & Kaynak 1998), as in scikit-learn.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    bunch: Any = sklearn_digits()
    images = np.asarray(bunch["images"])[..., None].astype(np.uint8)
    labels = np.asarray(bunch["target"]).astype(np.int32)

    rng = np.random.default_rng(_SPLIT_SEED)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[rng.permutation(np.flatnonzero(labels == label))[:_TEST_PER_CLASS]] = True
    train = Split(images[~is_test], labels[~is_test])
    return Dataset(
        name="digits",
        task="image",
        train=train,
        test=Split(images[is_test], labels[is_test]),
        num_classes=10,
        augmentation="none",
        mean=(float(train.inputs.mean()),),
        std=(float(train.inputs.std()),),
        shuffle=True,
        class_names=tuple("0123456789"),
        source="scikit-learn's handwritten digits",
    )
