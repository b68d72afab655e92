"""What a study runs, in which order, how often, and what is published of it: with an executor that trains nothing."""

import argparse
import dataclasses
import errno
import gzip
import io
import json
import os
import queue
import shutil
import signal
import sys
import time

import pytest

from train.config import Config, ModelConfig, OptimizerConfig, to_dict
from train.errors import InUse, RunFailed, UserError
from train.files import write_json
from train.interface.signals import StopRequest
from train.run.records import MetricsFile
from train.setting import leaves
from train.study.execution import worker
from train.study.execution.checks import identified
from train.study.execution.executor import LocalExecutor, RunEnd, shares_of_cores
from train.study.execution.live import Live
from train.study.execution.runner import Runner
from train.study.execution.session import Session
from train.study.execution.worker import run_directory
from train.study.page.csv_tables import write_tables
from train.study.plan import Section, Study, Variant, copy_study_file, planned_runs, with_data
from train.study.results.facts import FACTS
from train.study.results.published import CURVES, RUNS, open_directory, read_runs, write_runs
from train.study.verdicts.judge import assemble


def make_study(names=("plain", "slow"), **changes):
    variants = tuple(
        Variant(
            name,
            Config(
                dataset="digits",
                epochs=2,
                model=ModelConfig(name="small_cnn"),
                optimizer=OptimizerConfig(learning_rate=0.1 * (1 + number), decay_epochs=(), lookahead=name != "plain"),
            ),
        )
        for number, name in enumerate(names)
    )
    section = Section(key="1", title="A section", variants=variants, figure="digits")
    return Study(name="s", title="S", sections=[section], **{"seeds": 2, "scale": "mini"} | changes)


def write_workdir(out, run, status="finished", epochs=2):
    """What a run leaves behind."""
    directory = run_directory(out, run.id)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", to_dict(run.config))
    metrics = MetricsFile(directory / "metrics.csv")
    for epoch in range(len(metrics.rows) + 1, epochs + 1):
        loss = 1.0 / epoch + 0.1 * run.config.seed + run.config.optimizer.learning_rate
        row = {"epoch": epoch, "step": 7 * epoch, "train_loss": loss, "test_accuracy": 0.5, "seconds": 1.25}
        metrics.append(row | {"test_loss": loss, "slow_test_accuracy": 0.6 if run.config.optimizer.lookahead else None})
    facts = {"status": status, "wall_seconds": 3.0, "updated": "2026-01-02T03:04:05+0000", "machine": "a node"}
    facts["data"] = {"source": "somewhere", "digest": run.data}
    write_json(
        directory / "run.json",
        facts | {"versions": {"jax": "0.10.2"}, "commit": "abc", "python": "3.11.7"},
    )


class Pretend:
    """An executor that ends each run at the next `wait`, as told.

    Args:
      script: {name of the run: statuses of its attempts}; finished where there is none.
    """

    def __init__(self, out, planned, *, jobs=1, script=None, during=lambda name: None):
        self.out, self.jobs, self.script, self.during = out, jobs, script or {}, during
        self.runs = {run.id: run for run in planned}
        self.groups, self.started, self.going, self.asked = [], [], [], False

    def has_room(self):
        return len(self.going) < self.jobs

    def start(self, runs):
        self.groups.append([run.name for run in runs])
        self.started += self.groups[-1]
        self.going += [run.id for run in runs]

    def wait(self, seconds):
        ends, self.going = [], self.going[:]
        for run in self.going:
            name = self.runs[run].name
            self.during(name)
            status = "stopped" if self.asked else (self.script.get(name) or ["finished"]).pop(0)
            if status == "finished":
                write_workdir(self.out, self.runs[run])
            ends.append(RunEnd(run, status, "" if status in ("finished", "stopped") else "its numbers gave out"))
        self.going = []
        return ends

    def stop(self):
        self.asked = True

    def close(self):
        pass


class Stop:
    """A stop request that tests may make."""

    signal = None
    asked = False

    def __bool__(self):
        return self.asked


def run_all(
    study, out, *, seeds=None, retries=1, stop=None, published=lambda tally: None, seeds_per_program=1, **executor
):
    planned = planned_runs(study, seeds=seeds)
    runs, said = read_runs(out), io.StringIO()
    pretend = Pretend(out, planned, **executor)
    live = Live(out, planned, runs, jobs=pretend.jobs, stream=said)
    how = {"retries": retries, "seeds_per_program": seeds_per_program}
    runner = Runner(study, out, runs, pretend, live=live, published=published, **how)
    tally = runner.run(planned, stop or Stop())
    return tally, pretend, said.getvalue()


NAMES = ["1:digits plain, seed 0", "1:digits slow, seed 0", "1:digits plain, seed 1", "1:digits slow, seed 1"]


@pytest.fixture
def out(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_runs_go_seed_by_seed_and_are_published_as_they_end(out):
    seen = []
    tally, pretend, said = run_all(make_study(), out, during=lambda name: seen.append(len(read_runs(out))))
    assert pretend.started == NAMES
    assert seen == [0, 1, 2, 3]
    assert [run.name for run in tally.finished] == NAMES
    assert "run 4 of 4  1:digits slow, seed 1: loss 0.8000, test 50.00%" in said


def test_seeds_of_a_variant_start_together_and_one_that_fails_is_tried_again_alone(out):
    plain, slow = NAMES[::2], NAMES[1::2]
    script = {slow[1]: ["failed", "finished"]}
    tally, pretend, _ = run_all(make_study(seeds=3), out, seeds_per_program=2, script=script)
    thirds = ["1:digits plain, seed 2", "1:digits slow, seed 2"]
    assert pretend.groups == [plain, slow, [slow[1], thirds[1]], thirds[:1]]
    assert len(tally.finished) == len(read_runs(out)) == 6


def test_a_session_is_in_study_json_from_its_first_run_on_so_that_a_kill_takes_nothing_away(out):
    def sessions():
        return json.loads((out / FACTS).read_text())["sessions"]

    flags = argparse.Namespace(study="s.py", out=out, scale="mini", seeds=None, until="", epochs=None)
    seen = []
    for seeds in (1, 2):
        arguments = ["--study=s.py", f"--out={out}", "--scale=mini", f"--seeds={seeds}"]
        session = Session(flags, arguments, make_study())
        run_all(
            make_study(),
            out,
            seeds=seeds,
            published=session.record,
            during=lambda name: seen.append([entry["finished"] for entry in sessions()]),
        )
    assert seen == [[], [1], [2], [2, 1]]
    assert [entry["finished"] for entry in sessions()] == [2, 2]
    assert [entry["command"][-9:] for entry in sessions()] == ["--seeds=1", "--seeds=2"]
    # What makes the whole of it again is another matter.
    assert json.loads((out / FACTS).read_text())["command"] == (
        f"python -m train.study --study=s.py --out={out} --scale=mini"
    )


def test_a_full_disk_is_waited_for(out, monkeypatch):
    full = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))] * 2

    def write(*arguments):
        if full:
            raise full.pop()
        write_runs(*arguments)

    monkeypatch.setattr("train.study.execution.runner.write_runs", write)
    monkeypatch.setattr("train.files._RETRY_SECONDS", 0.0)
    tally, _, _ = run_all(make_study(), out)
    assert len(tally.finished) == len(read_runs(out)) == 4


def test_a_disk_that_stays_full_is_one_line(out, monkeypatch):
    def write(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("train.study.execution.runner.write_runs", write)
    monkeypatch.setattr("train.files._RETRY_SECONDS", 0.0)
    monkeypatch.setattr("train.files.time.monotonic", iter(range(0, 10**6, 400)).__next__)
    with pytest.raises(RunFailed, match=r"runs.csv could not be written: No space left on device.* make room"):
        run_all(make_study(), out)


def test_what_is_published_is_not_run_again_even_without_its_workdir(out):
    study = make_study()
    run_all(study, out)
    for path in sorted((out / "runs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert run_all(study, out)[1].started == []
    assert run_all(study, out, seeds=3)[1].started == ["1:digits plain, seed 2", "1:digits slow, seed 2"]
    assert len(read_runs(out)) == 6


def test_a_run_that_finished_unpublished_is_published_and_not_run(out):
    study = make_study()
    write_workdir(out, planned_runs(study)[1])
    tally, pretend, said = run_all(study, out)
    assert "run 2 of 4  1:digits slow, seed 0: finished before" in said
    assert "run 4 of 4" in said
    assert pretend.started == [name for name in NAMES if name != NAMES[1]]
    assert len(tally.finished) == len(read_runs(out)) == 4


@pytest.mark.parametrize(("status", "epochs"), [("running", 2), ("finished", 1), ("failed", 2)])
def test_a_workdir_that_is_not_whole_is_continued(status, epochs, out):
    study = make_study()
    write_workdir(out, planned_runs(study)[0], status, epochs)
    assert run_all(study, out)[1].started == NAMES


def test_a_failed_run_is_tried_again_and_then_given_up_while_the_others_go_on(out):
    script = {NAMES[0]: ["failed", "finished"], NAMES[1]: ["failed", "failed"], NAMES[2]: ["refused"]}
    tally, pretend, said = run_all(make_study(), out, script=script)
    assert pretend.started == [NAMES[0], NAMES[0], NAMES[1], NAMES[1], NAMES[2], NAMES[3]]
    assert [(run.name, message) for run, message in tally.failed] == [
        (NAMES[1], "its numbers gave out"),
        (NAMES[2], "its numbers gave out"),
    ]
    assert {run.status for run in read_runs(out).values()} == {"finished", "failed"}
    assert f"{NAMES[1]}: failed, will be retried: its numbers gave out; log: {out}/logs/" in said
    # A later session tries them again.
    assert run_all(make_study(), out)[1].started == [NAMES[1], NAMES[2]]
    assert {run.status for run in read_runs(out).values()} == {"finished"}


def test_retries_are_as_many_as_said(out):
    pretend = run_all(make_study(seeds=1), out, retries=0, script={NAMES[0]: ["failed"]})[1]
    assert pretend.started == NAMES[:2]


def test_a_run_that_says_finished_and_left_no_rows_has_failed(out):
    study = make_study(seeds=1)
    planned = planned_runs(study)
    pretend = Pretend(out, planned)
    pretend.wait = lambda seconds: [RunEnd(run, "finished", "") for run in [pretend.going.pop()]]
    live = Live(out, planned, {}, jobs=1, stream=io.StringIO())
    tally = Runner(study, out, {}, pretend, retries=1, live=live).run(planned, Stop())
    assert [message for _, message in tally.failed] == ["it left no complete metrics.csv"] * 2


def test_a_signal_stops_what_is_going_and_starts_nothing_more(out):
    stop = Stop()

    class Asked(Pretend):
        """Ends its runs one call after it was asked to."""

        def wait(self, seconds):
            if any(self.runs[run].name == NAMES[1] for run in self.going) and not self.asked:
                stop.asked = True
                return []
            return super().wait(seconds)

    study = make_study()
    planned = planned_runs(study)
    pretend = Asked(out, planned, jobs=2)
    live = Live(out, planned, {}, jobs=2, stream=io.StringIO())
    tally = Runner(study, out, {}, pretend, retries=1, live=live).run(planned, stop)
    assert pretend.started == NAMES[:2]
    assert {run.name for run in tally.open} == set(NAMES)
    assert not tally.failed


def test_a_terminal_gets_a_bar_of_what_goes_on_and_time_left(out):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    study, said = make_study(), Terminal()
    planned = planned_runs(study)
    live = Live(out, planned, {}, jobs=1, stream=said)
    live.started(planned[0])
    write_workdir(out, planned[0], "running", epochs=1)
    live.update()
    # 1 of 8 epochs: two of the 16 places of the bar, which is of ASCII where the encoding is not known.
    assert said.getvalue().split("\r")[-1] == f"|##{' ' * 14}| 0/4 runs, left 00:08  | 1:digits plain, seed 0 1/2"
    live.say("a line")
    lines = said.getvalue().split("\r")
    assert "a line\n" in lines
    assert lines[-1].endswith("seed 0 1/2")  # the bar is back below it
    live.close()
    assert said.getvalue().split("\r")[-2].strip() == ""


@pytest.mark.parametrize(
    ("jobs", "shares"), [(1, [""]), (2, ["0,1", "2,3"]), (3, ["0", "1", "2,3"]), (5, ["0", "1", "2", "3", "0"])]
)
def test_each_process_has_its_share_of_the_cores(jobs, shares, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert shares_of_cores(jobs) == shares


def test_a_run_does_not_take_the_workdir_of_a_shorter_one_of_the_study(out):
    """The shorter one may train at the same time; once the study does not have it, its workdir is continued."""
    study = make_study(names=("plain",), seeds=1)
    (variant,) = study.sections[0].variants
    longer = dataclasses.replace(variant, config=dataclasses.replace(variant.config, epochs=3))
    sections = [dataclasses.replace(study.sections[0], variants=(one,)) for one in (variant, longer)]
    alone = [dataclasses.replace(study, sections=[section]) for section in sections]
    both = dataclasses.replace(study, sections=[dataclasses.replace(sections[0], key="2", figure="2"), sections[1]])
    short, long = (planned_runs(one)[0] for one in alone)
    saved = run_directory(out, short.id) / "checkpoints" / "7"
    saved.mkdir(parents=True)
    (run_directory(out, short.id) / "config.json").write_text(json.dumps(to_dict(short.config)))
    for plan, planned, continued in ((both, (short, long), False), (both, (long,), False), (alone[1], (long,), True)):
        executor = Pretend(out, planned, jobs=2, script={short.name: ["stopped"], long.name: ["stopped"] * 3})
        live = Live(out, planned, {}, jobs=2, stream=io.StringIO())
        Runner(plan, out, {}, executor, retries=0, live=live).run(planned, Stop())
        assert saved.exists() != continued
        assert (run_directory(out, long.id) / "checkpoints" / "7").exists() == continued


# The published form


def test_published_runs_read_back_as_they_were_and_write_back_bit_for_bit(out):
    study = make_study()
    run_all(study, out)
    runs = read_runs(out)
    for run in runs.values():
        planned = next(p for p in planned_runs(study) if p.id == run.id)
        stored = to_dict(planned.config)
        for name, _, field in leaves(planned.config):
            if not field.metadata["identity"]:
                stored.pop(name)
        assert run.config == stored
        assert [row["epoch"] for row in run.rows] == [1, 2]
        assert run.rows[0]["slow_test_accuracy"] == (0.6 if planned.config.optimizer.lookahead else None)
        assert (run.scale, run.seconds, run.provenance["versions"]) == ("mini", 3.0, "jax 0.10.2")
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    write_runs(out, study, dict(reversed(list(runs.items()))))
    assert {path: path.read_bytes() for path in before} == before


def test_results_have_missing_runs_and_every_seed_that_is_published(out):
    study = make_study()
    run_all(study, out, seeds=3)
    runs = read_runs(out)
    gone = next(iter(runs))
    del runs[gone]
    results = assemble(study, runs, {})
    assert results.runs[gone].status == "missing"
    assert [run.seed for run in results.by_variant(study.sections[0], "slow")] == [0, 1, 2]
    assert [run.seed for run in results.by_variant(study.sections[0], "plain")] == [1, 2]
    write_runs(out, study, results.runs)
    write_tables(out, results)
    assert assemble(study, read_runs(out), {}).runs.keys() == results.runs.keys()


def test_a_run_of_an_older_plan_is_kept(out):
    run_all(make_study(names=("plain", "old")), out)
    run_all(make_study(names=("plain", "a", "b")), out)
    assert len(read_runs(out)) == 6


def edit_runs(old, new):
    """A damage: the first occurrence of a text in runs.csv becomes another one."""

    def damage(out):
        text = (out / RUNS).read_text()
        assert old in text
        (out / RUNS).write_text(text.replace(old, new, 1))

    return damage


def edit_curves(change):
    """A damage: the lines of curves.csv.gz, the header first, become others."""

    def damage(out):
        lines = gzip.decompress((out / CURVES).read_bytes()).decode().splitlines()
        (out / CURVES).write_bytes(gzip.compress("".join(f"{line}\n" for line in change(lines)).encode()))

    return damage


def swap_variants(out):
    lines = (out / RUNS).read_text().splitlines()
    first, second = lines[1].split(","), lines[3].split(",")
    first[1], second[1] = second[1], first[1]
    lines[1], lines[3] = ",".join(first), ",".join(second)
    (out / RUNS).write_text("\n".join(lines) + "\n")


def drop_last_run(out):
    (out / RUNS).write_text("".join((out / RUNS).read_text().splitlines(keepends=True)[:-1]))


def twice(out):
    lines = (out / RUNS).read_text().splitlines(keepends=True)
    (out / RUNS).write_text("".join([*lines, lines[1]]))


def other_curves(out):
    """Epochs of all runs but one."""
    edit_curves(lambda lines: lines[:1] + [line for line in lines[1:] if not line.startswith(lines[1][:12])])(out)


DAMAGES = {
    "curves cut off": (lambda out: (out / CURVES).write_bytes((out / CURVES).read_bytes()[:-20]), "ended before"),
    "no curves": (lambda out: (out / CURVES).unlink(), "No such file"),
    "no runs": (
        lambda out: ((out / RUNS).unlink(), shutil.rmtree(out / "runs")),
        "has curves.csv.gz but no runs.csv; restore it",
    ),
    "empty runs": (lambda out: (out / RUNS).write_text(""), "has no column"),
    "another table": (lambda out: (out / RUNS).write_text("x,y\n1,2\n"), "has no column"),
    "a conflict marker": (edit_runs("finished", "<<<<<<< HEAD\nfinished"), "too many or too few cells"),
    "a run twice": (twice, "twice"),
    "another status": (edit_runs("finished", "fine"), "status 'fine'"),
    "another number of epochs": (edit_runs("finished,2", "finished,3"), "does not have the epochs 1 to 3"),
    "another seed": (edit_runs("mini,1:digits,plain,,0", "mini,1:digits,plain,,5"), "a cell of its row has changed"),
    "another setting": (edit_runs("digits,2,128", "digits,2,64"), "a cell of its row has changed"),
    "other data": (edit_runs(",DATA,", ",ATAD,"), "a cell of its row has changed"),
    "variants swapped": (swap_variants, "the variant_id of run [0-9a-f]{12} should be [0-9a-f]{12}"),
    "another result": (edit_runs(",0.5,", ",0.9,"), "is 0.9 in runs.csv but 0.5 in curves.csv.gz"),
    "an epoch twice": (
        edit_curves(lambda lines: [*lines[:2], lines[1], *lines[3:]]),
        "does not have the epochs 1 to 2",
    ),
    "an epoch lost": (edit_curves(lambda lines: lines[:-1]), "does not have the epochs 1 to 2"),
    "epochs backwards": (edit_curves(lambda lines: [lines[0], *lines[:0:-1]]), "does not have the epochs 1 to 2"),
    "curves of a run lost": (other_curves, "does not have the epochs 1 to 2"),
    "no study.json": (lambda out: (out / FACTS).unlink(), "has runs.csv but no study.json"),
    "another study's study.json": (lambda out: write_json(out / FACTS, {"name": "t", "scale": "mini"}), "of name 't'"),
    "a list for study.json": (
        lambda out: write_json(out / FACTS, []),
        r"study.json cannot be read \(it holds a JSON list",
    ),
    "null for study.json": (lambda out: (out / FACTS).write_text("null"), r"cannot be read \(it holds a JSON null"),
    "a session without its seconds": (
        lambda out: write_json(out / FACTS, {"name": "s", "scale": "mini", "sessions": [{}]}),
        "a session in it is {}, without its seconds",
    ),
    "a number for sessions": (
        lambda out: write_json(out / FACTS, {"name": "s", "scale": "mini", "sessions": 3}),
        "its 'sessions' is 3",
    ),
    "a folder for runs.csv": (
        lambda out: ((out / RUNS).unlink(), (out / RUNS).mkdir()),
        "runs.csv and curves.csv.gz cannot be read .*Is a directory",
    ),
    "an unfinished merge of runs": (edit_runs("\n", "\n<<<<<<< HEAD\n"), "line 2 is a conflict marker of a merge"),
    "an unfinished merge of study.json": (
        lambda out: (out / FACTS).write_text("{\n<<<<<<< HEAD\n" + (out / FACTS).read_text()[1:]),
        "line 2 is a conflict marker of a merge",
    ),
    "an empty cell": (
        edit_runs("mini,1:digits,plain,,0", "mini,1:digits,plain,,"),
        "line 2 of runs.csv: invalid literal",
    ),
    "a word for a number": (edit_runs("finished,2", "finished,two"), "line 2 of runs.csv: invalid literal"),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("seeds", [2, 3])
def test_published_files_that_do_not_hold_together_are_refused_and_left_alone(name, seeds, out):
    damage, message = DAMAGES[name]
    study = with_data(make_study(), lambda config: "DATA")
    write_json(out / FACTS, {"name": "s", "scale": "mini"})
    run_all(study, out)
    damage(out)
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=message) as error, open_directory(out, study):
        run_all(study, out, seeds=seeds)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_without_its_line_in_runs_csv_is_told_and_made_again(out, caplog):
    """Its line was deleted, or a kill came between the two files."""
    study = make_study()
    run_all(study, out)
    whole, files = read_runs(out), [(out / name).read_bytes() for name in (RUNS, CURVES)]
    drop_last_run(out)
    run = list(whole)[-1]
    left = read_runs(out)
    assert left.keys() == whole.keys() - {run}
    write_runs(out, study, left)  # its curves stay until it is made again
    assert read_runs(out).keys() == left.keys()
    assert gzip.decompress((out / CURVES).read_bytes()).decode().count(run) == 2
    assert f"runs.csv has no line for the runs {run}, whose curves are in curves.csv.gz" in caplog.text
    shutil.rmtree(out / "runs")
    _, executor, _ = run_all(study, out)
    assert list(executor.runs)[-1] == run
    assert executor.started == [executor.runs[run].name]
    assert [(out / name).read_bytes() for name in (RUNS, CURVES)] == files


@pytest.mark.parametrize("before", [{}, {"1:digits plain, seed 0": ["failed"]}])
def test_a_kill_between_the_two_files_costs_nothing(before, out):
    """In the first publication of all; or in that of a run that had failed."""
    study = make_study(names=("plain",), seeds=1)
    run_all(study, out, retries=0, script=before)
    if before:
        failed = (out / RUNS).read_bytes()
        (run,) = read_runs(out).values()
        assert run.status == "failed"
        run_all(study, out)
        (out / RUNS).write_bytes(failed)
        assert [(run.status, run.rows) for run in read_runs(out).values()] == [("failed", [])]
    else:
        (out / RUNS).unlink()
        assert read_runs(out) == {}
    run_all(study, out)
    assert [(run.status, len(run.rows)) for run in read_runs(out).values()] == [("finished", 2)]


def test_a_disk_that_is_full_for_one_of_the_two_files_leaves_both(out, monkeypatch):
    study = make_study()
    run_all(study, out)
    runs, files = read_runs(out), [(out / name).read_bytes() for name in (RUNS, CURVES)]
    sync, synced = os.fsync, []

    def full_at_the_second(number):
        synced.append(number)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(number)

    monkeypatch.setattr("train.files.os.fsync", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        write_runs(out, study, dict(list(runs.items())[:-1]))
    assert [(out / name).read_bytes() for name in (RUNS, CURVES)] == files
    assert not list(out.glob(".*.csv*"))


@pytest.mark.parametrize("name", [RUNS, FACTS])
def test_a_byte_order_mark_as_spreadsheets_write_it_is_no_damage(name, out):
    with open_directory(out, make_study()):
        run_all(make_study(), out)
        write_json(out / FACTS, {"name": "s", "scale": "mini"})
    before = read_runs(out)
    (out / name).write_bytes(b"\xef\xbb\xbf" + (out / name).read_bytes())
    with open_directory(out, make_study()):
        assert read_runs(out) == before


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "3",
        '"finished"',
        "{",
        "",
        "\ufeff{}",
        '{"versions": null}',
        '{"data": []}',
        '{"wall_seconds": "long"}',
    ],
)
def test_a_run_json_of_another_form_does_not_end_the_study(text, out):
    """It is only a record: the run is published as what its end was."""

    def damage(name):
        for run in planned_runs(make_study()):
            directory = run_directory(out, run.id)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "run.json").write_text(text)

    report, _, _ = run_all(make_study(), out, script={NAMES[0]: ["failed", "failed"]}, during=damage)
    assert [run.name for run, _ in report.failed] == NAMES[:1]
    assert len(report.finished) == 3
    assert len(read_runs(out)) == 4


def test_what_would_not_read_back_does_not_replace_what_is_there(out):
    """Such as a number that prints as np.float64(0.5), should one get past all checks."""
    study = make_study()
    run_all(study, out)
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    runs = read_runs(out)
    spoilt = next(iter(runs.values()))
    for change in (
        {"config": spoilt.config | {"label_smoothing": "np.float64(0.5)"}},
        {"seed": 7},
        {"rows": spoilt.rows[:1]},
        {"status": "fine"},
    ):
        with pytest.raises(RunFailed, match=r"could not be read back .*left as they were"):
            write_runs(out, study, runs | {spoilt.id: dataclasses.replace(spoilt, **change)})
        assert {path: path.read_bytes() for path in before} == before


def test_data_that_changes_during_a_study_is_not_published(out):
    study = with_data(make_study(seeds=1), lambda config: "DATA")

    planned = planned_runs(study)
    pretend = Pretend(out, planned)
    ends = pretend.wait

    def wait(seconds):
        ended = ends(seconds)
        for path in (out / "runs").glob("*/run.json"):
            write_json(path, json.loads(path.read_text()) | {"data": {"digest": "OTHER"}})
        return ended

    pretend.wait = wait
    live = Live(out, planned, {}, jobs=1, stream=io.StringIO())
    tally = Runner(study, out, {}, pretend, retries=0, live=live).run(planned, Stop())
    assert [message for _, message in tally.failed] == ["its data changed during the study"] * 2
    assert not tally.finished


def test_one_directory_is_of_one_study_and_one_scale_and_one_process(tmp_path):
    out = tmp_path / "new" / "out"
    with open_directory(out, make_study()):
        with pytest.raises(UserError, match="is in use by another study"), open_directory(out, make_study()):
            pass
        write_json(out / "study.json", {"name": "s", "scale": "mini"})
    with pytest.raises(UserError, match="contains a study of scale 'mini', not 'full'"):
        open_directory(out, make_study(scale="full")).__enter__()
    (out / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study.json cannot be read"):
        open_directory(out, make_study()).__enter__()


def test_an_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        open_directory(tmp_path / "file", make_study()).__enter__()


# Workers and the processes they are in


def test_a_worker_whose_study_dies_before_the_first_run_begins_trains_nothing():
    ids = queue.Queue()
    with StopRequest() as stop:
        worker._read_runs(io.StringIO('[{"id": "an id"}]\n'), ids)  # and then the end of standard input
        assert stop.signal is signal.SIGTERM
        assert worker._next(ids, stop) is None


@pytest.mark.parametrize(("free_after", "status"), [(2, "finished"), (9, None)])
def test_a_workdir_that_another_worker_still_has_is_waited_for(free_after, status, monkeypatch, capsys):
    stop, tried = Stop(), []
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: None)

    def train(runs):
        tried.append([run.id for run in runs])
        stop.asked = len(tried) == 5
        return ["finished" if run.id == "b" or len(tried) > free_after else InUse("it is in use") for run in runs]

    runs = [worker.Assigned("a", Config()), worker.Assigned("b", Config())]
    assert worker._when_free(train, runs, stop) == {"a": status, "b": "finished"}
    assert tried[:2] == [["a", "b"], ["a"]]
    assert capsys.readouterr().out == "waiting: it is in use\n"


def test_runs_that_cannot_share_a_program_fail_and_the_worker_goes_on(tmp_path):
    config = Config(local_steps=True, optimizer=OptimizerConfig(lookahead=True))
    runs = [worker.Assigned(name, dataclasses.replace(config, seed=seed)) for seed, name in enumerate("ab")]
    ends = worker.train_runs(runs, tmp_path, Stop(), keep_checkpoints=False)
    assert (
        ends
        == [("refused", "config.seeds_per_program is not for local steps; start the seeds as runs of their own")] * 2
    )


def test_a_study_file_whose_copy_cannot_be_run_is_why_no_run_can(tmp_path):
    (tmp_path / "rates.txt").write_text("0.1")
    study = tmp_path / "study.py"
    study.write_text("from pathlib import Path\nrate = (Path(__file__).parent / 'rates.txt').read_text()\n")
    assert worker.why_it_cannot_run(study) == ""
    copy = copy_study_file(study, tmp_path / "copies")
    assert "line 2: FileNotFoundError" in (said := worker.why_it_cannot_run(copy))
    assert "give the absolute path of any other file" in said


def test_published_runs_say_which_data_a_variant_is_on_where_two_sets_have_one_name(out):
    study = make_study(names=("a", "b"), seeds=1)
    (section,) = study.sections
    variants = [dataclasses.replace(one, data=data) for one, data in zip(section.variants, ("11", "22"), strict=True)]
    run_all(dataclasses.replace(study, sections=[dataclasses.replace(section, variants=variants)]), out)
    found = identified(study, {}, read_runs(out))
    assert [variant.data for variant in found.sections[0].variants] == ["11", "22"]
    with pytest.raises(UserError, match=r"were trained on 2 versions of it .SHA-256 11, 22.; give --data_dir"):
        identified(make_study(names=("a", "b", "c"), seeds=1), {}, read_runs(out))


def test_what_a_study_file_prints_is_no_end_of_a_run(out):
    executor = LocalExecutor(out, [])
    code = """print(5); print("text"); print('{"id": "a", "status": "finished", "message": ""}', flush=True)"""
    code += "; input(); input()"
    executor._slots[0]._command = [sys.executable, "-c", code]
    executor.start([dataclasses.replace(planned_runs(make_study())[0], id="a")])
    assert executor.wait(30) == [RunEnd("a", "finished", "")]
    executor.close()


def test_a_worker_that_dies_while_it_is_started_loses_no_run(out, monkeypatch):
    executor = LocalExecutor(out, [])
    slot = executor._slots[0]
    slot._command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    start_process = slot._start_process

    def slowly(run):
        start_process(run)
        time.sleep(0.5)  # it is dead, and its end seen, before the executor goes on

    monkeypatch.setattr(slot, "_start_process", slowly)
    for _ in range(2):
        executor.start([dataclasses.replace(planned_runs(make_study())[0], id="a")])
        assert executor.wait(30) == [RunEnd("a", "failed", "its process ended by signal SIGKILL")]
    executor.close()
