"""results/accelerators.md from the facts of the compiled programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import harness
from benchmarks.aot.chips import CHIPS, Chip
from benchmarks.aot.facts import Facts
from benchmarks.aot.programs import WORKLOADS
from benchmarks.aot.updates import least_traffic, parameter_bytes, updates
from benchmarks.optimizer import SYNC_PERIOD

# Of an update: what its caller says about the sync.
ANSWERS = {None: "schedule", False: "no sync", True: "sync"}
TEXTBOOK = "textbook training step"
MEGA = 1e6

TITLE = f"""# Accelerators, by their compilers

Made by `python -m benchmarks.accelerators`; do not edit. **Nothing here ran on an accelerator.** The optimizer updates
and the programs of the training system are compiled for one TPU v5e and one H100 with the chips' own compilers, and the
compiled programs are read: what each kernel reads and writes, what is copied, how much memory is needed.

- *Traffic* is what the kernels read from and write to the chip's main memory, each operand and result once.
- *Memory* is arguments, outputs in buffers of their own and temporaries, as the compiler lays them out.
- *Donated* buffers should all be *aliased*: the outputs take their place.
- *Kernels* are launches on the H100, loops included, and operations on the v5e, scalar ones included.
- *Copies* and *transposes* are kernels that only move an array of 256 elements or more within the main memory, or write
  it in another order of its dimensions.

## Optimizer updates

`update` and `optax.apply_updates` on the {parameter_bytes() // 4:,} float32 parameters of ResNet18 in 62 arrays.
Traffic and memory are multiples of the parameters' {parameter_bytes() / MEGA:.1f} MB. "By the schedule" is one program
for all steps; "no sync" and "sync" are the two that a caller compiles who knows its step (`sync=False`, `sync=True`),
and "average" is over a period of k = {SYNC_PERIOD}. "At least" counts the gradients once, what every step changes
twice, and what only a sync changes twice in k steps.
"""

SAYS = (
    (
        "which bytes each kernel must move, and so Lookahead's share of a step that memory limits",
        "how close a kernel comes to the chip's bandwidth; what its caches save",
    ),
    (
        "that every donated buffer is reused, and how much memory a program needs",
        "fragmentation, and what the runtime keeps for itself",
    ),
    (
        "that no program calls the host, uses float64 or has shapes that change",
        "how long the host takes to start a program",
    ),
    (
        "how many kernels a step launches, and so which steps are limited by launches",
        "how long a launch takes; CUDA graphs, into which XLA collects launches at run time",
    ),
    (
        "which copies and transposes the compiler inserts when it cannot try kernels out",
        "what autotuning, and cuDNN's choice of a layout, change on a real card: on the H100 a convolution is a call "
        "of cuDNN, whose inside is not compiled here",
    ),
    ("which collectives run between chips, and their bytes", "how long they take"),
)


def joined(key: Sequence[str]) -> str:
    return "/".join(key)


def page(rows: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The Markdown page; rows that are missing leave their cells empty."""
    found = {key: Facts(**row) for key, row in rows.items() if "error" not in row}
    errors = [f"- {key.replace('/', ', ')}: {row['error']}" for key, row in sorted(rows.items()) if "error" in row]
    parts = [TITLE]
    parts += [f"### {chip.name}\n\n{update_table(chip, found)}\n" for chip in CHIPS]
    parts += ["## The programs of a run\n\n" + PROGRAMS]
    parts += [f"### {chip.name}\n\n{program_table(chip, found)}\n" for chip in CHIPS]
    parts += [f"## Bounds\n\n{bounds_table(found)}\n"]
    parts += [
        "## What this says, and what it cannot say\n\n" + harness.table(["it says", "it does not say"], SAYS) + "\n"
    ]
    if errors:
        parts += ["## What the compilers refused\n\n" + "\n".join(errors) + "\n"]
    seconds = sum(facts.seconds for facts in found.values())
    parts += [f"## Made with\n\n{harness.describe(about)}; {seconds / 60:.0f} minutes of compiling in all.\n"]
    return "\n".join(parts)


PROGRAMS = """Each config's own recipe, sizes and batch, Lookahead included; the data set lies on the device and is an
argument. One run of a training step is one update, of evaluation a pass over the test set, of re-estimation 50 batches.
Below each training step a textbook one with the same optimizer and data: plain Flax layers, no augmentation, no
metrics. Bytes in MB.
"""


def update_table(chip: Chip, found: Mapping[str, Facts]) -> str:
    size = parameter_bytes()
    header = ["optimizer", "by the schedule", "no sync", "sync", "average", "at least", "average / inner's"]
    header += ["memory", "host memory", "aliased", "kernels: schedule, no sync, sync", "copies"]
    inner = {u.title: _get(found, "updates", chip, u.title, ANSWERS[None]) for u in updates()}
    cells = []
    for update in updates():
        facts = {sync: _get(found, "updates", chip, update.title, name) for sync, name in ANSWERS.items()}
        known = [f for f in facts.values() if f is not None]
        if not known:
            continue
        average = average_traffic(facts)
        alone = inner[update.inner]
        last = known[-1]
        cells.append(
            [
                update.title,
                *[f"{f.traffic / size:.2f}" if f else "" for f in facts.values()],
                f"{average / size:.2f}" if average else "",
                f"{least_traffic(update) / size:.2f}",
                f"{(average or known[0].traffic) / alone.traffic:.3f}" if alone else "",
                f"{max(f.memory for f in known) / size:.2f}",
                f"{last.host_arguments / size:.2f}" if last.host_arguments else "",
                f"{last.aliased} of {last.donated}",
                ", ".join(str(f.kernels) if f else "-" for f in facts.values()),
                ", ".join(str(f.copies) if f else "-" for f in facts.values()),
            ]
        )
    return harness.table(header, cells)


def average_traffic(facts: Mapping[bool | None, Facts | None]) -> float | None:
    """Bytes a step over a period, of the two programs that a caller has who knows its step."""
    quiet, sync = facts.get(False), facts.get(True)
    if quiet is None or sync is None:
        return None
    return ((SYNC_PERIOD - 1) * quiet.traffic + sync.traffic) / SYNC_PERIOD


def program_table(chip: Chip, found: Mapping[str, Facts]) -> str:
    header = ["model", "program", "arguments", "temporaries", "aliased", "traffic", "GFLOP", "kernels", "convolutions"]
    header += ["copies", "transposes", "host calls", "s to compile"]
    cells = []
    for workload in WORKLOADS:
        prefix = joined(("programs", chip.name, workload.title, ""))
        names = [key.removeprefix(prefix) for key in found if key.startswith(prefix)]
        for name in sorted(names, key=lambda n: (not n.startswith("training step"), n != TEXTBOOK, n)):
            facts = found[prefix + name]
            cells.append(
                [
                    workload.title,
                    name,
                    f"{facts.arguments / MEGA:.1f}",
                    f"{facts.temporaries / MEGA:.1f}",
                    f"{facts.aliased} of {facts.donated}" if facts.donated else "",
                    f"{facts.traffic / MEGA:.0f}",
                    f"{facts.flops / 1e9:.1f}" if facts.flops else "",
                    *map(str, (facts.kernels, facts.convolutions, facts.copies, facts.transposes, facts.callbacks)),
                    f"{facts.seconds:.0f}",
                ]
            )
    return harness.table(header, cells)


def bounds_table(found: Mapping[str, Facts]) -> str:
    """The figures that the project asks of itself, and whether each chip's programs keep them."""
    lines = []
    adam = {chip: _get(found, "updates", chip, "Adam", ANSWERS[None]) for chip in CHIPS}

    def line(what: str, bound: float, value: Any) -> None:
        cells = []
        for chip in CHIPS:
            found_value = value(chip)
            if found_value is None:
                cells.append("")
            else:
                # To a thousandth: a counter of Lookahead's is no miss.
                cells.append(f"{found_value:.3f}" + ("" if round(found_value, 3) <= bound else " (missed)"))
        lines.append([what, f"at most {bound:.2f}", *cells])

    def amortised(chip: Chip) -> float | None:
        facts = {sync: _get(found, "updates", chip, "Lookahead(Adam)", name) for sync, name in ANSWERS.items()}
        average, alone = average_traffic(facts), adam[chip]
        return average / alone.traffic if average and alone else None

    def on_host(chip: Chip) -> float | None:
        title = "Lookahead(Adam), slow weights on the host"
        quiet, alone = _get(found, "updates", chip, title, ANSWERS[False]), adam[chip]
        return quiet.memory / alone.memory if quiet and alone else None

    line(f"traffic of Lookahead(Adam) over Adam's, sync by the caller, average of k = {SYNC_PERIOD}", 1.06, amortised)
    line("chip's memory of Lookahead(Adam) with slow weights on the host over Adam's, no sync", 1.00, on_host)
    for workload in WORKLOADS:
        for what, get in (("arguments", lambda f: f.arguments), ("temporaries", lambda f: f.temporaries)):

            def over_textbook(chip: Chip, workload=workload, get=get) -> float | None:
                ours = _get(found, "programs", chip, workload.title, "training step")
                theirs = _get(found, "programs", chip, workload.title, TEXTBOOK)
                return get(ours) / get(theirs) if ours and theirs else None

            line(f"{what} of the training step over the textbook one's: {workload.title}", 1.10, over_textbook)
    return harness.table(["figure", "bound", *[chip.name for chip in CHIPS]], lines)


def _get(found: Mapping[str, Facts], group: str, chip: Chip, title: str, program: str) -> Facts | None:
    return found.get(joined((group, chip.name, title, program)))
