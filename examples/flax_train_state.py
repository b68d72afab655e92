"""Lookahead in a Flax TrainState.

python examples/flax_train_state.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import lookahead_jax as la


class Classifier(nn.Module):
    """Two dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(2)(nn.relu(nn.Dense(16)(x)))


def make_data() -> tuple[jax.Array, jax.Array]:
    """Points inside and outside of a circle."""
    points = jax.random.normal(jax.random.key(0), (512, 2))
    return points, (jnp.sum(points**2, axis=1) > 1.4).astype(jnp.int32)


@jax.jit
def train_step(state: TrainState, x: jax.Array, labels: jax.Array) -> TrainState:
    def loss_fn(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


def main(steps: int = 200) -> float:
    """Trains the classifier; returns the accuracy of the slow weights."""
    x, labels = make_data()
    model = Classifier()
    params = model.init(jax.random.key(1), x)["params"]
    tx = la.lookahead(optax.adam(1e-2), sync_period=5, slow_step_size=0.8)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    for _ in range(steps):
        state = train_step(state, x, labels)
    logits = model.apply({"params": la.slow_params(state.opt_state)}, x)
    accuracy = float(jnp.mean(jnp.argmax(logits, axis=1) == labels))
    print(f"accuracy of the slow weights: {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
