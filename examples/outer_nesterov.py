"""SNOO: Lookahead whose slow weights take a Nesterov step instead of a plain one.

python examples/outer_nesterov.py
"""

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la


def loss_fn(params: jax.Array) -> jax.Array:
    """An ill-conditioned quadratic: curvatures from 1 to 0.001."""
    return jnp.sum(jnp.logspace(0, -3, params.size) * params**2) / 2


def final_loss(tx: optax.GradientTransformation, steps: int) -> float:
    params = jnp.ones(32)
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(steps):
        params, opt_state = step(params, opt_state)
    return float(loss_fn(la.slow_params(opt_state)))


def main(steps: int = 400) -> dict[str, float]:
    """Compares three outer steps around the same SGD; returns the loss of each."""
    inner = optax.sgd(0.5)
    losses = {
        "Lookahead, alpha 0.5": final_loss(la.lookahead(inner, 10, 0.5), steps),
        "Lookahead, alpha 1 (the inner optimizer itself)": final_loss(la.lookahead(inner, 10, 1.0), steps),
        "SNOO, rate 0.5, momentum 0.8": final_loss(la.snoo(inner, 10, learning_rate=0.5, momentum=0.8), steps),
    }
    for name, loss in losses.items():
        print(f"{loss:.2e}  {name}")
    return losses


if __name__ == "__main__":
    main()
