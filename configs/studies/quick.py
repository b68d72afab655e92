"""The study that `make demo` runs: RAdam against Lookahead(RAdam) on handwritten digits, three seeds each.

    python -m train.study --study=configs/studies/quick.py --out=checkpoints/demo

Nothing is downloaded; one to two minutes on two CPU cores.
"""

import dataclasses

from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Study, Variant


def get_study() -> Study:
    radam = OptimizerConfig(
        name="radam", learning_rate=0.01, weight_decay=5e-4, decay_epochs=(15, 25), decay_factor=0.2, lookahead=False
    )
    lookahead = dataclasses.replace(radam, lookahead=True, sync_period=5, slow_step_size=0.8)
    base = Config(dataset="digits", epochs=30, batch_size=64, model=ModelConfig(name="small_cnn"))
    return Study(
        name="digits",
        title="Handwritten digits, small CNN: RAdam with and without Lookahead",
        baseline="RAdam",
        variants=(
            Variant("RAdam", dataclasses.replace(base, optimizer=radam)),
            Variant("Lookahead(RAdam)", dataclasses.replace(base, optimizer=lookahead)),
        ),
        seeds=3,
    )
