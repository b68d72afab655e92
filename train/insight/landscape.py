"""Loss and accuracy over a plane in weight space, as pure programs.

The plane goes through three points of a path: the origin, a point on the way, and the end (Lookahead's figure 1 uses
the first, middle and last fast weights of a cycle). All other weights are projected onto it.

The accuracy of a network with BatchNorm at untrained weights means nothing until its statistics match them. So each
point is scored with statistics re-estimated there (`train.step.recalibration`), over the same augmented training
batches for all points, so that neighbours differ only in their weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from train.errors import UserError
from train.step.evaluation import evaluate
from train.step.input_pipeline import DeviceSplit
from train.step.recalibration import recalibrate
from train.step.recipe import Recipe


class Plane(NamedTuple):
    """A plane with orthonormal axes, in the weights' own unit of length.

    Attributes:
      origin: float32 [n], flat weights.
      across: float32 [n], unit vector from the origin towards the end of the path.
      up: float32 [n], unit vector at right angles to it, towards the side with the middle of the path.
    """

    origin: jax.Array
    across: jax.Array
    up: jax.Array


def flat(params: Any) -> jax.Array:
    """All weights as one vector, float32 [n]."""
    return ravel_pytree(params)[0]


def plane_through(origin: jax.Array, middle: jax.Array, end: jax.Array) -> Plane:
    """The plane through three points, by the Gram-Schmidt process.

    Raises:
      UserError: two of them are equal, or all three are on a line.
    """
    across = end - origin
    length = jnp.linalg.norm(across)
    across = across / length
    up = middle - origin
    reach = jnp.linalg.norm(up)
    # Twice, because one pass leaves the rounding errors of eleven million products along `across`.
    for _ in range(2):
        up = up - jnp.vdot(up, across) * across
    height = jnp.linalg.norm(up)
    if not (float(length) > 0 and float(height) > 1e-4 * float(reach)):
        raise UserError(
            "the weights do not move, or move along a straight line, so there is no plane; is the learning rate 0?"
        )
    return Plane(origin, across, up / height)


@jax.jit
def project(plane: Plane, weights: jax.Array) -> jax.Array:
    """Float32 [3]: the two coordinates of the nearest point in the plane, and the distance from it."""
    offset = weights - plane.origin
    x, y = jnp.vdot(offset, plane.across), jnp.vdot(offset, plane.up)
    return jnp.stack([x, y, jnp.linalg.norm(offset - x * plane.across - y * plane.up)])


def score(
    recipe: Recipe, params: Any, batch_stats: Any, train: DeviceSplit, test: DeviceSplit, key: jax.Array
) -> jax.Array:
    """Float32 [2]: mean loss and accuracy of `params` over the test set, with re-estimated BatchNorm statistics.

    Args:
      recipe: static; for one device.
      params: the weights.
      batch_stats: those of any weights; only their structure is used.
      train: statistics are estimated over its first batches, in the order and with the augmentation of `key`.
      test: the examples to score on.
      key: the same key gives the same batches.
    """
    if jax.tree.leaves(batch_stats):
        batch_stats = recalibrate(recipe, params, batch_stats, key, jnp.int32(0), train)
    sums = evaluate(recipe, params, batch_stats, test)
    return jnp.stack([sums.loss + sums.lost, sums.correct.astype(jnp.float32)]) / sums.count


def score_points(
    recipe: Recipe,
    points: jax.Array,
    plane: Plane,
    like: Any,
    batch_stats: Any,
    train: DeviceSplit,
    test: DeviceSplit,
    key: jax.Array,
) -> jax.Array:
    """Scores points in the plane one after the other in one program: float32 [P, 2] from [P, 2].

    One after the other, because convolutions whose weights differ between examples become grouped ones, which are slow.

    Args:
      recipe: as in `score`.
      points: coordinates in the plane.
      plane: the plane.
      like: a tree of parameters; only its structure is used.
      batch_stats: as in `score`.
      train: as in `score`.
      test: as in `score`.
      key: as in `score`.
    """
    unravel = ravel_pytree(like)[1]

    def one(point):
        weights = plane.origin + point[0] * plane.across + point[1] * plane.up
        return score(recipe, unravel(weights), batch_stats, train, test, key)

    return jax.lax.map(one, points)
