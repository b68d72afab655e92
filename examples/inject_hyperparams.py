"""Hyperparameters that change during training without compiling again: k, alpha and the learning rate.

python examples/inject_hyperparams.py
"""

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la


def main(steps: int = 40) -> list[bool]:
    """Minimises a quadratic; returns for each step whether it was a sync."""

    @optax.inject_hyperparams
    def optimizer(learning_rate, sync_period, slow_step_size):
        return la.lookahead(optax.sgd(learning_rate), sync_period, slow_step_size)

    tx = optimizer(learning_rate=0.1, sync_period=5, slow_step_size=0.8)
    params = jnp.linspace(-1.0, 1.0, 8)
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params)  # the gradient of x^2 / 2 is x
        return optax.apply_updates(params, updates), opt_state

    synced = []
    for i in range(steps):
        if i == steps // 2:  # arrays of the dtype that they have: anything else would compile again
            hyperparams = opt_state.hyperparams
            hyperparams["sync_period"] = jnp.asarray(10, hyperparams["sync_period"].dtype)
            hyperparams["slow_step_size"] = jnp.asarray(0.5, hyperparams["slow_step_size"].dtype)
        params, opt_state = step(params, opt_state)
        synced.append(bool(jnp.all(params == la.slow_params(opt_state))))
    print("syncs after steps", [i + 1 for i, sync in enumerate(synced) if sync])
    return synced


if __name__ == "__main__":
    main()
