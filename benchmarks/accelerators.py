"""What the compilers for accelerators make of this project's programs, without an accelerator.

    pip install -e '.[aot]'
    python -m benchmarks.accelerators [--only=updates,programs] [--chips=v5e,H100] [--keep] [--out=FILE]

Compiles the library's optimizer updates and the training system's programs for one TPU v5e and one H100, each with its
own compiler, reads what came out (`benchmarks.aot`), and writes results/accelerators.md and .json. Nothing is run on
either chip. `--keep` compiles only what the JSON file lacks.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX looks for a chip on this machine

from benchmarks import harness
from benchmarks.aot import page
from benchmarks.aot.chips import CHIPS, Chip, missing, versions
from benchmarks.aot.facts import Facts, facts
from benchmarks.aot.minimal import compile_minimal_step
from benchmarks.aot.programs import WORKLOADS, programs
from benchmarks.aot.updates import measure_update, updates
from train.run.provenance import cores

OUT = Path("results/accelerators.json")
GROUPS = ("updates", "programs")

# What to do for one row of the file: (group, chip, title, which program of it), and how.
Task = tuple[tuple[str, str, str, str], Callable[[], Facts]]


def update_tasks(chip: Chip) -> Iterator[Task]:
    """Each optimizer's update: as its schedule decides, and for both answers of the caller."""
    for update in updates():
        answers: list[bool | None] = [] if update.on_host else [None]
        for sync in (*answers, *((False, True) if update.static else ())):
            key = ("updates", chip.name, update.title, page.ANSWERS[sync])
            yield key, lambda update=update, sync=sync: measure_update(chip, update, sync)


def program_tasks(chip: Chip) -> Iterator[Task]:
    """Each config's programs, and the textbook training step beside them."""

    def measured(compile_program: Callable[..., Any], *args: Any) -> Facts:
        compiled, seconds, donated = compile_program(chip, *args)
        return facts(compiled, seconds, donated)

    for workload in WORKLOADS:
        recipe = workload.recipe()
        for name, compile_program in programs(recipe).items():
            yield ("programs", chip.name, workload.title, name), lambda f=compile_program, r=recipe: measured(f, r)
        textbook = ("programs", chip.name, workload.title, page.TEXTBOOK)
        yield textbook, lambda w=workload, r=recipe: measured(compile_minimal_step, w.name, r)


TASKS: dict[str, Callable[[Chip], Iterator[Task]]] = {"updates": update_tasks, "programs": program_tasks}


def run(tasks: Sequence[Task], rows: dict[str, Any], save: Callable[[], None], jobs: int) -> None:
    """Does the tasks, `jobs` at a time; each result is in `rows` and saved as soon as it is there.

    What a compiler refuses is a row with its words.
    """
    lock = threading.Lock()

    def one(task: Task) -> None:
        key, measure = task
        try:
            row: dict[str, Any] = dataclasses.asdict(measure())
        except Exception as error:
            row = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
        with lock:
            rows[page.joined(key)] = row
            save()
            print(f"{', '.join(key)}: {row.get('error') or str(row['seconds']) + ' s'}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(one, task) for task in tasks]:
            done.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--chips", default=",".join(chip.name for chip in CHIPS))
    parser.add_argument("--match", default="", help="only rows whose key contains this text")
    parser.add_argument("--keep", action="store_true", help="compile only what the file lacks")
    parser.add_argument("--jobs", type=int, default=cores(), help="programs compiled at a time")
    parser.add_argument("--out", type=Path, default=OUT, help=f"JSON file; the page is beside it (default {OUT})")
    flags = parser.parse_args()
    chips = [chip for chip in CHIPS if chip.name in flags.chips.split(",")]
    for chip in chips:
        if why := missing(chip):
            sys.exit(f"cannot compile for {chip.name}: {why}")
    stored = json.loads(flags.out.read_text()) if flags.out.exists() else {"rows": {}}
    rows = stored["rows"]
    about = harness.machine() | {"versions": versions()}

    def save() -> None:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        partial = flags.out.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": about, "rows": dict(sorted(rows.items()))}, indent=1) + "\n")
        partial.replace(flags.out)

    tasks = [task for group in flags.only.split(",") for chip in chips for task in TASKS[group](chip)]
    tasks = [(key, measure) for key, measure in tasks if flags.match in page.joined(key)]
    if flags.keep:
        tasks = [(key, measure) for key, measure in tasks if "error" in rows.get(page.joined(key), {"error": ""})]
    run(tasks, rows, save, flags.jobs)
    save()
    flags.out.with_suffix(".md").write_text(page.page(rows, about))
    print(f"written to {flags.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
