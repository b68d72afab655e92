"""The comparison with the report's logs, on made-up runs: the page's numbers, misses, and what was not run."""

import csv
import dataclasses
import json
import re
import shutil

import pytest

from train.config import Config, ModelConfig, OptimizerConfig, to_dict
from train.reproduction import fidelity
from train.reproduction.checks import CIFAR, PYTORCH, cifar_expectations, failures, ptb_expectations
from train.reproduction.logs import report_curves
from train.reproduction.runs import read_filed_runs
from train.run.records import COLUMNS, PERPLEXITIES

CIFAR_RUNS = {e.title + suffix: e for suffix in CIFAR.values() for e in cifar_expectations(suffix)}


def write_run(folder, name, seed=0, epochs=3, factor=1.0):
    """A metrics.csv: the report's own numbers, or PyTorch's for RAdam, times a factor (one, or one an epoch)."""
    factors = [factor] * epochs if isinstance(factor, float) else factor
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}_seed{seed}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *PERPLEXITIES))
        writer.writeheader()
        for row, times in zip(report_curves()[name][:epochs], factors, strict=True):
            if name in PYTORCH and row["epoch"] <= 2:
                row = row | {"train_loss": sum(run[row["epoch"]] for run in PYTORCH[name]) / 2}
            ours = {column: value and value * times for column, value in row.items()}
            writer.writerow(ours | {"epoch": row["epoch"], "step": 391 * row["epoch"]})


@pytest.fixture
def all_runs(tmp_path):
    """A folder in which all comparisons hold: seed 0 is 1 % above its reference, seed 1 is 1.9 % below."""
    folder = tmp_path / "results" / "fidelity"
    folder.parent.mkdir()
    for expected in CIFAR_RUNS.values():
        write_run(folder, expected.name, 0, factor=1.01)
        if expected.seeds == 2:
            write_run(folder, expected.name, 1, factor=0.981)
    for name in ("nlp_no", "nlp_yes", "cnn_no", "cnn_yes", "imdb_no", "imdb_yes"):
        write_run(folder, name, epochs=10, factor=1.01)
    return folder


@pytest.fixture
def check(capsys):
    """`check(folder)`: exit status of --check, what it printed, and the page."""

    def run(folder):
        page = folder.parent / "fidelity.md"
        status = fidelity.main([f"--runs={folder}", f"--page={page}", "--check"])
        return status, capsys.readouterr().out, page.read_text()

    return run


def tables(page):
    """The rows of each Markdown table, headings left out."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        found.append([[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()[2:]])
    return found


def test_where_all_runs_are_near_the_report_everything_holds(all_runs, check):
    status, out, page = check(all_runs)
    assert status == 0
    assert out.startswith("all comparisons hold")
    assert "not run" not in page
    assert "misses" not in page
    cifar10, cifar100, _, ptb = tables(page)[:4]
    assert [row[-1] for row in cifar10 + cifar100 + ptb] == ["holds"] * (8 + 8 + 2)
    assert "no tolerance applies" in page
    for ending in ("png", "svg"):
        assert f"(fidelity/cnn.{ending})" in page
        assert (all_runs / f"cnn.{ending}").stat().st_size > 5000


def test_the_numbers_of_the_tables_are_the_files(all_runs, check):
    _, _, page = check(all_runs)
    for rows, suffix in zip(tables(page)[:2], CIFAR.values(), strict=True):
        for title, seed, *cells, tolerance, _ in rows:
            name = CIFAR_RUNS[title + suffix].name
            with (all_runs / f"{name}_seed{seed}.csv").open() as file:
                ours = [float(row["train_loss"]) for row in csv.DictReader(file)]
            assert tolerance == ("2% of PyTorch's" if name == "radam_no" else "4%")
            for epoch, cell in enumerate(cells):
                theirs = report_curves()[name][epoch]["train_loss"]
                if (name, epoch) == ("sgd_no_cifar100", 2):
                    assert cell == "not compared (below)"
                else:
                    percent = 100 * (ours[epoch] - theirs) / theirs
                    assert cell == f"{ours[epoch]:.4f} / {theirs:.4f} ({percent:+.1f}%)"
    spreads = tables(page)[2]
    assert len(spreads) == 4
    assert {cell for row in spreads for cell in row[3:]} == {f"{100 * (1.01 - 0.981) / 0.9955:.1f}%"}
    # Figures of the report's logs, so that the epochs are the ones meant.
    (radam, lookahead) = tables(page)[3]
    assert [cell.split(" / ")[1].split()[0] for cell in radam[2:6]] == ["1084.8", "708.3", "332.3", "219.2"]
    assert [cell.split(" / ")[1].split()[0] for cell in lookahead[4:6]] == ["391.6", "238.5"]


@pytest.mark.parametrize("expected", [*CIFAR_RUNS.values(), *ptb_expectations()], ids=lambda e: e.name)
def test_a_run_outside_its_tolerance_is_a_miss(all_runs, expected):
    tolerance = {"nlp_no": 0.06, "nlp_yes": 0.06, "radam_no": 0.02}.get(expected.name, 0.04)
    last = expected.epochs[-1]
    for sign in (1, -1):
        for difference, misses in ((tolerance - 0.001, []), (tolerance + 0.001, [f"misses at epoch {last}"])):
            factors = [1.0] * 10
            factors[last - 1] += sign * difference
            write_run(all_runs, expected.name, epochs=10, factor=factors)
            found = failures(read_filed_runs(all_runs))
            assert [line.split(f"{expected.title}, seed 0: ")[-1] for line in found] == misses


def test_a_miss_stands_in_the_table_and_gives_status_1(all_runs, check):
    write_run(all_runs, "sgd_yes", factor=[0.97, 1.05, 1.0])
    status, out, page = check(all_runs)
    assert status == 1
    assert out.startswith("CIFAR-10, Lookahead(SGD), seed 0: misses at epoch 2\nfailed or not run: 1;")
    assert page.count("**misses** at epoch 2 |") == 1
    assert fidelity.main([f"--runs={all_runs}", f"--page={all_runs.parent / 'fidelity.md'}"]) == 0  # without --check


def test_a_loss_that_is_not_a_number_is_a_miss(all_runs, check):
    write_run(all_runs, "adam_no", factor=[1.0, 1.0, float("nan")])
    status, out, _ = check(all_runs)
    assert status == 1
    assert "Adam, seed 0: misses at epoch 3" in out


def test_what_is_not_there_is_not_run_and_no_success(all_runs, check):
    (all_runs / "sgd_yes_cifar100_seed0.csv").unlink()
    (all_runs / "radam_no_seed1.csv").unlink()
    (all_runs / "nlp_yes_seed0.csv").unlink()
    (all_runs / "cnn_yes_seed0.csv").unlink()
    write_run(all_runs, "adam_no", epochs=2)
    write_run(all_runs, "cnn_no", epochs=9)
    write_run(all_runs, "imdb_no", epochs=9)
    status, out, page = check(all_runs)
    assert status == 1
    assert out.splitlines()[:-1] == [
        "CIFAR-10, Adam, seed 0: epoch 3 not run",
        "CIFAR-10, RAdam: 1 of 2 not run",
        "CIFAR-100, Lookahead(SGD): 1 of 1 not run",
        "PTB, Lookahead(RAdam): 1 of 1 not run",
        "CNN, RAdam: 10 epochs not run",
        "CNN, Lookahead(RAdam): 10 epochs not run",
        "IMDB, RAdam: 10 epochs not run",
    ]
    cifar10, cifar100, spreads, ptb = tables(page)[:4]
    assert ["RAdam", "–", "not run", "not run", "not run", "2% of PyTorch's", "not run"] in cifar10
    assert next(row for row in cifar10 if row[0] == "Adam")[-3:] == ["not run / 1.0343", "4%", "epoch 3 not run"]
    assert next(row for row in cifar100 if row[0] == "Lookahead(SGD)")[-1] == "not run"
    assert spreads[0] == ["CIFAR-10", "RAdam", "1", "not run", "not run", "not run"]
    assert ptb[1][-1] == "not run"


def test_seeds_and_trials_that_are_filed_stand_beside_the_log(all_runs, check):
    (all_runs / "trials").mkdir()
    rows = "recipe,0,1.8422\nrecipe,1,1.8822\nrecipe,2,1.9222\nanother eps,0,1.9022\n"
    (all_runs / "trials" / "radam.csv").write_text("trial,seed,train_loss\n" + rows)
    _, _, page = check(all_runs)
    assert ["another eps", "0", "1.9022", "+5.5%"] in tables(page)[3]
    words = " ".join(page.split())
    assert "Over 3 seeds, run later" in words
    assert "the training loss is 1.8822 with a standard deviation of 0.0400" in words
    assert "the log's 1.8022 lies 2.0 standard deviations below" in words
    # Seeds 1 % above PyTorch's mean, and 1.9 % below.
    assert "are 3.3% and 0.3% above the report's log" in words


def test_what_was_tried_on_imdb_stands_beside_log_and_runs(all_runs, check):
    (all_runs / "trials").mkdir()
    header = "trial,train_loss_1,train_loss_2,test_accuracy_1,test_accuracy_2\n"
    (all_runs / "trials" / "imdb.csv").write_text(f"{header}another batch,0.5,0.4,0.7,0.75\none epoch,0.6,,0.65,\n")
    _, _, page = check(all_runs)
    log, ours, *tried = tables(page)[-2]
    assert log == ["the report's log", "0.6078", "0.4292", "0.7765", "0.8352"]
    assert ours == ["ours, seed 0", "0.6139", "0.4335", "0.7843", "0.8436"]  # 1.01 times the log's
    assert tried == [
        ["another batch", "0.5000", "0.4000", "0.7000", "0.7500"],
        ["one epoch", "0.6000", "–", "0.6500", "–"],
    ]


def test_with_no_runs_at_all_nothing_holds(tmp_path, check):
    (tmp_path / "fidelity").mkdir()
    status, _, page = check(tmp_path / "fidelity")
    assert status == 1
    assert "holds |" not in page
    assert "![" not in page


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("radam.csv", "", "not named after one of the report"),
        ("radam_no_seed0.csv", "epoch,loss\n1,2\n", "does not have the columns of a metrics.csv"),
        ("about.json", "{", "it is not JSON"),
    ],
)
def test_a_file_that_is_no_run_is_refused_in_one_line(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_text(content)
    assert fidelity.main([f"--runs={tmp_path}", f"--page={tmp_path / 'page.md'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "page.md").exists()


def test_a_page_that_cannot_be_written_is_one_line(all_runs, capsys):
    page = all_runs.parent / "nowhere" / "page.md"
    assert fidelity.main([f"--runs={all_runs}", f"--page={page}"]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert error.endswith(": No such file or directory\n")
    assert error.count("\n") == 1


def test_epochs_out_of_order_are_refused(all_runs, capsys):
    path = all_runs / "adam_no_seed0.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2], lines[1]]))
    assert fidelity.main([f"--runs={all_runs}", f"--page={all_runs.parent / 'page.md'}"]) == 2
    assert "its epochs are not 1, 2, 3" in capsys.readouterr().err


def config_of(**changes):
    optimizer = OptimizerConfig("adam", 0.001, weight_decay=5e-4, decay_epochs=(60, 120, 160), decay_delay=1)
    defaults = {"dataset": "cifar100", "epochs": 3, "seed": 4, "data_dir": "/somewhere", "optimizer": optimizer}
    return Config(**{**defaults, **changes})


@pytest.fixture
def workdir(tmp_path):
    """`workdir(config)`: as `python -m train` leaves it, after two epochs."""

    def make(config, epochs=2):
        folder = tmp_path / "a folder of any name"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_run(folder, "adam_no_cifar100", epochs=epochs)
        (folder / "adam_no_cifar100_seed0.csv").rename(folder / "metrics.csv")
        (folder / "config.json").write_text(json.dumps(to_dict(config)))
        run = {"python": "3.11.2", "versions": {"jax": "0.9"}, "devices": ["cpu:0 cpu"], "commit": "abc"}
        (folder / "run.json").write_text(json.dumps(run))
        return folder

    return make


@pytest.mark.parametrize(("facts", "lacking"), [("[]", "python"), ('{"python": "3.11.2", "versions": 1}', "versions")])
def test_a_run_whose_run_json_does_not_say_what_made_it_is_not_filed(workdir, tmp_path, capsys, facts, lacking):
    made = workdir(config_of())
    (made / "run.json").write_text(facts)
    assert collect(made, tmp_path) == 2
    assert f"run.json does not say which {lacking} made the run" in capsys.readouterr().err
    assert not list((tmp_path / "runs").iterdir())


def collect(workdir, tmp_path):
    runs, page = tmp_path / "runs", tmp_path / "page.md"
    runs.mkdir(exist_ok=True)
    return fidelity.main([f"--runs={runs}", f"--page={page}", "--machine=two cores", "--collect", str(workdir)])


def test_a_workdir_is_filed_under_what_its_config_says_with_its_command(workdir, tmp_path, capsys):
    made = workdir(config_of(test_examples=1000))
    assert collect(made, tmp_path) == 0
    assert (tmp_path / "runs" / "adam_no_cifar100_seed4.csv").read_bytes() == (made / "metrics.csv").read_bytes()
    about = json.loads((tmp_path / "runs" / "about.json").read_text())["adam_no_cifar100_seed4"]
    assert about["command"] == (
        "python -m train --config=configs/cifar100_resnet18.py --workdir=DIR --config.epochs=3 --config.seed=4 "
        "--config.test_examples=1000 --config.optimizer.name=adam --config.optimizer.learning_rate=0.001 "
        "--config.optimizer.lookahead=false"
    )
    page = (tmp_path / "page.md").read_text()
    for value in (about["command"], "Machine (all runs): two cores; cpu:0 cpu.", "Python 3.11.2, jax 0.9"):
        assert value in page


def test_a_run_of_imdb_is_filed_under_its_log(workdir, tmp_path):
    optimizer = OptimizerConfig("radam", 0.001, weight_decay=0.0, lookahead=True, sync_period=5, slow_step_size=0.8)
    model = ModelConfig(name="bilstm", dropout=0.2, embedding_size=128, hidden_size=128)
    of_imdb = Config(dataset="imdb_reviews", epochs=10, batch_size=256, sequence_length=200, seed=2)
    assert collect(workdir(dataclasses.replace(of_imdb, model=model, optimizer=optimizer)), tmp_path) == 0
    about = json.loads((tmp_path / "runs" / "about.json").read_text())["imdb_yes_seed2"]
    assert about["command"] == "python -m train --config=configs/imdb_bilstm.py --workdir=DIR --config.seed=2"


def test_a_filed_run_gives_way_to_one_with_more_epochs_alone(workdir, tmp_path, capsys):
    filed = tmp_path / "runs" / "adam_no_cifar100_seed4.csv"
    for epochs, kept in ((2, 2), (1, 2), (3, 3)):
        assert collect(workdir(config_of(), epochs), tmp_path) == 0
        assert len(filed.read_text().splitlines()) == 1 + kept
    assert "kept, the run in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digits"}, "dataset='digits' is not one of the report's"),
        ({"batch_size": 64}, "batch_size=64 differs from the recipe of the report's adam_no_cifar100"),
        ({"train_examples": 5000}, "train_examples=5000 differs from the recipe"),
        ({"model": ModelConfig(stem="cifar")}, "model.stem='cifar' differs from the recipe"),
        ({"optimizer": OptimizerConfig(name="adam", learning_rate=0.1)}, "optimizer.learning_rate=0.1 differs"),
    ],
)
def test_another_recipe_is_not_filed(workdir, tmp_path, capsys, changes, message):
    assert collect(workdir(config_of(**changes)), tmp_path) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").iterdir())
