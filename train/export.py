"""python -m train.export WORKDIR OUT [--weights=slow|live|ema|best] [--format=safetensors|msgpack|orbax]

Writes the weights of a run to a file (Orbax: a folder), for programs that know nothing of this one:

  safetensors  names such as params.conv1.kernel and batch_stats.norm1.mean; kernels as Flax has them: [in, out], and
               [height, width, in, out] of a convolution
  msgpack      flax.serialization.from_bytes(None, data) gives the variables
  orbax        orbax.checkpoint.StandardCheckpointer().restore(folder) gives the variables

The run's data is not needed, unless its config re-estimates BatchNorm statistics. In Python, train.load_model(WORKDIR)
gives a function from images or tokens to logits.
"""

import json
import logging
import struct
import sys
from pathlib import Path
from typing import Any, get_args

from train.errors import RunFailed, UserError
from train.files import write_atomic
from train.interface.command_line import Parser, argument_path
from train.interface.output import accept_any_text, tolerant_output

FORMATS = ("safetensors", "msgpack", "orbax")


def safetensors_bytes(tensors: dict[str, Any], facts: dict[str, str]) -> bytes:
    """The safetensors format: length of a JSON header, little endian in 8 bytes; the header; the arrays' bytes.

    Args:
      tensors: NumPy arrays of float32 or int32 by name.
      facts: of the header's "__metadata__".
    """
    header: dict[str, Any] = {"__metadata__": facts}
    offset = 0
    for name, array in tensors.items():
        dtype = {"float32": "F32", "int32": "I32"}[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    return b"".join([struct.pack("<Q", len(text)), text, *(array.tobytes() for array in tensors.values())])


def write(model: Any, out: Path, format: str) -> None:
    """Writes a `train.loading.LoadedModel`'s variables.

    Raises:
      UserError: `out` exists.
    """
    import flax.serialization
    import flax.traverse_util
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    from train.config import to_dict

    if out.exists():
        raise UserError(f"{out} exists; choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    variables = jax.tree.map(np.asarray, dict(model.variables))
    if format == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(out.absolute(), variables)
    elif format == "msgpack":
        write_atomic(out, flax.serialization.to_bytes(variables))
    else:
        flat = flax.traverse_util.flatten_dict(variables, sep=".")
        facts = {"step": str(model.step), "weights": model.weights, "config": json.dumps(to_dict(model.config))}
        write_atomic(out, safetensors_bytes(dict(sorted(flat.items())), facts))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong input."""
    accept_any_text()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    parser = Parser(prog="python -m train.export", description=__doc__)
    parser.add_argument("workdir", type=argument_path, help="of the run")
    parser.add_argument("out", type=argument_path, help="the file, or folder, to make")
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="%(default)s if not given")
    with tolerant_output():
        try:
            from train.loading import Weights, load_model

            parser.add_argument(
                "--weights", choices=get_args(Weights), help="slow if not given, live without Lookahead"
            )
            flags = parser.parse_args(arguments)
            model = load_model(flags.workdir, weights=flags.weights)
            write(model, flags.out, flags.format)
        except (UserError, RunFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UserError) else 1
        print(f"{flags.out}: {model.weights} weights after step {model.step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
