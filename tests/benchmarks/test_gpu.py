"""The command for a machine with a GPU runs, here on the CPU at sizes that say nothing, and does no stage twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import failures

ROOT = Path(__file__).resolve().parents[2]


def gpu(out: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"} | {"SOURCE_COMMIT": "abc"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", f"--out={out}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_stages_are_written_once_and_the_study_goes_on(tmp_path):
    flags = ["--stages=updates,steps,study", "--rows=gru", "--seeds=2", "--scale=smoke", "--only=2.6.2"]
    gpu(tmp_path, *flags, "--budget_s=600")
    updates, steps, study = (json.loads((tmp_path / f"{name}.json").read_text()) for name in flags[0][9:].split(","))
    assert all(row["ratio"]["alone"]["median"] == 1 for row in updates["rows"])
    assert steps["rows"][0]["milliseconds"]["2 seeds in one program"]["median"] > 0
    assert study["status"] == 0
    assert (tmp_path / "study" / "runs.csv").exists()
    page = (tmp_path / "README.md").read_text()
    assert "commit abc" in page
    assert "mean nothing" in page
    again = gpu(tmp_path, *flags, "--budget_s=600")
    assert "updates: done before" in again
    assert "steps: done before" in again


def test_failed_cases_of_a_test_are_one_line():
    said = "F..F\nFAILED tests/a.py::one[x] - assert 1 == 2\nFAILED tests/a.py::one[y]\nFAILED tests/a.py::two\n"
    expected = "FAILED tests/a.py::one (2 cases)\nFAILED tests/a.py::two\n3 failed, 1 passed in 2.50s (0:00:02)"
    assert failures(said + "3 failed, 1 passed in 2.50s (0:00:02)\n") == expected
    assert failures("Killed in 3 places") == "Killed in 3 places"
