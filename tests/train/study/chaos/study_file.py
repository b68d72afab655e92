"""The study that is disturbed: four short runs on handwritten digits, and a claim that compares them."""

import dataclasses

from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Claim, Comparison, Pair, Section, Study, Variant


def get_study() -> Study:
    adam = OptimizerConfig(name="adam", learning_rate=0.003)
    lookahead = dataclasses.replace(adam, lookahead=True, sync_period=5)
    base = Config(dataset="digits", epochs=12, batch_size=32, train_examples=220, test_examples=100)
    base = dataclasses.replace(base, model=ModelConfig(name="small_cnn"))
    section = Section(
        key="digits",
        title="Handwritten digits",
        dataset="digits",
        variants=[
            Variant("Adam", dataclasses.replace(base, optimizer=adam)),
            Variant("Lookahead(Adam)", dataclasses.replace(base, optimizer=lookahead)),
        ],
    )
    pair = Pair("digits:digits", variant="Lookahead(Adam)", baseline="Adam")
    claim = Claim("faster", "Lookahead(Adam) converges faster.", (Comparison(pair, "better", "loss_area", 0.02),))
    return Study(name="chaos", title="A disturbed study", sections=[section], claims=[claim], seeds=2)
