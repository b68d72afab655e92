"""Trials: the same points for every variant, in its own ranges, and what a section must say to be tuned."""

import dataclasses

import pytest

from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError
from train.identity import run_id
from train.study.plan import Section, Study, Variant, log_uniform, planned_runs, trial_runs, tuning, uniform

BASE = Config(
    dataset="digits",
    epochs=2,
    validation_examples=60,
    model=ModelConfig(name="small_cnn"),
    optimizer=OptimizerConfig(name="adam", weight_decay=0.1),
)


def section(**changes):
    lookahead = dataclasses.replace(BASE, optimizer=dataclasses.replace(BASE.optimizer, lookahead=True))
    variants = [Variant("plain", BASE), Variant("slow", lookahead, tune={"learning_rate": log_uniform(1e-2, 1.0)})]
    defaults = {
        "key": "1",
        "variants": variants,
        "tune": {"learning_rate": log_uniform(1e-4, 1e-2), "label_smoothing": uniform(0.0, 0.3)},
        "trials": 4,
    }
    return Section(**{**defaults, **changes})


def radical_inverse(number, base):
    """The digits of a number behind the point, mirrored: what Halton's sequence is made of."""
    digits, value, scale = number, 0.0, 1.0
    while digits:
        scale /= base
        value += scale * (digits % base)
        digits //= base
    return value


def test_the_points_are_haltons():
    expected = [(radical_inverse(n, 2), radical_inverse(n, 3)) for n in range(1, 10)]
    for found, wanted in zip(tuning.points(2, 9), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-12)
    assert tuning.points(2, 4) == tuning.points(2, 9)[:4]


def test_each_variant_has_the_same_points_in_its_own_ranges():
    tuned = section()
    plain, slow = (tuned.trial_values(variant) for variant in tuned.variants)
    assert [t["optimizer.learning_rate"] for t in plain] == pytest.approx(
        [1e-3, 10**-3.5, 10**-2.5, 10**-3.75], rel=5e-3
    )
    for ours, theirs in zip(plain, slow, strict=True):
        assert theirs["optimizer.learning_rate"] == pytest.approx(100 * ours["optimizer.learning_rate"], rel=1e-2)
        assert theirs["label_smoothing"] == ours["label_smoothing"]
    config = tuned.trial(tuned.variants[1], 2).config
    assert config.optimizer.learning_rate == slow[1]["optimizer.learning_rate"]
    assert config.label_smoothing == pytest.approx(0.2)
    assert (config.optimizer.weight_decay, config.optimizer.lookahead) == (0.1, True)


def test_trials_are_planned_round_by_round_at_a_seed_that_no_comparison_has():
    study = Study(name="tuned", sections=[section()], seeds=2)
    found = trial_runs(study)
    assert [run.name for run in found[:3]] == [
        "1:digits plain, trial 1 of 4",
        "1:digits slow, trial 1 of 4",
        "1:digits plain, trial 2 of 4",
    ]
    assert {run.config.seed for run in found} == {tuning.SEED}
    assert len({run.id for run in found}) == 8
    assert not {run.id for run in found} & {run.id for run in planned_runs(study, seeds=50)}
    assert found[0].id == run_id(found[0].config, "")
    assert trial_runs(Study(name="plain", sections=[section(tune={}, trials=0, variants=[Variant("a", BASE)])])) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials=0 with 2 settings to tune for 'plain'; give both"),
        ({"tune": {}, "variants": [Variant("a", BASE)]}, "trials=4 with 0 settings"),
        ({"tune": {"learning_rat": uniform(0, 1)}}, "'learning_rat' is not a setting.*'learning_rate'"),
        ({"tune": {"epochs": uniform(1, 9)}}, "'epochs' cannot be tuned"),
        ({"tune": {"dataset": uniform(1, 9)}}, "'dataset' cannot be tuned"),
        (
            {"variants": [Variant("a", dataclasses.replace(BASE, validation_examples=0))]},
            "cannot be tuned without validation_examples: the test set chooses nothing",
        ),
    ],
)
def test_what_cannot_be_tuned_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        section(**changes)


def test_ranges_that_are_none_are_refused():
    with pytest.raises(UserError, match="from 1 to 1 is empty"):
        uniform(1, 1)
    with pytest.raises(UserError, match="must begin above 0; use uniform"):
        log_uniform(0, 1)


def test_whole_numbers_are_rounded_where_trials_are_made_so_that_what_is_shown_is_what_was_trained():
    tuned = section(tune={"sync_period": uniform(2, 20)}, trials=3)
    values = tuned.trial_values(tuned.variants[0])
    assert values == [{"optimizer.sync_period": period} for period in (11, 6, 16)]
    for number, trial in enumerate(values, start=1):
        period = tuned.trial(tuned.variants[0], number).config.optimizer.sync_period
        assert type(period) is int
        assert period == trial["optimizer.sync_period"]


def test_values_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"config\.label_smoothing=1\.5 must be at most"):
        tuning.with_settings(BASE, {"label_smoothing": 1.5})
