"""Tries an installed lookahead_jax, with nothing of the checkout: `make package` runs it in an empty environment."""

import importlib.metadata
import importlib.resources
import importlib.util
import sys

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la


def main() -> None:
    assert importlib.util.find_spec("train") is None, "the package must not install a module called train"
    assert la.__version__ == importlib.metadata.version("lookahead-jax")
    assert importlib.resources.files("lookahead_jax").joinpath("py.typed").is_file()
    files = importlib.metadata.files("lookahead-jax") or []
    assert {file.parts[0].partition("-")[0] for file in files} == {"lookahead_jax"}, files

    tx = la.lookahead(optax.sgd(0.5), sync_period=2, slow_step_size=0.5)
    params = jnp.array([8.0])
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params)  # the gradient of x^2 / 2 is x
        return optax.apply_updates(params, updates), opt_state

    seen = []
    for _ in range(4):
        params, opt_state = step(params, opt_state)
        seen.append((float(params[0]), float(la.slow_params(opt_state)[0])))
    # By hand: 8 -> 4 -> 2, halfway back from there: 5; then 2.5 -> 1.25, halfway back: 3.125.
    assert seen == [(4.0, 8.0), (5.0, 5.0), (2.5, 5.0), (3.125, 3.125)], seen
    said = [f"jax {jax.__version__}", f"optax {optax.__version__}"]
    if importlib.util.find_spec("flax") is not None:
        said.append(f"flax {flax_train_state(tx)}")
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"lookahead_jax {la.__version__} works: Python {python}, {', '.join(said)}")


def flax_train_state(tx: optax.GradientTransformation) -> str:
    """Does the same steps through Flax; returns its version."""
    import flax
    from flax.training.train_state import TrainState

    state = TrainState.create(apply_fn=None, params={"x": jnp.array([8.0])}, tx=tx)
    for _ in range(4):
        state = state.apply_gradients(grads=state.params)
    assert float(state.params["x"][0]) == float(la.slow_params(state.opt_state)["x"][0]) == 3.125
    return flax.__version__


if __name__ == "__main__":
    main()
