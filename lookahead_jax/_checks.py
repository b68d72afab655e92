"""Checks the arguments of `lookahead` and its relatives."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from typing import Any, get_args

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from lookahead_jax._fast_state import FastStateAtSync

_MAX_PERIOD = 2**31 - 1  # steps are counted in int32

# The text of optax._src.base.NO_PARAMS_MSG, which optax does not export; a test compares the two.
_NO_PARAMS_MSG = (
    "You are using a transformation that requires the current value of "
    "parameters, but you are not passing `params` when calling `update`."
)


def check_sync_period(value: Any) -> None:
    """Raises ValueError unless `value` is an integer from 1 to 2**31 - 1 or not known yet."""
    if _is_open(value):
        return
    if not (_is_scalar(value, whole=True) and value >= 1):
        raise ValueError(f"sync_period={value!r} is not a number of steps; use an integer >= 1")
    if value > _MAX_PERIOD:
        raise ValueError(f"sync_period={value!r} is too large: steps are counted in int32; use at most {_MAX_PERIOD}")


def check_fraction(name: str, value: Any, below_one: bool = False, *, schedule: bool = True) -> None:
    """Raises ValueError unless `value` is a number in [0, 1] (in [0, 1) for `below_one`) or not known yet.

    Args:
        name: of the argument.
        value: what was given.
        below_one: whether 1 is too large.
        schedule: whether a schedule may be given.
    """
    if not schedule and _is_schedule(value):
        raise ValueError(f"{name}={value!r} is a schedule; use a number or an array")
    if _is_open(value):
        return
    if not (_is_scalar(value) and 0 <= value <= 1) or (below_one and value == 1):
        raise ValueError(f"{name}={value!r} is out of range; use a number in [0, 1{')' if below_one else ']'}")


def check_outer_step(
    slow_step_size: Any, slow_optimizer: Any, fast_state_at_sync: Any, axis_name: Any, *, adaptive: bool
) -> None:
    """Raises ValueError for arguments of `lookahead` that cannot be combined.

    Args:
        adaptive: whether `slow_step_size` is a rule made by `adaptive_step_size`; the others are as in `lookahead`.
    """
    if fast_state_at_sync not in get_args(FastStateAtSync):
        raise ValueError(
            f"fast_state_at_sync={fast_state_at_sync!r} is unknown; use one of {get_args(FastStateAtSync)}"
        )
    if adaptive:
        if axis_name is not None:
            raise ValueError(
                "axis_name averages the workers' outer steps, but adaptive_step_size() would give each worker its own "
                "step size; use a number or a schedule instead"
            )
    elif slow_step_size is not None:
        check_fraction("slow_step_size", slow_step_size)
    if slow_optimizer is None:
        return
    if fast_state_at_sync == "pullback":
        raise ValueError(
            'fast_state_at_sync="pullback" interpolates with slow_step_size, which slow_optimizer replaces; '
            'use "maintain" or "reset"'
        )
    if slow_step_size is not None:
        raise ValueError(
            f"slow_step_size={slow_step_size!r} cannot be combined with slow_optimizer; "
            "put the step size into slow_optimizer, as in optax.sgd(0.5)"
        )


def check_optimizer(name: str, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer, with support for extra arguments; raises ValueError if it is not one."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(
            f"{name}: expected an optax.GradientTransformation, got {optimizer!r}; for example optax.adam(1e-3)"
        )
    if isinstance(getattr(optimizer.update, "__self__", None), optax.MultiSteps):
        # It forwards extra arguments, but its transformation does not say so.
        return optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    return optax.with_extra_args_support(optimizer)


def check_slow_dtype(slow_dtype: Any) -> Any:
    """The canonical dtype, or None; raises ValueError unless it is a floating-point one."""
    if slow_dtype is None:
        return None
    dtype = jax.dtypes.canonicalize_dtype(slow_dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"slow_dtype={slow_dtype!r} must be a floating-point dtype, such as float32")
    return dtype


def check_init(params: optax.Params) -> None:
    """Raises TypeError for a tree of shapes, which needs `jax.eval_shape` instead, and for optax's pairs."""
    check_plain(params)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params)):
        raise TypeError(
            "init got jax.ShapeDtypeStruct leaves, which have no values; "
            "for the shapes of the state use jax.eval_shape(tx.init, params)"
        )


def check_params(params: optax.Params | None) -> optax.Params:
    """The parameters; raises Optax's own error if `update` got none, and TypeError if it got optax's pairs."""
    if params is None:
        raise ValueError(_NO_PARAMS_MSG)
    check_plain(params)
    return params


def check_plain(params: Any) -> None:
    """Raises TypeError for the pairs of parameters that `optax.lookahead` takes."""
    if isinstance(params, optax.LookaheadParams):
        raise TypeError(
            "params is an optax.LookaheadParams, which only optax.lookahead needs; take that out, pass plain "
            "parameters, here params.fast, and find the slow ones with slow_params(opt_state)"
        )


def check_sync(sync: Any) -> jax.Array | bool | None:
    """`update`'s argument `sync`: None, a Python bool (static), or a boolean scalar array."""
    if sync is None or isinstance(sync, bool):
        return sync
    if isinstance(sync, np.bool_):
        return bool(sync)
    if isinstance(sync, jax.Array | np.ndarray) and sync.shape == () and sync.dtype == jnp.bool_:
        return jnp.asarray(sync)
    described = f"{sync.dtype}{list(sync.shape)}" if isinstance(sync, jax.Array | np.ndarray) else repr(sync)
    raise ValueError(
        f"sync={described} does not say whether to sync; use None (the schedule decides), True, False, "
        "or a boolean scalar array"
    )


def _is_open(value: Any) -> bool:
    """Whether an argument's value cannot be known now: a schedule, a traced array or an array on another host."""
    if isinstance(value, jax.core.Tracer):
        return True
    return _is_schedule(value) or (isinstance(value, jax.Array) and not value.is_fully_addressable)


def _is_schedule(value: Any) -> bool:
    return callable(value)


def _is_scalar(value: Any, whole: bool = False) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | np.ndarray | jax.Array):
        return False
    array = np.asarray(value)
    # Not by NumPy's kinds, to which bfloat16 is unknown.
    if array.shape != () or not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        return False
    # Floating-point arrays may hold a whole number, as inject_hyperparams makes them; a Python 2.0 is a mistake.
    return not whole or (float(array).is_integer() and not isinstance(value, float))
