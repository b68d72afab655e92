"""Loss and accuracy over a plane in the space of the weights, as pure programs.

The plane goes through three points of a path: origin, a point on the way, and the end (Lookahead's figure 1 takes the
first, middle and last fast weights of a cycle). Any other weights are projected on it.

A network with BatchNorm has no accuracy at weights that it never trained at until its statistics fit them: each point
is scored with statistics re-estimated there (`train.step.recalibration`), over the same augmented training batches for
all points, so that neighbours differ by their weights alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from train.errors import UserError
from train.step.input_pipeline import DeviceSplit
from train.step.recalibration import recalibrate
from train.step.recipe import Recipe
from train.step.steps import evaluate


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


def score(
    recipe: Recipe, params: Any, batch_stats: Any, train: DeviceSplit, test: DeviceSplit, key: jax.Array
) -> jax.Array:
    """Float32 [2]: mean loss and accuracy of `params` over the test set, BatchNorm statistics re-estimated.

    Args:
      recipe: static; of one device.
      params: the weights.
      batch_stats: of any weights, for their structure alone.
      train: statistics are estimated over its first batches, in the order and with the augmentation of `key`.
      test: what is scored.
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
    """Scores points of the plane one after the other in one program: float32 [P, 2] from [P, 2].

    One after the other, because convolutions whose weights differ by example become grouped ones, which are slow.

    Args:
      recipe: see `score`, as for the arguments from `batch_stats` on.
      points: coordinates in the plane.
      plane: the plane.
      like: a tree of parameters, for its structure alone.
      batch_stats: see there.
      train: see there.
      test: see there.
      key: see there.
    """
    unravel = ravel_pytree(like)[1]

    def one(point):
        weights = plane.origin + point[0] * plane.across + point[1] * plane.up
        return score(recipe, unravel(weights), batch_stats, train, test, key)

    return jax.lax.map(one, points)
