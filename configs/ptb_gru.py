"""The report's language model (section 2.6.2): a two-layer GRU on Penn Treebank, 100 epochs.

    python -m train.data prepare ptb --from-dir DIR        (the folder with ptb.train.txt)
    python -m train --config=configs/ptb_gru.py --workdir=checkpoints/ptb_lookahead

runs Lookahead(RAdam), k = 5, alpha = .8. RAdam alone:

    python -m train --config=configs/ptb_gru.py --workdir=checkpoints/ptb_radam --config.optimizer.lookahead=false

The learning rate is constant. Weight decay is 0, RAdam's default; the report states none for this run.
"test" is the data set's valid.txt, as in the report.

Cost: 100 epochs took 89 minutes (RAdam) and 93 (Lookahead), run in parallel on one AMD Zen 4 core each with some other
load. Validation perplexity of the live weights, RAdam alone, seed 0: 708.9, 326.5 and 218.7 after epochs 1, 5 and 10,
where the report's one seed has 708.3, 332.3 and 219.2. After 100 epochs, seed 0: 152.3 (RAdam) and 151.6 (Lookahead);
the report has 150.4 and 152.4.
"""

from train.config import Config, ModelConfig, OptimizerConfig


def get_config() -> Config:
    return Config(
        dataset="ptb",
        epochs=100,
        batch_size=20,
        test_batch_size=10,
        sequence_length=35,
        model=ModelConfig(name="gru", dropout=0.5, embedding_size=50, hidden_size=50),
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
