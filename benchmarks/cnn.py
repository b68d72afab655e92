"""The report's CNN on 224x224 images against torch: training steps at batch 36.

    python -m benchmarks.cnn [--rounds=5] [--sides=ours,torch,torch+compiled] [--hugepages] [--steps=N] [--out=FILE]

configs/hw2_cnn.py: Lookahead(RAdam); 20 classes; images float32, already cropped and normalised, on both sides.
"""

from benchmarks import comparison
from benchmarks.rows import Row

ROWS = (
    Row(
        "train",
        "CNN 224x224, batch 36, train step",
        recipe="hw2_cnn",
        classes=20,
        image_size=224,
        steps=2,
        at_least=0.9,
        aim=1.2,
    ),
)

if __name__ == "__main__":
    comparison.main("cnn", ROWS, __doc__, rounds=7)
