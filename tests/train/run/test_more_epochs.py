"""A finished run with more epochs is the run that had so many from the start, bit for bit."""

import json
import shutil

import pytest

from train.config import to_dict
from train.errors import UserError
from train.run.loop import train
from train.run.records import read_rows


def test_a_step_schedule_goes_on(small_config, replace, tmp_path, assert_same_run, ctrl_c_at):
    shorter = replace(small_config, epochs=1)
    train(small_config, tmp_path / "whole", quiet=True)
    train(shorter, tmp_path / "run", quiet=True)
    shutil.copytree(tmp_path / "run", tmp_path / "killed")

    ctrl_c_at.append(9)
    assert train(small_config, tmp_path / "run", quiet=True).status == "stopped"
    assert train(small_config, tmp_path / "run", quiet=True).status == "finished"
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == to_dict(small_config)
    assert [row["epoch"] for row in read_rows(tmp_path / "run" / "metrics.csv")] == [1, 2, 3]

    # As a kill leaves it that came after the new config.json: run.json still says that the run is finished.
    (tmp_path / "killed" / "config.json").write_text(json.dumps(to_dict(small_config)))
    assert train(small_config, tmp_path / "killed", quiet=True).status == "finished"
    assert_same_run(tmp_path / "whole", tmp_path / "killed")

    config = tmp_path / "run" / "config.json"
    whole = config.read_text()
    config.write_text(json.dumps(to_dict(shorter) | {"epochs": "1"}))
    with pytest.raises(UserError, match="epochs was '1', is now 3; choose another workdir"):
        train(small_config, tmp_path / "run", quiet=True)
    config.write_text(whole)

    with pytest.raises(UserError, match="epochs was 3, is now 1; choose another workdir"):
        train(shorter, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="epochs was 3, is now 4; seed was 7, is now 8"):
        train(replace(small_config, epochs=4, seed=8), tmp_path / "run", quiet=True)


def test_a_cosine_restarts_if_told_to(small_config, replace, tmp_path, assert_same_run):
    cosine = replace(small_config, epochs=2, optimizer={"schedule": "cosine", "decay_epochs": (), "warmup_epochs": 0.5})
    train(cosine, tmp_path / "run", quiet=True)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(
        UserError, match=r"the cosine schedule spans all of them; add --config\.optimizer\.schedule_epochs=2"
    ):
        train(replace(cosine, epochs=3), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="is now"):
        train(replace(cosine, epochs=3, optimizer={"schedule_epochs": 1}), tmp_path / "run", quiet=True)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before

    longer = replace(cosine, epochs=3, optimizer={"schedule_epochs": 2})
    train(longer, tmp_path / "run", quiet=True)
    train(longer, tmp_path / "whole", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    rates = [row["learning_rate"] for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert rates[1] < rates[0] / 2 < rates[2]
