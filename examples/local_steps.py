"""Two workers that train on their own and meet at each sync: DiLoCo, here on two devices.

JAX_NUM_CPU_DEVICES=2 python examples/local_steps.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

import lookahead_jax as la

WORKERS, PERIOD = 2, 10


def loss_fn(params: jax.Array, batch: jax.Array) -> jax.Array:
    return jnp.mean((batch @ params - batch.sum(axis=-1)) ** 2)


def main(rounds: int = 6) -> jax.Array:
    """Fits a linear model; returns the weights of both workers, [workers, 8]."""
    assert len(jax.devices()) >= WORKERS, "start it with JAX_NUM_CPU_DEVICES=2, or on two devices"
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:WORKERS]), ("workers",))
    tx = la.diloco(optax.adam(0.05), PERIOD, learning_rate=0.7, momentum=0.5, axis_name="workers")

    def train(params, batches):  # what one worker does, with data of its own [1, steps, batch, 8]
        def step(carry, batch):
            params, opt_state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params, batch)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), batches[0])
        return params[None], losses[None]

    batches = jax.random.normal(jax.random.key(0), (WORKERS, rounds * PERIOD, 16, 8))
    specs = {"in_specs": (P(), P("workers")), "out_specs": P("workers")}
    run = jax.jit(jax.shard_map(train, mesh=mesh, **specs, check_vma=False))  # the carry mixes shared and own arrays
    params, losses = run(jnp.zeros(8), batches)
    for worker in range(WORKERS):
        print(f"worker {worker}: loss {losses[worker, 0]:.3f} -> {losses[worker, -1]:.3f}")
    print("apart after the last sync:", float(jnp.max(jnp.abs(params[0] - params[1]))))
    return params


if __name__ == "__main__":
    main()
