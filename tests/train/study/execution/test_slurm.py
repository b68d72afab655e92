"""Studies whose runs are Slurm's jobs, or any scheduler's: on a real Slurm, and with a queue made up here."""

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.errors import UserError
from train.files import write_json
from train.identity import run_id
from train.locks import exclusive
from train.study.__main__ import main
from train.study.execution import cluster
from train.study.plan import load_study, planned_runs
from train.study.results.published import read_runs

ROOT = Path(__file__).resolve().parents[4]

# An optimizer whose first two starts in a worker fail: Slurm's third succeeds, as that of processes here does.
STUDY = """
import os, sys
from pathlib import Path
import optax
from train import register_optimizer
from train.config import Config, ModelConfig, OptimizerConfig
from train.study.plan import Section, Study, Variant

@register_optimizer("flaky")
def flaky(learning_rate, config):
    tries = Path(os.environ["FLAKY"])
    if sys.argv[0].endswith("worker.py"):
        with tries.open("a") as file:
            file.write("x")
        if tries.stat().st_size <= 2:
            raise RuntimeError("not yet")
    return optax.sgd(learning_rate)

def config(name, epochs):
    return Config(dataset="digits", epochs=epochs, batch_size=32, train_examples=96, test_examples=40, devices=1,
                  model=ModelConfig(name="small_cnn"), optimizer=OptimizerConfig(name=name, learning_rate=0.01))

def get_study():
    variants = [Variant("sgd", config("sgd", EPOCHS)), Variant("flaky", config("flaky", 2))][:VARIANTS]
    return Study(name="tiny", title="A tiny study", sections=[Section(key="1", variants=variants, figure="t")],
                 claims=[], seeds=SEEDS)
"""


def slurm_is_there():
    if importlib.util.find_spec("submitit") is None or shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


needs_slurm = pytest.mark.skipif(
    not slurm_is_there(), reason='no Slurm, or no submitit (pip install -e ".[study,slurm]"): see CONTRIBUTING.md'
)


def write_study(folder, *, epochs=2, variants=1, seeds=2):
    path = folder / "study.py"
    path.write_text(
        STUDY.replace("EPOCHS", str(epochs)).replace("VARIANTS", str(variants)).replace("SEEDS", str(seeds))
    )
    return path


def environment(tmp_path, name):
    return os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu", "FLAKY": str(tmp_path / name)}


def results(out):
    """All that a study's runs came to, but for times."""
    timing = ("seconds", "examples_per_second")
    return {
        run.id: (run.status, [{k: v for k, v in row.items() if k not in timing} for row in run.rows])
        for run in read_runs(out).values()
    }


class OnSlurm:
    """A study on Slurm, and what a test does to it."""

    def __init__(self, study, out, variables):
        self.out = out
        command = [sys.executable, "-m", "train.study", f"--study={study}", f"--out={out}", "--executor=slurm"]
        self.command, self.variables = [*command, "--slurm_time=20", "--retries=2"], variables

    def start(self):
        with (self.out.parent / "said").open("a") as said:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.variables, stdout=said, stderr=said)

    def says(self, *flags):
        done = subprocess.run([*self.command, *flags], cwd=ROOT, env=self.variables, capture_output=True, text=True)
        return done.stdout + done.stderr, done.returncode

    def running(self, besides=()):
        """Waits for a run that goes on; returns its id, its job and its process."""
        for _ in range(3000):
            jobs = cluster.read_jobs(self.out)
            for run, job in jobs.items():
                facts = self.out / "runs" / run / "run.json"
                if run not in besides and facts.exists():
                    found = json.loads(facts.read_text())
                    queued = cluster.in_queue([job["job"]])
                    if found["status"] == "running" and found.get("epoch", 0) >= 1 and queued:
                        return run, job["job"], found["pid"]
            assert self.process.poll() is None, (self.out.parent / "said").read_text()
            time.sleep(0.2)
        raise AssertionError((self.out.parent / "said").read_text())


@pytest.mark.slurm
@pytest.mark.slow
@needs_slurm
def test_a_study_on_slurm_ends_as_one_here_whatever_becomes_of_its_jobs(tmp_path):
    """Eight runs: one is requeued, one killed, one fails twice; the node is drained, and the study is killed."""
    study = write_study(tmp_path, epochs=40, variants=2, seeds=4)
    local = [sys.executable, "-m", "train.study", f"--study={study}", f"--out={tmp_path / 'here'}", "--retries=2"]
    subprocess.run(local, cwd=ROOT, env=environment(tmp_path, "here.tries"), check=True, capture_output=True)

    ours = OnSlurm(study, tmp_path / "out", environment(tmp_path, "slurm.tries"))
    ours.start()
    requeued, job, _ = ours.running()
    subprocess.run(["scontrol", "requeue", job], check=True)
    killed, _, pid = ours.running(besides=[requeued])
    os.kill(pid, signal.SIGKILL)
    assert "in use by another" in ours.says()[0]  # a second collector does no harm

    node = socket.gethostname().split(".")[0]
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"], check=True)
    ours.process.kill()
    ours.process.wait()
    said, status = ours.says("--status")
    assert status == 0
    assert "queued" in said, said
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=True)

    ours.start()
    assert ours.process.wait(1200) == 0, (tmp_path / "said").read_text()
    assert len(read_runs(ours.out)) == 8
    assert results(ours.out) == results(tmp_path / "here")
    assert json.loads((ours.out / "runs" / requeued / "run.json").read_text())["starts"] >= 2
    assert json.loads((ours.out / "runs" / killed / "run.json").read_text())["starts"] >= 2
    assert (tmp_path / "slurm.tries").stat().st_size >= 3
    assert ours.says("--status")[0].strip() == "8 done"


def test_without_submitit_or_slurm_the_executor_is_refused_in_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLAKY", str(tmp_path / "tries"))
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main([f"--study={write_study(tmp_path)}", f"--out={tmp_path / 'out'}", "--executor=slurm"]) == 2
    assert "error: --executor=slurm needs submitit: pip install" in capsys.readouterr().err


def test_status_says_what_is_done_queued_running_failed_and_stopped(tmp_path, capsys, monkeypatch):
    """Eight runs in all states; squeue is a script that knows three jobs."""
    monkeypatch.setenv("FLAKY", str(tmp_path / "tries"))
    study, out = write_study(tmp_path, seeds=8), tmp_path / "out"
    arguments = [f"--study={study}", f"--out={out}"]
    assert main([*arguments, "--print_commands"]) == 0
    ids = [Path(shlex.split(line)[-1].partition("=")[2]).stem for line in capsys.readouterr().out.splitlines()]
    names = {run.config.seed: run.name for run in planned_runs(load_study(study))}
    jobs = {"1_0": "RUNNING", "1_1": "PENDING", "1_2": "COMPLETING"}
    (tmp_path / "squeue").write_text("#!/bin/sh\n" + "".join(f"echo '{job}|{state}'\n" for job, state in jobs.items()))
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    known = {run: {"job": f"1_{number}", "name": names[number]} for number, run in enumerate(ids[:5])}
    (out / "slurm").mkdir()
    write_json(out / cluster.JOBS, known)
    for run, status in ((ids[3], "running"), (ids[4], "failed"), (ids[5], "finished"), (ids[6], "stopped")):
        (out / "runs" / run).mkdir(parents=True)
        write_json(out / "runs" / run / "run.json", {"status": status})
    assert main([*arguments, "--status"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "1 done, 2 running, 1 queued, 1 failed, 2 stopped, 1 to do"
    assert rest == [
        f"  running: {names[0]} (job 1_0)",
        f"  running: {names[2]} (job 1_2)",
        f"  queued: {names[1]} (job 1_1)",
        f"  failed: {names[4]}",
        f"  stopped: {names[3]}",
        f"  stopped: {names[6]}",
    ]


def test_status_needs_no_data_and_knows_a_process_that_was_killed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLAKY", str(tmp_path / "tries"))
    out = tmp_path / "out"
    arguments = [f"--study={write_study(tmp_path, epochs=1, seeds=2)}", f"--out={out}"]
    monkeypatch.setattr("train.study.__main__.draw", lambda *arguments: [])
    assert main([*arguments, "--seeds=1"]) == 0
    second = planned_runs(load_study(tmp_path / "study.py"))[1]
    data = next(iter(read_runs(out).values())).data
    workdir = out / "runs" / run_id(second.config, data)
    workdir.mkdir(parents=True)
    write_json(workdir / "run.json", {"status": "running"})
    capsys.readouterr()

    def missing(*arguments, **keywords):
        raise UserError("the data is not on this node")

    monkeypatch.setattr("train.study.__main__.check_runs", missing)
    assert main([*arguments, "--status"]) == 0
    note, *said = capsys.readouterr().out.splitlines()
    assert (note, said[0]) == ("note: the data is not on this node", "1 done, 1 stopped")
    with exclusive(workdir, "the workdir"):
        assert main([*arguments, "--status"]) == 0
        assert capsys.readouterr().out.splitlines()[1] == "1 done, 1 running"


def test_the_queue_is_looked_at_once_for_all_runs_that_have_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAKY", str(tmp_path / "tries"))
    runs = planned_runs(load_study(write_study(tmp_path, seeds=4)))
    executor, looks, submitted = object.__new__(cluster.SlurmExecutor), [], []
    (tmp_path / "slurm").mkdir()
    executor._out, executor._worker_flags = tmp_path, []
    executor._jobs = {run.id: {"job": f"1_{number}", "name": run.name} for number, run in enumerate(runs[:3])}
    executor._new, executor._going = [], {}

    def in_queue(jobs):
        looks.append(sorted(jobs))
        return {"1_0": "RUNNING", "1_2": "PENDING"}

    monkeypatch.setattr(cluster, "in_queue", in_queue)
    monkeypatch.setattr(executor, "_map", lambda jobs: submitted.extend(jobs) or [f"2_{n}" for n in range(len(jobs))])
    for run in runs:
        executor.start([run])
    executor._submit()
    assert looks == [["1_0", "1_1", "1_2"]]
    assert [executor._jobs[run.id]["job"] for run in runs] == ["1_0", "2_0", "1_2", "2_1"]
    assert len(submitted) == 2


def test_printed_commands_train_the_runs_and_the_study_collects_them(tmp_path, capsys, monkeypatch):
    """One command for two seeds in one program; the study then finds nothing to do."""
    monkeypatch.setenv("FLAKY", str(tmp_path / "tries"))
    arguments = [f"--study={write_study(tmp_path, epochs=1)}", f"--out={tmp_path / 'out'}"]
    assert main([*arguments, "--print_commands", "--seeds_per_program=2"]) == 0
    (command,) = capsys.readouterr().out.splitlines()
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment(tmp_path, "tries"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["finished"] * 2
    monkeypatch.setattr("train.study.__main__.draw", lambda *arguments: [])
    monkeypatch.setattr("train.study.execution.executor.LocalExecutor.start", None)
    assert main(arguments) == 0
    assert "run 2 of 2" in (said := capsys.readouterr().out)
    assert said.count("finished before") == 2
