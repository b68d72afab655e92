"""A trained network out of a workdir: its weights, and a function from images or tokens to logits.

Nothing of the run's data is read: model.json, which each run writes as it begins, has the shapes and the preprocessing.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from train import averages
from train.config import Config, from_dict, validate
from train.data.dataset import from_facts
from train.errors import UnknownName, UserError
from train.experiment import make_experiment, make_recipe
from train.files import read_json
from train.interface.paths import user_path
from train.run.checkpointing import Checkpoints
from train.run.recovery import stored_state
from train.run.trainer import Trainer
from train.step.input_pipeline import DeviceSplit, slice_batch
from train.step.metrics import Metrics
from train.step.parallel import Parallel
from train.step.recipe import Recipe
from train.step.steps import TrainState, for_workers

Weights = Literal["slow", "live", "ema", "best"]


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A trained network; calling it gives logits.

    Attributes:
      config: of its run.
      variables: {"params": ..., "batch_stats": ...}, as Flax's `apply` takes them.
      step: batches that it was trained on.
      weights: which weights they are: "slow", "live" or "ema".
      class_names: in the order of the logits, or the vocabulary in the order of the token ids; empty where unknown.
    """

    config: Config
    variables: Mapping[str, Any]
    step: int
    weights: str
    class_names: tuple[str, ...]
    _recipe: Recipe = dataclasses.field(repr=False)

    def __call__(self, inputs: Any) -> jax.Array:
        """Logits of a batch, as evaluation computes them.

        Args:
          inputs: images [B, H, W, C] of levels 0 to 255, not normalised, of whatever size the run's images had; or
            tokens, int32 [B, T].

        Returns:
          float32 [B, classes], of a language model [B, T, vocabulary].
        """
        return self._logits(self.variables, jnp.asarray(inputs))

    @functools.cached_property
    def _logits(self) -> Any:
        recipe = self._recipe

        @jax.jit
        def logits(variables: Any, inputs: jax.Array) -> jax.Array:
            split = DeviceSplit(inputs, jnp.zeros(inputs.shape[:1], jnp.int32))
            batch = slice_batch(split, 0, inputs.shape[0], recipe.preprocessing)
            return recipe.model.apply(variables, batch.inputs, train=False)  # type: ignore[return-value]

        return logits


def load_model(workdir: Path | str, *, weights: Weights | None = None) -> LoadedModel:
    """Loads the network that a run trained.

    Args:
      workdir: of the run, finished or not.
      weights: "slow" (Lookahead's), "live" (for Schedule-Free its average), "ema" (the moving average), all of the
        newest checkpoint; or "best", slow or live ones of the checkpoint that was best on the validation set. By
        default the slow ones where there are any.

    Returns:
      The network. With `recalibrate_batch_stats`, slow and averaged weights get BatchNorm statistics of their own, for
      which alone the run's training data is read.

    Raises:
      UserError: there is no such run or checkpoint, or it has no such weights.
    """
    directory = user_path(str(workdir), "workdir")
    try:
        settings = read_json(directory / "config.json")
        dataset = from_facts(read_json(directory / "model.json"))
        config = validate(from_dict(settings))
    except UserError as error:
        hint = "; if a file registers it, give --register=FILE (in Python: import it first)"
        raise UserError(f"{directory}: {error}{hint * isinstance(error, UnknownName)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory} has no run to load a model from: {error}") from error
    recipe = make_recipe(config, dataset)
    chosen = _chosen(config, weights, directory)
    if weights == "best" and not config.validation_examples:
        raise UserError(
            f"{directory} has no best checkpoint: the run had no validation set (config.validation_examples=0); use "
            "slow or live"
        )
    state, step = _restored(recipe, directory, best=weights == "best")
    decay = recipe.ema_decay if chosen == "ema" else 0.0
    params = averages.evaluated_params(state.opt_state, state.params, slow=chosen == "slow", ema_decay=decay)
    batch_stats = state.batch_stats
    if recipe.recalibration_batches and params is not state.params:
        trainer = Trainer(make_experiment(dataclasses.replace(config, devices=1)))
        batch_stats = trainer.recalibrated_batch_stats(state, params)
    variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
    return LoadedModel(config, variables, step, chosen, dataset.class_names, recipe)


def _chosen(config: Config, weights: str | None, directory: Path) -> str:
    lookahead = config.optimizer.lookahead
    if weights not in (None, *get_args(Weights)):
        raise UserError(f"weights={weights!r} must be one of {', '.join(get_args(Weights))}")
    if weights in (None, "best"):
        return "slow" if lookahead else "live"
    if config.local_steps and weights != "slow":
        raise UserError(
            f"weights={weights!r}: with config.local_steps=True each worker has its own; use slow, which all share"
        )
    for name, there, setting in (("slow", lookahead, "optimizer.lookahead"), ("ema", config.ema_decay, "ema_decay")):
        if weights == name and not there:
            raise UserError(f"the run in {directory} has no {name} weights: its config.{setting} is off; use live")
    return str(weights)


def _restored(recipe: Recipe, directory: Path, *, best: bool) -> tuple[TrainState, int]:
    parallel = Parallel.of(jax.local_devices()[:1], "pmap")
    checkpoints = Checkpoints(directory / "checkpoints")
    try:
        step = checkpoints.best() if best else None
        if best and step is None:
            raise UserError(
                f"{directory} has no best checkpoint yet: none was saved with a validation score; use slow or live"
            )

        def form(progress):
            return parallel.placed({"state": stored_state(recipe, progress), "metrics": jax.eval_shape(Metrics.zeros)})

        found = checkpoints.restore(form, only=step)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{directory} has no checkpoints; a study keeps those of finished runs with --keep_checkpoints")
    state, workers = found.tree["state"], found.progress.get("workers")
    return (state if workers is None else for_workers(state, workers, None)), found.step
