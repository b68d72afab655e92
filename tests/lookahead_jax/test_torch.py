"""The same trajectories as torch's optimizers under a torch Lookahead written from the paper's algorithm."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests.lookahead_jax.problems import gradient, run, weights

pytestmark = pytest.mark.peers

K, ALPHA, STEPS = 5, 0.8, 200


def torch_lookahead(make_optimizer, mode="maintain"):
    """Algorithm 1 of the paper around a torch optimizer: live and slow weights after each step."""
    import torch

    params = torch.tensor(weights(), dtype=torch.float64, requires_grad=True)
    optimizer = make_optimizer([params])
    slow = params.detach().clone()
    pulled, live_after, slow_after = {}, [], []
    for i in range(STEPS):
        params.grad = torch.from_numpy(gradient(params.detach().numpy(), i))
        optimizer.step()
        if i % K == K - 1:
            with torch.no_grad():
                slow += ALPHA * (params - slow)
                params.copy_(slow)
                for name, value in optimizer.state[params].items():
                    if value is None or mode == "maintain":
                        continue
                    if mode == "reset":
                        value.zero_()  # the count of the bias correction, "step", as well
                    elif name == "step":
                        continue
                    else:
                        value.mul_(ALPHA).add_((1 - ALPHA) * pulled.get(name, torch.zeros_like(value)))
                        pulled[name] = value.clone()
        live_after.append(params.detach().numpy().copy())
        slow_after.append(slow.numpy().copy())
    return np.stack([live_after, slow_after])


# optax.radam adds eps to the root of the bias-corrected second moment, torch to that of the raw one: eps is 0 here.
CASES = {
    "sgd": (lambda t, p: t.optim.SGD(p, 0.1), lambda: optax.sgd(0.1)),
    "momentum": (lambda t, p: t.optim.SGD(p, 0.05, momentum=0.9), lambda: optax.sgd(0.05, 0.9)),
    "nesterov": (
        lambda t, p: t.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
        lambda: optax.sgd(0.05, 0.9, nesterov=True),
    ),
    "sgd with L2 decay": (
        lambda t, p: t.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05, 0.9)),
    ),
    "adam": (lambda t, p: t.optim.Adam(p, 0.05), lambda: optax.adam(0.05)),
    "radam": (lambda t, p: t.optim.RAdam(p, 0.05, eps=0.0), lambda: optax.radam(0.05, eps=0.0)),
    "radam with decoupled decay": (
        lambda t, p: t.optim.RAdam(p, 0.05, eps=0.0, weight_decay=0.1, decoupled_weight_decay=True),
        lambda: optax.chain(
            optax.scale_by_radam(eps=0.0), optax.add_decayed_weights(0.1), optax.scale_by_learning_rate(0.05)
        ),
    ),
}


def relative_error(actual, expected):
    return np.max(np.abs(np.stack(actual) - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("name", CASES)
def test_trajectories_equal_torchs_in_float64_over_200_steps(x64, name):
    import torch

    peer, inner = CASES[name]
    expected = torch_lookahead(lambda p: peer(torch, p))
    actual = run(la.lookahead(inner(), K, ALPHA), jnp.asarray(weights()), STEPS)
    assert relative_error(actual, expected) < 1e-9


@pytest.mark.parametrize("mode", ["maintain", "reset", "pullback"])
@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "radam"])
def test_momentum_modes_equal_the_same_operations_on_torchs_buffers(x64, name, mode):
    import torch

    peer, inner = CASES[name]
    expected = torch_lookahead(lambda p: peer(torch, p), mode)
    tx = la.lookahead(inner(), K, ALPHA, fast_state_at_sync=mode)
    assert relative_error(run(tx, jnp.asarray(weights()), STEPS), expected) < 1e-9


def test_ranger_equals_torchs_radam_with_decoupled_decay_under_lookahead(x64):
    import torch

    expected = torch_lookahead(
        lambda p: torch.optim.RAdam(p, 0.05, eps=0.0, weight_decay=0.1, decoupled_weight_decay=True)
    )
    actual = run(la.ranger(0.05, eps=0.0, weight_decay=0.1), jnp.asarray(weights()), STEPS)
    assert relative_error(actual, expected) < 1e-9
