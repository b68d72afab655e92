"""BatchNorm statistics of a batch alone, whoever's BatchNorm it is, and their mean over batches."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import Config, ModelConfig, validate
from train.experiment import make_experiment
from train.models.normalization import BatchNorm
from train.run.trainer import Trainer
from train.step.recalibration import batch_statistics, recalibrate


class Theirs(nn.Module):
    """Flax's own BatchNorm, whose momentum and variance are not ours."""

    momentum: float

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(x)


class Ours(nn.Module):
    momentum: float

    @nn.compact
    def __call__(self, x, train):
        return BatchNorm(momentum=self.momentum)(x, train)


@pytest.mark.parametrize(("make", "ddof"), [(Theirs, 0), (Ours, 1)])
@pytest.mark.parametrize("momentum", [0.99, 0.9, 0.0])
def test_they_are_the_batchs_whatever_the_momentum(make, ddof, momentum):
    x = 3 * np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32) + 1
    model = make(momentum)
    variables = model.init(jax.random.PRNGKey(0), x, train=False)
    # The running statistics are given for their structure, and do not count.
    stats = jax.tree.map(lambda leaf: leaf + 5, variables["batch_stats"])
    found = jax.jit(lambda stats: batch_statistics(model, variables.get("params", {}), stats, x, jax.random.PRNGKey(1)))
    (layer,) = found(stats).values()
    np.testing.assert_allclose(layer["mean"], x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer["var"], x.var((0, 1, 2), ddof=ddof), rtol=1e-5)


class Dropping(nn.Module):
    """Ones with dropout, then flax's BatchNorm: its mean is the share of what is kept, times two."""

    @nn.compact
    def __call__(self, x, train):
        dropped = nn.Dropout(0.5, deterministic=not train)(jnp.ones(x.shape[0]))
        return nn.BatchNorm(use_running_average=not train, use_scale=False, use_bias=False)(dropped[:, None])


def test_each_batch_has_the_dropout_of_its_own_step():
    config = Config(dataset="digits", batch_size=10, train_examples=40, devices=1, model=ModelConfig(name="small_cnn"))
    experiment = make_experiment(validate(config))
    recipe = dataclasses.replace(experiment.recipe, model=Dropping(), recalibration_batches=3)
    trainer = Trainer(experiment)
    state = trainer.init(0)
    stats = {"BatchNorm_0": {"mean": jnp.zeros(1), "var": jnp.zeros(1)}}
    found = recalibrate(recipe, {}, stats, state.key, jnp.int32(4), trainer.train_data)["BatchNorm_0"]["mean"]
    # What three steps of training drop.
    dropout_key = jax.random.split(state.key, 3)[2]
    inputs = jnp.zeros((10, 1))
    means = [
        batch_statistics(Dropping(), {}, stats, inputs, jax.random.fold_in(dropout_key, step))["BatchNorm_0"]["mean"]
        for step in (4, 5, 6)
    ]
    assert len({float(mean[0]) for mean in means}) > 1
    np.testing.assert_allclose(found, np.mean(means, axis=0), rtol=1e-6)
