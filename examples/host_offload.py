"""Slow weights in host memory: Lookahead then uses no accelerator memory between syncs.

    python examples/host_offload.py

With Adam inside, parameters and moments take 3 buffers of the parameters' size, and the gradients one more; the slow
weights would be the fifth. Steps without a sync (``sync=False``) do not touch them, so they may stay in `pinned_host`
memory: the compiled step passes them through unchanged. Only the program of the sync, every k-th step, moves them in
and out. All the library needs for this is the static `sync`; shardings say where the slow weights are.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la

PERIOD = 5


def offloaded(opt_state: la.LookaheadState, memory_kind: str) -> la.LookaheadState:
    """`opt_state` with its slow weights in the given kind of memory, and everything else where it was."""

    def move(x: jax.Array) -> jax.Array:
        return jax.device_put(x, x.sharding.with_memory_kind(memory_kind))

    return opt_state._replace(slow_params=jax.tree.map(move, opt_state.slow_params))


def main(steps: int = 3 * PERIOD, size: int = 1024) -> tuple[jax.Array, la.LookaheadState]:
    """Minimises a quadratic; returns the parameters and the optimizer's state, slow weights on the host."""
    tx = la.lookahead(optax.adam(0.05), PERIOD)
    params = jnp.linspace(-1.0, 1.0, size)
    opt_state = offloaded(tx.init(params), "pinned_host")
    on_host = jax.tree.map(lambda x: x.sharding, opt_state)
    in_device_memory = jax.tree.map(lambda x: x.sharding, offloaded(opt_state, "device"))

    @functools.partial(jax.jit, static_argnames="sync", donate_argnums=(0, 1), out_shardings=(params.sharding, on_host))
    def step(params, opt_state, sync):
        if sync:
            opt_state = jax.device_put(opt_state, in_device_memory)
        updates, opt_state = tx.update(params, opt_state, params, sync=sync)
        return optax.apply_updates(params, updates), opt_state

    for i in range(steps):
        params, opt_state = step(params, opt_state, sync=la.is_sync_step(i + 1, PERIOD))
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(la.slow_params(opt_state))}
    print(f"loss {jnp.sum(params**2) / 2:.4f}, slow weights in {kinds}, parameters in {params.sharding.memory_kind}")
    return params, opt_state


if __name__ == "__main__":
    main()
