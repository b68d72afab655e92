"""The programs of a run, as pure functions of a recipe: first state, order of an epoch, one training step or several.

Position in the epoch, order, crops and dropout follow from the state's own `step` and `key`, so that nothing is copied
from host to device from one step to the next. Every function needs only shapes to be traced, for this machine or
another one:

    jax.jit(train_step, static_argnums=0).lower(recipe, state, metrics, data, order)
"""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

import lookahead_jax as la
from train.step import input_pipeline
from train.step.input_pipeline import DeviceSplit
from train.step.metrics import Metrics
from train.step.objectives import knows_examples, real_scores
from train.step.recipe import Recipe
from train.step.share import Share


@flax.struct.dataclass
class TrainState:
    """Everything that a run continues from.

    Attributes:
      step: int32 scalar, batches so far; with `accumulate_steps` several of them make an update.
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


def step_keys(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of order (one for the run), draws (likewise; `draw` folds the step in) and dropout (of this step)."""
    order_key, draw_key, dropout_key = jax.random.split(key, 3)
    return order_key, draw_key, jax.random.fold_in(dropout_key, step)


def keys_of_batch(recipe: Recipe, key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys of draws and of dropout for a step's batch, as `step_keys`.

    Where the model draws for its part of the batch alone, each device has a dropout key of its own.
    """
    _, draw_key, dropout_key = step_keys(key, step)
    alone = recipe.share.workers_axis or not knows_examples(recipe.model)
    return draw_key, recipe.share.own_key(dropout_key) if alone else dropout_key


def abstract_inputs(recipe: Recipe) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one example as the model gets it, [1, ...]."""

    def first_example(data: DeviceSplit) -> jax.Array:
        return input_pipeline.slice_batch(data, 0, 1, recipe.preprocessing).inputs

    return jax.eval_shape(first_example, recipe.train_data)


def init_state(recipe: Recipe, key: jax.Array) -> TrainState:
    """The state before the first step.

    Args:
      recipe: static.
      key: of the run, uint32 [2].
    """
    inputs = abstract_inputs(recipe)
    init_key, run_key = jax.random.split(key)
    variables = recipe.model.init(init_key, jnp.zeros(inputs.shape, inputs.dtype), train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        key=run_key,
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=recipe.tx.init(params),
    )


# The recipe asked for last and its answer: asked for when a run is checked, and again when it begins. By identity, as a
# recipe whose model has options of a user's need not be hashable.
_LATEST: list[tuple[Recipe, TrainState]] = []


def abstract_state(recipe: Recipe) -> TrainState:
    """Shapes and dtypes of the state, computed without running anything."""
    for known, state in _LATEST:
        if known is recipe:
            return state
    state = jax.eval_shape(lambda key: init_state(recipe, key), jax.ShapeDtypeStruct((2,), jnp.uint32))
    _LATEST[:] = [(recipe, state)]
    return state


def tree_bytes(tree: Any) -> int:
    """The size of a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def epoch_order(recipe: Recipe, key: jax.Array, step: jax.Array) -> jax.Array:
    """The order of the epoch that `step` is in: int32 [training examples].

    Args:
      recipe: static.
      key: the state's.
      step: int32 scalar, batches so far.
    """
    order_key, _, _ = step_keys(key, step)
    epoch = step // recipe.steps_per_epoch
    return input_pipeline.epoch_order(order_key, epoch, recipe.train_examples, shuffle=recipe.preprocessing.shuffle)


def state_norms(params: Any, slow_params: Any | None) -> dict[str, jax.Array]:
    """Euclidean norms over all parameters: of the live weights, and of their distance from the slow ones."""
    norms = {"parameter_norm": optax.tree.norm(params)}
    if slow_params is not None:
        norms["slow_distance"] = optax.tree.norm(optax.tree.sub(params, slow_params))
    return norms


def train_step(
    recipe: Recipe,
    state: TrainState,
    metrics: Metrics,
    data: DeviceSplit,
    order: jax.Array,
    *,
    last: bool = False,
    sync: bool | None = None,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """One step, on the batch that `state.step` has in the epoch's order; with accumulation it may make no update.

    With parameters p, optimizer state s, a batch of B samples (x, y) and the samples' objectives l:

        g      = d/dp  1/B sum_i l(p; x_i, y_i)
        u, s'  = tx.update(g, s, p)
        p'     = p + u

    Each of several devices computes its samples' part of the sum, divided by the B of all; gradients are added up. With
    local steps they are not: each worker takes n times its own part, with n workers, and norms are means over them.

    Args:
      recipe: static.
      state: what the run continues from. Donate it and `metrics`, in this order, which is the outputs'.
      metrics: the epoch's sums so far.
      data: the training data.
      order: int32 [training examples], of this epoch.
      last: whether the step ends the epoch: its batch takes what remains, and norms are computed, which costs some
        passes over the parameters; static.
      sync: whether Lookahead syncs; None leaves it to the optimizer's own count; static.

    Returns:
      The state after the update; the metrics with this batch added; and float32 scalars, which are not donated: the
      batch's mean "loss" for the host to wait on, and after the last step "gradient_norm", "update_norm" (of u),
      "parameter_norm" and "slow_distance" (from p' to the slow weights).
    """
    share, objective = recipe.share, recipe.objective
    draw_key, dropout_key = keys_of_batch(recipe, state.key, state.step)
    examples = recipe.last_batch_size if last else recipe.batch_size
    drawn = input_pipeline.draw(
        draw_key,
        state.step,
        order,
        start=(state.step % recipe.steps_per_epoch) * recipe.batch_size,
        batch_size=examples,
        preprocessing=recipe.preprocessing,
    )
    batch = input_pipeline.load(data, share.part(drawn), recipe.preprocessing)
    counted, real = share.counted(examples), share.examples(examples)
    count = jnp.asarray(examples * recipe.samples_per_example, jnp.int32)

    def mean_objective(params):
        scores, batch_stats = objective(
            recipe.model,
            params,
            state.batch_stats,
            batch,
            dropout_key=dropout_key,
            label_smoothing=recipe.label_smoothing,
            examples=real,
        )
        scores = real_scores(scores, counted)
        # This device's share of the global mean: the shares, and so their gradients, add up to it.
        mean = jnp.sum(scores.objectives) / count
        return mean, (jnp.sum(scores.losses), jnp.sum(scores.correct, dtype=jnp.int32), batch_stats)

    grads, (loss, correct, batch_stats) = jax.grad(mean_objective, has_aux=True)(state.params)
    grads, loss, correct = share.gradient(grads), share.total(loss), share.total(correct)
    extra_args = {} if sync is None else {"sync": sync}
    updates, opt_state = recipe.tx.update(grads, state.opt_state, state.params, **extra_args)
    params = optax.apply_updates(state.params, updates)
    scalars = {"loss": loss / count}
    if last:
        norms = {"gradient_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        norms |= state_norms(params, la.slow_params(opt_state) if recipe.lookahead else None)
        scalars |= share.mean(norms)
    state = dataclasses.replace(state, step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
    return state, metrics.add(loss, correct, count), scalars


def train_steps(
    recipe: Recipe,
    state: TrainState,
    metrics: Metrics,
    data: DeviceSplit,
    order: jax.Array,
    *,
    count: int,
    period: int = 0,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """Several updates in one program; none of them may be an epoch's last.

    Args:
      recipe, state, metrics, data, order: as for :func:`train_step`.
      count: how many updates; static.
      period: every so many updates, which must divide `count`, the last one syncs, and no other does; 0 leaves it to
        the optimizer's own count; static.

    Returns:
      As :func:`train_step`, but "loss" is float32 [count].
    """

    def repeated(carried: tuple[TrainState, Metrics], times: int, sync: bool | None):
        def step(carried, _):
            state, metrics = carried
            state, metrics, scalars = train_step(recipe, state, metrics, data, order, sync=sync)
            return (state, metrics), scalars["loss"]

        return jax.lax.scan(step, carried, length=times)

    def whole_period(carried, _):
        (state, metrics), quiet = repeated(carried, period - 1, sync=False)
        state, metrics, scalars = train_step(recipe, state, metrics, data, order, sync=True)
        return (state, metrics), jnp.append(quiet, scalars["loss"])

    if period:
        (state, metrics), losses = jax.lax.scan(whole_period, (state, metrics), length=count // period)
    else:
        (state, metrics), losses = repeated((state, metrics), count, sync=None)
    return state, metrics, {"loss": losses.reshape(count)}


def finite_leaves(share: Share, state: TrainState) -> jax.Array:
    """Which arrays of the state are finite on all workers: bool [leaves of floating dtype]."""
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return share.every(jnp.stack(finite))


def for_workers(state: TrainState, stored: int | None, workers: int | None) -> TrainState:
    """A state for another number of workers of local steps, on the host.

    All start from the slow weights, as after an outer step: what the fast weights did since the last one is lost. The
    rest of worker i, its optimizer's moments and its BatchNorm statistics, is that of worker i mod n.

    Args:
      state: its leaves are [n, ...].
      stored: n; None for a state without that axis.
      workers: how many there are to be; None for a state without that axis.
    """
    taken = np.arange(workers or 1) % (stored or 1)
    state = jax.tree.map(lambda leaf: (np.asarray(leaf) if stored else np.asarray(leaf)[None])[taken], state)
    opt_state = optax.tree.set(state.opt_state, steps_since_sync=np.zeros([len(taken)], np.int32))
    params = jax.tree.map(lambda slow, fast: slow.astype(fast.dtype), la.slow_params(opt_state), state.params)
    state = dataclasses.replace(state, params=params, opt_state=opt_state)
    return state if workers else jax.tree.map(lambda leaf: leaf[0], state)
