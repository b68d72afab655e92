"""Lookahead for a part of the model: weights have slow copies, the embedding does not.

python examples/masked.py
"""

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la


def main(steps: int = 33) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Trains a bag of words; returns the live weights, and the slow ones with the live embedding."""
    keys = jax.random.split(jax.random.key(0), 3)
    tokens = jax.random.randint(keys[0], (64, 8), 0, 100)
    labels = jnp.any(tokens < 10, axis=1).astype(jnp.int32)
    params = {
        "embedding": 0.1 * jax.random.normal(keys[1], (100, 16)),
        "dense": 0.1 * jax.random.normal(keys[2], (16, 2)),
    }
    # A large embedding that is updated in few rows is not worth a second copy in memory.
    tx = optax.partition(
        {"lookahead": la.lookahead(optax.adam(1e-2)), "plain": optax.adam(1e-2)},
        {"embedding": "plain", "dense": "lookahead"},
    )
    opt_state = tx.init(params)

    def loss_fn(params):
        logits = params["embedding"][tokens].mean(axis=1) @ params["dense"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(steps):
        params, opt_state = step(params, opt_state)
    slow = la.slow_params(opt_state, params)  # the live weights stand in for what has no slow copy
    print(f"loss with live weights {loss_fn(params):.3f}, with slow weights {loss_fn(slow):.3f}")
    return params, slow


if __name__ == "__main__":
    main()
