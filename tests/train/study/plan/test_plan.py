"""Plans: what a study file may say, which runs follow from it, and the report's own."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from train.config import FORMER, Config, ModelConfig, OptimizerConfig, differences, from_dict, to_dict
from train.errors import UserError
from train.identity import ContinuedRuns, earlier_configs, identity, run_id
from train.registry import MODELS, Entry
from train.reproduction.logs import reference, report_curves, report_runs
from train.study.plan import (
    SCALES,
    Section,
    Study,
    Variant,
    copy_study_file,
    load_study,
    planned_runs,
    run_study_file,
    select,
    with_data_dir,
)
from train.study.plan.claims import Claim, Comparison, Pair
from train.study.plan.quantities import QUANTITIES
from train.study.plan.study import check_as_written
from train.study.plan.tuning import log_uniform

# Of published_config.json with data "0123".
PUBLISHED_ID = "068371242156"
STUDIES = Path(__file__).resolve().parents[4] / "configs" / "studies"
REPORT = STUDIES / "report.py"


def config(**optimizer):
    return Config(model=ModelConfig(name="small_cnn"), optimizer=OptimizerConfig(**optimizer))


def section(key="1", names=("plain", "slow"), **changes):
    variants = tuple(Variant(name, config(lookahead=name != "plain", sync_period=5)) for name in names)
    return Section(key=key, variants=variants, **{"dataset": "digits"} | changes)


def study(*sections, **changes):
    return Study(name="s", sections=sections or [section()], **changes)


# Identity


def test_an_id_stays_what_it_was():
    # Published results are found by it: it must not change with the code, nor with a default.
    config = from_dict(json.loads((Path(__file__).parent / "published_config.json").read_text()))
    assert run_id(config, "0123") == PUBLISHED_ID


def test_where_data_lies_and_how_often_it_saves_is_no_part_of_a_run():
    other = Config(data_dir="/data", checkpoint_every=7, resume=False, disk_wait=1.0)
    assert run_id(other, "a") == run_id(Config(), "a")
    assert run_id(Config(seed=1), "a") != run_id(Config(), "a")


def test_other_data_under_the_same_name_makes_another_run():
    assert run_id(Config(), "a") != run_id(Config(), "b")


@pytest.mark.parametrize(
    "name", ["label_smoothing", "optimizer.weight_decay", "model.dropout", "optimizer.sync_period"]
)
def test_a_changed_default_makes_another_run(name, monkeypatch):
    """As if someone had edited train/config.py: what `Config()` says by itself counts, and not only what differs."""
    before = run_id(Config(), "a")
    *nest, last = name.split(".")
    changed = Config()
    owner = getattr(changed, nest[0]) if nest else changed
    new = getattr(owner, last) + 1
    monkeypatch.setattr(type(owner), last, new)
    monkeypatch.setattr(type(owner).__init__, "__defaults__", _with_default(type(owner), last, new))
    after = Config()
    assert getattr(getattr(after, nest[0]) if nest else after, last) == new
    assert run_id(after, "a") != before


def _with_default(kind, name, value):
    """The defaults of a dataclass' __init__ with another one of them."""
    names = list(inspect.signature(kind.__init__).parameters)[1:]
    return tuple(
        value if each == name else default
        for each, default in zip(names[-len(kind.__init__.__defaults__) :], kind.__init__.__defaults__, strict=True)
    )


def test_what_a_long_run_continues_is_looked_for_among_the_lengths_that_are_there():
    """Of a billion epochs, not one by one."""
    long = Config(dataset="digits", epochs=10**9)
    assert run_id(dataclasses.replace(long, epochs=10**9 - 2), "data") in ContinuedRuns(long, "data")
    assert [config.epochs for config in earlier_configs(long, [10**9, 7, 3, 0])] == [7, 3]
    cosine = dataclasses.replace(long, optimizer=OptimizerConfig(name="sgd", schedule="cosine"))
    assert not list(earlier_configs(cosine, [7, 3]))
    restarts = dataclasses.replace(cosine.optimizer, schedule_epochs=3)
    found = earlier_configs(dataclasses.replace(cosine, optimizer=restarts), [7, 3])
    assert [(config.epochs, config.optimizer.schedule_epochs) for config in found] == [(7, 3), (3, 3), (3, 0)]


def test_a_setting_that_came_later_changes_no_id_while_it_has_the_value_from_before(monkeypatch):
    config = Config(cutout=8)
    with_it = run_id(config, "a")
    monkeypatch.setitem(FORMER, "cutout", 8)
    assert "cutout" not in identity(config)
    assert run_id(config, "a") != with_it
    assert identity(Config(cutout=9))["cutout"] == 9
    stored = to_dict(config)
    del stored["cutout"]
    assert from_dict(stored) == config
    assert differences(stored, config) == []
    assert differences(stored, Config(cutout=9)) == ["cutout was 8, is now 9"]


# Names and files


@pytest.mark.parametrize("name", ["", "a\rb", "a\nb", "\ud800", "a\x00", "a;b", " a", "a  b", "a\u2028b"])
def test_a_name_that_would_not_read_back_is_refused(name):
    for make in (
        lambda: Variant(name, Config()),
        lambda: Variant("a", Config(), label=name or "\t"),
        lambda: section(name),
        lambda: dataclasses.replace(section("1"), dataset=name or "\t"),
    ):
        with pytest.raises(UserError, match="must be a non-empty text of printable characters"):
            make()


def test_a_registered_language_model_makes_a_section_of_perplexities(monkeypatch):
    entries = dict(MODELS._entries) | {"mine": Entry("mine", lambda num_classes: None, task="text")}
    monkeypatch.setattr(MODELS, "_entries", entries)
    for name, expected in (("mine", True), ("gru", True), ("bilstm", False), ("resnet18", False)):
        variants = [Variant("a", Config(model=ModelConfig(name=name)))]
        assert Section(key="1", dataset="digits", variants=variants).language_model == expected


@pytest.mark.parametrize("figure", ["../x", "a/b", " ", ".hidden", "a\nb"])
def test_a_figure_is_a_file_name_without_a_folder(figure):
    with pytest.raises(UserError, match="must be a file name without a folder"):
        dataclasses.replace(section("1"), figure=figure)


def test_processes_started_later_run_the_study_file_as_it_was(tmp_path):
    home = tmp_path / "home"
    (home / "parts").mkdir(parents=True)
    (home / "study.py").write_text("from neighbour_of_study import value\nfrom parts.far import other\n")
    (home / "neighbour_of_study.py").write_text("value = 1\n")
    (home / "parts" / "far.py").write_text("other = 2\n")
    run_study_file(home / "study.py")
    copy = copy_study_file(home / "study.py", tmp_path / "copy")
    for path in home.rglob("*.py"):
        path.write_text("raise RuntimeError\n")
    code = f"from pathlib import Path; from train.study.plan import *; m = run_study_file(Path({str(copy)!r})); "
    code += "print(m.value, m.other)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 2\n"


def test_a_python_below_the_studys_folder_is_not_copied(tmp_path, monkeypatch):
    """As that of pyenv or conda in a home folder with the study file in it."""
    library = tmp_path / "home" / "pyenv" / "lib"
    library.mkdir(parents=True)
    for path in (library / "library_below_a_study.py", tmp_path / "home" / "beside_a_study.py"):
        path.write_text("")
        monkeypatch.syspath_prepend(path.parent)
    (tmp_path / "home" / "study.py").write_text("import library_below_a_study, beside_a_study\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(library))
    run_study_file(tmp_path / "home" / "study.py")
    copy_study_file(tmp_path / "home" / "study.py", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*.py")) == ["beside_a_study.py", "study.py"]


# Plans


def test_runs_go_seed_by_seed_and_one_that_several_sections_share_is_run_once():
    plan = study(section("1"), section("2", names=("plain", "slow")), seeds=2)
    runs = planned_runs(plan)
    assert [(run.config.seed, run.config.optimizer.lookahead) for run in runs] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    assert len({run.id for run in runs}) == 4
    assert [run.id for run in planned_runs(plan, seeds=3)][:4] == [run.id for run in runs]


@pytest.mark.parametrize(
    ("only", "refs"),
    [
        (["2"], ["2.1:digits", "2.10:digits", "2.1-more:digits"]),
        (["2.1"], ["2.1:digits", "2.1-more:digits"]),
        (["2.1:digits", "3"], ["2.1:digits", "2.1-more:digits", "3:digits"]),
        ([], ["2.1:digits", "2.10:digits", "2.1-more:digits", "3:digits"]),
    ],
)
def test_only_names_a_section_and_those_below_it(only, refs):
    plan = study(*(section(key) for key in ("2.1", "2.10", "2.1-more", "3")))
    assert [s.ref for s in select(plan, only)] == refs


@pytest.mark.parametrize("only", ["4", "2.1:cifar10", ""])
def test_only_refuses_what_is_no_section(only):
    with pytest.raises(UserError, match=r"no such section; the sections are 2.1:digits"):
        select(study(section("2.1")), [only])


def test_a_study_files_own_folder_is_not_replaced_by_data_dir():
    assert with_data_dir(Config(), "/data").data_dir == "/data"
    assert with_data_dir(Config(data_dir="/mine"), "/data").data_dir == "/mine"


def compare(**changes):
    pair = Pair(**{"section": "1:digits", "variant": "slow", "baseline": "plain"} | changes)
    return Claim("a", "A.", (Comparison(pair, "better", "loss_area", 0.02),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: section(names=("plain", "plain")), "two variants have the same name; names are plain, plain"),
        (lambda: dataclasses.replace(section(), baseline="other"), "the baseline 'other' is not among plain, slow"),
        (lambda: reference("radam_maybe"), "the report has no log 'radam_maybe'; it has "),
        (
            lambda: Section(key="1", variants=[Variant("a", config()), Variant("b", config(), against="c"),
                                               Variant("c", config(), against="b")]),
            "variant 'b' is compared with itself",
        ),
        (lambda: study(section("1"), section("1")), "two sections are called '1:digits'"),
        (lambda: Study(name="s", sections=()), "no sections"),
        (lambda: section(names=()), "section 1: no variants"),
        (lambda: study(claims=[dataclasses.replace(compare(), source="x")]), "has no heading in Study.sources"),
        (lambda: study(seeds=0), "seeds=0 must be at least 1"),
        (lambda: study(claims=(compare(), compare())), "two claims are called 'a'"),
        (lambda: study(claims=(compare(section="9:digits"),)), "has no section '9:digits'; it has 1:digits"),
        (lambda: study(claims=(compare(variant="fast"),)), "has no variant 'fast'; its variants are plain, slow"),
        (lambda: Comparison(Pair("1", "a", "b"), "best", "loss_area", 0.1), "kind 'best' is not one of better"),
        (lambda: Comparison(Pair("1", "a", "b"), "better", "loss", 0.1), "quantity 'loss' is not one of late_acc"),
        (lambda: Comparison(Pair("1", "a", "b"), "better", "loss_area", -1), "margin=-1 must be finite and not"),
        (lambda: Comparison(Pair("1", "a", "b"), "better", "loss_area", float("nan")), "margin=nan must be finite"),
        (lambda: Comparison(Pair("1", "a", "b"), "equal", "loss_area", 0.0), "kind 'equal' needs a margin above 0"),
        (
            lambda: check_as_written(study(claims=(compare(variant="plain"),))),
            "claim a, section 1:digits: 'plain' is compared with itself",
        ),
        (
            lambda: check_as_written(
                study(section(names=("slow", "also")), claims=(compare(variant="also", baseline="slow"),))
            ),
            "'also' is compared with itself; 'slow' has the same settings",
        ),
        (
            lambda: study(claims=[dataclasses.replace(compare(), comparisons=(
                Comparison(Pair("1:digits", "slow", "plain"), "better", "late_perplexity", 0.02),))]),
            "claim a: late_perplexity is of language models, and section 1:digits has none",
        ),
        (
            lambda: Section(key="1", variants=[Variant("a", config()), Variant(
                "b", dataclasses.replace(config(), dataset="pydoc"))]),
            "section 1:cifar10: its variants are on cifar10 and pydoc; give each data set its own section",
        ),
        (lambda: Claim("a", "A.", ()), "no comparisons"),
        (
            lambda: check_as_written(
                study(Section(key="1", variants=[Variant("x", dataclasses.replace(config(), resume=False))]))
            ),
            "variant 'x' of section 1:cifar10: config.resume=False; a study continues its runs",
        ),
        (lambda: Variant("x", config(learning_rate=0.0)), "optimizer.learning_rate=0.0 must be greater than 0"),
        (
            lambda: study(
                section("1"),
                Section(key="2", dataset="text", variants=[
                    Variant("a", dataclasses.replace(section().variants[0].config, data_dir="/x"))
                ]),
            ),
            "variant 'a' of section 2:text occurs with two values of data_dir",
        ),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_hold_together_is_refused(make, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        make()


def test_variants_that_tuning_makes_the_same_runs_are_compared_with_themselves():
    ranges = {"optimizer.learning_rate": log_uniform(1e-3, 1.0)}
    bases = [dataclasses.replace(config(learning_rate=rate), validation_examples=10) for rate in (0.1, 0.2)]
    variants = [Variant(name, base, tune=ranges) for name, base in zip(("plain", "slow"), bases, strict=True)]
    plan = study(Section(key="1", variants=variants, dataset="digits", trials=2), claims=[compare()])
    with pytest.raises(UserError, match="'slow' is compared with itself"):
        check_as_written(plan)


@pytest.mark.parametrize(
    ("changes", "message"), [("resume=False", "a study continues its runs"), ("", "'other' is compared with itself")]
)
def test_a_study_file_that_cannot_mean_what_it_says_is_refused(changes, message, tmp_path):
    path = tmp_path / "study.py"
    path.write_text(
        "import dataclasses\n"
        "from train.config import Config, ModelConfig, OptimizerConfig\n"
        "from train.study.plan import *\n"
        "def get_study():\n"
        "    plain = Config(dataset='digits', model=ModelConfig(name='small_cnn'))\n"
        f"    other = dataclasses.replace(plain, {changes})\n"
        "    pair = Pair('1:digits', 'other', 'plain')\n"
        "    claim = Claim('a', 'A.', (Comparison(pair, 'better', 'loss_area', 0.02),))\n"
        "    variants = [Variant('plain', plain), Variant('other', other)]\n"
        "    return Study(name='s', sections=[Section(key='1', variants=variants)], claims=[claim])\n"
    )
    with pytest.raises(UserError, match=message):
        load_study(path)


def test_variants_that_differ_in_what_is_tuned_may_be_compared():
    """And tuning may choose the same values for both."""
    ranges = {"optimizer.learning_rate": log_uniform(1e-3, 1.0)}
    more = ranges | {"optimizer.weight_decay": log_uniform(1e-5, 1e-3)}
    base = dataclasses.replace(config(), validation_examples=10)
    variants = [Variant("plain", base, tune=ranges), Variant("slow", base, tune=more)]
    plan = study(Section(key="1", variants=variants, dataset="digits", trials=2), claims=[compare()])
    assert check_as_written(plan) is plan
    alike = [dataclasses.replace(variant, tune={}) for variant in variants]
    section = dataclasses.replace(plan.sections[0], variants=alike, trials=0)
    assert dataclasses.replace(plan, sections=[section]).claims == plan.claims


@pytest.mark.parametrize(
    ("content", "scale", "message"),
    [
        ("x = 1", "", "has no get_study"),
        ("def f(:", "", "cannot be read"),
        ("import nothing_of_this_name", "", "cannot be read: line 1: No module named 'nothing_of_this_name'"),
        ("def get_study():\n    return 3", "", "has no get_study"),
        (None, "", "is not a file"),
        ("def get_study():\n    return 3", "mini", "has one scale only"),
    ],
)
def test_a_file_that_is_no_study_is_refused(content, scale, message, tmp_path):
    path = tmp_path / "study.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_study(path, scale=scale)


# The studies of this repository


def test_the_demo_study_is_what_the_readme_says():
    quick = load_study(STUDIES / "quick.py")
    assert [v.name for v in quick.sections[0].variants] == ["RAdam", "Lookahead(RAdam)", "SGD"]
    assert [section.trials for section in quick.sections] == [5, 5]
    assert quick.seeds == 3


def test_an_unknown_scale_is_refused():
    with pytest.raises(UserError, match="--scale=huge is not one of smoke, mini, full"):
        load_study(REPORT, scale="huge")


@pytest.mark.parametrize("scale", SCALES)
def test_the_report_has_all_its_sections_and_claims_at_every_scale(scale):
    report = load_study(REPORT, scale=scale)
    assert report.scale == scale
    keys = ("2.1", "2.2", "2.3.1", "2.3.2", "2.4", "2.5", "2.5-controls", "lr-grid")
    refs = [f"{key}:{dataset}" for key in keys for dataset in ("cifar10", "cifar100")]
    assert [s.ref for s in report.sections] == [*refs, "2.6.1:hw2", "2.6.2:ptb", "imdb:imdb"]
    # Items 1-9 of the report's claims.
    assert sorted({c.key[0] for c in report.claims if c.source == "report"}) == list("123456789")
    assert all(comparison.quantity in QUANTITIES for c in report.claims for comparison in c.comparisons)


def test_full_is_what_the_reports_logs_say():
    runs, seen = report_runs(), set()
    datasets = {"cifar10": "cifar10", "cifar100": "cifar100", "images": "hw2", "ptb": "ptb", "imdb_reviews": "imdb"}
    for s in load_study(REPORT, scale="full").sections:
        for variant in s.variants:
            if not variant.reference:
                continue
            log, ours = runs[variant.reference.name], variant.config
            seen.add(variant.reference.name)
            optimizer = ours.optimizer
            assert datasets[ours.dataset] == log["dataset"]
            assert (ours.model.name, optimizer.name) == (log["model"], log["inner"])
            assert (optimizer.learning_rate, ours.batch_size, ours.epochs) == (
                log["learning_rate"],
                log["batch_size"],
                log["epochs"],
            )
            assert optimizer.lookahead == (log["k"] > 0)
            if optimizer.lookahead:
                assert (optimizer.sync_period, optimizer.slow_step_size) == (log["k"], log["alpha"])
            assert "/".join(map(str, optimizer.decay_epochs)) == log["decay_epochs"].replace("none", "")
    assert set(runs) == seen


def test_mini_is_the_budget_that_was_agreed():
    mini = load_study(REPORT, scale="mini")
    for s in mini.sections[:16]:
        for variant in s.variants:
            assert (variant.config.train_examples, variant.config.test_examples) == (12_800, 0)
    base = mini.section("2.1:cifar100").variant("RAdam").config
    assert (base.epochs, base.optimizer.decay_epochs, base.optimizer.decay_delay) == (12, (4, 7, 10), 0)
    assert mini.section("2.3.2:cifar10").variant("RAdam").config.optimizer.decay_epochs == (2, 3, 4)
    assert mini.section("2.6.1:hw2").variant("RAdam").config.epochs == 20
    assert mini.section("2.6.2:ptb").variant("RAdam").config.epochs == 100
    assert [s.ref for s in mini.sections if s.same_budget] == ["2.6.2:ptb", "imdb:imdb"]


def test_controls_have_equal_steps_where_they_say_so():
    controls = load_study(REPORT, scale="mini").section("2.5-controls:cifar10")
    steps = {v.name: v.config.epochs * v.config.train_examples / v.config.batch_size for v in controls.variants}
    assert {s for name, s in steps.items() if "128" in name or "equal steps" in name} == {1200.0}
    assert steps["RAdam, batch 64"] == 2400.0


def test_the_reports_logs_are_whole():
    curves = report_curves()
    assert (len(report_runs()), sum(map(len, curves.values()))) == (36, 6480)
    assert [row["train_loss"] for row in curves["adam_no"][:5]] == [1.5498, 1.1905, 1.0343, 0.9390, 0.8713]
    assert curves["nlp_yes"][99]["test_perplexity"] == 152.3606
