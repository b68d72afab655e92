"""CIFAR-10 with today's usual recipe: ResNet18 with the CIFAR stem, SGD with Nesterov momentum, 200 epochs.

    python -m train.data prepare cifar10
    python -m train --config=configs/cifar10_modern.py --workdir=checkpoints/modern

runs Lookahead(SGD), k = 5, alpha = .8, whose slow weights are evaluated with their own BatchNorm statistics. SGD alone:

    python -m train --config=configs/cifar10_modern.py --workdir=checkpoints/sgd --config.optimizer.lookahead=false

Differences from the report's recipe (cifar10_resnet18.py): the 3x3 stem, which keeps the 32x32 map; momentum .9; and
the rate drops right after 60, 120 and 160 epochs, not one epoch late. Learning rate .1, momentum .9, weight decay 5e-4,
batch 128 and x0.2 at 60/120/160 are those of Wide ResNets (Zagoruyko and Komodakis, arXiv:1605.07146) and of Cutout
(DeVries and Taylor, arXiv:1708.04552), tuned for plain SGD: a baseline that Lookahead does not beat for free.

Options, each off by default:

    --config.optimizer.schedule=cosine     decays to zero over all epochs, instead of the drops
    --config.label_smoothing=0.1
    --config.cutout=16                     erases a 16x16 square from each training image

Cost: not measured. Accuracy: not measured.
"""

from train.config import Config, ModelConfig, OptimizerConfig


def get_config() -> Config:
    return Config(
        dataset="cifar10",
        epochs=200,
        batch_size=128,
        recalibrate_batch_stats=True,
        model=ModelConfig(name="resnet18", stem="cifar"),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=0.1,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            decay_epochs=(60, 120, 160),
            decay_factor=0.2,
            decay_delay=0,
            lookahead=True,
            sync_period=5,
            slow_step_size=0.8,
        ),
    )
