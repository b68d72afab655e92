"""The page of all results, from files of results."""

import argparse
import json

import pytest

from benchmarks import harness, report


@pytest.fixture
def machine():
    return harness.machine() | {"command": "python -m benchmarks.gru", "versions": {"jax": "1.2.3"}}


def line(name: str, ratio: float, at_least: str) -> dict:
    return harness.table_line(name, "20", "10", harness.Summary.of([ratio] * 5), at_least, "3", 5)


def test_rows_that_miss_their_bound_are_marked_and_asked_about(tmp_path, machine):
    rows = {
        "fast": {"table": [line("fast, tokens/s", 2.5, "2")]},
        "slow": {"table": [line("slow, tokens/s", 1.5, "2")]},
    }
    harness.write_rows(tmp_path / "gru.json", rows, machine)
    loaded = report.load(tmp_path)
    page = report.page(loaded, "## fast\n\nbound by the softmax")
    assert "| **2.50 (2.50-2.50)** |" in page
    assert "| 1.50 (1.50-1.50) " in page
    assert "2 (missed)" in page
    assert "bound by the softmax" in page
    assert "jax 1.2.3" in page
    assert "`python -m benchmarks.gru`" in page
    assert report.without_note(loaded, "## fast\n") == ["slow, tokens/s"]
    assert report.without_note(loaded, "## slow\n\nits scan is sequential") == []


@pytest.mark.parametrize(
    ("ours", "bound", "missed"), [("1.20 (1.1-1.3) s", "at most 1.5 s", False), ("7 s", "at most 6 s", True)]
)
def test_bounds_of_time_are_upper_ones(ours, bound, missed):
    assert report.missed(harness.table_line("second start", ours, "", None, bound, "", 5)) is missed


def test_a_run_of_one_row_keeps_the_others(tmp_path, machine):
    path = tmp_path / "resnet18.json"
    harness.write_rows(path, {"imagenet": {"table": []}, "cifar": {"table": [], "old": True}}, machine)
    harness.write_rows(path, {"imagenet": {"table": [], "new": True}}, machine)
    rows = json.loads(path.read_text())["rows"]
    assert rows["imagenet"]["new"]
    assert rows["cifar"]["old"]


def test_figures_of_few_rounds_do_not_replace_results():
    few = argparse.Namespace(rounds=harness.FEWEST_ROUNDS - 1, out=None)
    assert harness.result_path("gru", few) is None
    assert harness.result_path("gru", argparse.Namespace(rounds=2, out="here.json")) is not None
    assert harness.result_path("gru", argparse.Namespace(rounds=5, out=None)) == harness.FOLDER / "gru.json"
