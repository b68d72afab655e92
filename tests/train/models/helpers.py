"""What the tests of the models share."""

import jax
import numpy as np


def normal(seed: int, shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def parameter_count(model, inputs: jax.ShapeDtypeStruct) -> int:
    """Number of parameters, without computing any."""
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), inputs)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def relative_error(actual, expected) -> float:
    """Largest difference over the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def path_names(tree) -> dict[str, np.ndarray]:
    """Leaves by their path, joined with dots."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}
