"""Training runs from a config: `train.config.Config` says what, `train.run.loop.train` does it."""

from train.registry import register_dataset, register_model, register_optimizer

__all__ = ["register_dataset", "register_model", "register_optimizer"]
