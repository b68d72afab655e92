"""The report's opening picture, from our own run: Lookahead in the plane of one cycle.

    python -m train.insight --config=configs/cifar100_resnet18.py --workdir=DIR --out=DIR [--config.FIELD=VALUE]
    python -m train.insight --redraw --out=DIR

Trains the config in the workdir (a finished run is left alone), continues from its last checkpoint to the start of a
cycle, and from there runs the same batches twice: with Lookahead, and with the inner optimizer alone. The plane goes
through the start, the middle and the end of the first cycle's fast weights, as in the Lookahead paper's figure 1; all
weights are projected onto it, and the test accuracy is measured on a grid in it. Writes insight.csv and insight.json
(the measurements), insight.png and insight.svg. A study's page shows the picture in its figures/ folder:
--out=results/report/figures.

Measured on two CPU cores shared with other processes: digits with --grid=9, one minute including training; CIFAR-100,
ResNet18, 20 epochs of 12,800 images, 9 minutes, and then --grid=31 --examples=2500 --batches=4, 27 minutes. The cost is
(points on the grid and the paths) times (examples + batches times the batch size) forward passes.
"""

import logging
import sys

from train.errors import UserError
from train.interface.command_line import Parser, argument_path, run_command
from train.interface.installed import require
from train.interface.output import accept_any_text


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong input, 75 stopped by a signal."""
    require("study")
    accept_any_text()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return run_command(lambda: _insight(arguments))


def _insight(arguments: list[str] | None) -> int:
    from train.insight.figure import draw_insight
    from train.insight.measure import Effort, check, measure
    from train.insight.points import write
    from train.interface.signals import EXIT_STOPPED, StopRequest

    effort = Effort()
    parser = Parser(prog="python -m train.insight", description=__doc__)
    parser.add_argument("--out", type=argument_path, required=True, help="where the numbers and the picture go")
    parser.add_argument("--redraw", action="store_true", help="redraw the numbers that are already in --out")
    parser.add_argument("--grid", type=int, default=effort.grid, help="points along each side (%(default)s)")
    parser.add_argument("--cycles", type=int, default=effort.cycles, help="cycles of Lookahead to show (%(default)s)")
    parser.add_argument("--examples", type=int, default=effort.examples, help="test examples, 0: all (%(default)s)")
    parser.add_argument(
        "--batches", type=int, default=effort.batches, help="batches for BatchNorm's statistics (%(default)s)"
    )
    flags, others = parser.parse_known_args(arguments)
    if flags.redraw:
        if others:
            raise UserError(f"argument {others[0]!r} has no meaning with --redraw")
    else:
        from train.flags import parse
        from train.run.loop import train
        from train.step import runtime

        effort = Effort(flags.grid, flags.cycles, flags.examples, flags.batches)
        config, workdir = parse(others)
        check(config)
        flags.out.mkdir(parents=True, exist_ok=True)  # before half an hour of measuring, not after it
        runtime.set_up()
        with StopRequest() as stop:
            if train(config, workdir, stop=stop).status == "stopped":
                return EXIT_STOPPED
            try:
                write(measure(config, workdir, effort, stopped=stop), flags.out)
            except KeyboardInterrupt:
                print("stopped; the run is kept, the same command starts the picture again", file=sys.stderr)
                return EXIT_STOPPED
    for path in draw_insight(flags.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
