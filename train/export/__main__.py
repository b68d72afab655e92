"""python -m train.export WORKDIR OUT [--weights=slow|live|ema|best] [--format=safetensors|msgpack|orbax]
                              [--register=FILE.py]

Writes the weights of a run to a file (Orbax: a folder), for programs that know nothing of this one:

  safetensors  names such as params.conv1.kernel and batch_stats.norm1.mean; kernels as Flax has them: [in, out], and
               [height, width, in, out] of a convolution
  msgpack      flax.serialization.from_bytes(None, data) gives the variables
  orbax        orbax.checkpoint.StandardCheckpointer().restore(folder) gives the variables

The run's data is not needed, unless its config re-estimates BatchNorm statistics. In Python, train.load_model(WORKDIR)
gives a function from images or tokens to logits.
"""

import logging
import sys
from typing import get_args

from train.export.formats import FORMATS, write
from train.interface.command_line import Parser, argument_path, run_command
from train.interface.installed import require
from train.interface.output import accept_any_text, tolerant_output
from train.interface.user_code import load_module


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong input."""
    accept_any_text()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    parser = Parser(prog="python -m train.export", description=__doc__)
    parser.add_argument("workdir", type=argument_path, help="of the run")
    parser.add_argument("out", type=argument_path, help="the file, or folder, to make")
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="%(default)s if not given")
    parser.add_register()
    with tolerant_output():
        return run_command(lambda: _export(parser, arguments))


def _export(parser: Parser, arguments: list[str] | None) -> int:
    require("train")
    from train.export.model import Weights, load_model

    parser.add_argument("--weights", choices=get_args(Weights), help="slow if not given, live without Lookahead")
    flags = parser.parse_args(arguments)
    if flags.register:
        load_module(flags.register, "--register")
    model = load_model(flags.workdir, weights=flags.weights)
    write(model, flags.out, flags.format)
    print(f"{flags.out}: {model.weights} weights after step {model.step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
