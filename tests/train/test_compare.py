"""python -m train.compare: lines, names and gains of workdirs that are laid side by side."""

import json

import pytest

from train.compare import compared, distinct, main, read_workdir
from train.config import Config, ModelConfig, OptimizerConfig, to_dict
from train.run.records import MetricsFile
from train.study.page.summary import summarise


@pytest.fixture
def workdir(tmp_path):
    """`workdir(name, accuracies, seed=0, digest="a", **optimizer)` writes what a run of 3 epochs has left."""

    def write(name, accuracies, /, *, seed=0, digest="a", dataset="digits", **optimizer):
        folder = tmp_path / name
        folder.mkdir()
        given = OptimizerConfig(**{"name": "adam", **optimizer})
        config = Config(dataset=dataset, epochs=3, seed=seed, model=ModelConfig(name="small_cnn"), optimizer=given)
        (folder / "config.json").write_text(json.dumps(to_dict(config)))
        (folder / "run.json").write_text(json.dumps({"status": "finished", "data": {"digest": digest}}))
        file = MetricsFile(folder / "metrics.csv")
        for epoch, accuracy in enumerate(accuracies, 1):
            row = {"epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, "train_accuracy": accuracy}
            file.append(row | {"test_loss": 1.0, "test_accuracy": accuracy, "seconds": 1.0, "learning_rate": 0.1})
        return folder

    return write


def test_seeds_share_a_line_named_by_what_differs_and_gains_are_paired_by_seed(workdir, tmp_path, capsys):
    runs = [
        workdir("a0", [0.1, 0.2, 0.50]),
        workdir("a1", [0.1, 0.2, 0.60], seed=1),
        workdir("b0", [0.1, 0.3, 0.53], lookahead=True),
        workdir("b1", [0.1, 0.3, 0.65], seed=1, lookahead=True),
    ]
    results = compared(distinct([read_workdir(run) for run in runs]))
    found = {(r.variant, r.quantity): r for r in summarise(results)}
    gain = found["lookahead=True", "final_accuracy"]
    assert (gain.against, gain.pairs) == ("lookahead=False", 2)
    assert gain.gain == pytest.approx((0.03 + 0.05) / 2)
    before = sorted(path for run in runs for path in run.iterdir())

    out = tmp_path / "out"
    assert main([*map(str, runs), f"--out={out}"]) == 0
    said = capsys.readouterr().out
    assert "lookahead=True   2" in said
    assert str(out / "index.html") in said
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        f"runs_1_{kind}" for kind in ("acc.png", "acc.svg", "loss.png", "loss.svg")
    ]
    page = (out / "index.html").read_text()
    assert "lookahead=True" in page
    assert "Verdicts" not in page  # nothing is claimed
    assert sorted(path for run in runs for path in run.iterdir()) == before


def test_the_same_run_twice_is_a_line_of_its_own_and_other_data_a_section(workdir):
    runs = [
        workdir("first", [0.1, 0.2, 0.3]),
        workdir("again", [0.1, 0.2, 0.4]),
        workdir("later", [0.1, 0.2], lookahead=True, slow_step_size=0.5, sync_period=7, learning_rate=0.1),
        workdir("other", [0.1, 0.2, 0.4], digest="b"),
    ]
    results = compared(distinct([read_workdir(run) for run in runs]))
    sections = results.study.sections
    assert [v.name for v in sections[0].variants] == ["first", "again", "later (2 of 3 epochs)"]
    assert [v.name for v in sections[1].variants] == ["other"]
    assert [section.title for section in sections] == ["digits (SHA-256 a)", "digits (SHA-256 b)"]
    assert not [record for record in summarise(results) if record.section == sections[1].ref and record.pairs]


def test_two_data_sets_are_two_sections(workdir):
    runs = [workdir("a", [0.1, 0.2, 0.3]), workdir("b", [0.1, 0.2, 0.3], dataset="cifar10")]
    study = compared([read_workdir(run) for run in runs]).study
    assert [(s.title, [v.name for v in s.variants]) for s in study.sections] == [("digits", ["a"]), ("cifar10", ["b"])]


def test_a_folder_of_workdirs_is_answered_with_one_of_them(workdir, tmp_path, capsys):
    run = workdir("seed0", [0.1, 0.2, 0.3])
    assert main([str(tmp_path), f"--out={tmp_path / 'out'}"]) == 2
    assert f"is not a workdir: it has no config.json; give those in it, such as {run}" in capsys.readouterr().err


@pytest.mark.parametrize("facts", ["[]", "{", '{"data": [1], "wall_seconds": "long", "started": 3}'])
def test_a_run_json_of_another_form_is_only_a_record_that_is_not_there(workdir, tmp_path, facts):
    run = workdir("a", [0.1, 0.2, 0.3])
    (run / "run.json").write_text(facts)
    (record,) = compared([read_workdir(run)]).runs.values()
    assert (record.data, record.seconds, record.provenance) == ("", 0.0, {})


def test_a_run_that_was_told_not_to_resume_is_compared_like_any_other(workdir):
    run = workdir("a", [0.1, 0.2, 0.3])
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(settings | {"resume": False}))
    assert len(compared([read_workdir(run)]).runs) == 1


def test_an_optimizer_of_ones_own_needs_the_file_that_registers_it(workdir, tmp_path, capsys):
    run = workdir("own", [0.1, 0.2, 0.3], name="compare_own")
    assert main([str(run), f"--out={tmp_path / 'out'}"]) == 2
    assert "give --register=FILE" in capsys.readouterr().err
    file = tmp_path / "own.py"
    file.write_text(
        "import optax, train\n@train.register_optimizer('compare_own')\ndef own(rate, config): return optax.sgd(rate)"
    )
    assert main([str(run), f"--out={tmp_path / 'out'}", f"--register={file}"]) == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "config.json").unlink(), "is not a workdir"),
        (lambda run: (run / "metrics.csv").unlink(), "has not finished an epoch"),
        (lambda run: (run / "config.json").write_text("{"), "cannot be read"),
        (lambda run: (run.parent / "out" / "runs.csv").write_text(""), "contains a study (runs.csv)"),
        (lambda run: (run.parent / "out" / "config.json").write_text("{}"), "is the workdir of a run"),
    ],
)
def test_what_cannot_be_compared_is_one_line(workdir, tmp_path, capsys, damage, said):
    (tmp_path / "out").mkdir()
    run = workdir("a", [0.1, 0.2, 0.3])
    damage(run)
    assert main([str(run), f"--out={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "index.html").exists()
