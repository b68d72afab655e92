"""Names in the published CSV files: no spreadsheet takes one for a formula, and all read back as they were."""

import csv

import pytest

from tests.train.study.execution.test_runner import make_study, run_all
from train.study.results.cells import exact, guarded, short, unguarded
from train.study.results.published import RUNS, read_runs, write_runs

NAMES = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "'quoted", "''twice", "\ttab", "\rreturn", "=", "plain", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula_and_reads_back(name):
    assert not guarded(name).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unguarded(guarded(name)) == name
    assert exact(name) == short(name) == guarded(name)


@pytest.mark.parametrize(("value", "cell"), [(-1.5, "-1.5"), (-3, "-3"), (None, ""), ((1, 2), "1/2"), ("a-b", "a-b")])
def test_numbers_stay_numbers(value, cell):
    assert exact(value) == cell


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "@slow", "+slow"])
def test_published_runs_with_such_names_are_no_formulas_and_read_back(name, tmp_path):
    study = make_study(names=("plain", name), seeds=1, scale=name)
    run_all(study, tmp_path)
    with (tmp_path / RUNS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["variants"] for row in rows} == {"plain", f"'{name}"}
    runs = read_runs(tmp_path)
    assert {run.scale for run in runs.values()} == {name}
    before = (tmp_path / RUNS).read_bytes()
    write_runs(tmp_path, study, runs)
    assert (tmp_path / RUNS).read_bytes() == before
