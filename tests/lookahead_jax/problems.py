"""Small problems that the tests of the library share: parameters, a gradient, and a compiled trajectory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import lookahead_jax as la

as_pure = nnx.as_pure if hasattr(nnx, "as_pure") else nnx.pure  # its name before Flax 0.12


# For programs whose text is read and which are not run: what comes after XLA's own passes.
TEXT_ONLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def weights(size=7, seed=0):
    """A float64 NumPy vector of parameters."""
    return np.random.default_rng(seed).normal(size=size)


def resnet18_shapes():
    """The 62 parameter shapes of ImageNet's ResNet18 with 10 classes."""
    shapes = [(7, 7, 3, 64), (64,), (64,)]
    channels = 64
    for width in (64, 128, 256, 512):
        for _ in range(2):
            shapes += [(3, 3, channels, width), (width,), (width,), (3, 3, width, width), (width,), (width,)]
            if channels != width:
                shapes += [(1, 1, channels, width), (width,), (width,)]
            channels = width
    return [*shapes, (512, 10), (10,)]


def gradient(params, step):
    """The gradient of a noisy convex function: stiff, never zero, the same in NumPy and in JAX."""
    xp = np if isinstance(params, np.ndarray) else jnp
    n = np.arange(1, params.shape[-1] + 1)
    return n / 3.0 * params + xp.sin(n * (1.0 + step)) * 0.3


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(tx, params, steps, **extra_args):
    """Live and slow weights after each of `steps` steps of `tx`, each of shape (steps, *params.shape)."""

    def step(carry, i):
        params, opt_state = carry
        updates, opt_state = tx.update(gradient(params, i), opt_state, params, **extra_args)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (params, la.slow_params(opt_state, params))

    return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[1]


def run_states(tx, params, steps, **extra_args):
    """As `run`, step by step: a list of (params, opt_state), of a jitted update."""
    update = jax.jit(tx.update)
    opt_state = tx.init(params)
    history = []
    for i in range(steps):
        updates, opt_state = update(gradient(params, i), opt_state, params, **extra_args)
        params = optax.apply_updates(params, updates)
        history.append((params, opt_state))
    return history
