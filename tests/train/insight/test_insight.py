"""The picture of one cycle: the plane, the scores on it, and the paths, against NumPy and against each other."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError
from train.experiment import make_experiment
from train.insight import landscape
from train.insight import measure as insight_measure
from train.insight.__main__ import main
from train.insight.figure import draw_insight
from train.insight.measure import Effort, Scorer, measure
from train.insight.points import Insight, read, write
from train.run.loop import train as train_run
from train.run.trainer import Trainer
from train.step import input_pipeline, recalibration
from train.step.objectives import sample_losses
from train.step.steps import epoch_order

ALPHA, PERIOD = 0.7, 4


@pytest.fixture(scope="module")
def config():
    return Config(
        dataset="digits",
        epochs=1,
        batch_size=64,
        train_examples=300,
        test_examples=130,
        devices=1,
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig("adam", 0.01, lookahead=True, sync_period=PERIOD, slow_step_size=ALPHA),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("insight") / "run"
    train_run(config, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def measured(config, workdir):
    return measure(config, workdir, Effort(grid=4, cycles=2, examples=100, batches=2), say=lambda line: None)


# The plane


def test_points_of_the_plane_are_found_and_others_have_their_distance():
    rng = np.random.default_rng(0)
    origin, middle, end, normal = rng.normal(size=(4, 50))
    plane = landscape.plane_through(*(jnp.asarray(v, jnp.float32) for v in (origin, middle, end)))
    basis = np.stack([plane.across, plane.up])
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-6)
    # The middle lies above the line, at its distance from it.
    x, y, off = landscape.project(plane, jnp.asarray(middle, jnp.float32))
    along = np.dot(middle - origin, end - origin) / np.linalg.norm(end - origin)
    assert (x, y) == pytest.approx((along, np.sqrt(np.sum((middle - origin) ** 2) - along**2)), rel=1e-5)
    assert off < 1e-5
    normal -= basis.T @ (basis @ normal)
    beyond = origin + basis.T @ [2.0, -3.0] + normal
    found = landscape.project(plane, jnp.asarray(beyond, jnp.float32))
    np.testing.assert_allclose(found, [2.0, -3.0, np.linalg.norm(normal)], rtol=1e-5)


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_weights_that_stand_still_or_go_straight_span_no_plane(step):
    points = [jnp.arange(5.0) * (1 + step * i) for i in range(3)]
    with pytest.raises(UserError, match="there is no plane"):
        landscape.plane_through(*points)


# Scores


def test_score_is_that_of_the_network_with_batch_statistics_of_its_own(config):
    trainer = Trainer(make_experiment(config))
    state = trainer.init(3)
    scorer = Scorer(config, trainer, state.batch_stats, Effort(examples=100, batches=3))
    plane = landscape.Plane(*(landscape.flat(state.params) * factor for factor in (1.0, 0.0, 0.0)))
    point = scorer.point("slow", 7, plane, state.params)

    batch_stats, train, test, key = scorer._data
    model, preprocessing = scorer.recipe.model, scorer.recipe.preprocessing
    order = epoch_order(scorer.recipe, key, jnp.int32(0))
    _, draw_key, dropout_key = jax.random.split(key, 3)
    found = []
    for index in range(3):
        drawn = input_pipeline.draw(
            draw_key, index, order, start=index * 64, batch_size=64, preprocessing=preprocessing
        )
        inputs = input_pipeline.load(train, drawn, preprocessing).inputs
        found.append(recalibration.batch_statistics(model, state.params, batch_stats, inputs, dropout_key))
    statistics = jax.tree.map(lambda *s: np.mean(s, axis=0), *found)
    batch = input_pipeline.slice_batch(test, 0, 100, preprocessing)
    logits = model.apply({"params": state.params, "batch_stats": statistics}, batch.inputs, train=False)
    assert point.test_loss == pytest.approx(float(sample_losses(logits, batch.targets).mean()), rel=1e-5)
    assert point.test_accuracy == pytest.approx(float((logits.argmax(-1) == batch.targets).mean()))
    assert point[:2] == ("slow", 7)


def test_a_point_of_the_grid_scores_as_its_weights_do(config):
    trainer = Trainer(make_experiment(config))
    states = [trainer.init(seed) for seed in range(3)]
    scorer = Scorer(config, trainer, states[0].batch_stats, Effort(examples=50, batches=1))
    plane = landscape.plane_through(*(landscape.flat(state.params) for state in states))
    middle = scorer.point("with", 0, plane, states[1].params)
    (start, other) = scorer.row("grid", np.array([0.0, middle.x]), 0.0, plane, states[0].params)
    (there,) = scorer.row("grid", np.array([middle.x]), middle.y, plane, states[0].params)
    assert there[2:4] == middle[2:4]
    assert there.test_loss == pytest.approx(middle.test_loss, rel=1e-4)
    assert start.test_loss == pytest.approx(scorer.point("with", 0, plane, states[0].params).test_loss, rel=1e-4)
    assert other.test_loss != pytest.approx(middle.test_loss, rel=1e-4)


# Paths


def test_both_paths_are_one_until_the_first_sync(measured):
    without, with_ = measured.of("without"), measured.of("with")
    assert [p.step for p in without] == list(range(2 * PERIOD + 1))
    for a, b in zip(without[:PERIOD], with_[:PERIOD], strict=True):
        assert a.step == b.step
        # Two trainer, so not to the last bit.
        assert a[2:5] == pytest.approx(b[2:5], abs=1e-5)
        assert a.test_loss == pytest.approx(b.test_loss, rel=1e-4)
    # What was there just before the sync, found from the slow weights, is what the inner optimizer has.
    assert with_[PERIOD].step == PERIOD
    assert with_[PERIOD][2:4] == pytest.approx(without[PERIOD][2:4], abs=1e-5)
    assert with_[-1][2:4] != pytest.approx(without[-1][2:4], abs=1e-4)


def test_slow_weights_go_a_part_of_the_way_and_fast_ones_go_on_from_there(measured):
    slow, with_ = measured.of("slow"), measured.of("with")
    assert [p.step for p in slow] == [0, PERIOD, 2 * PERIOD]
    before, after = [p for p in with_ if p.step == PERIOD]
    assert slow[0][2:5] == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(slow[1][2:4], ALPHA * np.array(before[2:4]), atol=1e-6)
    assert after[2:] == slow[1][2:]
    last_fast, last_slow = (p for p in with_ if p.step == 2 * PERIOD)
    expected = np.array(slow[1][2:4]) + ALPHA * (np.array(last_fast[2:4]) - slow[1][2:4])
    np.testing.assert_allclose(last_slow[2:4], expected, atol=1e-6)


def test_line_of_the_sync_goes_through_slow_and_fast_weights(measured):
    line, fast = measured.of("line"), next(p for p in measured.of("without") if p.step == PERIOD)
    at = {round(p.x / fast.x, 4): p for p in line}
    assert min(at) == -0.25
    assert max(at) == 1.5
    assert at[0.0].test_loss == pytest.approx(measured.of("slow")[0].test_loss, rel=1e-4)
    assert at[ALPHA].test_loss == pytest.approx(measured.of("slow")[1].test_loss, rel=1e-4)
    assert at[1.0].test_loss == pytest.approx(fast.test_loss, rel=1e-4)


def test_plane_holds_start_middle_and_end_of_the_cycle_and_the_grid_all_paths(measured):
    fast = {p.step: p for p in measured.of("without")}
    assert [fast[step].off_plane for step in (0, PERIOD // 2, PERIOD)] == pytest.approx([0, 0, 0], abs=1e-5)
    assert fast[PERIOD].x > 0
    assert fast[PERIOD].y == pytest.approx(0, abs=1e-6)
    assert fast[2 * PERIOD].off_plane > 1e-3
    grid = measured.of("grid")
    assert len(grid) == 16
    for axis in (2, 3):
        paths = [p[axis] for p in measured.points if p.kind not in ("grid", "line")]
        assert min(g[axis] for g in grid) < min(paths)
        assert max(g[axis] for g in grid) > max(paths)


# Files and command


def test_numbers_are_read_as_written_and_drawn_the_same_each_time(measured, tmp_path):
    write(measured, tmp_path)
    found = read(tmp_path)
    assert found.facts == measured.facts
    assert [p[:2] for p in found.points] == [p[:2] for p in measured.points]
    np.testing.assert_allclose([p[2:] for p in found.points], [p[2:] for p in measured.points], rtol=1e-5)
    first = [path.read_bytes() for path in draw_insight(tmp_path)]
    assert [path.name for path in draw_insight(tmp_path)] == ["insight.png", "insight.svg"]
    assert [path.read_bytes() for path in draw_insight(tmp_path)] == first


def test_command_measures_and_draws_again(config, workdir, tmp_path, capsys, monkeypatch):
    path = tmp_path / "config.py"
    path.write_text(f"from train.config import *\ndef get_config():\n    return {config!r}\n")
    calls = []
    monkeypatch.setattr(insight_measure, "measure", functools.partial(counted, calls))
    arguments = [f"--config={path}", f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--grid=3", "--cycles=2"]
    assert main(arguments) == 0
    assert calls == [Effort(grid=3, cycles=2)]
    assert (tmp_path / "out" / "insight.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "out" / "insight.png").unlink()
    assert main([f"--out={tmp_path / 'out'}", "--redraw"]) == 0
    assert len(calls) == 1
    assert (tmp_path / "out" / "insight.png").exists()
    capsys.readouterr()


def counted(calls, config, workdir, effort, *, stopped):
    calls.append(effort)
    return measure(config, workdir, dataclasses.replace(effort, examples=50, batches=1), stopped=stopped)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.optimizer.lookahead=false"], "needs config.optimizer.lookahead=True"),
        (["--config.optimizer.sync_period=1"], "sync_period of at least 2"),
        (["--grid=1"], "--grid=1 must be at least 2"),
        (["--redraw"], "has no meaning with --redraw"),
    ],
)
def test_what_cannot_be_shown_is_one_line(flags, message, tmp_path, capsys):
    config = Path(__file__).resolve().parents[3] / "configs" / "digits_cnn.py"
    assert main([f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", *flags]) == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert message in stderr
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_there_are_one_line(tmp_path, capsys):
    assert main([f"--out={tmp_path}", "--redraw"]) == 2
    assert "measure it first" in capsys.readouterr().err


def test_a_stop_ends_the_measurement_early(config, workdir):
    with pytest.raises(KeyboardInterrupt):
        measure(config, workdir, Effort(grid=2, examples=20, batches=1), say=lambda line: None, stopped=True)


def test_points_can_be_asked_for_by_kind():
    assert Insight({}, []).of("grid") == []
