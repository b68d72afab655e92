"""torch's side does the work that ours does: the same Lookahead, the same network, the same loss."""

import dataclasses

import numpy as np
import pytest

from benchmarks.rows import Row

pytestmark = pytest.mark.peers

IMAGES = Row("images", "images", "cifar10_resnet18", 10, 2, 0, 0, image_size=32, changes=(("batch_size", 4),))
TEXT = Row("text", "text", "ptb_gru", 50, 2, 0, 0, changes=(("batch_size", 4),))


def test_its_lookahead_is_ours():
    import jax.numpy as jnp
    import optax
    import torch

    import lookahead_jax as la
    from benchmarks.torch_peer import Lookahead

    target = np.linspace(-1, 1, 7)
    theirs = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    optimizer = Lookahead(torch.optim.SGD([theirs], lr=0.3), sync_period=3, slow_step_size=0.5)
    tx = la.lookahead(optax.sgd(0.3), sync_period=3, slow_step_size=0.5)
    params = jnp.zeros(7)
    state = tx.init(params)
    for _ in range(7):
        optimizer.zero_grad()
        ((theirs - torch.from_numpy(target)) ** 2).sum().backward()
        optimizer.step()
        updates, state = tx.update(2 * (params - target), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(theirs.detach().numpy(), params, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("row", [IMAGES, TEXT], ids=["images", "text"])
def test_both_sides_are_given_the_same_examples(row):
    from benchmarks import ours, torch_peer

    split = row.dataset().train
    batches = torch_peer.batches(row, channels_last=True)
    inputs = np.concatenate([x.permute(0, 2, 3, 1).numpy() if row.image_size else x.numpy() for x, _ in batches])
    np.testing.assert_array_equal(inputs, split.inputs)
    np.testing.assert_array_equal(np.concatenate([y.numpy() for _, y in batches]), split.targets.flatten())
    data = ours.make_trainer(row.config, row.dataset()).train_data
    np.testing.assert_array_equal(data.inputs, split.inputs)


def test_a_step_of_the_language_model_takes_the_same_loss():
    """Without dropout and from our weights, the first losses of both sides are equal."""
    import jax
    import torch

    from benchmarks import ours, torch_peer
    from tests.train.models.helpers import path_names
    from tests.train.models.torch_models import torch_layout, torch_name

    config = TEXT.config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.0))
    steps = ours.TrainingSteps(ours.make_trainer(config, TEXT.dataset()))
    params = path_names(jax.device_get(steps.state.params))
    model = torch_peer.LanguageModel(TEXT.classes, config.model.hidden_size, 0.0)
    with torch.no_grad():
        for name, value in params.items():
            model.get_parameter(torch_name(name)).copy_(torch.from_numpy(np.array(torch_layout(name, value))))
    losses = [
        torch.nn.functional.cross_entropy(model(x), y).item() for x, y in torch_peer.batches(TEXT, channels_last=False)
    ]
    assert steps.run(1)[0] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    "row", [IMAGES, dataclasses.replace(IMAGES, kind="evaluate"), TEXT], ids=["train", "evaluate", "text"]
)
def test_a_round_gives_finite_losses(row):
    from benchmarks import torch_peer

    run, said = torch_peer.side(row, frozenset())
    result = run()
    assert np.isfinite(result if isinstance(result, float) else result[0])
    assert said["threads"] >= 1
