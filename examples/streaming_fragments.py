"""Streaming synchronisation: a part of the parameters at a time, so that syncs are spread over the period.

    python examples/streaming_fragments.py

Streaming DiLoCo (maxtext, torchft) splits a model into fragments whose syncs come at different steps: with workers,
each sync sends one fragment instead of all at once. Here that is `optax.partition` over Lookaheads with the same period
and different phases: fragment i of n has its first sync after (i + 1) k / n steps, and then every k steps.
"""

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la

PERIOD = 8


def fragment(index: int, fragments: int, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A SNOO whose syncs come `index` fragments later than the first one's."""
    first = PERIOD * (index + 1) // fragments
    return la.snoo(inner, lambda syncs: jnp.where(syncs == 0, first, PERIOD), learning_rate=0.7, momentum=0.5)


def streaming(params: dict[str, jax.Array], inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """One fragment for each entry of `params`."""
    optimizers = {name: fragment(i, len(params), inner) for i, name in enumerate(params)}
    return optax.partition(optimizers, {name: name for name in params})


def main(steps: int = 2 * PERIOD) -> list[list[str]]:
    """Trains a linear model of four layers; returns the fragments that were synchronised at each step."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = {f"layer{i}": 0.5 * jax.random.normal(keys[i], (8, 8)) for i in range(4)}
    inputs = jax.random.normal(keys[4], (32, 8))
    tx = streaming(params, optax.adam(1e-2))

    def loss(params):
        outputs = inputs
        for weight in params.values():
            outputs = outputs @ weight
        return jnp.mean((outputs - inputs) ** 2)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state, synced = tx.init(params), []
    for i in range(steps):
        params, opt_state = step(params, opt_state)
        slow = la.slow_params(opt_state)
        synced.append([name for name in params if bool(jnp.all(params[name] == slow[name]))])
        print(f"step {i + 1:2}  loss {loss(params):.4f}  synchronised: {', '.join(synced[-1]) or '-'}")
    return synced


if __name__ == "__main__":
    main()
