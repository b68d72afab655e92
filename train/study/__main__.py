"""python -m train.study --study=configs/studies/quick.py --out=DIR [--seeds=N] [--data_dir=DIR]

Runs every variant of a study at every seed, each in a workdir of its own under DIR/runs, then writes a figure and a
table. Running the same command again continues where it stopped; finished runs are not run again.
"""

import argparse
import dataclasses
import logging
import sys
import time
from pathlib import Path

from train.errors import RunFailed, UserError


def run_study(path: Path, out: Path, *, seeds: int | None = None, data_dir: str = "") -> int:
    """Runs a study file.

    Returns:
      The exit status: 0 done, 75 stopped by a signal.
    """
    from train.compilation_cache import enable_compilation_cache
    from train.loop import train
    from train.signals import EXIT_STOPPED, StopRequest
    from train.study.figures import draw_study
    from train.study.plan import load_study, planned_runs
    from train.study.summary import Runs, format_table, summarise, write_summary

    enable_compilation_cache()
    study = load_study(path)
    if seeds is not None:
        study = dataclasses.replace(study, seeds=seeds)
    runs: Runs = {variant.name: [] for variant in study.variants}
    planned, began = planned_runs(study), time.monotonic()
    with StopRequest() as stop:
        for number, run in enumerate(planned, 1):
            config = dataclasses.replace(run.config, data_dir=data_dir) if data_dir else run.config
            print(f"run {number} of {len(planned)}  {run.variant.name}, seed {run.seed} ... ", end="", flush=True)
            since = time.monotonic()
            outcome = train(config, out / "runs" / run.folder, stop=stop, quiet=True)
            if outcome.status == "stopped":
                return EXIT_STOPPED
            last = outcome.rows[-1]
            print(
                f"loss {last['train_loss']:.4f}  test {last['test_accuracy']:.2%}  {time.monotonic() - since:.0f} s",
                flush=True,
            )
            runs[run.variant.name].append(outcome.rows)
    records = summarise(study, runs)
    figures = [out / f"{study.name}.png", out / f"{study.name}.svg"]
    draw_study(study, runs, figures)
    write_summary(records, out / "summary.csv")
    print(f"\n{study.title}\n\n{format_table(study, records)}\n")
    print(f"{len(planned)} runs in {time.monotonic() - began:.0f} s")
    print(f"figure:  {figures[0]}\ntable:   {out / 'summary.csv'}\nruns:    {out / 'runs'}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong input, 75 stopped by a signal."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m train.study", description=__doc__, allow_abbrev=False)
    parser.add_argument("--study", type=Path, required=True, help="a study file, such as configs/studies/quick.py")
    parser.add_argument("--out", type=Path, required=True, help="where runs, figure and table go")
    parser.add_argument("--seeds", type=int, help="seeds a variant; by default the study's own number")
    parser.add_argument("--data_dir", default="", help="where prepared data lies; TFDS's default if not given")
    flags = parser.parse_args(arguments)
    try:
        return run_study(flags.study, flags.out, seeds=flags.seeds, data_dir=flags.data_dir)
    except (UserError, RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1


if __name__ == "__main__":
    sys.exit(main())
