"""The flags of `python -m train.study`."""

import argparse

from train.errors import UserError
from train.interface.command_line import Parser, argument_path, optional_path
from train.study.execution import cluster
from train.study.verdicts.seeds import MAX_SEEDS


def parse(arguments: list[str] | None, description: str | None = None) -> argparse.Namespace:
    """Reads the flags; the description is for --help."""
    parser = Parser(prog="python -m train.study", description=description)
    parser.add_argument(
        "--study", type=argument_path, required=True, help="a study file, such as configs/studies/quick.py"
    )
    parser.add_argument("--out", type=argument_path, required=True, help="where runs, tables, figures and page go")
    parser.add_argument("--scale", default="", help="smoke, mini or full, for a study that has scales")
    parser.add_argument("--only", default="", help="sections to run, such as 2.1,2.4:cifar100; all if not given")
    parser.add_argument(
        "--epochs", type=int, help="epochs of every run; finished runs whose checkpoints were kept are continued"
    )
    parser.add_argument("--seeds", type=int, help="number of seeds per variant; the study's own number if not given")
    parser.add_argument(
        "--until", default="", choices=["", "resolved"], help="resolved: add seeds for the claims that they can decide"
    )
    parser.add_argument(
        "--max_seeds", type=int, default=MAX_SEEDS, help="with --until: seeds of each variant that gets more"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of parallel runs; on a CPU, use the number of cores"
    )
    parser.add_argument(
        "--seeds_per_program", type=int, default=1, help="seeds of a variant that are trained in one program"
    )
    parser.add_argument(
        "--data_dir", default="", type=optional_path, help="where prepared data is; TFDS's default if not given"
    )
    parser.add_argument(
        "--executor",
        default="local",
        choices=["local", "slurm"],
        help="where runs are trained: here, or by Slurm",
    )
    cluster.add_flags(parser)
    parser.add_argument("--retries", type=int, default=1, help="how often a failed run is tried again")
    parser.add_argument("--keep_checkpoints", action="store_true", help="keep the checkpoints of finished runs")
    parser.add_argument(
        "--report_only", action="store_true", help="run nothing; make tables, figures and page from what is there"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="run nothing; check data and settings, show the plan, time and space"
    )
    parser.add_argument("--status", action="store_true", help="run nothing; show which runs are done, running, failed")
    parser.add_argument(
        "--print_commands", action="store_true", help="run nothing; print a command for each run, for any scheduler"
    )
    flags = parser.parse_args(arguments)
    bounds = dict.fromkeys(("seeds", "max_seeds", "jobs", "seeds_per_program", "slurm_cpus"), (1, 10_000))
    bounds |= dict.fromkeys(("epochs", "slurm_time", "slurm_array_parallelism"), (1, 10**6))
    bounds |= {"retries": (0, 100), "slurm_gpus": (0, 10_000)}
    for name, (least, most) in bounds.items():
        value = getattr(flags, name)
        if value is not None and value < least:
            raise UserError(f"--{name}={value} must be at least {least}")
        if value is not None and value > most:
            raise UserError(f"--{name}={value} must be at most {most}")
    if flags.until and flags.seeds is not None:
        raise UserError(f"--until={flags.until} chooses the seeds itself; leave --seeds={flags.seeds} out")
    return flags
