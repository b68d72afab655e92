"""Every public first-order optimizer of optax and optax.contrib as the inner one."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la

# Arguments where an optimizer has no default, or its default does nothing within a few steps.
ARGUMENTS = {
    "noisy_sgd": {"learning_rate": 0.01, "key": 0},
    "polyak_sgd": {},
    "cocob": {},
    "fromage": {"learning_rate": 0.01},
    "galore": {"learning_rate": 0.01, "rank": 2},
    "sm3": {"learning_rate": 0.1},
    "schedule_free_sgd": {"learning_rate": 0.01},
    "schedule_free_adamw": {"learning_rate": 0.01},
    "noisy_sgd_jit": {},
    "dpsgd": {"learning_rate": 0.01, "l2_norm_clip": 1.0, "noise_multiplier": 0.1, "key": 0},
}

EXCLUDED = {
    "lbfgs": "second order: a line search needs the loss function at the fast weights",
    "dpsgd": "takes per-example gradients: its updates have another shape than its input",
    "sophia": "second order: its Hessian estimate needs the loss function",
    "lookahead": "takes LookaheadParams for parameters; this library is its successor",
    "differentially_private_aggregate": "takes per-example gradients and is no optimizer",
}

# What an optimizer needs besides gradients.
VALUES = ("polyak_sgd", "momo", "momo_adam")

# Wrappers and parts, which are no optimizers of their own; those that wrap one are tried around SGD below.
WRAPPED = {
    "mechanize": lambda: optax.contrib.mechanize(optax.sgd(0.01), weight_decay=0.0),
    "schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(0.01), 0.01),
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau()),
    "split_real_and_imaginary": lambda: optax.contrib.split_real_and_imaginary(optax.sgd(0.01)),
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.01), 2),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.sgd(0.01), 3),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(0.01),
    "masked": lambda: optax.masked(optax.adam(0.01), {"w": True, "b": False}),
}


def public_optimizers():
    """Names of the functions that turn a learning rate, or nothing, into an optimizer."""
    names = {}
    for module in (optax, optax.contrib):
        for name in dir(module):
            function = getattr(module, name)
            if name.startswith("_") or not inspect.isfunction(function) or name in EXCLUDED:
                continue
            if "learning_rate" in inspect.signature(function).parameters or name in ARGUMENTS:
                names[name] = function
    return names
