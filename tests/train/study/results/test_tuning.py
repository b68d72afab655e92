"""Choosing among trials, times to a target, performance profiles, and a tuned study from the command to its page."""

import csv
import json

import pytest

from tests.train.study.plan.test_tuning import section
from train.config import to_dict
from train.study.__main__ import main
from train.study.plan import Study, planned_runs, trial_runs, tuning
from train.study.results.records import RunRecord
from train.study.results.tuning import (
    Trial,
    best_of,
    best_so_far,
    epochs_to_target,
    mean_scores,
    performance_profile,
    trials_of,
    tuned,
    without_choice,
)
from train.study.verdicts.judge import assemble


def trial(number, score):
    return Trial(number, {}, "finished" if score is not None else "failed", score)


def test_the_best_is_the_first_of_the_highest_scores():
    trials = [trial(1, None), trial(2, 0.5), trial(3, 0.8), trial(4, 0.8), trial(5, 0.1)]
    assert best_of(trials).number == 3
    assert best_so_far(trials) == [None, 0.5, 0.8, 0.8, 0.8]
    assert best_of(trials[:1]) is None


def record(run, *, status="finished", **score):
    rows = [{"epoch": 1, **score}] if status == "finished" else []
    return RunRecord(run.id, run.variant_id, run.data, "", to_dict(run.config), run.config.seed, rows, status)


def test_each_variant_takes_the_values_of_its_best_trial_by_its_own_weights():
    """The slow weights choose where there are any, and trials that failed or are not a number do not count."""
    study = Study(name="tuned", sections=[section()], seeds=1)
    planned = trial_runs(study)  # plain 1, slow 1, plain 2, ...
    scores = [(0.5, None), (0.9, 0.2), (0.7, None), (0.1, 0.6), (float("nan"), None), (0.9, 0.3)]
    names = ("validation_accuracy", "slow_validation_accuracy", "slow_validation_loss")
    runs = {}
    for run, (live, slow) in zip(planned, scores, strict=False):
        found = dict(zip(names, (live, slow, None if slow is None else 1.0), strict=True))  # as a file has them
        runs[run.id] = record(run, **found)
    runs[planned[6].id] = record(planned[6], status="failed")
    whole = study.sections[0]
    assert [t.status for t in trials_of(whole, whole.variants[0], runs)] == ["finished"] * 3 + ["failed"]
    plain, slow = tuned(study, runs).sections[0].variants
    assert plain.config == whole.trial(whole.variants[0], 2).config
    assert slow.config == whole.trial(whole.variants[1], 2).config
    assert without_choice(study.sections, {}) == ["1:digits plain", "1:digits slow"]
    assert without_choice(study.sections, runs) == []


def test_a_chosen_trial_is_no_seed_of_its_variant():
    study = Study(name="tuned", sections=[section()], seeds=1)
    runs = {run.id: record(run, validation_accuracy=0.5, test_accuracy=0.5) for run in trial_runs(study)}
    chosen = tuned(study, runs)
    seed0 = planned_runs(chosen)[0]
    runs[seed0.id] = record(seed0, validation_accuracy=0.5, test_accuracy=0.6)
    assert seed0.variant_id in {run.variant_id for run in runs.values() if run.seed == tuning.SEED}
    results = assemble(chosen, runs, {})
    assert [run.seed for run in results.by_variant(chosen.sections[0], "plain")] == [0]
    assert len(results.trials) == 8


def test_the_time_to_a_target_is_the_mean_curves():
    curves = [[0.2, 0.5, 0.9, 0.9], [0.4, 0.6, 0.7, 0.9]]
    runs = [
        RunRecord(str(i), "v", "", "", {}, i, [{"validation_accuracy": a} for a in curve], "finished")
        for i, curve in enumerate(curves)
    ]
    assert mean_scores(runs) == pytest.approx([0.3, 0.55, 0.8, 0.9])
    assert epochs_to_target(mean_scores(runs), 0.55 - 1e-9) == 2
    assert epochs_to_target(mean_scores(runs), 0.95) is None
    assert epochs_to_target(mean_scores([]), 0.5) is None


def test_a_performance_profile_by_hand():
    times = [{"a": 10, "b": 20}, {"a": 30, "b": 20}, {"a": None, "b": 7}, {"a": None, "b": None}]
    assert performance_profile(times, "a", [1, 1.5, 2, 100]) == [0.25, 0.5, 0.5, 0.5]
    assert performance_profile(times, "b", [1, 1.5, 2, 100]) == [0.5, 0.5, 0.75, 0.75]


STUDY = """
import dataclasses
from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Claim, Comparison, Pair, Section, Study, Variant, log_uniform

def get_study():
    base = Config(dataset="digits", epochs=1, batch_size=32, train_examples=64, test_examples=40, devices=1,
                  validation_examples=50, model=ModelConfig(name="small_cnn"),
                  optimizer=OptimizerConfig(name="adamw", weight_decay=0.01))
    lion = dataclasses.replace(base, optimizer=OptimizerConfig(name="lion"))
    pair = Pair("1:digits", "lion", "adamw")
    section = Section(key="1", figure="tiny", variants=[Variant("adamw", base), Variant("lion", lion)],
                      tune={"learning_rate": log_uniform(1e-4, 1e-1)}, trials=2)
    return Study(name="tiny", sections=[section], seeds=1,
                 claims=[Claim("better", "Lion is better.", (Comparison(pair, "better", "loss_area", 0.02),))])
"""


def test_a_tuned_study_from_the_command_to_its_page(tmp_path, capsys):
    study, out = tmp_path / "study.py", tmp_path / "out"
    study.write_text(STUDY)
    command = [f"--study={study}", f"--out={out}"]
    assert main([*command, "--dry_run"]) == 0
    assert "before these: 4 of 4 trials to do" in capsys.readouterr().out
    assert main(command) == 0
    printed = capsys.readouterr().out
    with (out / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 6
    for name, option in (("adamw", "0.999"), ("lion", "0.99")):
        trials = [run for run in runs if run["optimizer.name"] == name and run["seed"] == str(tuning.SEED)]
        best = max(trials, key=lambda run: float(run["validation_accuracy"]))
        (final,) = (run for run in runs if run["optimizer.name"] == name and run["seed"] == "0")
        assert final["optimizer.learning_rate"] == best["optimizer.learning_rate"]
        assert final["optimizer.options.b2"] == option
        assert final["variants"].split(";")[0] == name
        assert {run["optimizer.learning_rate"] for run in trials} == {"0.00316", "0.000562"}
    page = (out / "index.html").read_text()
    assert "Tuned equally: 2 trials each" in page
    assert "Tuned equally (2 trials)." in page
    assert "Not tuned" not in page
    assert page.count("data:image/png;base64") == 1
    assert (out / "figures" / "tiny_tuning.svg").exists()
    assert f"page:    {out / 'index.html'}" in printed

    # From what is published alone: nothing is run again, and everything is written the same.
    before = {path: path.read_bytes() for path in (out / "runs.csv", out / "curves.csv.gz", out / "index.html")}
    assert main(command) == 0
    assert "4 runs, 4 of them done" in capsys.readouterr().out
    assert main([*command, "--report_only"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert len(json.loads((out / "study.json").read_text())["sessions"]) == 2
