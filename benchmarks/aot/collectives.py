"""What a compiled program sends between devices, and what of it only in branches of conditionals."""

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.aot.hlo import COLLECTIVES, Program
from benchmarks.aot.hlo_text import Instruction


class Collectives(NamedTuple):
    """The collectives of one run of a program; one inside a loop counts once.

    Attributes:
        operations: how many run whenever the program does.
        bytes: of their results, on each device.
        branches: of each branch of a conditional that has any, the same two: they run when it is taken.
    """

    operations: int
    bytes: int
    branches: tuple[tuple[int, int], ...]


def collectives(text: str) -> Collectives:
    """Reads a compiled program's `as_text()`."""
    program = Program(text)
    conditionals = [i for i in program.everything() if i.opcode == "conditional"]
    branches = {name for i in conditionals for name in program.inner(i) or ()}
    always = [i for name, lines in program.computations.items() if name not in branches for i in lines.values()]
    sent_in = sorted(_sent(program.computations[name].values()) for name in branches)
    return Collectives(*_sent(always), tuple(found for found in sent_in if found[0]))


def _sent(instructions: Iterable[Instruction]) -> tuple[int, int]:
    """Collectives among these instructions, and the bytes of their results."""
    found = [i for i in instructions if i.opcode.removesuffix("-start") in COLLECTIVES]
    return len(found), sum(array.bytes for i in found for array in i.arrays)
