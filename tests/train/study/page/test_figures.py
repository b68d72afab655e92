"""The figures of a study: the report's names, what is drawn, and the same bytes each time."""

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from tests.train.study import made_up
from train.interface.output import Extras
from train.reproduction.logs import report_curves
from train.study.__main__ import draw
from train.study.page import figures, write
from train.study.plan import Section, Variant
from train.study.results.records import StudyResults

PAGE = Path(figures.__file__).parent / "assets"


def test_each_section_draws_the_reports_pictures_as_png_and_svg(tmp_path):
    results = made_up.results([made_up.base_section(), made_up.text_section(epochs=5)])
    paths = figures.draw_all(results, tmp_path)
    names = [f"{stem}.{kind}" for stem in ("cifar10_base_loss", "cifar10_base_acc") for kind in ("png", "svg")]
    names += [f"{stem}.{kind}" for stem in ("nlp_train", "nlp_test") for kind in ("png", "svg")]
    assert [path.name for path in paths] == names
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in paths[1].read_bytes()


def test_drawn_again_the_files_are_the_same_bytes(tmp_path):
    results = made_up.results([made_up.base_section()])
    first = [path.read_bytes() for path in figures.draw_all(results, tmp_path / "first")]
    second = [path.read_bytes() for path in figures.draw_all(results, tmp_path / "second")]
    assert first == second
    assert b"<dc:date" not in first[1]


def test_line_is_the_mean_over_seeds_and_band_the_lowest_and_highest():
    results = made_up.results([made_up.base_section()])
    section = results.study.sections[0]
    runs = results.by_variant(section, "RAdam")
    found = figures.curve(runs, "test_accuracy")
    assert found is not None
    columns = np.array([[100 * row["test_accuracy"] for row in run.rows] for run in runs])
    np.testing.assert_allclose(found.mean, columns.mean(0))
    np.testing.assert_allclose((found.low, found.high), (columns.min(0), columns.max(0)))
    assert found.seeds == 3
    axis = figures._draw(section, results, "test_accuracy").axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), columns.mean(0))


def test_a_loss_that_overflowed_is_a_gap_and_not_a_line_to_infinity():
    rows = [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": float("inf")}, {"epoch": 3, "train_loss": None}]
    np.testing.assert_array_equal(figures.values(rows, "train_loss"), [1.0, np.nan, np.nan])


@pytest.mark.parametrize("report", [True, False])
def test_the_reports_log_is_drawn_where_the_budget_is_the_reports(report):
    results = made_up.results([made_up.base_section(epochs=200, report=report)], seeds=1)
    axis = figures._draw(results.study.sections[0], results, "train_loss").axes[0]
    logged = [row["train_loss"] for row in report_curves()["radam_no"]]
    assert any(np.array_equal(line.get_ydata(), logged) for line in axis.lines) == report


def test_slow_weights_end_beside_the_live_ones():
    results = made_up.results([made_up.base_section()])
    section = results.study.sections[0]
    axis = figures._draw(section, results, "test_accuracy").axes[0]
    last = [100 * run.rows[-1]["slow_test_accuracy"] for run in results.by_variant(section, "Lookahead(RAdam)")]
    assert any(line.get_marker() == "D" and line.get_ydata()[0] == pytest.approx(np.mean(last)) for line in axis.lines)


def test_a_section_without_finished_runs_draws_nothing(tmp_path):
    results = made_up.results([made_up.base_section(), made_up.pairs_section()])
    wanted = {variant.id for variant in results.study.sections[0].variants}
    runs = {
        name: run if run.variant_id in wanted else dataclasses.replace(run, status="missing", rows=[])
        for name, run in results.runs.items()
    }
    paths = figures.draw_all(StudyResults(results.study, runs, ()), tmp_path)
    assert {path.stem for path in paths} == {"cifar10_base_loss", "cifar10_base_acc"}


def test_names_are_text_and_no_formulas(tmp_path):
    section = made_up.base_section(names=("$\\frac$ <b>", "50 % $x"))
    assert len(figures.draw_all(made_up.results([section], seeds=1), tmp_path)) == 4


def test_variants_are_told_apart_by_more_than_colour():
    def variant(index, lookahead):
        return Variant(f"{index}", made_up.config(k=5 if lookahead else 0, rate=0.001 * (index + 1)))

    variants = tuple(variant(index, index % 2 == 0) for index in range(14))
    styles = figures.line_styles(Section(key="1", title="many", variants=variants))
    assert len(set(styles)) == len(styles)
    # In grey: neighbours differ in dashes or marker.
    assert all(a[1:] != b[1:] for a, b in itertools.pairwise(styles))


def test_a_pair_shares_its_colour_and_lookahead_is_the_solid_line():
    section = made_up.pairs_section()
    styles = dict(zip((v.name for v in section.variants), figures.line_styles(section), strict=True))
    assert styles["SGD"].colour == styles["Lookahead(SGD)"].colour != styles["RAdam"].colour
    assert figures.DASHES[styles["Lookahead(SGD)"].dash] == "-" != figures.DASHES[styles["SGD"].dash]


def test_the_page_draws_with_the_same_colours_and_as_many_dashes():
    css = (PAGE / "style.css").read_text()
    light = dict(re.findall(r"--series-(\d): (#\w{6})", css.split("@media")[0]))
    assert [light[str(i)].upper() for i in range(len(light))] == [c.upper() for c in figures.COLOURS]
    dashes = re.search(r"DASHES = \[(.*)\];", (PAGE / "page.js").read_text())
    assert dashes is not None
    assert len(re.findall(r"\[[^\]]*\]", dashes.group(1))) == len(figures.DASHES)


@pytest.mark.parametrize("place", ["_draw", "save_both", "write_page", "page_data"])
def test_what_cannot_be_drawn_is_named_and_the_rest_is_drawn(place, tmp_path, monkeypatch):
    made = made_up.results([made_up.base_section(), made_up.text_section(epochs=5)])
    module = figures if place in ("_draw", "save_both") else write
    original, calls = getattr(module, place), []

    def fail_first(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("no such glyph")
        return original(*arguments, **keywords)

    monkeypatch.setattr(module, place, fail_first)
    extras = Extras()
    paths = draw(made, tmp_path, extras)
    assert len(extras.missing) == 1
    assert set(extras.missing.values()) == {"ValueError: no such glyph"}
    assert len(paths) == (4 if module is figures else 8)
    assert (tmp_path / "index.html").exists() == (module is figures)
    # Again, when nothing fails, it is whole.
    assert len(draw(made, tmp_path, extras)) == 8
    assert (tmp_path / "index.html").exists()
