"""Types and lines of the text of a compiled XLA program (HLO)."""

import dataclasses
import functools
import math
import re

_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](\{[^{}]*\})?")
_BITS = {"pred": 8, "token": 0, "opaque": 0}
# Memory spaces as the TPU's compiler numbers them, in layouts: none is the main memory, S(5) the host's.
MAIN, HOST = 0, 5


@dataclasses.dataclass(frozen=True)
class Array:
    """Type of an array of the program.

    Attributes:
        dtype: as XLA writes it: "f32", "bf16", "pred".
        shape: dimensions.
        space: memory space: MAIN, HOST, or the core's own memories.
        dynamic: whether a dimension is only bounded.
    """

    dtype: str
    shape: tuple[int, ...]
    space: int
    dynamic: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        digits = re.search(r"\d+", self.dtype)
        bits = _BITS.get(self.dtype, int(digits[0]) if digits else 32)
        return self.size * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: of its result.
        arrays: types of its results, nested tuples flattened.
        opcode: "fusion", "custom-call", "copy-start", ...
        operands: names of other instructions.
        attributes: the rest of the line.
        root: whether its result is the computation's.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def called(self, attribute: str) -> list[str]:
        """Names of the computations that an attribute such as "calls" names."""
        found = re.search(rf"\b{attribute}=(?:\{{([^}}]*)\}}|(%?[\w.-]+))", self.attributes)
        return re.findall(r"%?([\w.-]+)", found[1] or found[2]) if found else []

    @property
    def target(self) -> str:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def trip_count(self) -> int:
        """How often a loop's body runs; 1 where the compiler does not know."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
        return int(found[1]) if found else 1


Computation = dict[str, Instruction]


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")


@functools.cache
def _types(text: str) -> tuple[Array, ...]:
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        dimensions = tuple(int(n.lstrip("<=")) for n in shape.split(",") if n)
        found.append(Array(dtype, dimensions, int(space[1]) if space else MAIN, "<=" in shape))
    return tuple(found)


def parse_instruction(line: str) -> Instruction:
    line = re.sub(r"/\*.*?\*/", "", line).strip()
    name, _, rest = line.partition(" = ")
    root = name.startswith("ROOT ")
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    opcode, inside = rest[:opening], rest[opening + 1 : closing]
    if opcode == "parameter":
        return Instruction(name.split()[-1].lstrip("%"), _types(kind), opcode, (), inside + rest[closing:], root)
    operands = tuple(re.findall(r"%([\w.-]+)", inside))
    return Instruction(name.split()[-1].lstrip("%"), _types(kind), opcode, operands, rest[closing + 1 :], root)
