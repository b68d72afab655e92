"""How a row of ours against torch is run: its sides as processes in turn, the ratios, the printed table, the file.

Sides are named by what they are and how, joined by "+": "ours", "ours+xla" (XLA's own convolutions), "ours+scan5"
(five steps a dispatch), "torch" (eager), "torch+compiled", "torch+compiled+compiledoptimizer", and so on; "+hugepages"
on any of them starts its process with GLIBC_TUNABLES=glibc.malloc.hugetlb=1. Ours keeps freed memory, as the trainer
does (`train.step.runtime`), "ours+mapped" does not; torch's does not unless named "torch+kept".

Torch's sides first run two rounds each: what is more than a tenth slower than the fastest of its kind is measured no
further. Kinds are torch as it comes, torch keeping freed memory, and both with huge pages; ours is set against the
fastest of each. The bound of a row is against torch as it comes.
"""

import argparse
import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import harness
from benchmarks.rows import Row
from train.run.provenance import cores

SIDES = ("ours", "torch", "torch+kept", "torch+compiled", "torch+compiled+kept")
TRIAL_ROUNDS, TRIAL_TOLERANCE = 2, 1.1
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def main(module: str, rows: Sequence[Row], description: str | None, *, rounds: int) -> None:
    """The command line of a benchmark that compares rows.

    Args:
      module: its name in this package.
      rows: all that it has.
      description: its docstring.
      rounds: by default.
    """
    names = [row.name for row in rows]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, module, rounds)
    parser.add_argument("--rows", default=",".join(names), help=f"which of {','.join(names)} (default: all)")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"what to run in turn (default {','.join(SIDES)})")
    parser.add_argument("--hugepages", action="store_true", help="every side with huge pages as well")
    parser.add_argument("--threads", type=int, default=cores(), help="of each side (default: cores)")
    parser.add_argument("--steps", type=int, default=0, help="training steps, or batches of evaluation, in a round")
    parser.add_argument("--tiny", action="store_true", help="a few examples only, to see that it runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    unknown = sorted(set(flags.rows.split(",")) - set(names))
    if unknown:
        parser.error(f"unknown row {unknown[0]!r}; the rows are {', '.join(names)}")
    chosen = [row.tiny() if flags.tiny else row for row in rows if row.name in flags.rows.split(",")]
    if flags.steps:
        chosen = [dataclasses.replace(row, steps=flags.steps) for row in chosen]
    if flags.worker:
        serve(chosen[0], flags.worker, flags.threads)
        return
    sides = flags.sides.split(",")
    if flags.hugepages:
        sides += [f"{side}+hugepages" for side in sides]
    about = harness.machine()
    for row in chosen:
        arguments = ["-m", f"benchmarks.{module}", f"--rows={row.name}", f"--threads={flags.threads}"]
        arguments += [f"--steps={row.steps}", *(["--tiny"] if flags.tiny else [])]
        result = compare(row, arguments, sides, flags.rounds, flags.threads)
        print_result(row, result)
        harness.write_rows(harness.result_path(module, flags), {row.name: result}, about)
    print("\n" + harness.describe(about))


def serve(row: Row, side: str, threads: int) -> None:
    """Be one side of a row, in a process of its own."""
    framework, *how = side.split("+")
    harness.use_cores(threads)
    if framework == "torch":
        import torch

        from benchmarks import torch_peer
        from train.step.runtime import keep_freed_memory

        if "kept" in how:
            keep_freed_memory()
        torch.set_num_threads(threads)
        run, description = torch_peer.side(row, frozenset(how))
    elif framework == "ours":
        from benchmarks import ours
        from train.step import runtime

        runtime.set_up()
        run, description = ours.side(row, frozenset(how))
    else:
        raise ValueError(f"unknown side {side!r}; sides begin with ours or torch")
    harness.serve(run, warm_up=1 if row.steps > 1 else 2, **description)


def compare(row: Row, arguments: Sequence[str], sides: Sequence[str], rounds: int, threads: int) -> dict[str, Any]:
    """Runs the sides of a row in turn.

    Returns:
      "sides", by name the figures of each; "table", lines of the results; and what was done.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in sides:
            environment = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)}
            environment |= HUGE_PAGES if "hugepages" in side.split("+") else {}
            workers[side] = stack.enter_context(harness.Worker([*arguments, f"--worker={side}"], environment))
        trial = slower_of_torch(workers)
        for side in trial:
            workers.pop(side).close()
        seconds = harness.workers_in_turn(workers, rounds)
        peaks = {side: worker.peak_memory() for side, worker in workers.items()}
        descriptions = {side: worker.description for side, worker in workers.items()}
    first = seconds[sides[0]]
    figures = {
        side: {
            "per_second": harness.Summary.of([row.samples * row.steps / s for s in values]),
            "milliseconds_a_step": harness.Summary.of([1e3 * s / row.steps for s in values]),
            "throughput_over_first_side": harness.ratio(first, values),
            "peak_bytes": peaks[side],
            **descriptions[side],
            "seconds": values,
        }
        for side, values in seconds.items()
    }
    return {
        "title": row.title,
        "kind": row.kind,
        "recipe": row.recipe,
        "batch_size": row.config.batch_size,
        "steps_a_round": row.steps,
        "rounds": rounds,
        "threads": threads,
        "table": _table_lines(row, figures, rounds),
        "sides": figures,
        "milliseconds_a_step_in_trial": {side: 1e3 * seconds / row.steps for side, seconds in trial.items()},
    }


def slower_of_torch(workers: Mapping[str, harness.Worker]) -> dict[str, float]:
    """torch's sides that need no more rounds to be known as slower than another one, and their fastest rounds."""
    slower = {}
    for hugepages, kept in itertools.product((False, True), repeat=2):
        theirs = {side: workers[side] for side in torch_sides(workers, hugepages=hugepages, kept=kept)}
        if len(theirs) < 2:
            continue
        seconds = harness.workers_in_turn(theirs, TRIAL_ROUNDS)
        fastest = {side: min(values) for side, values in seconds.items()}
        limit = TRIAL_TOLERANCE * min(fastest.values())
        slower |= {side: value for side, value in fastest.items() if value > limit}
    return slower


def torch_sides(sides: Iterable[str], *, hugepages: bool, kept: bool) -> list[str]:
    """torch's among the sides, with huge pages or without, keeping freed memory or as it comes."""
    wanted = {name for name, asked in (("hugepages", hugepages), ("kept", kept)) if asked}
    return [side for side in sides if side.startswith("torch") and {"hugepages", "kept"} & {*side.split("+")} == wanted]


def _table_lines(row: Row, figures: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    lines = []
    for hugepages, kept in itertools.product((False, True), repeat=2):
        name = "ours+hugepages" if hugepages else "ours"
        peer = fastest_torch(figures, hugepages=hugepages, kept=kept)
        if name not in figures or peer is None:
            continue
        ours, theirs = figures[name], figures[peer]
        title = row.title + (", huge pages" if hugepages else "")
        lines.append(
            harness.table_line(
                title + f", {row.unit}",
                ours["per_second"].text(0),
                f"{theirs['per_second'].text(0)}, {describe_torch(peer)}",
                harness.ratio(theirs["seconds"], ours["seconds"]),
                "" if kept else f"{row.at_least:g}",
                "" if kept else f"{row.aim:g}",
                rounds,
            )
        )
        if kept:
            continue  # the row's bound, and its memory, are against torch as it comes
        if row.kind == "train" and ours["peak_bytes"] and theirs["peak_bytes"]:
            memory = harness.Summary.of([ours["peak_bytes"] / theirs["peak_bytes"]])
            mine, other = (f"{figure['peak_bytes'] / 1e6:.0f}" for figure in (ours, theirs))
            lines.append(
                harness.table_line(f"{title}, peak MB of the process", mine, other, memory, "at most 1", "", 1)
            )
    return lines


def fastest_torch(sides: dict[str, Any], *, hugepages: bool, kept: bool) -> str | None:
    """torch's side with the highest median, among those of `torch_sides`."""
    theirs = torch_sides(sides, hugepages=hugepages, kept=kept)
    return max(theirs, key=lambda side: sides[side]["per_second"].median, default=None)


def describe_torch(side: str) -> str:
    """What a side of torch's is called in the table."""
    how = side.split("+")
    return ("compiled" if "compiled" in how else "eager") + (", freed memory kept" if "kept" in how else "")


def print_result(row: Row, result: dict[str, Any]) -> None:
    """The row's sides as a table, then its ratios."""
    print(f"\n{row.title}; {result['rounds']} rounds of {row.steps}, median (quartiles)\n")
    rows = [
        [
            side,
            figure["milliseconds_a_step"].text(1),
            figure["per_second"].text(0),
            figure["throughput_over_first_side"].text(),
            f"{figure['peak_bytes'] / 1e6:.0f}" if figure["peak_bytes"] else "-",
        ]
        for side, figure in result["sides"].items()
    ]
    first = next(iter(result["sides"]))
    print(harness.table(["side", "ms a step", row.unit, f"throughput over {first}", "peak MB"], rows))
    if result["milliseconds_a_step_in_trial"]:
        trial = ", ".join(f"{side} {ms:.1f}" for side, ms in result["milliseconds_a_step_in_trial"].items())
        print(f"slower in the trial, ms a step: {trial}")
    for line in result["table"]:
        bound = f"at least {line['at_least']}, aim {line['aim']}" if line["aim"] else line["at_least"] or "no bound"
        print(f"{line['benchmark']}: {line['ours']} against {line['torch']}, ratio {line['ratio'].text()} ({bound})")
