"""From a config to an `Experiment`: everything that is decided before a run is decided here."""

import dataclasses
import inspect
import logging
import os
from typing import Any

import jax
import jax.numpy as jnp

from train import averages, data
from train.config import Config
from train.data import Dataset
from train.errors import UserError, first_line
from train.hosts import agreement
from train.models import MODELS, model_for
from train.models.cpu import onednn
from train.models.cpu.convolution import conv_general_dilated_onednn
from train.optimizers import make_optimizer, make_schedule
from train.registry import OPTIMIZERS
from train.step.dispatch import ONE_BY_ONE, Dispatch, choose
from train.step.input_pipeline import Preprocessing, shapes_of
from train.step.objectives import apply_model, knows_examples, objective_of
from train.step.parallel import Parallel, run_devices
from train.step.recalibration import BATCHES
from train.step.recipe import Recipe, steps_per_epoch
from train.step.share import WHOLE, Share
from train.step.steps import abstract_inputs, abstract_state, tree_bytes

log = logging.getLogger(__name__)

# Programs without oneDNN: XLA's own convolutions and our lowerings to its matmuls.
XLA = "XLA"
# The arguments of `data.load` after the name.
_DATA_SETTINGS = tuple(inspect.signature(data.load).parameters)[1:]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run before it begins: what it computes, from which data, on which devices.

    Attributes:
      recipe: what its programs are functions of.
      dataset: in host memory.
      parallel: the devices.
      dispatch: how updates are put into calls of the devices.
      convolutions: what computes them on the CPU, as run.json has it: oneDNN with its version, or `XLA`; None on other
        devices.
    """

    recipe: Recipe
    dataset: Dataset
    parallel: Parallel
    dispatch: Dispatch = ONE_BY_ONE
    convolutions: str | None = XLA


def make_experiment(config: Config, dataset: Dataset | None = None, *, convolutions: str | None = None) -> Experiment:
    """Decides what a config leaves open, on this machine.

    Args:
      config: validated.
      dataset: its data; loaded if not given.
      convolutions: what computed the run's convolutions so far; None for a run that begins.

    Raises:
      UserError: the data is missing, there are fewer devices, or the settings do not fit together.
    """
    parallel = Parallel.of(run_devices(config.devices), "local" if config.local_steps else config.parallel)
    dataset = load_dataset(config) if dataset is None else dataset
    convolutions = _convolutions(config, parallel, convolutions)
    recipe = make_recipe(config, dataset, parallel.share, convolutions=convolutions)
    # Where gradients are accumulated, by a setting or by a user's optimizer, Lookahead does not count every step.
    counted = config.optimizer.lookahead and config.accumulate_steps == 1 and OPTIMIZERS[config.optimizer.name].own
    dispatch = choose(
        config.steps_per_dispatch,
        platform=parallel.devices[0].platform,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(abstract_state(recipe).params)),
        sync_period=config.optimizer.sync_period if counted else 0,
    )
    return Experiment(recipe, dataset, parallel, dispatch, convolutions)


def _convolutions(config: Config, parallel: Parallel, before: str | None) -> str | None:
    """What computes a run's convolutions, given what did so far.

    oneDNN is for one process whose programs are written for one device each: XLA cannot split its calls over devices.
    """
    if any(device.platform != "cpu" for device in parallel.devices):
        return None
    model = MODELS[config.model.name]
    convolutional = model.own and "conv_general_dilated" in model.parameters()
    one_device_each = parallel.share.mode in ("single", "pmap") and agreement.count() == 1
    if before == XLA or not (convolutional and one_device_each and config.dtype == "float32"):
        return XLA
    return onednn.version() or XLA


def load_dataset(config: Config) -> Dataset:
    """The data set of a config, in host memory.

    Raises:
      UserError: it is missing or damaged, or the config asks for more examples than it has.
    """
    return data.load(config.dataset, **data_settings(config))


def data_settings(config: Config) -> dict[str, Any]:
    """What decides, besides its name, what `load_dataset` gives."""
    return {name: getattr(config, name) for name in _DATA_SETTINGS}


def make_recipe(config: Config, dataset: Dataset, share: Share = WHOLE, *, convolutions: str | None = XLA) -> Recipe:
    """Works out what a config and the shape of its data decide.

    Args:
      config: validated.
      dataset: only the shapes of its arrays matter, which may be `jax.ShapeDtypeStruct`.
      share: how a batch is split over devices.
      convolutions: what computes them; anything but `XLA` and None is oneDNN, for programs of this process.

    Raises:
      UserError: model, data and settings do not fit together, or the network cannot take the inputs or does not fit
        into memory.
    """
    examples, tests = len(dataset.train), len(dataset.test)
    if config.batch_size > examples:
        raise UserError(f"config.batch_size={config.batch_size} is larger than the {examples} training examples")
    # A multiple of the devices, as large as asked for at most; one example for each device at least.
    test_batch_size = min(config.test_batch_size or config.batch_size, tests) // share.devices * share.devices
    test_batch_size = test_batch_size or share.devices
    per_epoch = steps_per_epoch(examples, config.batch_size)
    model = model_for(dataset, config.model, axis_name=share.axis_name, dtype=config.dtype)
    if convolutions not in (None, XLA):
        model = model.clone(conv_general_dilated=conv_general_dilated_onednn)
    schedule = make_schedule(config.optimizer, steps_per_epoch=per_epoch, epochs=config.epochs)
    every = config.accumulate_steps
    recipe = Recipe(
        task=dataset.task,
        tx=make_optimizer(
            config.optimizer,
            schedule,
            accumulate_steps=every,
            ema_decay=config.ema_decay,
            workers_axis=share.workers_axis,
        ),
        schedule=schedule if every == 1 else lambda step: schedule(jnp.asarray(step) // every * every),
        objective=objective_of(dataset.task, model),
        preprocessing=Preprocessing.of(dataset, cutout=config.cutout, image_size=config.image_size),
        train_data=shapes_of(dataset.train),
        test_data=shapes_of(dataset.test),
        validation_data=shapes_of(dataset.validation) if dataset.validation else None,
        model=model,
        batch_size=config.batch_size,
        test_batch_size=test_batch_size,
        epochs=config.epochs,
        lookahead=config.optimizer.lookahead,
        label_smoothing=config.label_smoothing,
        recalibration_batches=BATCHES if config.recalibrate_batch_stats else 0,
        ema_decay=config.ema_decay,
        share=share,
    )
    _check_updates(recipe, config)
    _check_network(recipe, config, dataset)
    if config.optimizer.lookahead and averages.is_schedule_free(abstract_state(recipe).opt_state):
        raise UserError(
            f"config.optimizer.lookahead=True cannot be combined with {config.optimizer.name}, which is Schedule-Free: "
            "its average would not follow the weights at a sync; use adamw"
        )
    _check_batch_stats(recipe, config)
    return recipe


def _check_updates(recipe: Recipe, config: Config) -> None:
    """Refuses a run in which no update is made, and warns of one in which Lookahead does not sync."""
    updates = recipe.total_steps // config.accumulate_steps
    if updates == 0:
        raise UserError(
            f"config.accumulate_steps={config.accumulate_steps} is more than the run's {recipe.total_steps} steps, so "
            "no update would be made; use fewer, or more epochs"
        )
    share, size = recipe.share, config.batch_size
    if share.workers_axis and (empty := share.devices - -(-size // (share.padded(size) // share.devices))):
        log.warning(
            f"config.batch_size={size} leaves {empty} of {share.devices} workers without an example in every batch; "
            f"use a multiple of {share.devices}"
        )
    if config.optimizer.lookahead and config.optimizer.sync_period > updates:
        log.warning(
            f"config.optimizer.sync_period={config.optimizer.sync_period} is more than the run's {updates} updates: "
            "Lookahead never syncs, and its slow weights stay the initial ones"
        )


def _check_batch_stats(recipe: Recipe, config: Config) -> None:
    """Refuses settings that a model's BatchNorm, or the lack of one, cannot serve."""
    has_stats, name = bool(jax.tree.leaves(abstract_state(recipe).batch_stats)), config.model.name
    if config.recalibrate_batch_stats and not has_stats:
        raise UserError(f"config.recalibrate_batch_stats=True, but the model {name} has no BatchNorm")
    if not has_stats or knows_examples(recipe.model):
        return
    for size, what in ((recipe.batch_size, "config.batch_size"), (recipe.last_batch_size, "the epoch's last batch")):
        if size % recipe.share.devices:
            raise UserError(
                f"{what} of {size} does not divide over {recipe.share.devices} devices, and the model {name} would "
                "count the padding in its batch statistics; let its __call__ take `examples` (see "
                "train.register_model), or use fewer devices"
            )


def _check_network(recipe: Recipe, config: Config, dataset: Dataset) -> None:
    """Works out the shapes of a network's parameters: sizes that it cannot take are one line before anything runs."""
    shape = "this size"
    try:
        shape = "x".join(map(str, abstract_inputs(recipe).shape[1:]))
        state = abstract_state(recipe)
    except Exception as error:
        if isinstance(error, UserError) or not (
            MODELS[config.model.name].own and OPTIMIZERS[config.optimizer.name].own
        ):
            raise  # a fault in the user's own code: where it is says the traceback
        raise UserError(
            f"config.model.name={config.model.name!r} cannot take inputs of {shape} ({dataset.name}): "
            f"{first_line(error)}; choose another model or other sizes"
        ) from error
    if not MODELS[config.model.name].own:
        logits, _ = jax.eval_shape(
            lambda params, stats, inputs: apply_model(recipe.model, params, stats, inputs, None),
            *(state.params, state.batch_stats, abstract_inputs(recipe)),
        )
        expected = (*recipe.train_data.targets.shape[1:], dataset.num_classes)
        if logits.shape[1:] != expected:
            found, wanted = (", ".join(map(str, sizes)) for sizes in (logits.shape[1:], expected))
            raise UserError(
                f"config.model.name={config.model.name!r} gives [B, {found}] for {dataset.name}; expected logits "
                f"[B, {wanted}]"
            )
    needed = tree_bytes(state)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise UserError(
            f"config.model.name={config.model.name!r} needs {needed / 2**30:,.0f} GiB for parameters and optimizer "
            f"state, this machine has {there / 2**30:,.0f}; choose smaller sizes"
        )
