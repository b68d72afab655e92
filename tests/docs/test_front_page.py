"""What the front page claims: its numbers are those of results/, and its reasons are facts of the installed Optax."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from flax.training.train_state import TrainState

import lookahead_jax as la

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def front_page():
    spec = importlib.util.spec_from_file_location("front_page", ROOT / "docs" / "front_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_and_table_are_those_of_the_published_runs(front_page):
    results = front_page.read_results()
    hint = "results/report has changed; run: python -m docs.front_page"
    assert front_page.with_block(README, front_page.block(results)) == README, hint
    for theme in front_page.THEMES:
        drawn = (ROOT / "docs" / "images" / f"study-{theme}.svg").read_bytes()
        assert front_page.draw(results, theme) == drawn, hint


def test_the_speeds_are_those_of_the_performance_page():
    page = (ROOT / "results" / "performance.md").read_text(encoding="utf-8")
    gpu = (ROOT / "results" / "gpu" / "README.md").read_text(encoding="utf-8")
    table = README.partition("## How fast is the training system?")[2].partition("Medians;")[0]
    rows = [row for row in table.splitlines() if (row.count("|") == 5 and "images/s" in row) or "tokens/s" in row]
    assert len(rows) == 6
    for row in rows:
        model, ours, theirs, ratio = (cell.strip() for cell in row.strip("|").split("|"))
        machine, _, model = model.partition(": ")
        if machine == "one H100":
            found = gpu.partition(f"### {model.partition(',')[0]}")[2].partition("###")[0]
            assert re.search(rf"\| ours +\|.*\| {ours.split()[0]} +\| {ratio} +\|", found), row
            assert re.search(rf"\| torch +\|.*\| {theirs} +\|", found), row
            continue
        number = re.match(r"[\d,]+", ours)[0].replace(",", "")
        torch = re.match(r"[\d,]+", theirs)[0].replace(",", "")
        found = [line for line in page.splitlines() if line.startswith(f"| {model}") and f"| {number} (" in line]
        assert any(f"| {torch} (" in line and f"**{ratio} (" in line for line in found), row
    overhead = re.search(r"takes ([\d.]+) times as long as Adam's", README)[1]
    assert re.search(rf"Lookahead\(adam\) / its inner optimizer alone .*\*\*{overhead} ", page)
    on_a_gpu, with_callers_sync = re.search(r"on an H100 ([\d.]+) times, or\s+([\d.]+) times", README).groups()
    assert re.search(rf"\| adam +\| [^|]+\| {on_a_gpu} [^|]+\| {with_callers_sync} ", gpu)


def test_what_it_says_in_words_is_in_its_table():
    rows = re.findall(r"^\| ([^|]+) \| (\w+) \| \d+ \|.*\| ([+−][\d.]+) \[([+−]?[\d.]+), ([+−]?[\d.]+)\]", README, re.M)
    assert len(rows) == 9
    excluding = {(data, optimizer): gain for data, optimizer, gain, low, high in rows if low[0] == high[0]}
    assert excluding == {("CIFAR-100", "RAdam"): "+1.72", ("CIFAR-100", "SGD"): "−0.90"}
    assert "on CIFAR-100 RAdam gained 1.7 points and SGD without momentum lost 0.9" in README
    assert "other seven intervals include zero" in README


def test_it_is_a_door_and_not_the_house():
    assert len(README.partition("<!-- results -->")[0].splitlines()) < 62
    assert len(README.splitlines()) < 125


PARAMS, GRADS = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.1, 0.2])}


def train_state(tx):
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    return state.apply_gradients(grads=GRADS)


def multi_steps(tx):
    steps = optax.MultiSteps(tx, 2)
    return steps.update(GRADS, steps.init(PARAMS), PARAMS)


def masked(tx):
    inside = optax.masked(tx, {"w": True})
    return inside.update(GRADS, inside.init(PARAMS), PARAMS)


@pytest.mark.parametrize("place", [train_state, multi_steps, masked])
def test_optax_lookahead_does_not_take_plain_parameters_and_ours_does(place):
    place(la.lookahead(optax.sgd(0.1), 5, 0.5))
    with pytest.raises((AttributeError, TypeError, ValueError)):
        place(optax.lookahead(optax.sgd(0.1), 5, 0.5))


def after_a_reset(tx, params, wrap=lambda x: x, grads=GRADS):
    """The learning rate's step count after the reset at the sync of step 2, and one step more."""
    opt_state, params = tx.init(wrap(params)), wrap(params)
    for _ in range(3):
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    counts = [x for path, x in jax.tree_util.tree_leaves_with_path(opt_state) if "count" in jax.tree_util.keystr(path)]
    return {int(count) for count in counts}


def test_a_reset_restarts_the_schedule_of_optax_lookahead_and_not_ours():
    inner = optax.sgd(optax.linear_schedule(0.1, 0.0, 10), momentum=0.9)
    theirs = after_a_reset(optax.lookahead(inner, 2, 0.5, reset_state=True), PARAMS, optax.LookaheadParams.init_synced)
    ours = after_a_reset(la.lookahead(inner, 2, 0.5, fast_state_at_sync="reset"), PARAMS)
    assert theirs == {1}
    assert 3 in ours
