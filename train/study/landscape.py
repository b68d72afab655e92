"""Loss and accuracy over a plane in the space of the weights, as pure programs.

The plane goes through three points of a path: origin, a point on the way, and the end (Lookahead's figure 1 takes the
first, middle and last fast weights of a cycle). Any other weights are projected on it.

A network with BatchNorm has no accuracy at weights that it never trained at until its statistics fit them: each point
is scored with statistics re-estimated there (`train.recalibration`), over the same augmented training batches for all
points, so that neighbours differ by their weights alone.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from train import recalibration, sampling, steps
from train.errors import UserError
from train.objectives import Objective
from train.sampling import DeviceSplit, Preprocessing
from train.steps import Metrics


class Plane(NamedTuple):
    """A plane with right angles and the weights' own unit of length.

    Attributes:
      origin: float32 [n], flat weights.
      across: float32 [n], unit vector from the origin towards the end of the path.
      up: float32 [n], unit vector at right angles to it, towards the side that the middle of the path lies on.
    """

    origin: jax.Array
    across: jax.Array
    up: jax.Array


def flat(params: Any) -> jax.Array:
    """All weights as one vector, float32 [n]."""
    return ravel_pytree(params)[0]


def plane_through(origin: jax.Array, middle: jax.Array, end: jax.Array) -> Plane:
    """The plane through three points, by Gram and Schmidt.

    Raises:
      UserError: two of them are the same, or all three lie on a line.
    """
    across = end - origin
    length = jnp.linalg.norm(across)
    across = across / length
    up = middle - origin
    reach = jnp.linalg.norm(up)
    # Twice: one pass leaves the rounding errors of eleven million products along `across`.
    for _ in range(2):
        up = up - jnp.vdot(up, across) * across
    height = jnp.linalg.norm(up)
    if not (float(length) > 0 and float(height) > 1e-4 * float(reach)):
        raise UserError("the weights do not move, or move on a straight line: there is no plane; is the rate 0?")
    return Plane(origin, across, up / height)


@jax.jit
def project(plane: Plane, weights: jax.Array) -> jax.Array:
    """Float32 [3]: the two coordinates of the nearest point of the plane, and the distance from it."""
    offset = weights - plane.origin
    x, y = jnp.vdot(offset, plane.across), jnp.vdot(offset, plane.up)
    return jnp.stack([x, y, jnp.linalg.norm(offset - x * plane.across - y * plane.up)])


@dataclasses.dataclass(frozen=True)
class Scoring:
    """What is fixed about scoring weights: static under jit.

    Attributes:
      model: Flax module.
      objective: how its task scores a batch.
      preprocessing: of the data set.
      batch_size: training examples of each batch that statistics are estimated over.
      batches: how many of those; without BatchNorm none are needed.
      test_batch_size: at most the number of test examples.
    """

    model: nn.Module
    objective: Objective
    preprocessing: Preprocessing
    batch_size: int
    batches: int
    test_batch_size: int


def _statistics(
    scoring: Scoring, params: Any, batch_stats: Any, train: DeviceSplit, order: jax.Array, key: jax.Array
) -> Any:
    """BatchNorm statistics of `params` over the first batches of `order`."""
    if not jax.tree.leaves(batch_stats):
        return batch_stats
    draw_key, dropout_key = jax.random.split(key)

    def add_batch(total, index):
        size = scoring.batch_size
        drawn = sampling.draw(
            draw_key, index, order, batch_size=size, full_batch_size=size, preprocessing=scoring.preprocessing
        )
        inputs = sampling.load(train, drawn, scoring.preprocessing).inputs
        found = recalibration.batch_statistics(scoring.model, params, batch_stats, inputs, dropout_key)
        return jax.tree.map(jnp.add, total, found), None

    batches = max(1, min(scoring.batches, order.shape[0] // scoring.batch_size))
    total, _ = jax.lax.scan(add_batch, jax.tree.map(jnp.zeros_like, batch_stats), jnp.arange(batches))
    return jax.tree.map(lambda x: x / batches, total)


def score(
    scoring: Scoring,
    params: Any,
    batch_stats: Any,
    train: DeviceSplit,
    test: DeviceSplit,
    order: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Float32 [2]: mean loss and accuracy of `params` over the test set, BatchNorm statistics re-estimated.

    Args:
      scoring: static.
      params: the weights.
      batch_stats: of any weights, for their structure alone.
      train: statistics are estimated over it.
      test: what is scored.
      order: int32 [N], the training examples in the order they are taken in.
      key: of augmentation; the same key gives the same batches.
    """
    statistics = _statistics(scoring, params, batch_stats, train, order, key)
    examples, size = test.inputs.shape[0], scoring.test_batch_size

    def add_batch(metrics, index):
        # The last batch starts early enough to be full; what it repeats is not counted again.
        start = jnp.minimum(index * size, examples - size)
        batch = sampling.slice_batch(test, start, size, scoring.preprocessing)
        weights = start + jnp.arange(size) >= index * size
        return steps.eval_step(
            params, statistics, metrics, batch, weights, model=scoring.model, objective=scoring.objective
        ), None

    sums, _ = jax.lax.scan(add_batch, Metrics.zeros(), jnp.arange(-(-examples // size)))
    return jnp.stack([sums.loss + sums.lost, sums.correct.astype(jnp.float32)]) / sums.count


def score_points(
    scoring: Scoring,
    points: jax.Array,
    plane: Plane,
    like: Any,
    batch_stats: Any,
    train: DeviceSplit,
    test: DeviceSplit,
    order: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Scores points of the plane one after the other in one program: float32 [P, 2] from [P, 2].

    One after the other, because convolutions whose weights differ by example become grouped ones, which are slow.

    Args:
      scoring: static.
      points: coordinates in the plane.
      plane: where they lie.
      like: a tree of parameters, for its structure alone.
      batch_stats: see `score`, as all others.
      train: see there.
      test: see there.
      order: see there.
      key: see there.
    """
    unravel = ravel_pytree(like)[1]

    def one(point):
        weights = plane.origin + point[0] * plane.across + point[1] * plane.up
        return score(scoring, unravel(weights), batch_stats, train, test, order, key)

    return jax.lax.map(one, points)
