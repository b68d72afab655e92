"""The report's logged run on IMDB reviews (not in its text): a two-layer bidirectional LSTM, 40 epochs.

    python -m train.data prepare imdb_reviews
    python -m train --config=configs/imdb_bilstm.py --workdir=checkpoints/imdb_lookahead

is Lookahead(RAdam), k = 5, alpha = .8, batch 256, learning rate .001 without decay; RAdam alone:

    python -m train --config=configs/imdb_bilstm.py --workdir=checkpoints/imdb_radam --config.optimizer.lookahead=false

Ours, since the report's logs do not say: the first 500 words of a review, embedding and LSTM of 100, dropout .5,
weight decay 0.

Cost: not measured. Accuracy: not measured; the report's one seed has .863 (RAdam) and .866 (Lookahead) after 40 epochs.
"""

from train.config import Config, ModelConfig, OptimizerConfig


def get_config() -> Config:
    return Config(
        dataset="imdb_reviews",
        epochs=40,
        batch_size=256,
        sequence_length=500,
        model=ModelConfig(name="bilstm", dropout=0.5, embedding_size=100, hidden_size=100),
        optimizer=OptimizerConfig(
            name="radam",
            learning_rate=0.001,
            weight_decay=0.0,
            decay_epochs=(),
            lookahead=True,
            sync_period=5,
            slow_step_size=0.8,
        ),
    )
