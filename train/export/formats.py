"""Weights as files that other programs read."""

import json
import struct
from pathlib import Path
from typing import Any

from train.errors import UserError
from train.files import write_atomic

FORMATS = ("safetensors", "msgpack", "orbax")
# NumPy's names of dtypes: those of safetensors.
_DTYPES = {
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    "bfloat16": "BF16",
    "bool": "BOOL",
}


def safetensors_bytes(tensors: dict[str, Any], facts: dict[str, str]) -> bytes:
    """The safetensors format: length of a JSON header, little endian in 8 bytes; the header; the arrays' bytes.

    Args:
      tensors: NumPy arrays by name.
      facts: of the header's "__metadata__".

    Raises:
      UserError: the format has no name for an array's dtype.
    """
    header: dict[str, Any] = {"__metadata__": facts}
    offset = 0
    for name, array in tensors.items():
        dtype = str(array.dtype)
        if dtype not in _DTYPES:
            raise UserError(f"{name} is {dtype}, which safetensors has no name for; use --format=msgpack")
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(array.shape), "data_offsets": span}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    return b"".join([struct.pack("<Q", len(text)), text, *(array.tobytes() for array in tensors.values())])


def write(model: Any, out: Path, format: str) -> None:
    """Writes a `train.export.model.LoadedModel`'s variables.

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
