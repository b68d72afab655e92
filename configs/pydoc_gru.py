"""The language model of ptb_gru.py on text that needs no download: the English of Python's own help, 2,000 words.

    python -m train --config=configs/pydoc_gru.py --workdir=checkpoints/pydoc

The text differs between Python versions, so results are comparable only within one version, which run.json names in its
data line. RAdam alone: --config.optimizer.lookahead=false

Cost: 80 s, 3 s per epoch (25,000 tokens/s), on two CPU cores shared with other work; `make demo` trains two epochs.
Test perplexity after 2, 10 and 20 epochs, one seed, text of Python 3.11.7: 246.7, 171.0 and 95.3 for Lookahead(RAdam),
live weights (the slow ones are the same after 20, on a sync); 247.1, 148.4 and 90.9 for RAdam.
"""

from train.config import Config, ModelConfig, OptimizerConfig


def get_config() -> Config:
    return Config(
        dataset="pydoc",
        epochs=20,
        batch_size=20,
        test_batch_size=10,
        sequence_length=35,
        model=ModelConfig(name="gru", dropout=0.5, embedding_size=50, hidden_size=50),
        optimizer=OptimizerConfig(
            name="radam",
            learning_rate=0.005,
            weight_decay=0.0,
            decay_epochs=(),
            lookahead=True,
            sync_period=5,
            slow_step_size=0.8,
        ),
    )
