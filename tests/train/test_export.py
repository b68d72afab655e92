"""Trained weights out of a workdir: a function to logits, and files that other programs read."""

import json
import struct
import subprocess
import sys

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import train
from tests.train.runs import train_some
from train.config import Config, ModelConfig, OptimizerConfig
from train.errors import UserError
from train.experiment import load_dataset
from train.export.__main__ import main
from train.export.formats import FORMATS, safetensors_bytes
from train.run.loop import train as train_run
from train.run.records import read_rows


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of 7 epochs of 3 steps, whose best checkpoint is not among the last two: the rate explodes."""
    folder = tmp_path_factory.mktemp("load") / "run"
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.1, lookahead=True, sync_period=4, warmup_epochs=6.9)
    settings = {"epochs": 7, "batch_size": 32, "train_examples": 96, "test_examples": 50, "validation_examples": 60}
    config = Config(
        dataset="digits", devices=1, ema_decay=0.5, model=ModelConfig(name="small_cnn"), optimizer=optimizer, **settings
    )
    train_run(config, folder, quiet=True)
    return folder, config


def loss_and_accuracy(model, split):
    logits = model(split.inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, split.targets)
    return float(losses.mean()), float(np.mean(np.argmax(logits, -1) == split.targets))


def test_each_kind_of_weights_scores_as_its_run_said(workdir, monkeypatch):
    folder, config = workdir
    dataset, rows = load_dataset(config), read_rows(folder / "metrics.csv")
    monkeypatch.setattr("train.data.digits.load_digits", lambda: pytest.fail("the run's data was read"))
    for weights, prefix in (("live", ""), ("slow", "slow_"), ("ema", "ema_"), (None, "slow_")):
        model = train.load_model(folder, weights=weights)
        loss, accuracy = loss_and_accuracy(model, dataset.test)
        assert loss == pytest.approx(rows[-1][f"{prefix}test_loss"], rel=1e-5)
        assert accuracy == pytest.approx(rows[-1][f"{prefix}test_accuracy"], abs=1e-6)
        assert (model.step, model.class_names) == (21, tuple("0123456789"))

    best = train.load_model(str(folder), weights="best")
    epoch = max(rows, key=lambda row: (row["slow_validation_accuracy"], -row["epoch"]))
    assert best.step == epoch["step"]
    assert loss_and_accuracy(best, dataset.validation)[0] == pytest.approx(epoch["slow_validation_loss"], rel=1e-5)


def test_what_other_programs_read_are_the_same_arrays(workdir, tmp_path, capsys):
    folder, _ = workdir
    expected = jax.tree.map(np.asarray, train.load_model(folder, weights="live").variables)
    for format in FORMATS:
        assert main([str(folder), str(tmp_path / format), "--weights=live", f"--format={format}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'orbax'}: live weights after step 21"

    data = (tmp_path / "safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, arrays = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert header.pop("__metadata__")["weights"] == "live"
    assert sum(end - start for start, end in (entry["data_offsets"] for entry in header.values())) == len(arrays)
    flat = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        flat[tuple(name.split("."))] = np.frombuffer(arrays[start:end], "<f4").reshape(entry["shape"])
    found = {
        "safetensors": flax.traverse_util.unflatten_dict(flat),
        "msgpack": flax.serialization.msgpack_restore((tmp_path / "msgpack").read_bytes()),
        "orbax": ocp.StandardCheckpointer().restore((tmp_path / "orbax").absolute()),
    }
    for variables in found.values():
        assert jax.tree.structure(variables) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, variables, expected)

    assert main([str(folder), str(tmp_path / "msgpack"), "--format=msgpack"]) == 2
    assert "exists; choose another name" in capsys.readouterr().err


def test_recalibrated_statistics_are_made_again(small_config, replace, tmp_path):
    config = replace(small_config, epochs=1, recalibrate_batch_stats=True)
    row = train_run(config, tmp_path, quiet=True).rows[-1]
    model = train.load_model(tmp_path)
    assert loss_and_accuracy(model, load_dataset(config).test)[0] == pytest.approx(row["slow_test_loss"], rel=1e-5)
    with pytest.raises(UserError, match=r"has no best checkpoint: the run had no validation set"):
        train.load_model(tmp_path, weights="best")
    with pytest.raises(UserError, match=r"has no ema weights: its config\.ema_decay is off"):
        train.load_model(tmp_path, weights="ema")
    (tmp_path / "checkpoints").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="has no checkpoints; a study keeps those of finished runs with --keep_chec"):
        train.load_model(tmp_path)


def test_best_without_a_scored_checkpoint_is_refused_and_not_the_newest(small_config, replace, tmp_path, monkeypatch):
    config = replace(small_config, validation_examples=30)
    assert train_some(config, tmp_path, 3, monkeypatch).status == "stopped"  # in an epoch that has no score yet
    assert train.load_model(tmp_path, weights="live").step == 3
    with pytest.raises(UserError, match="has no best checkpoint yet: none was saved with a validation score"):
        train.load_model(tmp_path, weights="best")


def test_other_dtypes_have_their_names_and_what_has_none_is_refused():
    tensors = {"a": np.asarray([1.5, -2.0], jnp.bfloat16), "b": np.asarray([True, False])}
    data = safetensors_bytes(tensors, {})
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    # As the format's page names them: https://github.com/huggingface/safetensors#format
    assert [header[name]["dtype"] for name in tensors] == ["BF16", "BOOL"]
    assert data[8 + length :] == tensors["a"].tobytes() + tensors["b"].tobytes()
    with pytest.raises(UserError, match="c is complex64, which safetensors has no name for; use --format=msgpack"):
        safetensors_bytes({"c": np.ones(2, np.complex64)}, {})


def test_a_name_of_ones_own_needs_the_file_that_registers_it(tmp_path, capsys):
    """As commands, since registrations are the process's."""
    file = tmp_path / "own.py"
    file.write_text(
        "import optax, train\nfrom train.config import Config, ModelConfig, OptimizerConfig\n\n"
        "@train.register_optimizer('export_own')\ndef own(rate, config):\n    return optax.sgd(rate)\n\n"
        "def get_config():\n    return Config(dataset='digits', epochs=1, batch_size=32, train_examples=64,\n"
        "                  model=ModelConfig(name='small_cnn'), optimizer=OptimizerConfig(name='export_own'))\n"
    )
    run = [sys.executable, "-m", "train", f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    subprocess.run(run, check=True, capture_output=True)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "export_own" in capsys.readouterr().err
    assert main([str(tmp_path / "run"), str(tmp_path / "out"), f"--register={file}"]) == 0


def test_an_out_that_cannot_be_written_is_one_line(workdir, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(workdir[0]), str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "has no run to load a model from" in capsys.readouterr().err


def test_a_name_that_is_not_known_is_answered_with_how_to_make_it_known(workdir, tmp_path):
    folder, _ = workdir
    for name in ("config.json", "model.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    settings = json.loads((folder / "config.json").read_text())
    for changed, message in (
        ({"dataset": "mine"}, "'mine' is not known.*if a file registers it, give --register=FILE"),
        ({"epochs": 0}, "epochs=0 must be at least 1$"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(UserError, match=message):
            train.load_model(tmp_path)
