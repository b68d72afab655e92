"""The study that `make demo` runs: SGD, RAdam and Lookahead(RAdam) on handwritten digits, tuned with equal budgets.

    python -m train.study --study=configs/studies/quick.py --out=checkpoints/demo --jobs=2

Two tasks: 600 training images, and 150. For each, every optimizer has 5 trials of its learning rate, chosen on 300
images that are not trained on; then three seeds at the chosen rate, tested on the 450 test images. Nothing is
downloaded; two to three minutes on two CPU cores.
"""

import dataclasses

from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Claim, Comparison, Pair, Section, Study, Variant, log_uniform

TASKS = {"digits": 600, "few digits": 150}


def section(dataset: str, examples: int) -> Section:
    radam = OptimizerConfig(name="radam", weight_decay=5e-4, decay_epochs=(9,), decay_factor=0.2)
    sgd = dataclasses.replace(radam, name="sgd", momentum=0.9)
    base = Config(
        dataset="digits",
        epochs=12,
        batch_size=32,
        train_examples=examples,
        validation_examples=300,
        checkpoint_every=12,
        model=ModelConfig(name="small_cnn"),
    )

    def with_optimizer(optimizer: OptimizerConfig) -> Config:
        return dataclasses.replace(base, optimizer=optimizer)

    return Section(
        key="quick",
        dataset=dataset,
        title=f"Handwritten digits, {examples} images, small CNN",
        variants=[
            Variant("RAdam", with_optimizer(radam)),
            Variant("Lookahead(RAdam)", with_optimizer(dataclasses.replace(radam, lookahead=True, slow_step_size=0.5))),
            Variant("SGD", with_optimizer(sgd), tune={"learning_rate": log_uniform(1e-3, 1.0)}),
        ],
        budget=f"{examples} images, 12 epochs",
        tune={"learning_rate": log_uniform(1e-4, 1e-1)},
        trials=5,
    )


def get_study() -> Study:
    pair = Pair("quick:digits", variant="Lookahead(RAdam)", baseline="RAdam")
    return Study(
        name="quick",
        title="Handwritten digits: SGD, RAdam and Lookahead(RAdam), tuned equally",
        sections=[section(dataset, examples) for dataset, examples in TASKS.items()],
        claims=[
            Claim("faster", "Lookahead(RAdam) converges faster.", (Comparison(pair, "better", "loss_area", 0.02),)),
            Claim("equal", "The final accuracies are equal.", (Comparison(pair, "equal", "final_accuracy", 0.005),)),
        ],
        seeds=3,
        quick_compile=True,
    )
