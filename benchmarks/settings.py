"""What settings cost a training step: results/performance.md says it per setting.

    python -m benchmarks.settings [--rounds=7] [--steps=3] [--tiny] [--out=FILE]

ResNet18 (7x7 stem, batch 128, Lookahead(Adam)) on made-up images, one setting changed at a time, all in one process,
in turn. Ratios are seconds of a step over those of the same step without the setting. `accumulate_steps` counts
batches: every second one makes an update. Warm-up, validation split and more epochs cost nothing per step.
"""

import dataclasses
import functools

from benchmarks import harness
from benchmarks.epoch import cifar_shaped
from benchmarks.ours import TrainingSteps, make_trainer
from benchmarks.rows import Row, parse_arguments
from train.config import Config, ModelConfig, set_name, validate
from train.step import runtime

ROW = Row("settings", "a step of ResNet18", "cifar10_resnet18", 10, 3, 0, 0, image_size=32)


def variants(config: Config) -> dict[str, Config]:
    """The config with one setting changed, by what changed; the first is as it was."""
    clipped = dataclasses.replace(config.optimizer, clip_norm=1.0)
    others = {}
    for name in ("adamw", "nadamw", "lion", "muon", "schedule_free_adamw"):
        # Schedule-Free has an average of its own, and no Lookahead.
        optimizer = dataclasses.replace(config.optimizer, lookahead=name != "schedule_free_adamw")
        others[f"optimizer.name={name}"] = dataclasses.replace(config, optimizer=optimizer)
        set_name(others[f"optimizer.name={name}"], "optimizer", name)
    return {
        "plain": config,
        "optimizer.clip_norm=1": dataclasses.replace(config, optimizer=clipped),
        "accumulate_steps=2": dataclasses.replace(config, accumulate_steps=2),
        "ema_decay=0.999": dataclasses.replace(config, ema_decay=0.999),
        "dtype=bfloat16": dataclasses.replace(config, dtype="bfloat16"),
        **others,
    }


def main() -> None:
    flags, row = parse_arguments(ROW, __doc__, rounds=7, tiny="a small CNN, batches of 4")
    runtime.set_up()
    about, dataset, config = harness.machine(), cifar_shaped(row), row.config
    if flags.tiny:
        config = dataclasses.replace(config, model=ModelConfig(name="small_cnn"))
    adam = dataclasses.replace(config.optimizer, name="adam", learning_rate=0.001, lookahead=True)
    sides = {}
    for name, changed in variants(dataclasses.replace(config, optimizer=adam)).items():
        steps = TrainingSteps(make_trainer(validate(changed), dataset))
        sides[name] = functools.partial(steps.run, row.steps)
    seconds = harness.seconds_in_turn(sides, flags.rounds, warm_up=1)
    ratios = harness.ratios_to("plain", seconds)
    lines = [
        harness.table_line(f"time of {row.title} with config.{name} / without", "", "", found, "", "", flags.rounds)
        for name, found in ratios.items()
    ]
    plain = harness.Summary.of([s / row.steps for s in seconds["plain"]])
    print(f"{row.title}: {plain.text(3)} s")
    print(harness.table(["setting", "time of a step / without it"], [[k, v.text()] for k, v in ratios.items()]))
    print("\n" + harness.describe(about))
    rows = {"settings": {"table": lines, "rounds": flags.rounds, "seconds_a_step": plain, "seconds": seconds}}
    harness.write_rows(harness.result_path("settings", flags), rows, about)


if __name__ == "__main__":
    main()
