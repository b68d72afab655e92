"""The report's GRU language model against torch: training steps of 20 x 35 tokens, 10,000 words.

    python -m benchmarks.gru [--rounds=7] [--sides=ours,torch,torch+compiled] [--hugepages] [--steps=N] [--out=FILE]

configs/ptb_gru.py: embedding and two layers of 50, dropout .5, Lookahead(RAdam). Ours counts hits as well as the loss;
torch only the loss, which spares it a pass over the logits.
"""

from benchmarks import comparison
from benchmarks.rows import Row

ROWS = (
    Row(
        "train",
        "GRU language model, 10,000 words, 20 x 35 tokens, train step",
        recipe="ptb_gru",
        classes=10_000,
        steps=20,
        at_least=2.0,
        aim=3.0,
    ),
)

if __name__ == "__main__":
    comparison.main("gru", ROWS, __doc__, rounds=11)
