"""The report's optimizers against plain NumPy loops and torch.optim, and its schedule against its own log."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.reference import Adam, RAdam, Sgd, trajectory
from train.config import OptimizerConfig
from train.optimizers import make_inner_optimizer, make_schedule

STEPS = 40
RATE, DECAY = 0.05, 0.01


def gradient(params, step):
    """A gradient that depends on both, so that an error in either is carried on."""
    return np.sin(3.0 * params + step) + 0.5 * params


CASES = {
    "sgd": (OptimizerConfig(name="sgd"), lambda: Sgd(RATE, weight_decay=DECAY)),
    "momentum": (OptimizerConfig(name="sgd", momentum=0.9), lambda: Sgd(RATE, momentum=0.9, weight_decay=DECAY)),
    "nesterov": (
        OptimizerConfig(name="sgd", momentum=0.9, nesterov=True),
        lambda: Sgd(RATE, momentum=0.9, nesterov=True, weight_decay=DECAY),
    ),
    "adam": (OptimizerConfig(name="adam"), lambda: Adam(RATE, weight_decay=DECAY)),
    "radam": (OptimizerConfig(name="radam"), lambda: RAdam(RATE, weight_decay=DECAY, eps_on="raw")),
}


def ours(config, start):
    config.weight_decay = DECAY
    tx = make_inner_optimizer(config, optax.constant_schedule(RATE))
    params, state = jnp.asarray(start), tx.init(jnp.asarray(start))
    update = jax.jit(tx.update)
    for step in range(STEPS):
        updates, state = update(jnp.asarray(gradient(np.asarray(params), step)), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


@pytest.mark.parametrize("name", CASES)
def test_optimizer_follows_the_numpy_loop(name, x64):
    config, reference = CASES[name]
    start = np.linspace(-2.0, 2.0, 9)
    expected = trajectory(reference(), start, gradient, STEPS)[0][-1]
    np.testing.assert_allclose(ours(config, start), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_optimizer_keeps_float32_accuracy(name):
    config, reference = CASES[name]
    start = np.linspace(-2.0, 2.0, 9, dtype=np.float32)
    expected = trajectory(reference(), start.astype(float), gradient, STEPS)[0][-1]
    # RAdam's first rectified steps divide numbers near zero: the place where float32 needs expm1.
    np.testing.assert_allclose(ours(config, start), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_optimizer_equals_torch(name, x64):
    import torch

    config, _ = CASES[name]
    start = np.linspace(-2.0, 2.0, 9)
    params = torch.tensor(start, requires_grad=True)
    if config.name == "sgd":
        peer = torch.optim.SGD([params], RATE, momentum=config.momentum, nesterov=config.nesterov, weight_decay=DECAY)
    elif config.name == "adam":
        peer = torch.optim.Adam([params], RATE, weight_decay=DECAY)
    else:
        peer = torch.optim.RAdam([params], RATE, weight_decay=DECAY, decoupled_weight_decay=True)
    for step in range(STEPS):
        params.grad = torch.tensor(gradient(params.detach().numpy(), step))
        peer.step()
    # torch leaves eps unscaled by the bias correction in another place: 1e-8 of difference and no more.
    np.testing.assert_allclose(ours(config, start), params.detach().numpy(), rtol=1e-6, atol=1e-7)


def test_report_schedule_drops_one_epoch_late():
    config = OptimizerConfig(learning_rate=0.1, decay_epochs=(60, 120, 160), decay_factor=0.2, decay_delay=1)
    schedule = make_schedule(config, steps_per_epoch=391, epochs=200)
    rates = [float(schedule((epoch - 1) * 391)) for epoch in (1, 61, 62, 121, 122, 161, 162, 200)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008], rtol=1e-6)
    assert float(schedule(61 * 391 - 1)) == pytest.approx(0.1)


def test_correct_schedule_drops_when_the_epochs_are_done():
    config = OptimizerConfig(learning_rate=0.1, decay_epochs=(2,), decay_factor=0.5)
    schedule = make_schedule(config, steps_per_epoch=10, epochs=4)
    assert float(schedule(19)) == pytest.approx(0.1)
    assert float(schedule(20)) == pytest.approx(0.05)


def test_cosine_schedule_ends_at_zero():
    schedule = make_schedule(OptimizerConfig(learning_rate=0.1, schedule="cosine"), steps_per_epoch=10, epochs=4)
    np.testing.assert_allclose([float(schedule(s)) for s in (0, 20, 40)], [0.1, 0.05, 0.0], atol=1e-8)
