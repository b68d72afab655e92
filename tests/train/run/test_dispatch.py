"""Several updates a call, and syncs that the host decides: the run is the same, bit for bit."""

import itertools

import pytest

from tests.train.run import test_nonfinite
from train import experiment
from train.errors import RunFailed
from train.experiment import make_experiment
from train.run.loop import train
from train.run.trainer import Trainer
from train.step.dispatch import LARGE, Dispatch, choose


@pytest.mark.parametrize(
    "dispatch", [Dispatch(), Dispatch(3), Dispatch(1, 5), Dispatch(10, 5), Dispatch(400, 5)], ids=str
)
@pytest.mark.parametrize("per_epoch", [1, 2, 7, 391])
@pytest.mark.parametrize("start", [0, 4])
def test_the_calls_of_two_epochs_sync_at_each_kth_update_and_end_each_epoch_once(dispatch, per_epoch, start):
    done, since, syncs, lasts = start % per_epoch, start if dispatch.sync_period else 0, [], []
    known = set(dispatch.calls(per_epoch))
    while done < 2 * per_epoch:
        call = dispatch.next_call(per_epoch - done % per_epoch, since)
        assert call in known
        for i in range(call.count):
            # The optimizer's own count decides about an epoch's last update, as it would about all of them.
            told = call.sync if call.sync is not None else bool(call.period) and (i + 1) % call.period == 0
            due = bool(dispatch.sync_period) and since + 1 == dispatch.sync_period
            if call.sync is not None or call.period:
                assert told == due
            since = 0 if due else since + 1 if dispatch.sync_period else 0
            done += 1
            syncs += [done] * due
            lasts += [done] * call.last
    assert lasts == [per_epoch, 2 * per_epoch]
    assert all(later - earlier == 5 for earlier, later in itertools.pairwise(syncs))


@pytest.mark.parametrize(
    ("asked", "platform", "parameters", "sync_period", "expected"),
    [
        (0, "cpu", 11_000_000, 5, Dispatch(1, 0)),
        (0, "gpu", 11_000_000, 5, Dispatch(1, 5)),
        (0, "tpu", 11_000_000, 6, Dispatch(18, 6)),
        (0, "tpu", 11_000_000, 500, Dispatch(500, 500)),
        (0, "tpu", LARGE, 5, Dispatch(20, 0)),
        (0, "gpu", 11_000_000, 0, Dispatch(1, 0)),
        (4, "gpu", 11_000_000, 5, Dispatch(4, 0)),
        (10, "gpu", 11_000_000, 5, Dispatch(10, 5)),
        (3, "cpu", 11_000_000, 5, Dispatch(3, 0)),
    ],
)
def test_the_dispatch_follows_the_platform_and_the_size_of_the_model(
    asked, platform, parameters, sync_period, expected
):
    assert choose(asked, platform=platform, parameters=parameters, sync_period=sync_period) == expected


@pytest.fixture
def whole(small_config, tmp_path):
    """A run of one update a call, in one program."""
    train(small_config, tmp_path / "whole", quiet=True)
    return tmp_path / "whole"


# As on accelerators, on this machine: two programs; whole periods in one; and a scan in which the optimizer counts.
@pytest.mark.optimized  # the same bits from several programs
@pytest.mark.parametrize("dispatch", [Dispatch(1, 5), Dispatch(5, 5), Dispatch(3)], ids=str)
def test_a_run_is_the_same_whole_and_stopped_within_its_calls(
    dispatch, small_config, whole, tmp_path, monkeypatch, ctrl_c_at, assert_same_run
):
    monkeypatch.setattr(experiment, "choose", lambda *_, **__: dispatch)
    calls = []
    train_of = Trainer.train

    def watched(self, state, metrics, order, call):
        calls.append(call)
        return train_of(self, state, metrics, order, call)

    monkeypatch.setattr(Trainer, "train", watched)
    train(small_config, tmp_path / "at_once", quiet=True)
    assert_same_run(whole, tmp_path / "at_once")
    assert sum(call.count for call in calls) == 21
    assert any(call.count > 1 for call in calls) == (dispatch.steps > 1)
    assert any(call.sync is not None or call.period for call in calls) == (dispatch.sync_period > 0)
    ctrl_c_at.extend([2, 8, 13, 15])
    starts = 0
    while train(small_config, tmp_path / "stopped", quiet=True).status == "stopped":
        starts += 1
    assert starts == 4
    assert_same_run(whole, tmp_path / "stopped")


def test_a_loss_that_is_not_finite_is_found_within_its_call(small_config, replace, tmp_path, monkeypatch, final_tree):
    config = replace(small_config, steps_per_dispatch=4)
    trainer = Trainer(make_experiment(config))
    order = trainer.order(trainer.init(config.seed))
    monkeypatch.setattr(test_nonfinite, "POISONED", int(order[2 * 16 + 5]))  # the third of the first call's updates
    test_nonfinite.poison_batches(monkeypatch)
    with pytest.raises(RunFailed, match=r"after step 3 \(epoch 1\) a loss.*checkpoint 2 "):
        train(config, tmp_path, quiet=True)
    assert int(final_tree(tmp_path)["['state']['step']"]) == 2


def test_the_setting_reaches_the_loop_and_makes_no_other_run(small_config, replace, whole):
    config = replace(small_config, steps_per_dispatch=2)
    assert Trainer(make_experiment(config)).dispatch == Dispatch(2)
    assert train(config, whole, quiet=True).status == "finished"
