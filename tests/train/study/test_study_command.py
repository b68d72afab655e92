"""python -m train.study with real runs: what it writes, and what becomes of it when something goes wrong."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train import recompute_verdicts
from train.study.__main__ import main
from train.study.plan import planned_runs

ROOT = Path(__file__).resolve().parents[3]

STUDY = """
from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Claim, Comparison, Pair, Section, Study, Variant

def config(lookahead, **changes):
    settings = dict(dataset="digits", epochs={epochs}, batch_size=32, train_examples=96, test_examples=40, devices=1,
                    model=ModelConfig(name="small_cnn"),
                    optimizer=OptimizerConfig(name="radam", learning_rate=0.01, decay_epochs=(), lookahead=lookahead))
    return Config(**settings | changes)

def get_study():
    variants = [Variant("plain", config(False)), Variant("slow", config(True)){more}]
    pair = Pair("1:digits", "slow", "plain")
    claims = [Claim(kind, kind, (Comparison(pair, kind, quantity, 0.02),))
              for kind, quantity in (("better", "loss_area"), ("equal", "final_accuracy"), ("not_worse", "loss_area"))]
    return Study(name="tiny", title="A tiny study", sections=[Section(key="1", variants=variants, figure="tiny")],
                 claims=claims, seeds=2)
"""


@pytest.fixture
def study_file(tmp_path):
    """`study_file(epochs=2, more="")` writes a study and returns its path."""

    def write(epochs=2, more=""):
        path = tmp_path / "study.py"
        path.write_text(STUDY.replace("{epochs}", str(epochs)).replace("{more}", more))
        return path

    return write


def records(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_writes_tables_figures_and_page_and_runs_nothing_twice(study_file, tmp_path, capsys):
    out, study = tmp_path / "out", study_file()
    command = [f"--study={study}", f"--out={out}"]
    assert main([*command, "--jobs=2"]) == 0
    printed = capsys.readouterr().out
    assert "run 4 of 4" in printed
    assert f"figure:  {out / 'figures' / 'tiny_loss.png'}" in printed
    assert f"page:    {out / 'index.html'}" in printed
    assert (out / "figures" / "tiny_acc.svg").exists()
    runs = records(out / "runs.csv")
    assert [(r["variants"], r["seed"], r["status"]) for r in runs] == [
        ("plain", "0", "finished"),
        ("plain", "1", "finished"),
        ("slow", "0", "finished"),
        ("slow", "1", "finished"),
    ]
    for run in runs:
        workdir = out / "runs" / run["id"]
        assert records(workdir / "metrics.csv")[-1]["test_loss"] == run["test_loss"]
        assert "epoch   2/2" in (out / run["log"]).read_text()
        assert not (workdir / "checkpoints").exists()
        assert list((workdir / "tensorboard").iterdir())
    assert recompute_verdicts.disagreements(out) == {}
    facts = json.loads((out / "study.json").read_text())
    assert facts["command"] == f"python -m train.study --study={study} --out={out}"
    (session,) = facts["sessions"]
    assert session["command"] == f"{facts['command']} --jobs=2"
    assert (session["finished"], session["failed"]) == (4, 0)
    assert 0 < session["seconds"] < 600

    # Again, from what is published alone.
    files = [path for path in out.iterdir() if path.suffix in (".csv", ".gz", ".json")]
    before = {path: path.read_bytes() for path in files}
    shutil.rmtree(out / "runs")
    assert main(command) == 0
    assert "4 runs, 4 of them done" in capsys.readouterr().out
    assert not (out / "runs").exists()
    assert {path: path.read_bytes() for path in files} == before

    # Tables from the published runs, without running.
    (out / "claims.csv").unlink()
    (out / "index.html").unlink()
    (out / "index.html").mkdir()  # the page cannot take this name
    capsys.readouterr()
    assert main([*command, "--report_only"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("missing: index.html: IsADirectoryError: ")
    assert "page:" not in printed.out
    (out / "index.html").rmdir()
    assert main([*command, "--report_only"]) == 0
    assert (out / "index.html").exists()
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("JAX_ENABLE_X64", "perhaps", "JAX cannot be imported: ValueError: invalid truth value 'perhaps'"),
        ("JAX_DEFAULT_PRNG_IMPL", "bogus", "JAX cannot be imported: ValueError: Invalid value"),
        ("JAX_PLATFORMS", "cuda", "JAX cannot run here: "),
        ("JAX_TRANSFER_GUARD", "disallow", "JAX cannot run here: "),
    ],
)
def test_what_jax_refuses_is_one_line_and_not_one_for_each_run(variable, value, words, study_file, tmp_path):
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("JAX_", "XLA_"))} | {variable: value}
    command = [sys.executable, "-m", "train.study", f"--study={study_file()}", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
    assert done.returncode == 1
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith(f"error: {words}")
    assert errors[0].endswith(f"; environment: {variable}={value}")
    assert not (tmp_path / "out" / "runs").exists()


def test_more_epochs_continue_the_runs_whose_checkpoints_were_kept(study_file, tmp_path, capsys):
    out = tmp_path / "out"
    command = [f"--study={study_file(epochs=1)}", f"--out={out}", "--seeds=1"]
    assert main([*command, "--keep_checkpoints"]) == 0
    assert main([*command, "--epochs=2"]) == 0
    runs = {(r["variants"], r["epochs"]): r for r in records(out / "runs.csv")}
    assert runs.keys() == {("plain", "2"), ("slow", "2"), ("", "1")}  # those of 1 epoch are behind, in no section
    for name in ("plain", "slow"):
        workdir = out / "runs" / runs[name, "2"]["id"]
        assert json.loads((workdir / "run.json").read_text())["starts"] == 2
        assert [row["epoch"] for row in records(workdir / "metrics.csv")] == ["1", "2"]
    assert len(list((out / "runs").iterdir())) == 2
    assert json.loads((out / "study.json").read_text())["command"].endswith(f"--out={out} --epochs=2")
    capsys.readouterr()
    assert main([*command, "--epochs=2", "--dry_run"]) == 0
    assert "to do: 0 of 2 runs" in capsys.readouterr().out


def test_until_resolved_runs_what_can_still_decide_a_claim_once_the_plan_is_done(
    study_file, tmp_path, capsys, monkeypatch
):
    asked = []

    def one_more(study, runs, *, max_seeds, only):
        asked.append((len(list(runs)), max_seeds, only))
        return [run for run in planned_runs(study, seeds=max_seeds) if run.config.seed == 2][:1]

    monkeypatch.setattr("train.study.execution.run_plan.next_runs", one_more)
    out, study = tmp_path / "out", study_file()
    command = [f"--study={study}", f"--out={out}", "--until=resolved", "--max_seeds=3"]
    assert main(command) == 0
    assert asked == [(4, 3, ())]
    assert json.loads((out / "study.json").read_text())["second_look"] == 3
    assert "1 runs, 0 of them done" in capsys.readouterr().out
    runs = records(out / "runs.csv")
    assert [(r["variants"], r["seed"]) for r in runs] == [("plain", s) for s in "012"] + [("slow", s) for s in "01"]
    facts = json.loads((out / "study.json").read_text())
    assert facts["command"] == f"python -m train.study {' '.join(command)}"
    assert [session["finished"] for session in facts["sessions"]] == [4, 1]


def test_a_run_that_cannot_be_done_is_reported_with_its_log_and_the_others_go_on(study_file, tmp_path, capsys):
    rate = "OptimizerConfig(name='sgd', learning_rate=1e30)"
    broken = f', Variant("broken", config(True, optimizer={rate}))'
    out = tmp_path / "out"
    assert main([f"--study={study_file(1, broken)}", f"--out={out}", "--seeds=1"]) == 1
    said = capsys.readouterr()
    failed = next(r for r in records(out / "runs.csv") if r["status"] == "failed")
    assert said.err.startswith("failed:  1:digits broken, seed 0: ")
    assert f"log: {out / failed['log']}" in said.err
    assert "a loss or a parameter is NaN or infinite" in (out / failed["log"]).read_text()
    assert [r["status"] for r in records(out / "runs.csv")] == ["finished", "finished", "failed"]
    assert said.out.count("failed, will be retried") == 1
    assert (out / "index.html").exists()


def test_a_dry_run_checks_everything_shows_plan_time_and_space_and_writes_nothing(study_file, tmp_path, capsys):
    out, study = tmp_path / "out", study_file()
    command = [f"--study={study}", f"--out={out}"]
    assert main([*command, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "plain  0 of 2 seeds done\n  slow   0 of 2 seeds done\n" in printed
    assert re.search(
        r"to do: 4 of 4 runs: time not known; checkpoints take up to [\d.]+ MB at once, [\d.]+ GB are free", printed
    )
    assert not out.exists() or {path.name for path in out.iterdir()} <= {".lock"}
    assert main([*command, "--seeds=1"]) == 0
    assert main([*command, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "plain  1 of 2 seeds done" in printed
    assert re.search(r"to do: 2 of 4 runs: about \d+ s with --jobs=1; checkpoints", printed)


def test_a_disk_that_is_too_small_for_the_checkpoints_is_one_line_before_any_run(
    study_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    assert main([f"--study={study_file()}", f"--out={tmp_path / 'out'}", "--jobs=2"]) == 2
    assert re.search(r"--jobs=2 runs take up to [\d.]+ MB, and only 0.0 MB are free", capsys.readouterr().err)
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ('dataset="imagefolder", data_dir="/nowhere"', "image folders need a data_dir"),
        ('dataset="cifar10", data_dir="/nowhere"', "run: python -m train.data prepare cifar10"),
        ("train_examples=5000", "train_examples=5000, but the data set has 1347"),
        ('model=ModelConfig(name="gru")', "config.model.name='gru' is for language models"),
        ("batch_size=97", "config.batch_size=97 is larger than the 96 training examples"),
    ],
)
def test_what_cannot_be_made_is_one_line_before_any_run(changes, message, study_file, tmp_path, capsys):
    study, out = study_file(1), tmp_path / "out"
    variants = ", ".join(f'Variant("{name}", config({name == "a"}, {changes}))' for name in "ab")
    section = 'Section(key="1", variants=variants, figure="tiny")'
    study.write_text(study.read_text().replace(section, f'{section}, Section(key="2", variants=[{variants}])'))
    assert main([f"--study={study}", f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"run 2:\w+ a, seed 0 cannot be trained: ", error)
    assert message in error
    assert not (out / "runs").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--jobs=0", "--jobs=0 must be at least 1"),
        ("--max_seeds=0", "--max_seeds=0 must be at least 1"),
        ("--seeds=0", "--seeds=0 must be at least 1"),
        ("--only=7", "--only=7: no such section; the sections are 1:digits"),
        ("--scale=mini", "has one scale only"),
        ("--report_only", "has no published runs"),
    ],
)
def test_wrong_input_is_one_line(flag, message, study_file, tmp_path, capsys):
    assert main([f"--study={study_file()}", f"--out={tmp_path / 'out'}", flag]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


# What kills: real processes


def start(study, out, *flags):
    command = [sys.executable, "-m", "train.study", f"--study={study}", f"--out={out}", *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_epochs(out, count, runs=1):
    """Until so many runs have so many epochs; returns the ids of the processes that train them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        files = [path for path in (out / "runs").glob("*/metrics.csv") if len(path.read_text().splitlines()) > count]
        if len(files) >= runs:
            return [json.loads((path.parent / "run.json").read_text())["pid"] for path in files]
        time.sleep(0.1)
    raise AssertionError(f"no {runs} runs with {count} epochs in {out}")


def is_gone(pid, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


LONG = 100_000


@pytest.mark.slow
def test_ctrl_c_saves_all_runs_says_how_to_go_on_and_leaves_no_process(study_file, tmp_path):
    out = tmp_path / "out"
    process = start(study_file(LONG), out, "--jobs=2")
    pids = wait_for_epochs(out, 3, runs=2)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 75, printed
    assert "stopped with 4 of 4 runs to do; run the same command again to continue" in printed
    assert "Traceback" not in printed
    assert all(is_gone(pid) for pid in pids)
    for path in (out / "runs").iterdir():
        assert json.loads((path / "run.json").read_text())["status"] == "stopped"
        assert list((path / "checkpoints").iterdir())
    # The same command continues them.
    done = {path: len(path.read_text().splitlines()) for path in (out / "runs").glob("*/metrics.csv")}
    process = start(study_file(LONG), out, "--jobs=2")
    try:
        wait_for_epochs(out, max(done.values()) + 2, runs=2)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 75
    assert all(json.loads((path.parent / "run.json").read_text())["starts"] == 2 for path in done)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_its_run_goes_on(study_file, tmp_path):
    out, study = tmp_path / "out", study_file(60)
    process = start(study, out, "--seeds=1")
    (pid,) = wait_for_epochs(out, 3)
    study.write_text("raise RuntimeError('edited meanwhile')")  # what runs is the plan as it was read
    os.kill(pid, signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert "failed, will be retried: its process ended by signal SIGKILL" in printed
    assert sorted(json.loads(path.read_text())["starts"] for path in (out / "runs").glob("*/run.json")) == [1, 2]
    for path in (out / "runs").glob("*/metrics.csv"):
        assert [int(r["epoch"]) for r in records(path)] == list(range(1, 61))


@pytest.mark.slow
def test_workers_of_a_study_that_is_killed_save_and_end(study_file, tmp_path):
    out = tmp_path / "out"
    process = start(study_file(LONG), out)
    (pid,) = wait_for_epochs(out, 3)
    process.kill()
    process.communicate()
    assert is_gone(pid)
    (facts,) = [json.loads(path.read_text()) for path in (out / "runs").glob("*/run.json")]
    assert facts["status"] == "stopped"
