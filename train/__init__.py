"""Training runs from a config: `train.config.Config` says what, `train.run.loop.train` does it.

`train.load_model(WORKDIR)` gives a run's network as a function from images or tokens to logits.
"""

from typing import Any

from train.registry import register_dataset, register_model, register_optimizer

__all__ = ["load_model", "register_dataset", "register_model", "register_optimizer"]


def __getattr__(name: str) -> Any:
    if name == "load_model":  # on demand: it needs JAX, which what reads configs does not
        from train.export.model import load_model

        return load_model
    raise AttributeError(f"module 'train' has no attribute {name!r}")
