"""Lookahead in a loop of your own: Optax, and nothing else.

python examples/optax_loop.py
"""

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la


def make_data() -> tuple[jax.Array, jax.Array]:
    """A noisy line: y = 3x - 1."""
    key_x, key_noise = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (256,))
    return x, 3 * x - 1 + 0.1 * jax.random.normal(key_noise, (256,))


def loss_fn(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((params["slope"] * x + params["offset"] - y) ** 2)


def main(steps: int = 200) -> dict[str, jax.Array]:
    """Fits the line; returns the slow weights."""
    x, y = make_data()
    params = {"slope": jnp.zeros(()), "offset": jnp.zeros(())}
    # Clipping comes before Lookahead: nothing may change the updates after it.
    tx = optax.chain(optax.clip_by_global_norm(1.0), la.lookahead(optax.adam(0.05), sync_period=5, slow_step_size=0.8))
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    for i in range(steps):
        params, opt_state, loss = step(params, opt_state)
        if (i + 1) % 50 == 0:
            print(f"step {i + 1}: loss {loss:.4f}")
    slow = la.slow_params(opt_state)
    print(f"slope {slow['slope']:.2f}, offset {slow['offset']:.2f}")
    return slow


if __name__ == "__main__":
    main()
