"""Puts the results of all benchmarks on one page: results/performance.md from results/performance/*.json.

    python -m benchmarks.report [--folder=results/performance] [--out=results/performance.md]

`make bench` runs the benchmarks and then this. The notes in results/performance_notes.md (what was tried for a row and
what limits it) follow the table. The command's output ends with the rows that miss their bound and have no note: those
whose name does not begin with any heading of the notes.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks import harness

# The order of the page; files that are not named follow in the order of their names.
ORDER = (
    "resnet18",
    "cnn",
    "gru",
    "optimizer",
    "compile_time",
    "epoch",
    "settings",
    "startup",
    "agreement",
    "checkpoint",
)
HEADER = ["benchmark", "ours", "torch", "ratio (quartiles)", "at least", "aim", "n"]

TITLE = """# Performance

Made by `make bench`; do not edit (the notes come from `performance_notes.md`). Ratios are ours divided by torch's:
larger is better for throughput (the default), smaller for memory and time. Figures are medians, with quartiles in
brackets, over n rounds that alternate between processes with the same number of threads, without warm-up and
compilation. How each is measured: `python -m benchmarks.NAME --help`; all figures: `performance/NAME.json`.
"""


def load(folder: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(benchmark, row, its figures) from every file, in the page's order."""
    files = {path.stem: path for path in folder.glob("*.json")}
    names = [*(name for name in ORDER if name in files), *sorted(set(files) - set(ORDER))]
    return [(name, key, row) for name in names for key, row in json.loads(files[name].read_text())["rows"].items()]


def ratio_text(line: dict[str, Any]) -> str:
    if line["ratio"] is None:
        return ""
    return harness.Summary(**line["ratio"]).text()


def missed(line: dict[str, Any]) -> bool:
    """Whether a row's figure is outside its bound."""
    bound = re.search(r"\d+(\.\d+)?", line["at_least"])
    if not bound:
        return False
    value = line["ratio"]["median"] if line["ratio"] else float(line["ours"].split()[0])
    return value > float(bound[0]) if line["at_least"].startswith("at most") else value < float(bound[0])


def page(rows: list[tuple[str, str, dict[str, Any]]], notes: str) -> str:
    """The Markdown page."""
    lines = [line for _, _, row in rows for line in row.get("table", [])]
    cells = [
        [
            line["benchmark"],
            line["ours"],
            line["torch"],
            f"**{ratio_text(line)}**" if ratio_text(line) and not missed(line) else ratio_text(line),
            line["at_least"] + (" (missed)" if missed(line) else ""),
            line["aim"],
            str(line["n"]),
        ]
        for line in lines
    ]
    return "\n".join(
        [TITLE, harness.table(HEADER, cells), "", "## Measured on", "", *_machines(rows), "", notes.strip(), ""]
    )


def _machines(rows: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """One line per benchmark call: machine, versions, load and command; the same machine is named once."""
    lines: dict[str, None] = {}
    seen: set[tuple[Any, ...]] = set()
    for _, _, row in rows:
        about = row["machine"]
        hardware = (about["cpu"], about["cores"], about["platform"], about["python"], *about["versions"].items())
        if hardware not in seen:
            seen.add(hardware)
            versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
            lines[
                f"{about['cpu']}, {about['cores']} cores, {about['platform']}; Python {about['python']}, {versions}:"
            ] = None
            lines[""] = None
        lines[f"- `{about['command']}`, {about['date']}, load {about['load_before']} before"] = None
    return list(lines)


def without_note(rows: list[tuple[str, str, dict[str, Any]]], notes: str) -> list[str]:
    """Names of rows that miss their bound and have no heading in the notes."""
    headings = [line.lstrip("# ").strip() for line in notes.splitlines() if line.startswith("#")]
    lines = [line for _, _, row in rows for line in row.get("table", []) if missed(line)]
    return [
        line["benchmark"] for line in lines if not any(line["benchmark"].startswith(heading) for heading in headings)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=harness.FOLDER)
    parser.add_argument("--notes", type=Path, default=Path("results/performance_notes.md"))
    parser.add_argument("--out", type=Path, default=Path("results/performance.md"))
    flags = parser.parse_args()
    rows = load(flags.folder)
    if not rows:
        raise SystemExit(f"no results in {flags.folder}; run make bench, or python -m benchmarks.NAME for some of them")
    notes = flags.notes.read_text() if flags.notes.exists() else ""
    flags.out.write_text(page(rows, notes))
    print(f"wrote {flags.out}")
    for name in without_note(rows, notes):
        print(f"misses its bound, and {flags.notes} does not say why: {name}")


if __name__ == "__main__":
    main()
