"""A study from its file to figure and table."""

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError
from train.study.__main__ import main
from train.study.plan import Study, Variant, load_study, planned_runs
from train.study.summary import estimate, summarise

STUDY = """
from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Study, Variant

def get_study():
    def config(lookahead):
        return Config(dataset="digits", epochs=2, batch_size=32, train_examples=96, test_examples=40, devices=1,
                      model=ModelConfig(name="small_cnn"),
                      optimizer=OptimizerConfig(name="radam", learning_rate=0.01, lookahead=lookahead))
    return Study("tiny", "A tiny study", "plain", (Variant("plain", config(False)), Variant("slow", config(True))), 2)
"""


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "study.py"
    path.write_text(STUDY)
    return path


def test_a_study_writes_figure_and_table_and_runs_nothing_twice(study_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([f"--study={study_file}", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    assert f"figure:  {out / 'tiny.png'}" in printed
    assert (out / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (out / "runs").iterdir()) == [
        "plain_seed0",
        "plain_seed1",
        "slow_seed0",
        "slow_seed1",
    ]
    with (out / "summary.csv").open(newline="") as file:
        records = {(r["variant"], r["quantity"]): r for r in csv.DictReader(file)}
    assert ("plain", "slow_test_accuracy") not in records
    # The table is what the runs' own files say.
    finals = []
    for seed in (0, 1):
        with (out / "runs" / f"slow_seed{seed}" / "metrics.csv").open(newline="") as file:
            finals.append(float(list(csv.DictReader(file))[-1]["test_loss"]))
    assert float(records["slow", "test_loss"]["mean"]) == pytest.approx(np.mean(finals), rel=1e-5)
    written = (out / "runs" / "slow_seed1" / "metrics.csv").stat().st_mtime_ns
    assert main([f"--study={study_file}", f"--out={out}"]) == 0
    assert (out / "runs" / "slow_seed1" / "metrics.csv").stat().st_mtime_ns == written


def test_estimate_is_students_interval():
    values = [0.3, 0.5, 0.4, 0.9]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(0.525)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert math.isnan(estimate([1.0]).half_width)


def make_study():
    def config(lookahead):
        return Config(model=ModelConfig(name="small_cnn"), optimizer=OptimizerConfig(lookahead=lookahead))

    return Study("s", "S", "plain", (Variant("plain", config(False)), Variant("slow", config(True))), seeds=3)


def made_up_rows(accuracy, slow=None):
    return [{"train_loss": 1.0, "test_loss": 1.0, "test_accuracy": accuracy, "slow_test_accuracy": slow}]


def test_differences_are_paired_by_seed():
    # Seeds differ by ten points, variants always by one: only pairing sees it.
    runs = {
        "plain": [made_up_rows(a) for a in (0.5, 0.6, 0.7)],
        "slow": [made_up_rows(a, a + 0.02) for a in (0.51, 0.61, 0.71)],
    }
    records = {(r["variant"], r["quantity"]): r for r in summarise(make_study(), runs)}
    assert records["slow", "test_accuracy"]["difference"] == pytest.approx(0.01)
    assert records["slow", "test_accuracy"]["difference_95_percent"] == pytest.approx(0.0, abs=1e-12)
    assert records["slow", "slow_test_accuracy"]["difference"] == pytest.approx(0.03)
    assert records["plain", "test_accuracy"]["difference"] == ""


def test_seeds_are_run_one_after_the_other_so_that_an_interrupted_study_has_whole_pairs():
    order = [(run.seed, run.variant.name) for run in planned_runs(make_study())]
    assert order[:4] == [(0, "plain"), (0, "slow"), (1, "plain"), (1, "slow")]


def test_a_baseline_that_is_no_variant_is_refused():
    with pytest.raises(UserError, match="the baseline 'other' is not among plain, slow"):
        dataclasses.replace(make_study(), baseline="other")


@pytest.mark.parametrize(
    ("content", "message"), [("x = 1", "get_study"), ("def f(:", "cannot be read"), (None, "is not a file")]
)
def test_a_file_that_is_no_study_is_one_line(content, message, tmp_path, capsys):
    path = tmp_path / "study.py"
    if content is not None:
        path.write_text(content)
    assert main([f"--study={path}", f"--out={tmp_path / 'out'}"]) == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert message in stderr


def test_the_demo_study_is_what_the_readme_says():
    study = load_study(Path(__file__).resolve().parents[2] / "configs" / "studies" / "quick.py")
    assert [v.name for v in study.variants] == ["RAdam", "Lookahead(RAdam)"]
    assert study.seeds == 3
