"""The training system's own programs, compiled for a chip at the sizes of the configs."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import lookahead_jax as la
from benchmarks.aot.chips import Chip, compile_for, on_chip
from train.data import Dataset, Split
from train.experiment import make_recipe
from train.step import steps
from train.step.compiling import named
from train.step.evaluation import evaluate
from train.step.metrics import Metrics
from train.step.recalibration import BATCHES, recalibrate
from train.step.recipe import Recipe
from train.step.share import WHOLE, Share


def _images(examples: int, size: int) -> Any:
    return jax.ShapeDtypeStruct((examples, size, size, 3), jnp.uint8)


def _integers(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _cifar10() -> Dataset:
    train, test = (Split(_images(n, 32), _integers(n)) for n in (50_000, 10_000))
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    return Dataset("cifar10", "image", train, test, 10, "pad_crop_flip", mean, std, shuffle=True)


def _images20() -> Dataset:
    """As results/report has them: 1,092 and 274 images of Tiny ImageNet."""
    train, test = (Split(_images(n, 64), _integers(n), _integers(n, 2)) for n in (1_092, 274))
    mean, std = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
    return Dataset("images", "image", train, test, 20, "random_resized_crop", mean, std, shuffle=True)


def _ptb() -> Dataset:
    train, test = (Split(_integers(n, 35), _integers(n, 35)) for n in (26_560, 2_100))
    return Dataset("ptb", "text", train, test, 10_000, "none", (), (), shuffle=False, vocab_size=10_000)


def _imdb() -> Dataset:
    train, test = (Split(_integers(n, 200), _integers(n)) for n in (25_000, 25_000))
    return Dataset("imdb_reviews", "text_classification", train, test, 2, "none", (), (), True, vocab_size=10_000)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A config with the shapes of its data.

    Attributes:
        name: its key in the results.
        title: for the table.
        config: name of a module in `configs/`.
        dataset: shapes of the data.
    """

    name: str
    title: str
    config: str
    dataset: Callable[[], Dataset]

    def recipe(self, share: Share = WHOLE, **changes: Any) -> Recipe:
        """The config's recipe; `changes` are fields of the config."""
        config = importlib.import_module(f"configs.{self.config}").get_config()
        recipe = make_recipe(dataclasses.replace(config, **changes), self.dataset(), share)
        # Statistics are re-estimated in no config but one; the program is compiled for every model that has any.
        return dataclasses.replace(recipe, recalibration_batches=BATCHES)


WORKLOADS = (
    Workload("imagenet", "ResNet18, 7x7 stem", "cifar10_resnet18", _cifar10),
    Workload("cifar", "ResNet18, CIFAR stem", "cifar10_modern", _cifar10),
    Workload("cnn", "CNN", "hw2_cnn", _images20),
    Workload("gru", "GRU", "ptb_gru", _ptb),
    Workload("bilstm", "BiLSTM", "imdb_bilstm", _imdb),
)


def train_arguments(chip: Chip, recipe: Recipe) -> tuple[Any, ...]:
    """Shapes of what `train_step` takes after the recipe: state, metrics, data, order."""
    state, metrics = steps.abstract_state(recipe), jax.eval_shape(Metrics.zeros)
    return on_chip(chip, (state, metrics, recipe.train_data, _integers(recipe.train_examples)))


def compile_train_step(chip: Chip, recipe: Recipe, **how: Any) -> tuple[Any, float, Any]:
    """The training step: compiled, seconds, shapes of the donated arguments."""
    args = train_arguments(chip, recipe)
    function = named("train_step", steps.train_step, recipe, **how)
    return *compile_for(chip, function, args, (0, 1)), args[:2]


def compile_evaluation(chip: Chip, recipe: Recipe) -> tuple[Any, float, Any]:
    """Evaluation of the whole test set, likewise."""
    state = on_chip(chip, steps.abstract_state(recipe))
    args = (state.params, state.batch_stats, on_chip(chip, recipe.test_data))
    return *compile_for(chip, named("evaluate", evaluate, recipe), args), ()


def compile_recalibration(chip: Chip, recipe: Recipe) -> tuple[Any, float, Any]:
    """BatchNorm statistics of the slow weights, likewise."""
    state = on_chip(chip, steps.abstract_state(recipe))
    args = (la.slow_params(state.opt_state), state.batch_stats, state.key, state.step, on_chip(chip, recipe.train_data))
    return *compile_for(chip, named("recalibrate", recalibrate, recipe), args), ()


def programs(recipe: Recipe) -> dict[str, Callable[[Chip, Recipe], tuple[Any, float, Any]]]:
    """The programs of a run by name."""
    found: dict[str, Any] = {"training step": compile_train_step, "evaluation": compile_evaluation}
    if jax.tree.leaves(steps.abstract_state(recipe).batch_stats):
        found["re-estimation of BatchNorm"] = compile_recalibration
    return found
