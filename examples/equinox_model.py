"""Lookahead around an Equinox model: the whole model is the tree of parameters.

pip install equinox
python examples/equinox_model.py
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la


def main(steps: int = 200) -> float:
    """Trains a small network; returns the accuracy of the slow weights."""
    x = jax.random.normal(jax.random.key(0), (512, 2))
    labels = (jnp.sum(x**2, axis=1) > 1.4).astype(jnp.int32)
    model = eqx.nn.MLP(in_size=2, out_size=2, width_size=16, depth=1, key=jax.random.key(1))
    tx = la.lookahead(optax.adam(1e-2), sync_period=5, slow_step_size=0.8)
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), labels).mean()

    @eqx.filter_jit
    def step(model, opt_state):
        updates, opt_state = tx.update(
            eqx.filter_grad(loss_fn)(model), opt_state, eqx.filter(model, eqx.is_inexact_array)
        )
        return eqx.apply_updates(model, updates), opt_state

    for _ in range(steps):
        model, opt_state = step(model, opt_state)
    slow = la.slow_params(opt_state, model)  # activations and sizes are the model's own
    accuracy = float(jnp.mean(jnp.argmax(jax.vmap(slow)(x), axis=1) == labels))
    print(f"accuracy of the slow weights: {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
