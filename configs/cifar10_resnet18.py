"""The report's CIFAR-10 runs (sections 2.1-2.5): ResNet18 with the ImageNet stem, 200 epochs.

    python -m train.data prepare cifar10
    python -m train --config=configs/cifar10_resnet18.py --workdir=checkpoints/cifar10

runs Lookahead(RAdam), k = 5, alpha = .8, at learning rate .1. For the others, add:

    --config.optimizer.lookahead=false                                             RAdam alone
    --config.optimizer.name=adam --config.optimizer.learning_rate=0.001            Lookahead(Adam)
    --config.optimizer.name=sgd                                                    Lookahead(SGD), no momentum
    --config.optimizer.learning_rate=0.3                                           the logged runs at lr .3

Cost: about a minute per epoch (852 images/s, results/performance.md) plus the test set, on two otherwise idle AMD Zen 4
cores; 200 epochs not measured. First epochs compared with the report's: results/fidelity.md; 12 epochs of a quarter of
the images: results/report. Accuracy after 200 epochs: not measured here; the report's one seed has .869 (live
weights). At lr .3 it has .730 (RAdam) and .797 (Lookahead(RAdam)).
"""

from train.config import Config, ModelConfig, OptimizerConfig


def get_config() -> Config:
    return Config(
        dataset="cifar10",
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
