"""Evaluation of weights over a whole set, as a pure function of a recipe."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from train.step import input_pipeline
from train.step.input_pipeline import Batch, DeviceSplit
from train.step.metrics import Metrics
from train.step.objectives import real_scores
from train.step.recipe import Recipe
from train.step.share import pad


def eval_step(
    recipe: Recipe, params: Any, batch_stats: Any, metrics: Metrics, batch: Batch, counted: jax.Array
) -> Metrics:
    """Adds one batch of evaluation to the sums.

    Args:
      recipe: static.
      params: live or slow weights.
      batch_stats: running statistics.
      metrics: sums so far.
      batch: this device's part.
      counted: bool [B]; False marks an example that only fills the batch.
    """
    scores = real_scores(recipe.objective(recipe.model, params, batch_stats, batch)[0], counted)
    samples = jnp.sum(counted, dtype=jnp.int32) * math.prod(batch.targets.shape[1:])
    sums = (jnp.sum(scores.losses), jnp.sum(scores.correct, dtype=jnp.int32), samples)
    return metrics.add(*recipe.share.total(sums))


def evaluate(recipe: Recipe, params: Any, batch_stats: Any, data: DeviceSplit) -> Metrics:
    """Sums over a whole test set, in one program.

    Args:
      recipe: static.
      params: live or slow weights.
      batch_stats: BatchNorm's statistics.
      data: the test set.
    """
    examples, size = data.inputs.shape[0], recipe.test_batch_size
    # Fewer examples than devices: a batch of one for each device reaches beyond the set.
    data = jax.tree.map(lambda x: pad(x, size), data)

    def add_batch(metrics, index):
        # The last batch starts early enough to be full; what it repeats or lies beyond the set is not counted.
        start = jnp.minimum(index * size, max(examples - size, 0))
        example = start + jnp.arange(size)
        counted = (example >= index * size) & (example < examples)
        batch = input_pipeline.slice_batch(data, start, size, recipe.preprocessing, recipe.share.part)
        return eval_step(recipe, params, batch_stats, metrics, batch, recipe.share.part(counted)), None

    return jax.lax.scan(add_batch, Metrics.zeros(), jnp.arange(-(-examples // size)))[0]
