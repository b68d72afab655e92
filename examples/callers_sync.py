"""Syncs when the loop says so: at the end of every epoch, and by programs that know whether they sync.

python examples/callers_sync.py
"""

import functools

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la

PERIOD = 5


def main(epochs: int = 3, steps_per_epoch: int = 12) -> list[int]:
    """Minimises a quadratic; returns the steps that were syncs."""
    tx = la.lookahead(optax.adam(0.05), PERIOD, 0.8)
    params = jnp.linspace(-1.0, 1.0, 8)
    opt_state = tx.init(params)

    # `sync` is a Python bool, so there are two programs. The one without a sync does not touch the slow weights.
    @functools.partial(jax.jit, static_argnames="sync")
    def step(params, opt_state, sync):
        updates, opt_state = tx.update(params, opt_state, params, sync=sync)
        return optax.apply_updates(params, updates), opt_state

    synced = []
    for epoch in range(epochs):
        for i in range(1, steps_per_epoch + 1):
            # The last step of an epoch always syncs, so that the evaluation after it is one of the slow weights.
            sync = la.is_sync_step(i, PERIOD) or i == steps_per_epoch
            params, opt_state = step(params, opt_state, sync=sync)
            if sync:
                synced.append(epoch * steps_per_epoch + i)
        assert jnp.all(params == la.slow_params(opt_state))
        print(f"epoch {epoch + 1}: loss {jnp.sum(params**2) / 2:.4f}, of live and slow weights alike")
    return synced


if __name__ == "__main__":
    main()
