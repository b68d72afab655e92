"""Reads the text of a compiled XLA program: instructions, memory traffic, kernels, copies.

`compiled.as_text()` is the program as it will run: after fusion every instruction of the entry computation that
computes something is one kernel (on a TPU, one operation of the core), and its operands and results are what it
reads from and writes to memory. XLA gives no traffic for a GPU (`cost_analysis()` is None), and for a TPU counts each
use of a value, even from the core's own memory; so both are counted here, by the same rules:

* an instruction reads its operands and writes its results, once each, as far as they are in the chip's main memory;
* of an operand that is only sliced or gathered from, the part taken is read; where a slice is updated in place, the
  part is written;
* a loop's body counts as often as the loop runs, a conditional as its costliest branch.

Caches are ignored, and so is the padding of a layout's tiles.
"""

import dataclasses
import re
from collections.abc import Iterator

from benchmarks.aot.hlo_text import HOST, MAIN, Array, Computation, Instruction, parse_instruction

# What only names values: no kernel runs, nothing moves.
_FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "opt-barrier",
        "add-dependency",
        "partition-id",
        "replica-id",
    ]
)
COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
_PARTS = frozenset(["slice", "dynamic-slice", "gather"])
_TRANSFERS = frozenset(["copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start"])
_FREE_CUSTOM_CALLS = frozenset(["ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound"])


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes moved.

    Attributes:
        main: read from and written to the chip's main memory.
        host: read from and written to the host's memory.
    """

    main: int = 0
    host: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.main + other.main, self.host + other.host)

    def __mul__(self, times: int) -> "Traffic":
        return Traffic(self.main * times, self.host * times)


class Program:
    """A compiled program.

    Args:
        text: of `compiled.as_text()`.

    Attributes:
        computations: by name.
        entry: the one that runs.
        aliased: numbers of the parameters whose buffers the outputs take.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry: Computation = {}
        header, _, _ = text.partition("\n")
        alias = re.search(r"input_output_alias=\{(.*?)\}, (?:entry|\w+=)", header)
        self.aliased = frozenset(int(n) for n in re.findall(r"\((\d+), \{[\d,]*\}", alias[1])) if alias else frozenset()
        computation: Computation | None = None
        for line in text.splitlines():
            if line.endswith("{") and not line.startswith(" "):
                found = re.match(r"(ENTRY )?%?([\w.-]+)", line)
                if found and "->" in line:
                    computation = self.computations[found[2]] = {}
                    if found[1]:
                        self.entry = computation
            elif line.startswith("}"):
                computation = None
            elif computation is not None and " = " in line:
                instruction = parse_instruction(line)
                computation[instruction.name] = instruction

    def everything(self) -> Iterator[Instruction]:
        """All instructions, those inside kernels included."""
        for computation in self.computations.values():
            yield from computation.values()

    def launched(self, computation: Computation | None = None, times: int = 1) -> Iterator[tuple[Instruction, int]]:
        """The instructions that run as kernels, each with how often: (instruction, times)."""
        for instruction in (self.entry if computation is None else computation).values():
            inner = self.inner(instruction)
            if inner is None:
                if not _is_free(instruction):
                    yield instruction, times
                continue
            # Of a conditional the branch with most to do.
            branches = [list(self.launched(self.computations[name], times * instruction.trip_count)) for name in inner]
            if instruction.opcode == "conditional":
                branches = [max(branches, key=lambda b: sum(n for _, n in b))]
            for branch in branches:
                yield from branch

    def traffic(self, computation: Computation | None = None) -> Traffic:
        """Bytes that one run of the program (or of a computation of it) moves."""
        within = self.entry if computation is None else computation
        total = Traffic()
        for instruction in within.values():
            inner = self.inner(instruction)
            if inner is not None:
                branches = [self.traffic(self.computations[name]) * instruction.trip_count for name in inner]
                if instruction.opcode == "conditional":
                    branches = [max(branches, key=lambda t: t.main)]
                total = sum(branches, total)
            elif not _is_free(instruction):
                total += self._moved(within, instruction)
        return total

    def kernels(self) -> int:
        """How many kernels one run launches; what only moves data within the chip or to it is none."""
        return sum(n for i, n in self.launched() if i.opcode not in _TRANSFERS)

    def convolutions(self) -> int:
        """How many kernels of one run convolve."""
        return sum(n for i, n in self.launched() if self._convolves(i))

    def copies(self) -> list[Array]:
        """Arrays copied from main memory to main memory by a kernel that does nothing else."""
        found = []
        for instruction, times in self.launched():
            if instruction.opcode in ("copy", "copy-start") or self._only(instruction, "copy"):
                array = instruction.arrays[0]
                source = instruction.arrays[1] if instruction.opcode == "copy-start" else array
                if array.space == source.space == MAIN:
                    found += [array] * times
        return found

    def transposes(self) -> list[Array]:
        """Arrays that a kernel writes in another order of dimensions."""
        found = []
        for instruction, times in self.launched():
            if instruction.opcode == "transpose" or self._root(instruction) == "transpose":
                found += [instruction.arrays[0]] * times
        return found

    def collectives(self) -> list[tuple[str, int]]:
        """(opcode, bytes) of each communication between chips in one run."""
        found = []
        for instruction, times in self.launched():
            inside = [i for name in instruction.called("calls") for i in self.computations.get(name, {}).values()]
            for i in [instruction, *inside]:
                if (kind := i.opcode.removesuffix("-start")) in COLLECTIVES:
                    found += [(kind, sum(a.bytes for a in i.arrays if a.space != 2))] * times
        return found

    def host_callbacks(self) -> list[str]:
        """What calls back to Python or waits for the host in the middle of the program."""
        names = [i.target for i in self.everything() if i.opcode == "custom-call" and "callback" in i.target.lower()]
        return names + [i.opcode for i in self.everything() if i.opcode in ("send", "recv", "infeed", "outfeed")]

    def inner(self, instruction: Instruction) -> list[str] | None:
        """The computations that an instruction runs kernel by kernel; None if it is one kernel itself."""
        match instruction.opcode:
            case "while":
                return [*instruction.called("body"), *instruction.called("condition")]
            case "conditional":
                branches = instruction.called("branch_computations")
                return branches or instruction.called("true_computation") + instruction.called("false_computation")
            case "call":
                return instruction.called("to_apply")
            case "async-start":
                return instruction.called("calls")
            case _:
                return None

    def _convolves(self, instruction: Instruction) -> bool:
        if instruction.opcode == "convolution" or "conv" in instruction.target.lower():
            return True
        return any(self._convolves(i) for i in (self._fused(instruction) or {}).values())

    def _fused(self, instruction: Instruction) -> Computation | None:
        names = instruction.called("calls") if instruction.opcode == "fusion" else []
        return self.computations.get(names[0]) if names else None

    def _root(self, instruction: Instruction) -> str:
        fused = self._fused(instruction)
        if fused is None:
            return ""
        root = next(i for i in fused.values() if i.root)
        while root.opcode in ("bitcast", "reshape") and root.operands:
            root = fused[root.operands[0]]
        return root.opcode if root.opcode != "fusion" else self._root(root)

    def _only(self, instruction: Instruction, opcode: str) -> bool:
        """Whether a kernel consists of one operation."""
        fused = self._fused(instruction)
        return fused is not None and [i.opcode for i in fused.values() if i.opcode not in _FREE] == [opcode]

    def _moved(self, within: Computation, instruction: Instruction) -> Traffic:
        total = Traffic()
        if instruction.opcode.endswith("-start") and instruction.opcode != "custom-call":
            # (destination, source, context) or ((sources), destination, context): what arrives is what was read.
            first = 0 if instruction.opcode == "copy-start" else len(instruction.operands)
            destination = instruction.arrays[min(first, len(instruction.arrays) - 1)]
            sources = [a for name in instruction.operands for a in _arrays(within, name)]
            total += _bytes_in(destination.bytes, destination.space)
            return total + _bytes_in(destination.bytes, sources[0].space if sources else MAIN)
        for name in dict.fromkeys(instruction.operands):
            for array in _arrays(within, name):
                read = sum(
                    self._read(instruction, i) for i, operand in enumerate(instruction.operands) if operand == name
                )
                total += _bytes_in(min(read, array.bytes), array.space)
        written = self._written(instruction)
        for array, size in zip(instruction.arrays, written, strict=True):
            if array.dtype == "u8" and instruction.opcode == "custom-call":
                continue  # the library's workspace
            total += _bytes_in(size, array.space)
        return total

    def _read(self, instruction: Instruction, number: int) -> int:
        """Bytes that an instruction reads of its operand: all, or the parts that it takes."""
        fused = self._fused(instruction)
        if fused is not None:
            parameter = next((i for i in fused.values() if _parameter_number(i) == number), None)
            return 0 if parameter is None else self._read_of(fused, parameter)
        if number == 0 and instruction.opcode in _PARTS:
            return instruction.arrays[0].bytes
        if number == 0 and instruction.opcode in ("dynamic-update-slice", "scatter"):
            return 0
        return 1 << 62  # all of it

    def _read_of(self, fused: Computation, value: Instruction) -> int:
        total = 0
        for user in fused.values():
            for number, operand in enumerate(user.operands):
                if operand != value.name:
                    continue
                if user.opcode in ("bitcast", "reshape"):
                    total += self._read_of(fused, user)
                elif user.opcode == "tuple":
                    total += value.arrays[0].bytes
                else:
                    total += min(self._read(user, number), value.arrays[0].bytes)
        return min(total, value.arrays[0].bytes)

    def _written(self, instruction: Instruction) -> list[int]:
        """Bytes that an instruction writes of each of its results: all, or the parts that it updates in place."""
        fused = self._fused(instruction)
        if fused is None:
            return [a.bytes for a in instruction.arrays]
        root = next(i for i in fused.values() if i.root)
        roots = [fused[name] for name in root.operands] if root.opcode == "tuple" else [root]
        if len(roots) != len(instruction.arrays):
            return [a.bytes for a in instruction.arrays]
        return [self._updated(fused, r) for r in roots]

    def _updated(self, fused: Computation, value: Instruction) -> int:
        while value.opcode in ("bitcast", "reshape") and value.operands:
            value = fused[value.operands[0]]
        if value.opcode == "fusion":
            return sum(self._written(value))
        if value.opcode in ("dynamic-update-slice", "scatter"):
            update = fused[value.operands[1 if value.opcode == "dynamic-update-slice" else -1]]
            return sum(a.bytes for a in update.arrays)
        return sum(a.bytes for a in value.arrays)


def _arrays(within: Computation, name: str) -> tuple[Array, ...]:
    return within[name].arrays if name in within else ()


def _bytes_in(size: int, space: int) -> Traffic:
    return Traffic(main=size) if space == MAIN else Traffic(host=size) if space == HOST else Traffic()


def _is_free(instruction: Instruction) -> bool:
    opcode = instruction.opcode
    return opcode in _FREE or opcode.endswith(("-done", "-update")) or instruction.target in _FREE_CUSTOM_CALLS


def _parameter_number(instruction: Instruction) -> int | None:
    if instruction.opcode != "parameter":
        return None
    return int(instruction.attributes.partition(")")[0])
