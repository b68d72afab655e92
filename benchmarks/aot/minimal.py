"""A textbook training step for each model: what the system's own steps are compared with.

Plain Flax layers, one expression for the loss, the same optimizer, batches gathered from data on the device by an index
that the caller gives. No augmentation, no sums of metrics, no lowering or gradient of our own.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.aot.chips import Chip, compile_for, on_chip
from train.step.recipe import Recipe


class _Block(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.features, (3, 3), self.stride, padding=1, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9)(y))
        y = nn.Conv(self.features, (3, 3), padding=1, use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=False, momentum=0.9)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), self.stride, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=False, momentum=0.9)(x)
        return nn.relu(x + y)


class _ResNet18(nn.Module):
    stem: str

    @nn.compact
    def __call__(self, x):
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = nn.Conv(64, (size, size), stride, padding=size // 2, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9)(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # type: ignore[arg-type]
        for stage, features in enumerate((64, 128, 256, 512)):
            for block in range(2):
                x = _Block(features, 2 if stage and not block else 1)(x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class _CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        # Not bilinear, by matrix products: the H100's compiler, which cannot try kernels out here, finds none for them.
        x = jax.image.resize(x, (x.shape[0], 224, 224, 3), "nearest")
        for layer, (features, size) in enumerate(((96, 7), (128, 5), (256, 7))):
            x = nn.relu(nn.Conv(features, (size, size), 2, padding="VALID")(x))
            x = nn.BatchNorm(use_running_average=False, momentum=0.9)(x)
            if layer == 0:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(20)(x.reshape(x.shape[0], -1))


class _GRU(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x: Any = nn.Dropout(0.5, deterministic=False)(nn.Embed(10_000, 50)(tokens))
        for _ in range(2):
            x = nn.RNN(nn.GRUCell(50))(x)
        return nn.Dense(10_000)(nn.Dropout(0.5, deterministic=False)(x))


class _BiLSTM(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x: Any = nn.Dropout(0.2, deterministic=False)(nn.Embed(10_000, 128)(tokens))
        for _ in range(2):
            x = nn.Bidirectional(nn.RNN(nn.OptimizedLSTMCell(128)), nn.RNN(nn.OptimizedLSTMCell(128)))(x)
        x = nn.relu(nn.Dense(128)(nn.Dropout(0.2, deterministic=False)(x)))
        return nn.Dense(2)(jnp.mean(x, axis=1))


MODELS: dict[str, nn.Module] = {
    "imagenet": _ResNet18("imagenet"),
    "cifar": _ResNet18("cifar"),
    "cnn": _CNN(),
    "gru": _GRU(),
    "bilstm": _BiLSTM(),
}


def compile_minimal_step(chip: Chip, name: str, recipe: Recipe) -> tuple[Any, float, Any]:
    """The textbook step with the recipe's optimizer, data and batch: compiled, seconds, donated arguments."""
    model, tx = MODELS[name], recipe.tx
    images = recipe.task == "image"

    def read(inputs):
        return (inputs.astype(jnp.float32) - 120.0) / 64.0 if images else inputs

    def init(key, data):
        variables = model.init({"params": key, "dropout": key}, read(data.inputs[:1]))
        stats = variables.get("batch_stats", {})
        return variables["params"], stats, tx.init(variables["params"])

    def step(params, batch_stats, opt_state, data, index, key):
        inputs, targets = read(data.inputs[index]), data.targets[index]

        def loss(params):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updated = model.apply(variables, inputs, mutable=["batch_stats"], rngs={"dropout": key})
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return jnp.mean(losses), updated.get("batch_stats", {})

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, state, value

    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    donated = on_chip(chip, jax.eval_shape(init, key, recipe.train_data))
    index = jax.ShapeDtypeStruct((recipe.batch_size,), jnp.int32)
    args = (*donated, *on_chip(chip, (recipe.train_data, index, key)))
    return *compile_for(chip, step, args, (0, 1, 2)), donated
