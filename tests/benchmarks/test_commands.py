"""Every benchmark runs, at sizes that say nothing: the command, its workers, the file and the page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(name: str, *arguments: str) -> str:
    """Runs a benchmark as a user does, on one CPU device; returns what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def rows(path: Path) -> dict:
    return json.loads(path.read_text())["rows"]


@pytest.mark.peers
def test_a_comparison_runs_both_sides_and_writes_their_ratio(tmp_path):
    out = tmp_path / "gru.json"
    printed = bench("gru", "--tiny", "--rounds=2", "--sides=ours,ours+scan1,torch,torch+kept", f"--out={out}")
    row = rows(out)["train"]
    assert row["machine"]["versions"]["torch"]
    measured = {**row["sides"], **row["milliseconds_a_step_in_trial"]}
    assert set(measured) == {"ours", "ours+scan1", "torch", "torch+kept"}
    assert row["sides"]["ours"]["per_second"]["n"] == 2
    assert row["sides"]["ours"]["xla_bytes"]["temporaries"] > 0
    throughput, memory, kept = row["table"]
    assert throughput["ratio"]["median"] > 0
    assert throughput["at_least"] == "2"
    assert "peak MB" in memory["benchmark"]
    assert "freed memory kept" in kept["torch"]
    assert not kept["at_least"]
    assert throughput["benchmark"] in printed


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "cnn"])
def test_image_comparisons_run(tmp_path, name):
    out = tmp_path / f"{name}.json"
    bench(name, "--tiny", "--rounds=1", "--sides=ours,torch", f"--out={out}")
    assert all(row["table"] for row in rows(out).values())


@pytest.mark.peers
@pytest.mark.slow
def test_torch_compiled_runs(tmp_path):
    out = tmp_path / "gru.json"
    bench("gru", "--tiny", "--rounds=1", "--sides=ours,torch+compiled+hugepages", f"--out={out}")
    assert set(rows(out)["train"]["sides"]) == {"ours", "torch+compiled+hugepages"}


def test_few_rounds_write_nothing_unless_asked(tmp_path):
    before = {path: path.read_bytes() for path in (ROOT / "results" / "performance").glob("*")}
    printed = bench("gru", "--tiny", "--rounds=1", "--sides=ours")
    assert "not written" in printed
    assert {path: path.read_bytes() for path in (ROOT / "results" / "performance").glob("*")} == before


def test_an_unknown_row_is_one_line(tmp_path):
    command = [sys.executable, "-m", "benchmarks.resnet18", "--rows=imagnet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown row 'imagnet'; the rows are imagenet, cifar, evaluation" in done.stderr


@pytest.mark.slow
def test_the_trainer_is_set_against_the_bare_step(tmp_path):
    out = tmp_path / "epoch.json"
    bench("epoch", "--rows=cnn", "--tiny", "--rounds=1", f"--out={out}")
    row = rows(out)["cnn"]
    assert row["ratio"]["median"] > 0
    assert row["seconds_beside_training"]["median"] > 0


@pytest.mark.slow
def test_a_start_is_timed_in_sections(tmp_path):
    out = tmp_path / "startup.json"
    bench("startup", "--rounds=1", "--cold_rounds=1", "--config=configs/digits_cnn.py", f"--out={out}")
    row = rows(out)["start"]
    assert len(row["table"]) == 4
    for sections in row["sections"].values():
        parts = sum(summary["median"] for name, summary in sections.items() if name != "total")
        assert parts == pytest.approx(sections["total"]["median"], rel=1e-6)
    assert row["seconds"]["second"][0] < row["seconds"]["cold"][0]


@pytest.mark.slow
def test_settings_are_timed_one_by_one(tmp_path):
    out = tmp_path / "settings.json"
    bench("settings", "--tiny", "--steps=1", "--rounds=1", f"--out={out}")
    found = rows(out)["settings"]
    assert len(found["table"]) == len(found["seconds"]) - 1 == 9
    assert found["seconds_a_step"]["median"] == found["seconds"]["plain"][0]


def test_compiling_is_timed(tmp_path):
    out = tmp_path / "compile_time.json"
    bench("compile_time", "--leaves=2", "--rounds=1", f"--out={out}")
    found = rows(out)["compile_time"]
    assert len(found["table"]) == len(found["seconds"]) - 1 == 6
    assert all(line["ratio"]["median"] > 0.2 for line in found["table"])


@pytest.mark.slow
def test_a_checkpoint_is_timed(tmp_path):
    out = tmp_path / "checkpoint.json"
    bench("checkpoint", "--tiny", "--steps=2", "--rounds=1", f"--out={out}")
    assert rows(out)["checkpoint"]["state_bytes"] > 100_000_000


def test_lookaheads_cost_is_timed(tmp_path):
    out = tmp_path / "optimizer.json"
    bench("optimizer", "--tiny", "--rounds=1", f"--out={out}")
    assert len(rows(out)["against_inner"]["table"]) == 10
