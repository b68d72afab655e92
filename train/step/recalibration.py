"""BatchNorm statistics for weights that never trained: what the slow weights are to be evaluated with.

The running statistics of a run follow the live weights. The slow weights compute other activations, so evaluating them
with the live weights' statistics tests a network that nobody trained; the further the two are apart, the worse.
Re-estimated, the statistics are those of the slow weights themselves, as `torch.optim.swa_utils.update_bn` does it for
averaged weights: the plain mean of the batches' statistics over training batches, no momentum.

The batches are *augmented* training batches: those that the epoch to come starts with. BatchNorm's running statistics
estimate what the layers see in training, augmented images, and the weights learned under those; with plain images
instead, a difference between live and slow weights would mix two causes. 50 batches are more than the 20 or so that
the usual running mean (momentum .9) effectively averages, and cost an eighth of a CIFAR epoch's forward passes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from train.step import input_pipeline
from train.step.input_pipeline import DeviceSplit
from train.step.objectives import apply_model
from train.step.recipe import Recipe
from train.step.steps import epoch_order, keys_of_batch

BATCHES = 50


def recalibrate(
    recipe: Recipe, params: Any, batch_stats: Any, key: jax.Array, step: jax.Array, data: DeviceSplit
) -> Any:
    """BatchNorm statistics of `params` over the first full batches of the epoch that `step` is in.

    With m_b and v_b the mean and unbiased variance of batch b at a layer, and n batches:

        mean = 1/n sum_b m_b,   var = 1/n sum_b v_b

    Args:
      recipe: static; says how many batches, at most those of an epoch.
      params: the weights to compute with.
      batch_stats: for their structure alone.
      key: the state's.
      step: int32 scalar, batches so far.
      data: the training data.

    Returns:
      A tree like `batch_stats`.
    """
    order = epoch_order(recipe, key, step)
    first_of_epoch = step // recipe.steps_per_epoch * recipe.steps_per_epoch
    examples = recipe.share.examples(recipe.batch_size)

    def add_batch(total, index):
        draw_key, dropout_key = keys_of_batch(recipe, key, first_of_epoch + index)
        drawn = input_pipeline.draw(
            draw_key,
            first_of_epoch + index,
            order,
            start=index * recipe.batch_size,
            batch_size=recipe.batch_size,
            preprocessing=recipe.preprocessing,
        )
        inputs = input_pipeline.load(data, recipe.share.part(drawn), recipe.preprocessing).inputs
        found = batch_statistics(recipe.model, params, batch_stats, inputs, dropout_key, examples)
        return jax.tree.map(jnp.add, total, found), None

    batches = min(recipe.recalibration_batches, recipe.train_examples // recipe.batch_size)
    total, _ = jax.lax.scan(add_batch, jax.tree.map(jnp.zeros_like, batch_stats), jnp.arange(batches))
    mean = jax.tree.map(lambda x: x / batches, total)
    if examples is None:
        return mean
    # A worker of local steps that has no example in any full batch has no statistics of them: it keeps its own.
    return jax.tree.map(lambda x, own: jnp.where(examples == 0, own, x), mean, batch_stats)


def batch_statistics(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    inputs: jax.Array,
    key: jax.Array,
    examples: Any = None,
) -> Any:
    """Mean and (unbiased) variance of this batch alone at every BatchNorm: a tree like `batch_stats`.

    Args:
      model: Flax module; each of its BatchNorms updates `new = momentum * old + (1 - momentum) * batch's`.
      params: the weights to compute with.
      batch_stats: running statistics, for their structure alone.
      inputs: float32 [B, ...], this device's part of a training batch.
      key: PRNG key for dropout, where the model has any.
      examples: of the global batch, where padding follows them; None if there is none.
    """

    def update(old):
        return apply_model(model, params, old, inputs, key, examples)[1]

    # From zero, one update leaves (1 - momentum) times the batch's statistics; its derivative is the momentum.
    found, derivative = jax.vjp(update, jax.tree.map(jnp.zeros_like, batch_stats))
    (momentum,) = derivative(jax.tree.map(jnp.ones_like, found))
    return jax.tree.map(lambda x, momentum: x / (1 - momentum), found, momentum)
