"""The page of `benchmarks.gpu`: OUT/README.md from OUT/*.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Summary, table


def write(out: Path) -> None:
    """Writes OUT/README.md."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    parts = ["# On a GPU", "Made by `make gpu` (`python -m benchmarks.gpu`). Medians (quartiles) over the rounds."]
    if any(stage.get("tiny") for stage in found.values()):
        parts.append("**Made with --tiny: the figures mean nothing.**")
    for name, section in (("updates", _updates), ("steps", _steps), ("study", _study), ("tests", _tests)):
        if name in found:
            parts += section(found[name])
            parts += [note] if (note := found[name].get("note")) else []
            parts.append(_machine(found[name]["machine"], found[name]["seconds"]))
    (out / "README.md").write_text("\n\n".join(parts) + "\n")


def _machine(about: Mapping[str, Any], seconds: float) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    card = about["device"]["nvidia_smi"] or about["device"]["kind"]
    return (
        f"{card}; {about['cpu']}, {about['cores']} cores; Python {about['python']}, {versions}; "
        f"commit {about['commit'][:12]}; {about['date']}; {seconds:.0f} s"
    )


def _tests(result: Mapping[str, Any]) -> list[str]:
    return ["## Tests", f"`{result['command']}`, status {result['status']}:", f"```\n{result['output']}\n```"]


def _updates(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in result["rows"]:
        alone = row["milliseconds"]["alone"]
        cells = [f"{row['params']} ({row['arrays']} arrays)", row["inner"]]
        cells.append(Summary(**alone).text(3))
        cells += [Summary(**ratio).text(2) for side, ratio in row["ratio"].items() if side != "alone"]
        rows.append(cells)
    sides = [side for side in result["rows"][0]["ratio"] if side != "alone"]
    header = ["parameters", "inner optimizer", "alone, ms", *sides]
    return [
        "## Updates",
        f"Milliseconds per update of the inner optimizer alone, and the others' times relative to it (k = 5); "
        f"n = {result['rounds']} rounds of {result['steps_a_round']} updates.",
        table(header, rows),
    ]


def _steps(result: Mapping[str, Any]) -> list[str]:
    parts = ["## Training steps", f"n = {result['rounds']} rounds."]
    for row in result["rows"]:
        rows = []
        for side, milliseconds in row["milliseconds"].items():
            seeds = int(side.split()[0]) if "seeds" in side else 1
            rate = seeds * row["samples_a_step"] / milliseconds["median"] * 1e3
            ratio = row["times_as_fast_as_torch"].get(side)
            torch = f"{seeds * ratio['median']:.2f}" if ratio else "-"
            rows.append([side, Summary(**milliseconds).text(2), f"{rate:,.0f}", torch])
        parts += [f"### {row['title']}", table(["side", "ms per step", row["unit"], "over torch"], rows)]
    return parts


def _study(result: Mapping[str, Any]) -> list[str]:
    ended = {0: "all runs are done", 75: "stopped at the time limit; the same command continues"}
    status = ended.get(result["status"], f"status {result['status']}")
    return ["## Study", f"`{result['command']}`: {status}. Its page: [study/index.html](study/index.html)."]
