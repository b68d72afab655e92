"""Saving and resuming with Orbax: the slow weights and the step counter are in the optimizer state.

pip install orbax-checkpoint
python examples/resume_orbax.py
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

import lookahead_jax as la

TX = la.lookahead(optax.adam(0.05), sync_period=5, slow_step_size=0.8)


@jax.jit
def step(state):
    params, opt_state = state["params"], state["opt_state"]
    updates, opt_state = TX.update(params, opt_state, params)  # the gradient of x^2 / 2 is x
    return {"params": optax.apply_updates(params, updates), "opt_state": opt_state}


def fresh_state():
    params = {"w": jnp.linspace(-1.0, 1.0, 8)}
    return {"params": params, "opt_state": TX.init(params)}


def train(state, steps: int):
    for _ in range(steps):
        state = step(state)
    return state


def main(folder: Path | None = None) -> bool:
    """Trains 17 steps, and 8 + 9 steps with a checkpoint in between; returns whether every bit is the same."""
    path = (folder or Path(tempfile.mkdtemp())).resolve() / "checkpoint"
    whole = train(fresh_state(), 17)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, train(fresh_state(), 8))  # step 8 lies between two syncs
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(path, jax.eval_shape(fresh_state))
    resumed = train(restored, 9)
    same = all(bool(jnp.all(a == b)) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True))
    print("resumed run equals the uninterrupted one:", same)
    return same


if __name__ == "__main__":
    main()
