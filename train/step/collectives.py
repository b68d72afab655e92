"""What a compiled program sends between devices, read off the text that XLA prints of it."""

import math
import re
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_HEAD = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
_SENDS = re.compile(r" = (.*?) (?:all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")
_BRANCHES = re.compile(r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=([%\w.\-]+))")


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
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            lines = computations.setdefault(head[1], [])
        else:
            lines.append(line)
    named = {name for lines in computations.values() for line in lines for name in _branches(line)}
    always = _sent([line for name, lines in computations.items() if name not in named for line in lines])
    branches = sorted(_sent(computations.get(name, [])) for name in named)
    return Collectives(*always, tuple(found for found in branches if found[0]))


def _branches(line: str) -> list[str]:
    return [name for group in _BRANCHES.findall(line) for name in re.findall(r"[\w.\-]+", "".join(group))]


def _sent(lines: list[str]) -> tuple[int, int]:
    """Collectives among these lines, and the bytes of their results."""
    results = [made[1] for line in lines if (made := _SENDS.search(line))]
    shapes = [shape for result in results for shape in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    sizes = [_BYTES[dtype] * math.prod(int(d) for d in dimensions.split(",") if d) for dtype, dimensions in shapes]
    return len(results), sum(sizes)
