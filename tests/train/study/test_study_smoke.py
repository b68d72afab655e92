"""The whole report at smoke scale, from the plan to the page, as the command does it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import recompute_verdicts
from train.study.execution.checks import check_runs, identified
from train.study.plan import load_study, planned_runs

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "configs" / "studies" / "report.py"

STEMS = [
    f"{d}_{name}" for d in ("cifar10", "cifar100") for name in ("base", "param", "001", "fast", "ablation", "batch")
]
FIGURES = [f"{stem}_{ending}" for stem in (*STEMS, "hw2") for ending in ("loss", "acc")] + ["nlp_train", "nlp_test"]


@pytest.mark.slow
def test_the_whole_report_runs_at_smoke_scale(tmp_path):
    out = tmp_path / "out"
    command = ["-m", "train.study", f"--study={REPORT}", f"--out={out}", "--scale=smoke", "--jobs=2"]
    # One device: what 72 small runs cost is compiling, and for four devices that is more.
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    study = load_study(REPORT, scale="smoke")
    study = identified(study, check_runs(planned_runs(study), "").digests, {})
    with (out / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert {run["id"] for run in runs} == {run.id for run in planned_runs(study)}
    assert {run["status"] for run in runs} == {"finished"}
    for name in FIGURES:
        assert (out / "figures" / f"{name}.png").exists(), name
        assert (out / "figures" / f"{name}.svg").exists(), name
    assert (out / "index.html").stat().st_size > 100_000
    with (out / "claims.csv").open(newline="") as file:
        claims = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["claim"] for row in claims)) == [claim.key for claim in study.claims]
    assert {row["verdict"] for row in claims} <= {"supported", "contradicted", "not resolved"}
    assert all(row["n"] == "2" for row in claims)
    assert recompute_verdicts.disagreements(out) == {}
