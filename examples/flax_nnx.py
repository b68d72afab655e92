"""Lookahead in an nnx.Optimizer.

python examples/flax_nnx.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import lookahead_jax as la


class Classifier(nnx.Module):
    """Two dense layers."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(2, 16, rngs=rngs)
        self.out = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(x)))


@nnx.jit
def train_step(model: Classifier, optimizer: nnx.Optimizer, x: jax.Array, labels: jax.Array) -> None:
    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()

    optimizer.update(model, nnx.grad(loss_fn)(model))


def slow_model(model: Classifier, optimizer: nnx.Optimizer) -> Classifier:
    """A copy of the model that has the slow weights."""
    slow = nnx.clone(model)
    nnx.update(slow, la.slow_params(optimizer.opt_state))
    return slow


def main(steps: int = 200) -> float:
    """Trains the classifier; returns the accuracy of the slow weights."""
    x = jax.random.normal(jax.random.key(0), (512, 2))
    labels = (jnp.sum(x**2, axis=1) > 1.4).astype(jnp.int32)
    model = Classifier(nnx.Rngs(0))
    tx = la.lookahead(optax.adam(1e-2), sync_period=5, slow_step_size=0.8)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(steps):
        train_step(model, optimizer, x, labels)
    accuracy = float(jnp.mean(jnp.argmax(slow_model(model, optimizer)(x), axis=1) == labels))
    print(f"accuracy of the slow weights: {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
