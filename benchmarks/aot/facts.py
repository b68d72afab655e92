"""What a compiled program says about itself, as plain numbers for tables and tests."""

import dataclasses
from typing import Any

import jax

from benchmarks.aot.hlo import Program


@dataclasses.dataclass(frozen=True)
class Facts:
    """A program on a chip. Bytes, unless said otherwise.

    Attributes:
        traffic: read from and written to the chip's main memory in one run, by `benchmarks.aot.hlo`.
        host_traffic: likewise of the host's memory.
        arguments: in the chip's memory, as laid out there.
        host_arguments: in the host's memory.
        outputs: in buffers of their own, chip's memory.
        temporaries: of the chip's memory.
        donated: number of donated buffers.
        aliased: how many of them an output takes.
        kernels: launches of a run, loops included; transfers within the chip are not counted.
        convolutions: of these, convolutions.
        copies: kernels that copy an array, as large as the smallest in `large`, from main memory to main memory.
        transposes: kernels that write an array, as large, in another order of its dimensions.
        callbacks: calls of the host from within the program.
        float64: arrays of 64-bit floating-point numbers.
        dynamic: arrays with a dimension that is only bounded.
        flops: by XLA; None where it does not say (GPU).
        seconds: to trace and compile.
    """

    traffic: int
    host_traffic: int
    arguments: int
    host_arguments: int
    outputs: int
    temporaries: int
    donated: int
    aliased: int
    kernels: int
    convolutions: int
    copies: int
    transposes: int
    callbacks: int
    float64: int
    dynamic: int
    flops: float | None
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes of the chip's memory that the program needs to run."""
        return self.arguments + self.outputs + self.temporaries


LARGE = 256  # elements; scalars and statistics of channels below it are copied freely


def facts(compiled: Any, seconds: float, donated: Any = ()) -> Facts:
    """Reads a compiled program.

    Args:
        compiled: of `jax.stages`.
        seconds: that tracing and compiling took.
        donated: the donated arguments.
    """
    program = Program(compiled.as_text())
    memory = compiled.memory_analysis()
    traffic = program.traffic()
    arrays = [array for instruction in program.everything() for array in instruction.arrays]
    cost = compiled.cost_analysis() or {}
    leaves = len(jax.tree.leaves(donated))
    return Facts(
        traffic=traffic.main,
        host_traffic=traffic.host,
        arguments=memory.argument_size_in_bytes,
        host_arguments=memory.host_argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        donated=leaves,
        aliased=sum(number < leaves for number in program.aliased),
        kernels=program.kernels(),
        convolutions=program.convolutions(),
        copies=sum(array.size >= LARGE for array in program.copies()),
        transposes=sum(array.size >= LARGE for array in program.transposes()),
        callbacks=len(program.host_callbacks()),
        float64=sum(array.dtype in ("f64", "c128") for array in arrays),
        dynamic=sum(array.dynamic for array in arrays),
        flops=cost.get("flops"),
        seconds=round(seconds, 1),
    )
