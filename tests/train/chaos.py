"""Runs that are killed at random instants until they come to their end, against one that was left alone.

    python -m tests.train.chaos [--kills=100] [--seed=N] [--out=FILE]

The data is made up in CIFAR's shape, so that crops and flips are in play; Lookahead's period shares no factor with the
steps of an epoch, so that checkpoints fall on every phase. Prints a line a kill and a verdict; `make chaos` runs 100.
"""

import argparse
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.train.corruption import torture_files
from tests.train.reliability import machine, write_section
from tests.train.runs import assert_same_run, metrics_without_times

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, STEPS = 25, 7


def run_child(workdir: Path, epochs: int) -> None:
    """The run itself, in a process of its own."""
    from train import data, experiment
    from train.config import Config, ModelConfig, OptimizerConfig
    from train.run import loop
    from train.step import runtime

    rng = np.random.default_rng(0)

    def split(n):
        return data.Split(rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 10, n).astype(np.int32))

    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    made_up = data.Dataset("made-up", "image", split(100), split(20), 10, "pad_crop_flip", mean, std, True)
    experiment.load_dataset = lambda config: made_up
    runtime.set_up()
    optimizer = OptimizerConfig(name="adam", learning_rate=0.001, lookahead=True, sync_period=5)
    config = Config(epochs=epochs, batch_size=16, devices=1, model=ModelConfig(name="small_cnn"), optimizer=optimizer)
    loop.train(config, workdir, quiet=True)


def start(workdir: Path, log: Path, epochs: int) -> subprocess.Popen:
    # A compilation cache of its own: a kill may leave an entry of it half written.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(log.with_name("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"} | cache
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.train.chaos", f"--child={workdir}", f"--epochs={epochs}"],
            cwd=ROOT, env=environment, stdout=file, stderr=file,
        )  # fmt: skip


def phase(workdir: Path) -> str:
    """What the disk says the run was at when it was killed."""
    names = [p.name for p in (workdir / "checkpoints").iterdir()] if (workdir / "checkpoints").is_dir() else []
    if any(name.endswith(".writing") for name in names):
        return "writing a checkpoint"
    if any(name.endswith(".deleting") for name in names):
        return "deleting a checkpoint"
    return "training" if names else "starting"


def torture(kills: int, seed: int, folder: Path, epochs: int = EPOCHS) -> dict[str, Any]:
    """Runs once untouched; then starts runs and kills them, each until it comes to its end, until all kills are spent.

    Raises:
      AssertionError: a run that was killed ends differently, or does not start again.
    """
    rng, log = random.Random(seed), folder / "log.txt"
    whole = folder / "whole"
    start(whole, log, epochs).wait()  # fills the compilation cache
    shutil.rmtree(whole)
    began = time.monotonic()
    assert start(whole, log, epochs).wait() == 0, log.read_text()[-2000:]
    duration = time.monotonic() - began
    phases: Counter[str] = Counter()
    survived = rounds = 0
    while survived < kills:
        rounds += 1
        killed = folder / f"killed-{rounds}"
        while True:
            process = start(killed, log, epochs)
            try:
                # The last kill of all is followed by a start that is left alone.
                process.wait(timeout=rng.uniform(0.0, 1.1 * duration) if survived < kills else None)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            survived += 1
            phases[phase(killed)] += 1
            print(f"kill {survived} of {kills}: {phase(killed)}", flush=True)
        assert process.returncode == 0, log.read_text()[-2000:]
        assert_same_run(killed, whole)
        assert [int(row["epoch"]) for row in metrics_without_times(killed)] == list(range(1, epochs + 1))
        assert not list((killed / "checkpoints").glob(".*"))
        shutil.rmtree(killed)
        print(f"run {rounds} ended bit-identical", flush=True)
    seconds = round(time.monotonic() - began)
    return {"kills": kills, "runs": rounds, "seed": seed, "phases": dict(phases), "seconds": seconds}


KILLS = """Made by `python -m tests.train.chaos --kills={kills} --seed={seed}` ({machine}). {seconds} s.

{kills} SIGKILLs at random instants in {runs} runs of a small CNN on made-up CIFAR-shaped data: {epochs} epochs with a
checkpoint each, Lookahead(Adam) with k = 5 and {steps} steps per epoch. Every run finished when the same command was
repeated, with parameters, batch statistics, optimizer state, PRNG key and metrics.csv (except its two time columns)
bit-identical to an undisturbed run. What the run was doing when it was killed, according to the disk:

| at | kills |
|---|---|
{phases}
"""

DAMAGE = """Made by the same command. {flips} single-bit flips and {truncations} truncations of the {files} files
({bytes} bytes) of a checkpoint:

| outcome | times |
|---|---|
| noticed before anything was restored | {noticed} |
| restored with every bit as saved (the damage was harmless) | {harmless} |
| silently restored wrong data | {silent} |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each run")
    parser.add_argument("--out", type=Path, help="write the figures there, as sections of a Markdown file")
    flags = parser.parse_args()
    if flags.child:
        return run_child(flags.child, flags.epochs)
    print(f"seed {flags.seed}")
    with tempfile.TemporaryDirectory() as folder:
        killed = torture(flags.kills, flags.seed, Path(folder), flags.epochs)
    print(f"every run ended bit-identical: {killed}")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        damaged = torture_files(1000, 100, flags.seed, Path(folder) / "checkpoints")
    print(f"1000 flips and 100 truncations: {damaged}")
    assert not damaged["silent"]
    if flags.out:
        phases = "\n".join(f"| {name} | {count} |" for name, count in sorted(killed.pop("phases").items()))
        facts = {"epochs": flags.epochs, "steps": STEPS, "phases": phases, "machine": machine()}
        write_section(flags.out, "Kills", KILLS.format(**killed, **facts))
        write_section(flags.out, "Damage", DAMAGE.format(**damaged, flips=1000, truncations=100))


if __name__ == "__main__":
    main()
