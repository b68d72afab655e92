"""One-epoch trials of what might explain why the report's RAdam log on CIFAR-10 is below our runs.

    python -m train --config=configs/radam_trials.py --workdir=DIR/steps --config.optimizer.options.no_decay_steps=5
    python -m train --config=configs/radam_trials.py --workdir=DIR/eps --config.optimizer.options.eps=1e-5
    python -m train --config=configs/radam_trials.py --workdir=DIR/wait --config.optimizer.options.first_update=6
    python -m train --config=configs/radam_trials.py --workdir=DIR/half --config.dtype=bfloat16
    LOOKAHEAD_ONEDNN=0 python -m train --config=configs/radam_trials.py --workdir=DIR/rounding

Without such a flag it runs the recipe itself; the last command changes only how convolutions round. The results are in
results/fidelity.md.
"""

import dataclasses

import jax.numpy as jnp
import optax

import train
from configs import cifar10_resnet18
from train.config import Config
from train.optimizers import scale_by_radam


@dataclasses.dataclass
class Trial:
    """What differs from the recipe.

    Attributes:
      no_decay_steps: number of steps without weight decay at the start.
      eps: added to the root of the second moment.
      first_update: the first step that changes the parameters; 6 skips RAdam's steps before its rectification.
    """

    no_decay_steps: int = 0
    eps: float = 1e-8
    first_update: int = 1


@train.register_optimizer("radam_trial")
def radam_trial(learning_rate, config, options: Trial = Trial()):  # noqa: B008
    """The report's RAdam with a trial's changes."""

    def decay(count):
        return config.weight_decay * (count >= options.no_decay_steps).astype(jnp.float32)

    def rate(count):
        return learning_rate(count) * (count + 1 >= options.first_update)

    return optax.chain(
        scale_by_radam(eps=options.eps),
        optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=decay),
        optax.scale_by_learning_rate(rate),
    )


def get_config() -> Config:
    config = cifar10_resnet18.get_config()
    optimizer = dataclasses.replace(config.optimizer, name="radam_trial", lookahead=False, options=Trial())
    return dataclasses.replace(config, epochs=1, test_examples=1000, optimizer=optimizer)
