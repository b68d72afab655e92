"""python -m train.reproduction.fidelity [--check] [--collect WORKDIR ... --machine TEXT]

Do this project's recipes train as the report's did? Compares the first epochs of our runs (results/fidelity/*.csv) with
the report's logs; writes results/fidelity.md and the figure of the CNN. A missing run is "not run", which counts as a
failure. With --check the exit status is 1 unless every comparison holds. --collect first files finished workdirs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from train.errors import UserError
from train.interface.command_line import Parser, argument_path, run_command
from train.interface.output import accept_any_text
from train.reproduction.checks import failures
from train.reproduction.runs import collect, read_filed_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 by --check, 2 wrong input."""
    accept_any_text()
    parser = Parser(prog="python -m train.reproduction.fidelity", description=__doc__)
    parser.add_argument("--runs", type=argument_path, default=Path("results/fidelity"), help="the folder with the runs")
    parser.add_argument(
        "--page", type=argument_path, default=Path("results/fidelity.md"), help="the page to write, next to that folder"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 unless every comparison holds")
    parser.add_argument(
        "--collect", type=argument_path, nargs="+", default=[], metavar="WORKDIR", help="workdirs to file first"
    )
    parser.add_argument("--machine", default="", help="with --collect: a short description of the runs' machine")
    return run_command(lambda: _compare(parser.parse_args(arguments)))


def _compare(flags: argparse.Namespace) -> int:
    from train.reproduction.page import write_page

    if flags.collect and not flags.machine:
        raise UserError("--collect needs --machine, a short description of the runs' machine")
    for workdir in flags.collect:
        print(collect(workdir, flags.runs, machine=flags.machine))
    runs = read_filed_runs(flags.runs)
    missing = failures(runs)
    write_page(runs, flags.page, flags.runs)
    for line in missing:
        print(line)
    print(f"{f'failed or not run: {len(missing)}' if missing else 'all comparisons hold'}; page: {flags.page}")
    return 1 if flags.check and missing else 0


if __name__ == "__main__":
    sys.exit(main())
