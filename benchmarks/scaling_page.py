"""results/scaling.md from the figures of `benchmarks.scaling`, and arithmetic from stated bandwidths."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import Summary

# Stated by the makers, one direction, bytes a second: NVLink of an H100 (900 GB/s both ways), and one 400 Gb/s
# network port a host.
NVLINK, NETWORK = 450e9, 50e9
STEPS = {"a step of 20 ms": 0.020, "a step of 100 ms": 0.100}
MODELS = {"ResNet18, 11.2 M parameters": 11.2e6 * 4, "1 G parameters in float32": 4e9}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _about(stage: Mapping[str, Any]) -> str:
    return f"`{stage['command']}`; {stage['machine']}; jax {stage['versions']['jax']}; load {stage['load']}.\n"


def _collectives(stage: Mapping[str, Any]) -> str:
    rows = []
    for row in stage["rows"]:
        branches = "; ".join(f"{count} of {size:,} bytes" for count, size in row["branches"]) or "none"
        every = f"{row['operations']} of {row['bytes']:,} bytes"
        rows.append([row["row"], row["mode"], f"{row['parameters']:,}", every, branches])
    head = ["model", "mode", "bytes of the parameters", "every step", "in branches, when taken"]
    return (
        "## Collectives of a training step (compiled)\n\n"
        "Read off the text of the program that XLA's CPU compiler makes for four devices, batch 8. Sizes are of "
        "the results on each device. `pmap` and `jit` are data parallelism, `local` is local steps: one branch is "
        "the outer step, taken once in k steps; the other, of the same size, is taken by the run's first step "
        "alone. What `pmap` sends beyond the parameters is BatchNorm's statistics and their gradients, and two "
        "numbers for the metrics; under `jit` XLA decides what to send.\n\n"
        + _table(head, rows) + "\n" + _about(stage)
    )  # fmt: skip


def _equality(stage: Mapping[str, Any]) -> str:
    names = ("training loss", "test loss", "state")
    rows = [[row["mode"], str(row["devices"]), *(f"{row[name]:.1e}" for name in names)] for row in stage["rows"]]
    return (
        "## n devices against one (measured)\n\n"
        f"Largest differences after an epoch of {stage['row']} whose batches of 13 and of 3 examples divide by none of "
        "the numbers of devices: eight steps of Lookahead(SGD), float32. The state is parameters and BatchNorm "
        "statistics.\n\n" + _table(["mode", "devices", *names], rows) + "\n" + _about(stage)
    )


def _seeds(stage: Mapping[str, Any]) -> str:
    rows = [
        [row["row"], str(row["seeds"]), Summary(**row["milliseconds"]).text(1), Summary(**row["times_as_fast"]).text(2)]
        for row in stage["rows"]
    ]
    head = ["model", "seeds", "ms a step of all", "times as fast as one after the other"]
    return (
        "## Several seeds in one program, on a CPU (measured)\n\n"
        f"Medians and quartiles of {stage['rounds']} rounds in turn, one device of this CPU.\n\n"
        + _table(head, rows) + "\n" + _about(stage)
    )  # fmt: skip


def _arithmetic() -> str:
    rows = []
    for model, size in MODELS.items():
        for place, workers, bandwidth in (("8 GPUs of a host", 8, NVLINK), ("64 hosts", 64, NETWORK)):
            seconds = 2 * (workers - 1) / workers * size / bandwidth
            shares = [f"{100 * seconds / (k * step + seconds):.1f} %" for step in STEPS.values() for k in (1, 50)]
            rows.append([model, place, f"{1e3 * seconds:.2f} ms", *shares])
    head = ["model", "over", "one all-reduce"]
    head += [f"its share, {what}, {how}" for what in STEPS for how in ("every step", "k = 50")]
    return (
        "## What communication costs (computed)\n\n"
        "A ring all-reduce sends 2 (n - 1) / n times the parameters. Bandwidths as their makers state them, one way: "
        f"{NVLINK / 1e9:.0f} GB/s of NVLink for an H100, {NETWORK / 1e9:.0f} GB/s of one 400 Gb/s port a host; no "
        "overlap with computing, no latency. None of this was run.\n\n" + _table(head, rows)
    )


def page(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of all stages that have figures."""
    head = (
        "# Scaling\n\nMade by `python -m benchmarks.scaling`; do not edit. Each table says whether it was measured, "
        "read off compiled programs, or computed.\n\n"
    )
    makers = {"collectives": _collectives, "equality": _equality, "seeds": _seeds}
    parts = [make(stages[name]) for name, make in makers.items() if name in stages]
    return head + "\n".join([*parts, _arithmetic()])
