"""The report's CIFAR-100 runs (sections 2.1-2.5): ResNet18 with the ImageNet stem, 200 epochs.

    python -m train.data prepare cifar100
    python -m train --config=configs/cifar100_resnet18.py --workdir=checkpoints/cifar100_radam

runs Lookahead(RAdam), k = 5, alpha = .8, at learning rate .1. For the others, add:

    --config.optimizer.lookahead=false                                             RAdam alone
    --config.optimizer.name=adam --config.optimizer.learning_rate=0.001            Lookahead(Adam)
    --config.optimizer.name=sgd                                                    Lookahead(SGD), no momentum

Cost: the same as cifar10_resnet18.py, with the same network and number of images; 200 epochs not measured. First epochs
compared with the report's: results/fidelity.md; 12 epochs of a quarter of the images: results/report. Accuracy after
200 epochs: not measured here; the report's one seed has .513 (live weights).
"""

from train.config import Config, ModelConfig, OptimizerConfig


def get_config() -> Config:
    return Config(
        dataset="cifar100",
        epochs=200,
        batch_size=128,
        model=ModelConfig(name="resnet18", stem="imagenet"),
        optimizer=OptimizerConfig(
            name="radam",
            learning_rate=0.1,
            weight_decay=5e-4,
            decay_epochs=(60, 120, 160),
            decay_factor=0.2,
            decay_delay=1,
            lookahead=True,
            sync_period=5,
            slow_step_size=0.8,
        ),
    )
