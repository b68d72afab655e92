"""The study that `make demo` runs: RAdam against Lookahead(RAdam) on handwritten digits, three seeds each.

    python -m train.study --study=configs/studies/quick.py --out=checkpoints/demo

Downloads nothing and takes one to two minutes on two CPU cores.
"""

import dataclasses

from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Claim, Comparison, Pair, Section, Study, Variant


def get_study() -> Study:
    radam = OptimizerConfig(
        name="radam", learning_rate=0.01, weight_decay=5e-4, decay_epochs=(15, 25), decay_factor=0.2, lookahead=False
    )
    lookahead = dataclasses.replace(radam, lookahead=True, sync_period=5, slow_step_size=0.8)
    base = Config(dataset="digits", epochs=30, batch_size=64, checkpoint_every=10, model=ModelConfig(name="small_cnn"))
    section = Section(
        key="quick",
        title="Handwritten digits, small CNN: RAdam with and without Lookahead",
        variants=[
            Variant("RAdam", dataclasses.replace(base, optimizer=radam)),
            Variant("Lookahead(RAdam)", dataclasses.replace(base, optimizer=lookahead)),
        ],
        figure="digits",
        budget="1,347 images, 30 epochs",
    )
    pair = Pair("quick:digits", variant="Lookahead(RAdam)", baseline="RAdam")
    return Study(
        name="quick",
        title="Handwritten digits: RAdam with and without Lookahead",
        sections=[section],
        claims=[
            Claim("faster", "Lookahead(RAdam) converges faster.", (Comparison(pair, "better", "loss_area", 0.02),)),
            Claim("equal", "The final accuracies are equal.", (Comparison(pair, "equal", "final_accuracy", 0.005),)),
        ],
        seeds=3,
    )
