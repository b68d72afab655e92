"""What a batch costs: the loss and the hit or miss of every sample. The one place of a step where tasks differ.

| task                     | a sample is | scored by                                       |
|--------------------------|-------------|-------------------------------------------------|
| image, text_classification | an example | `score_classes`, from the model's logits       |
| text                     | a token     | `score_tokens`, which never forms the logits' gradient; |
|                          |             | `score_classes`, if the model has no `linear_last` |

Training and evaluation call the same function; a dropout key makes it training.
"""

import inspect
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from train.models.linear_cross_entropy import linear_cross_entropy
from train.step.input_pipeline import Batch


class Scores(NamedTuple):
    """How a model did on each sample of a batch; all fields have the shape of the batch's targets.

    Attributes:
      losses: float32, cross-entropy in nats: what metrics report.
      objectives: float32, what training minimises: `losses`, or with label smoothing the cross-entropy to the
        smoothed labels.
      correct: bool, whether the target is what the model finds most likely.
    """

    losses: jax.Array
    objectives: jax.Array
    correct: jax.Array


def real_scores(scores: Scores, counted: jax.Array | None) -> Scores:
    """The scores with those of padding set to zero and False.

    Args:
      scores: of this device's part of a batch.
      counted: bool [B], False for padding; None if there is none.
    """
    if counted is None:
        return scores
    counted = jnp.expand_dims(counted, tuple(range(1, scores.losses.ndim)))
    return Scores(*(jnp.where(counted, score, jnp.zeros([], score.dtype)) for score in scores))


class Objective(Protocol):
    """A row of the table above.

    Args:
      model: Flax module.
      params: its parameters.
      batch_stats: its running statistics, empty for a model without.
      batch: what to score.
      dropout_key: PRNG key of a training step; None evaluates: no dropout, BatchNorm by its running statistics.
      label_smoothing: part of each label that is spread evenly over all classes, in `objectives` alone.
      examples: examples of the global batch, or of a worker's own, where padding follows them; None if there is none.

    Returns:
      The scores, and the running statistics after the batch (as they were when evaluating).
    """

    def __call__(
        self,
        model: nn.Module,
        params: Any,
        batch_stats: Any,
        batch: Batch,
        *,
        dropout_key: jax.Array | None = None,
        label_smoothing: float = 0.0,
        examples: int | jax.Array | None = None,
    ) -> tuple[Scores, Any]: ...


def knows_examples(model: nn.Module) -> bool:
    """Whether the model takes `examples`: its statistics then leave padding out, and it splits random draws itself."""
    return "examples" in inspect.signature(type(model).__call__).parameters


def apply_model(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    inputs: jax.Array,
    dropout_key: jax.Array | None,
    examples: int | jax.Array | None = None,
    **how: Any,
) -> tuple[jax.Array, Any]:
    """The model's outputs and its running statistics afterwards; evaluates where there is no dropout key."""
    if examples is not None and knows_examples(model):
        how["examples"] = examples
    variables = {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
    if dropout_key is None:
        return model.apply(variables, inputs, train=False, **how), batch_stats  # type: ignore[return-value]
    rngs = {"dropout": dropout_key}
    outputs, updated = model.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs=rngs, **how)
    return outputs, updated.get("batch_stats", {})


def sample_losses(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each sample: float32 [...] from logits [..., classes] and int32 targets [...]."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    if label_smoothing:
        # (1 - e) times the one-hot and e times the uniform distribution; the losses are linear in the labels.
        uniform = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
        losses = (1.0 - label_smoothing) * losses + label_smoothing * uniform
    return losses


def score_classes(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    *,
    dropout_key: jax.Array | None = None,
    label_smoothing: float = 0.0,
    examples: int | jax.Array | None = None,
) -> tuple[Scores, Any]:
    """Scores a model whose outputs are logits [..., classes]: an `Objective`."""
    logits, batch_stats = apply_model(model, params, batch_stats, batch.inputs, dropout_key, examples)
    losses = sample_losses(logits, batch.targets)
    objectives = sample_losses(logits, batch.targets, label_smoothing) if label_smoothing else losses
    return Scores(losses, objectives, jnp.argmax(logits, axis=-1) == batch.targets), batch_stats


def score_tokens(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    *,
    dropout_key: jax.Array | None = None,
    label_smoothing: float = 0.0,
    examples: int | jax.Array | None = None,
) -> tuple[Scores, Any]:
    """Scores a language model whose method "hidden" gives what its last layer, `linear_last`, takes: an `Objective`."""
    hidden, batch_stats = apply_model(model, params, batch_stats, batch.inputs, dropout_key, examples, method="hidden")
    last = params[model.linear_last]  # pyright: ignore[reportAttributeAccessIssue]
    kernel, bias = last["kernel"], last["bias"]
    losses, correct = linear_cross_entropy(hidden, kernel, bias, batch.targets)
    objectives = losses
    if label_smoothing:
        # The uniform distribution's cross-entropy less the target's is the target's logit less the mean logit: the
        # log-sum-exp cancels, and both follow from columns of the kernel without the other logits.
        columns = jnp.moveaxis(jnp.take(kernel, batch.targets, axis=1), 0, -1) - jnp.mean(kernel, axis=1)[None, None]
        above_mean = jnp.sum(hidden * columns, axis=-1) + jnp.take(bias, batch.targets) - jnp.mean(bias)
        objectives = losses + label_smoothing * above_mean
    return Scores(losses, objectives, correct), batch_stats


def objective_of(task: str, model: nn.Module) -> Objective:
    """How a task's batches are scored with this model; see the table at the top."""
    return score_tokens if task == "text" and hasattr(type(model), "linear_last") else score_classes
