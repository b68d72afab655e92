"""BatchNorm statistics for weights that never trained: what the slow weights are to be evaluated with.

The running statistics of a run follow the live weights. The slow weights compute other activations, so evaluating them
with the live weights' statistics tests a network that nobody trained; the further the two are apart, the worse.
Re-estimated, the statistics are those of the slow weights themselves, as `torch.optim.swa_utils.update_bn` does it for
averaged weights: the plain mean of the batches' statistics over training batches, no momentum.

The batches are *augmented* training batches: those that the epoch to come starts with. BatchNorm's running statistics
estimate what the layers see in training, augmented images, and the weights learned under those; with plain images
instead, a difference between live and slow weights would mix two causes. 50 batches are more than the 20 or so that
the usual running mean (momentum .9) effectively holds, and cost an eighth of a CIFAR epoch's forward passes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from train.models.normalization import BatchNorm
from train.objectives import apply_model

BATCHES = 50


def batch_statistics(model: nn.Module, params: Any, batch_stats: Any, inputs: jax.Array, key: jax.Array) -> Any:
    """Mean and (unbiased) variance of this batch alone at every BatchNorm: a tree like `batch_stats`.

    Args:
      model: Flax module; its BatchNorms are `train.models.normalization.BatchNorm` with their default momentum.
      params: the weights to compute with.
      batch_stats: running statistics, for their structure alone.
      inputs: float32 [B, ...], this device's part of a training batch.
      key: PRNG key for dropout, where the model has any.
    """
    # From zero, one update leaves (1 - momentum) times the batch's statistics.
    _, updated = apply_model(model, params, jax.tree.map(jnp.zeros_like, batch_stats), inputs, key)
    return jax.tree.map(lambda x: x / (1 - BatchNorm.momentum), updated)
