"""What an epoch scores beside the test of live and slow weights: the moving average, and the validation set."""

from train.run.records import Row, columns_of, perplexity
from train.run.trainer import Trainer
from train.step.recipe import Recipe
from train.step.steps import TrainState


def columns_of_run(recipe: Recipe) -> tuple[str, ...]:
    """The columns of metrics.csv."""
    validation = recipe.validation_data is not None
    return columns_of(language_model=recipe.task == "text", ema=bool(recipe.ema_decay), validation=validation)


def further_scores(trainer: Trainer, state: TrainState) -> Row:
    """Loss and accuracy of the moving average on the test set, and of all weights on the validation set."""
    recipe, row = trainer.recipe, {}

    def add(name: str, means: tuple[float, float]) -> None:
        row[f"{name}_loss"], row[f"{name}_accuracy"] = means

    if recipe.ema_decay:
        add("ema_test", trainer.evaluate(state, ema=True).means())
    if recipe.validation_data is None:
        return row
    live = trainer.evaluate(state, validation=True).means()
    add("validation", live)
    if recipe.lookahead:
        same = trainer.slow_scores_are_live_ones(state)
        add("slow_validation", live if same else trainer.evaluate(state, slow=True, validation=True).means())
    if recipe.ema_decay:
        add("ema_validation", trainer.evaluate(state, ema=True, validation=True).means())
    return row


def perplexities(row: Row) -> Row:
    """The perplexity beside each loss of a language model."""
    losses = {name.removesuffix("_loss"): loss for name, loss in row.items() if name.endswith("_loss")}
    return {f"{name}_perplexity": None if loss is None else perplexity(loss) for name, loss in losses.items()}
