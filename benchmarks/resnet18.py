"""ResNet18 on 32x32 images against torch: training steps under both stems, and evaluation.

    python -m benchmarks.resnet18 [--rows=imagenet,cifar,evaluation] [--rounds=5] [--sides=ours,torch,torch+compiled]
                                  [--hugepages] [--steps=N] [--out=FILE]

"imagenet" is configs/cifar10_resnet18.py (7x7 stem, Lookahead(RAdam)), "cifar" configs/cifar10_modern.py (3x3 stem,
Lookahead(SGD with Nesterov momentum)), both at batch 128; "evaluation" is a pass of the 7x7-stem network over a test
set in batches of 128. Images are float32, already augmented and normalised, on both sides.
"""

from benchmarks import comparison
from benchmarks.rows import Row

ROWS = (
    Row(
        "imagenet",
        "ResNet18, 7x7 stem, batch 128, train step",
        recipe="cifar10_resnet18",
        classes=10,
        image_size=32,
        steps=5,
        at_least=1.15,
        aim=1.4,
    ),
    Row(
        "cifar",
        "ResNet18, CIFAR stem, batch 128, train step",
        recipe="cifar10_modern",
        classes=10,
        image_size=32,
        steps=1,
        at_least=0.7,
        aim=1.0,
    ),
    Row(
        "evaluation",
        "ResNet18, 7x7 stem, evaluation",
        recipe="cifar10_resnet18",
        classes=10,
        image_size=32,
        steps=16,
        at_least=1.1,
        aim=1.4,
        kind="evaluate",
    ),
)

if __name__ == "__main__":
    comparison.main("resnet18", ROWS, __doc__, rounds=7)
