"""Checkpoints are whole or skipped, and never of another form than asked for."""

import logging
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.corruption import torture_files
from train.errors import UserError
from train.run.checkpointing import Checkpoints
from train.run.checksums import DamagedCheckpoint, verify
from train.step.metrics import Metrics


def tree(value):
    return {"params": {"w": jnp.full((3, 4), value), "b": jnp.arange(2, dtype=jnp.int32)}, "metrics": Metrics.zeros()}


def abstract(like):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), like)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    yield made
    made.close()


def save(checkpoints, *steps, scores=None):
    for step in steps:
        checkpoints.save(step, tree(float(step)), {"seconds": 1.5, "score": (scores or {}).get(step)})
    checkpoints.wait()


def directory(checkpoints, step):
    return checkpoints._directory / str(step)


def test_restores_what_was_saved(checkpoints):
    save(checkpoints, 5)
    restored = checkpoints.restore(abstract(tree(0.0)))
    assert restored.step == 5
    assert restored.progress["seconds"] == 1.5
    assert isinstance(restored.tree["metrics"], Metrics)
    np.testing.assert_array_equal(restored.tree["params"]["w"], np.full((3, 4), 5.0, np.float32))


def test_nothing_saved_is_none(checkpoints):
    assert checkpoints.restore(abstract(tree(0.0))) is None


def test_saved_values_are_those_before_the_buffers_were_donated(checkpoints):
    grow = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
    state = jax.tree.map(jnp.array, tree(1.0))
    checkpoints.save(1, state, {"seconds": 0.0})
    for _ in range(20):
        state = grow(state)
    checkpoints.wait()
    restored = checkpoints.restore(abstract(tree(0.0)))
    np.testing.assert_array_equal(restored.tree["params"]["w"], np.ones((3, 4), np.float32))


def test_keeps_the_last_two_and_the_best(checkpoints):
    save(checkpoints, 1, 2, 3, 4, 5, scores={1: 0.5, 2: 0.9, 3: 0.8, 4: 0.7, 5: 0.6})
    assert checkpoints.steps() == [2, 4, 5]


def test_what_a_kill_left_in_the_middle_of_a_save_is_removed(checkpoints):
    save(checkpoints, 3)
    for name in (".2.deleting", ".9.writing"):
        shutil.copytree(directory(checkpoints, 3), directory(checkpoints, name))
    checkpoints.remove_leftovers()
    assert [path.name for path in directory(checkpoints, 3).parent.iterdir()] == ["3"]


def test_bit_flips_and_truncations_are_noticed_or_harmless(tmp_path, caplog):
    caplog.set_level(logging.ERROR)  # a warning a blow says nothing here
    counts = torture_files(1000, 100, seed=0, folder=tmp_path / "checkpoints")
    assert counts["silent"] == 0
    assert counts["noticed"] + counts["harmless"] == 1100
    assert counts["harmless"] < 10  # the end of the last line of the sums is all that carries nothing


def test_missing_and_stray_files_are_noticed(checkpoints):
    save(checkpoints, 1)
    progress = directory(checkpoints, 1) / "progress.json"
    content = progress.read_bytes()
    progress.unlink()
    with pytest.raises(DamagedCheckpoint, match=r"progress\.json is missing"):
        verify(directory(checkpoints, 1))
    progress.write_bytes(content)
    (directory(checkpoints, 1) / "state" / "stray").touch()
    with pytest.raises(DamagedCheckpoint, match="state/stray was not written"):
        verify(directory(checkpoints, 1))


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_named(checkpoints, caplog):
    save(checkpoints, 1, 2)
    directory(checkpoints, 3).mkdir()  # an empty directory is Orbax's latest step
    (directory(checkpoints, 2) / "progress.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(abstract(tree(0.0))).step == 1
    assert "checkpoints/3 is skipped: SHA256SUMS is missing or cannot be read" in caplog.text
    assert "checkpoints/2 is skipped: progress.json has changed" in caplog.text


def test_no_whole_checkpoint_refuses_and_deletes_nothing(checkpoints):
    save(checkpoints, 1)
    (directory(checkpoints, 1) / "progress.json").write_text("{}")
    before = sorted(checkpoints._directory.rglob("*"))
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        checkpoints.restore(abstract(tree(0.0)))
    assert sorted(checkpoints._directory.rglob("*")) == before


def test_a_damaged_directory_does_not_stop_a_new_save_of_its_step(checkpoints):
    directory(checkpoints, 4).mkdir(parents=True)
    (directory(checkpoints, 4) / "junk").touch()
    save(checkpoints, 4)
    assert checkpoints.restore(abstract(tree(0.0))).step == 4
    assert (checkpoints._directory / "4.damaged" / "junk").exists()


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (lambda root: os.rename(root / "2", root / "7"), "7 is skipped: it belongs to step 2"),
        (lambda root: shutil.copytree(root / "1", root / "9"), "9 is skipped: it belongs to step 1"),
        (lambda root: replace(root / "2", root.with_name("other") / "2"), "2 is skipped: it belongs to run b, not"),
        (lambda root: replace(root / "2", root.with_name("before") / "2"), "2 is skipped: it belongs to run None"),
    ],
    ids=["renamed", "copied", "another run's", "of no run"],
)
def test_a_whole_checkpoint_in_a_wrong_place_is_passed_over(move, said, tmp_path, caplog):
    for folder, run, steps in (("mine", "a", (1, 2)), ("other", "b", (2,)), ("before", None, (2,))):
        made = Checkpoints(tmp_path / folder, run=run)
        save(made, *steps)
        made.close()
    move(tmp_path / "mine")
    mine = Checkpoints(tmp_path / "mine", run="a")
    with caplog.at_level(logging.WARNING):
        assert mine.restore(abstract(tree(0.0))).step in (1, 2)
    assert said in caplog.text
    # Nor does it keep the run from saving that step.
    step = max(mine.steps())
    save(mine, step)
    assert mine.restore(abstract(tree(0.0))).step == step
    mine.close()


def replace(target, source):
    shutil.rmtree(target)
    shutil.copytree(source, target)


@pytest.mark.parametrize(
    "harm",
    [
        lambda old: (old / "progress.json").unlink(),
        lambda old: (old / "progress.json").write_text('{"step": 1, "sco'),
        lambda old: (old / "progress.json").write_text("[]"),
        lambda old: (old / "progress.json").write_bytes(b"\xff"),
        shutil.rmtree,
    ],
    ids=["missing", "truncated", "a list", "no text", "no folder"],
)
def test_an_older_checkpoint_that_is_damaged_does_not_fail_a_save(harm, checkpoints, caplog):
    save(checkpoints, 1, 2)
    harm(directory(checkpoints, 1))
    with caplog.at_level(logging.WARNING):
        save(checkpoints, 3, 4)
    assert checkpoints.restore(abstract(tree(0.0))).step == 4
    assert 2 not in checkpoints.steps()
    assert ("checkpoints/1 is damaged and is kept as it is" in caplog.text) == directory(checkpoints, 1).exists()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs the command sha256sum")
def test_sha256sum_finds_a_good_checkpoint_good_and_a_bad_one_bad(checkpoints):
    save(checkpoints, 1)

    def check(name):
        command = ["sha256sum", "--check", "--strict", "--quiet", name]
        return subprocess.run(command, cwd=directory(checkpoints, 1), capture_output=True).returncode

    assert (check("SHA256SUMS"), check("SHA256SUMS.sha256")) == (0, 0)
    with (directory(checkpoints, 1) / "progress.json").open("a") as file:
        file.write(" ")
    assert check("SHA256SUMS") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t["params"].update(w=jnp.zeros((4, 4))),
            r"params/w is float32\[3, 4\] there, and float32\[4, 4\] here",
        ),
        (lambda t: t["params"].update(w=jnp.zeros((3, 4), jnp.bfloat16)), r"params/w is float32.* and bfloat16"),
        (lambda t: t["params"].update(c=jnp.zeros(1)), r"params/c is absent there"),
        (lambda t: t["params"].pop("b"), r"params/b is int32\[2\] there, and absent here"),
    ],
)
def test_another_form_is_refused_by_leaf(checkpoints, change, message):
    save(checkpoints, 1)
    other = tree(0.0)
    change(other)
    with pytest.raises(UserError, match=message):
        checkpoints.restore(abstract(other))
