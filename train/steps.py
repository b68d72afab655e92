"""The two steps of training, pure and at module level: `train_step` and `eval_step`.

Both take one batch, however it came to the device and however many devices there are: under `pmap` the batch is this
device's part and `axis_name` names the axis to reduce over; under `jit` (one device, or several with a sharded batch)
`axis_name` is None and the batch is the whole one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from train.objectives import Objective, score_classes
from train.sampling import Batch


@flax.struct.dataclass
class TrainState:
    """Everything that a run continues from.

    Attributes:
      step: int32 scalar, updates so far.
      key: uint32 [2], the run's PRNG key; order, crops and dropout derive from it and `step`.
      params: float32 tree.
      batch_stats: float32 tree, BatchNorm's running statistics (empty for models without).
      opt_state: the optimizer's, slow weights included.
    """

    step: jax.Array
    key: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


@flax.struct.dataclass
class Metrics:
    """Sums over every sample seen, from which the means of an epoch are exact.

    The loss is a compensated sum (Neumaier): the short last batch counts with its own size, and an epoch of 400
    batches loses no digits.

    Attributes:
      loss: float32 scalar, sum of the samples' losses.
      lost: float32 scalar, what rounding took from `loss` so far.
      correct: int32 scalar.
      count: int32 scalar, samples (images, or tokens).
    """

    loss: jax.Array
    lost: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def zeros(cls) -> "Metrics":
        def zero(dtype):
            return jnp.zeros([], dtype)

        return cls(zero(jnp.float32), zero(jnp.float32), zero(jnp.int32), zero(jnp.int32))

    def add(self, loss: jax.Array, correct: jax.Array, count: jax.Array) -> "Metrics":
        """These sums and one batch's."""
        loss = loss.astype(jnp.float32)
        total = self.loss + loss
        larger = jnp.abs(self.loss) >= jnp.abs(loss)
        rounding = jnp.where(larger, (self.loss - total) + loss, (loss - total) + self.loss)
        return Metrics(total, self.lost + rounding, self.correct + correct, self.count + count)

    def samples(self) -> int:
        """How many samples the sums hold, on the host."""
        return int(self.count)

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy, on the host."""
        values = jax.device_get(self)
        count = int(values.count)
        return (float(values.loss) + float(values.lost)) / count, int(values.correct) / count


def state_norms(params: Any, slow_params: Any | None) -> dict[str, jax.Array]:
    """Euclidean norms over all parameters: of the live weights, and of their distance from the slow ones."""
    norms = {"parameter_norm": optax.tree.norm(params)}
    if slow_params is not None:
        norms["slow_distance"] = optax.tree.norm(optax.tree.sub(params, slow_params))
    return norms


def train_step(
    state: TrainState,
    metrics: Metrics,
    batch: Batch,
    dropout_key: jax.Array,
    *,
    model: nn.Module,
    tx: optax.GradientTransformationExtraArgs,
    objective: Objective = score_classes,
    axis_name: str | None = None,
    label_smoothing: float = 0.0,
    with_norms: bool = False,
    slow_params: Callable[[optax.OptState], Any] | None = None,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """One update of the parameters.

    Args:
      state: what the run continues from; donated by the programs of `train.parallel`, in the order of the outputs.
      metrics: the epoch's sums so far; donated.
      batch: this device's part of the batch.
      dropout_key: PRNG key of this step (and device).
      model: Flax module; static.
      tx: optimizer; static.
      objective: how the task scores a batch; static.
      axis_name: axis to reduce over under pmap; static.
      label_smoothing: in the training loss alone; the metrics' loss has none.
      with_norms: report norms as well, at the cost of some passes over the parameters; static.
      slow_params: takes the slow weights from the optimizer's state, None without Lookahead; static.

    Returns:
      The state after the update, the metrics with this batch added, and a report in float32 scalars that are not
      donated: the batch's mean "loss" for the host to wait on, and with norms "gradient_norm", "update_norm" (what
      was added to the parameters), "parameter_norm" and "slow_distance" (from live to slow weights), both after the
      update.
    """

    def total(tree):
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    count = total(jnp.asarray(batch.targets.size, jnp.int32))

    def mean_loss(params):
        scores, batch_stats = objective(
            model, params, state.batch_stats, batch, dropout_key=dropout_key, label_smoothing=label_smoothing
        )
        # This device's share of the global mean: the shares, and so their gradients, add up to it.
        share = jnp.sum(scores.objectives) / count
        return share, (jnp.sum(scores.losses), jnp.sum(scores.correct, dtype=jnp.int32), batch_stats)

    grads, (loss, correct, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    grads, loss, correct = total(grads), total(loss), total(correct)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    report = {"loss": loss / count}
    if with_norms:
        report |= {"gradient_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        report |= state_norms(params, slow_params(opt_state) if slow_params else None)
    state = dataclasses.replace(state, step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
    return state, metrics.add(loss, correct, count), report


def eval_step(
    params: Any,
    batch_stats: Any,
    metrics: Metrics,
    batch: Batch,
    weights: jax.Array,
    *,
    model: nn.Module,
    objective: Objective = score_classes,
    axis_name: str | None = None,
) -> Metrics:
    """Adds one batch of evaluation to the sums.

    Args:
      params: live or slow weights.
      batch_stats: running statistics.
      metrics: sums so far.
      batch: this device's part.
      weights: bool [B]; False marks an example that only fills the batch.
      model: Flax module; static.
      objective: how the task scores a batch; static.
      axis_name: axis to reduce over under pmap; static.
    """
    scores, _ = objective(model, params, batch_stats, batch)
    shape = weights.shape + (1,) * (batch.targets.ndim - 1)
    counted = jnp.broadcast_to(weights.reshape(shape), batch.targets.shape)
    sums = (
        jnp.sum(jnp.where(counted, scores.losses, 0.0)),
        jnp.sum(counted & scores.correct, dtype=jnp.int32),
        jnp.sum(counted, dtype=jnp.int32),
    )
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    return metrics.add(*sums)


def init_state(
    key: jax.Array, model: nn.Module, tx: optax.GradientTransformationExtraArgs, inputs: jax.ShapeDtypeStruct
) -> TrainState:
    """The state before the first step: pure, so that `jax.eval_shape` gives its form without computing it.

    Args:
      key: the run's key, uint32 [2].
      model: Flax module.
      tx: optimizer.
      inputs: shape and dtype of a batch of inputs; the batch axis may be 1.
    """
    init_key, run_key = jax.random.split(key)
    variables = model.init(init_key, jnp.zeros(inputs.shape, inputs.dtype), train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        key=run_key,
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
    )
