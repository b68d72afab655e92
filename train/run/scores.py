"""What an epoch leaves: scores of live weights, slow ones and moving average, and its row of metrics.csv."""

import time
from collections.abc import Callable
from typing import TypeVar

from train.run.records import Row, perplexity
from train.run.recovery import Position
from train.run.trainer import Trainer
from train.step.recipe import Recipe
from train.step.steps import TrainState

T = TypeVar("T")


def scores(trainer: Trainer, state: TrainState) -> Row:
    """Loss and accuracy of a state's weights on the test set, and on the validation set if there is one."""
    same = trainer.recipe.lookahead and trainer.slow_scores_are_live_ones(state)
    return score_columns(trainer.recipe, lambda **which: trainer.evaluate(state, **which).means(), same=same)


def score_columns(recipe: Recipe, evaluate: Callable[..., tuple[float, float]], *, same: bool) -> Row:
    """The columns of all weights on all sets.

    Args:
      recipe: says which weights and sets there are.
      evaluate: gives mean loss and accuracy, called with `slow`, `ema` and `validation` as `Trainer.evaluate` is.
      same: whether the slow weights are known to score as the live ones do.
    """
    row: Row = {"slow_test_loss": None, "slow_test_accuracy": None}

    def add(name: str, means: tuple[float, float]) -> None:
        row[f"{name}_loss"], row[f"{name}_accuracy"] = means

    sets = [("test", {})] + [("validation", {"validation": True})] * (recipe.validation_data is not None)
    for name, which in sets:
        live = evaluate(**which)
        add(name, live)
        if recipe.lookahead:
            add(f"slow_{name}", live if same else evaluate(slow=True, **which))
        if recipe.ema_decay:
            add(f"ema_{name}", evaluate(ema=True, **which))
    return row


def epoch_row(recipe: Recipe, position: Position, norms: Row, scored: Row, seconds: float) -> Row:
    """An epoch's row of metrics.csv.

    Args:
      recipe: of the run.
      position: the run at the end of the epoch.
      norms: of the epoch's last step; empty if they are not known.
      scored: what the evaluation gave.
      seconds: how long the evaluation took.
    """
    loss, accuracy = position.metrics.means()
    row: Row = {
        "epoch": position.step // recipe.steps_per_epoch,
        "step": position.step,
        "learning_rate": recipe.learning_rate(position.step - 1),
        "train_loss": loss,
        "train_accuracy": accuracy,
        "examples_per_second": position.metrics.samples() / position.seconds if position.seconds else 0.0,
        "seconds": position.seconds + seconds,
        **norms,
        **scored,
    }
    return row | perplexities(row) if recipe.task == "text" else row


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """What an action returns, and the seconds that it took."""
    began = time.monotonic()
    return action(), time.monotonic() - began


def perplexities(row: Row) -> Row:
    """The perplexity beside each loss of a language model."""
    losses = {name.removesuffix("_loss"): loss for name, loss in row.items() if name.endswith("_loss")}
    return {f"{name}_perplexity": None if loss is None else perplexity(loss) for name, loss in losses.items()}
