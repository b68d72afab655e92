"""What a GPU makes of the project, in the minutes that there are: `make gpu`, or

    python -m benchmarks.gpu [--stages=tests,updates,steps,study] [--budget_s=600] [--data_dir=DIR] [--scale=full]
                             [--only=2.1] [--jobs=4] [--out=results/gpu] [--tiny]

tests     tests/gpu, and the library's own tests, on this GPU.
updates   an update of ResNet18's parameters, and of 100 million in twelve arrays: Adam and SGD alone, with Lookahead,
          with a Nesterov outer step, and both with the caller's sync.
steps     training steps of the networks: ours, ten a dispatch, several seeds in one program, and PyTorch if it is
          installed.
study     runs of a study for what is left of the budget; the same command later goes on where it stopped.

A stage writes OUT/STAGE.json when it is done, and is not done again for the same commit on the same device unless
--again is given. OUT/README.md is made anew from what there is. Sides of a comparison run in turn in one process, and
each waits for its own work. Without a GPU everything runs on the CPU: to see that it does (`--tiny`).
"""

import argparse
import collections
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import gpu_page, gpu_steps, gpu_updates, harness
from train.run.provenance import cores, source_commit

STAGES = ("tests", "updates", "steps", "study")


def device() -> dict[str, Any]:
    """The first device and its driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        smi = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        smi = ""
    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "nvidia_smi": smi}


def run_tests(tiny: bool, limit: float) -> dict[str, Any]:
    """Runs the tests that make sense on one GPU; their last lines and status."""
    # Those left out read what the CPU's compiler makes, or the installed package.
    paths = ["tests/gpu", *([] if tiny else ["tests/lookahead_jax", "--ignore=tests/lookahead_jax/test_compiled.py"])]
    workers = [] if tiny else ["-n", str(max(1, min(12, cores() - 2)))]
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if jax.devices()[0].platform == "gpu":
        environment["JAX_PLATFORMS"] = "cuda,cpu"
    # pytest-benchmark, where it is installed, warns under -n.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "-m", "not peers", *workers, *paths]
    status, output = _run(command, environment, limit)
    return {"command": shlex.join(["python", *command[1:]]), "status": status, "output": failures(output)}


def failures(output: str) -> str:
    """What pytest said at its end: each test function that failed, with the number of its cases, and the last line."""
    lines = output.splitlines()
    failed = (line.split(" - ")[0].split("[")[0] for line in lines if line.startswith(("FAILED ", "ERROR ")))
    found = [line + f" ({cases} cases)" * (cases > 1) for line, cases in collections.Counter(failed).items()]
    last = [line for line in lines if re.search(r"\d+ \w+.* in \d", line)][-1:]
    return "\n".join([*found, *last]) if last else output[-4_000:]


def run_study(flags: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Goes on with a study until the limit; what is finished is in OUT/study."""
    command = [
        *(sys.executable, "-m", "train.study", f"--study={flags.study}", f"--out={flags.out / 'study'}"),
        *(f"--jobs={flags.jobs}", *([f"--scale={flags.scale}"] if flags.scale else [])),
        *([f"--only={flags.only}"] if flags.only else []),
        *([f"--data_dir={flags.data_dir}"] if flags.data_dir else []),
    ]
    status, output = _run(command, {}, limit)
    return {"command": shlex.join(["python", *command[1:]]), "status": status, "output": output[-4_000:]}


def _run(command: list[str], environment: dict[str, str], limit: float) -> tuple[int, str]:
    """Runs a command; asks it to stop at the limit, and gives it half a minute to save."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=max(limit, 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    print(output[-3000:], flush=True)
    return process.returncode, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES), help=f"which of {','.join(STAGES)} (default: all)")
    parser.add_argument("--budget_s", type=float, default=600, help="seconds for all stages together (default 600)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each side (default 7)")
    parser.add_argument("--rows", default=",".join(row.name for row in gpu_steps.ROWS), help="of the training steps")
    parser.add_argument("--seeds", default="1,2,4,8,16", help="seeds in one program, of the training steps")
    parser.add_argument("--sets", default=",".join(gpu_updates.SETS), help="of parameters, for the updates")
    parser.add_argument("--study", default="configs/studies/report.py", help="study file")
    parser.add_argument("--scale", default="full", help="of the study; empty for a study that has none")
    parser.add_argument("--only", default="2.1", help="sections of the study; empty for all")
    parser.add_argument("--jobs", type=int, default=2, help="runs of the study at once")
    parser.add_argument("--data_dir", default="", help="where prepared data sets lie")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--again", action="store_true", help="do stages again that are done")
    parser.add_argument("--tiny", action="store_true", help="sizes that mean nothing, to check that it runs")
    flags = parser.parse_args()
    stages = flags.stages.split(",")
    if unknown := sorted(set(stages) - set(STAGES)):
        parser.error(f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    began = time.monotonic()
    flags.out.mkdir(parents=True, exist_ok=True)
    # Stages run programs of their own on the device, and PyTorch beside JAX.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    about = harness.machine() | {"device": device(), "commit": source_commit()}
    rounds = 2 if flags.tiny else flags.rounds
    for stage in stages:
        file = flags.out / f"{stage}.json"
        left = flags.budget_s - (time.monotonic() - began)
        if stage != "study" and not flags.again and _is_done(file, about):
            print(f"{stage}: done before ({file})", flush=True)
            continue
        if left <= 0:
            print(f"{stage}: no time left", flush=True)
            continue
        print(f"{stage}: {left:.0f} s left", flush=True)
        since = time.monotonic()
        match stage:
            case "tests":
                result = run_tests(flags.tiny, left)
            case "updates":
                result = gpu_updates.updates(flags.tiny, rounds, flags.sets.split(","))
            case "steps":
                seeds = [int(count) for count in flags.seeds.split(",")]
                result = gpu_steps.steps(flags.tiny, rounds, flags.rows.split(","), seeds)
            case _:
                result = run_study(flags, left)
        result |= {"machine": about, "seconds": round(time.monotonic() - since, 1), "tiny": flags.tiny}
        file.write_text(json.dumps(result, indent=2, default=dataclasses.asdict) + "\n")
        gpu_page.write(flags.out)
    print(f"page: {flags.out / 'README.md'}")


def _is_done(file: Path, about: dict[str, Any]) -> bool:
    try:
        there = json.loads(file.read_text())["machine"]
    except (OSError, ValueError, KeyError):
        return False
    return (there["commit"], there["device"]["kind"]) == (about["commit"], about["device"]["kind"])


if __name__ == "__main__":
    main()
