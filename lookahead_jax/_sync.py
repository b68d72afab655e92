"""What one step does to the live weights and to the slow weights, leaf by leaf."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

import jax
import jax.numpy as jnp
import optax


def select(condition: jax.Array, on_true: Any, on_false: Any) -> Any:
    """Leaf-wise `where` with a scalar condition; the structure and dtypes of `on_false` are kept.

    A select and never a blend `c * a + (1 - c) * b`: a blend keeps a NaN of the side that was not chosen
    alive, and fails on integers, booleans and PRNG keys.
    """

    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        return a if a is b else jnp.where(condition, a, b).astype(jnp.asarray(b).dtype)

    return jax.tree.map(leaf, on_true, on_false)


def pseudo_gradients(params: optax.Params, updates: optax.Updates, slow: optax.Params) -> optax.Updates:
    """`slow - (params + updates)`: the outer step's gradient, in at least float32.

    Args:
        params: the live weights before this step, a tree of arrays.
        updates: the fast optimizer's updates, like `params`.
        slow: the slow weights, like `params`; their dtype may be another one.

    Returns:
        A tree like `params`, in the dtype in which each leaf's arithmetic is done.
    """

    def leaf(p: jax.Array, u: jax.Array, s: jax.Array) -> jax.Array:
        p, u, s = _widen(p, u, s)
        return s - (p + u)

    return jax.tree.map(leaf, params, updates, slow)


def synchronize(
    sync: jax.Array,
    params: optax.Params,
    updates: optax.Updates,
    slow: optax.Params,
    slow_updates: optax.Updates,
) -> tuple[optax.Updates, optax.Params]:
    """Where `sync` holds, send live and slow weights to `slow + slow_updates`; elsewhere change nothing.

    Args:
        sync: boolean scalar; may be traced.
        params: the live weights before this step.
        updates: the fast optimizer's updates.
        slow: the slow weights before this step.
        slow_updates: the outer step's updates of the slow weights.

    Returns:
        The updates to be applied to `params` (dtypes of `updates`) and the new slow weights (dtypes of `slow`).
    """
    # With fast weights p, slow weights s, inner update u, outer update v, on a sync:
    #
    #   target = s + v,    u' = target - p,    s' = p + u'    (and not s' = target)
    #
    # 1. optax.apply_updates will compute p + u' in floating point, which is not exactly `target`. Taking s' from
    #    the same p + u' makes live and slow weights equal bit for bit.
    # 2. s' then reads what u' and the new params read, so XLA can write params, slow weights and moments in place.
    #    With s' = where(sync, target, s) it inserts a copy of every buffer: 3.5 times the cost of Adam on a CPU.
    # 3. sync does not vary within a leaf. LLVM takes the select out of the loop, and steps without a sync neither
    #    read nor write s.
    #
    # XLA may drop a rounding to bfloat16 between two operations (xla_allow_excess_precision), so p + u' here could
    # be computed from an unrounded u' while a later program adds the rounded one: _round_to prevents that.
    #
    # Slow weights wider than the parameters (slow_dtype) keep the bits of `target` that the parameters cannot hold,
    # as long as they round to exactly the parameters; else (p + u' was off by one ulp) they take the parameters.

    def leaf(p: jax.Array, u: jax.Array, s: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        p, u, s = jnp.asarray(p), jnp.asarray(u), jnp.asarray(s)
        if not jnp.issubdtype(p.dtype, jnp.inexact):
            # Integer leaves cannot be interpolated; the slow tree takes their live value at each sync.
            return u, jnp.where(sync, (p + u).astype(s.dtype), s)
        wide_p, wide_u, wide_s = _widen(p, u, s)
        target = wide_s + v.astype(wide_s.dtype)
        target_p = _round_to(target, p.dtype)
        sync_u = _round_to(target_p.astype(wide_p.dtype) - wide_p, u.dtype)
        new_u = jnp.where(sync, sync_u, u)
        new_p = _round_to(wide_p + new_u.astype(wide_u.dtype), p.dtype)
        new_s = new_p.astype(s.dtype)
        if s.dtype != p.dtype:
            new_s = jnp.where(target_p == new_p, _round_to(target, s.dtype), new_s)
        return new_u, jnp.where(sync, new_s, s)

    # Not by jax.tree.transpose, which refuses a tree without leaves: optax.partition makes one of a label that no
    # parameter has.
    tree = jax.tree.structure(params)
    columns: list[list[jax.Array]] = [tree.flatten_up_to(x) for x in (params, updates, slow, slow_updates)]
    pairs = [leaf(*row) for row in zip(*columns, strict=True)]
    return tree.unflatten(u for u, _ in pairs), tree.unflatten(s for _, s in pairs)


def _widen(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    """The leaves in the widest of their dtypes, at least float32: bfloat16 loses a small `alpha * (fast - slow)`."""
    dtype = jnp.result_type(*leaves)
    if jnp.issubdtype(dtype, jnp.inexact):
        dtype = jnp.promote_types(dtype, jnp.float32)
    return tuple(jnp.asarray(x).astype(dtype) for x in leaves)


def _round_to(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x.astype(dtype)`, with a rounding that XLA may not elide.

    The exponent range of `x` is kept in the first rounding, since lax.reduce_precision flushes subnormals.
    """
    if x.dtype != dtype and jnp.issubdtype(x.dtype, jnp.floating):
        x = jax.lax.reduce_precision(x, jnp.finfo(x.dtype).nexp, jnp.finfo(dtype).nmant)
    return x.astype(dtype)
