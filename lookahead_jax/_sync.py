"""What one step does to the live and slow weights, leaf by leaf."""

# JAX and Optax are typed in part only.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lookahead_jax import _trees

_BITS_OF_MINUS_INFINITY = -(2**23)  # of a float32, read as an int32


def where(condition: jax.Array | bool, on_true: Any, on_false: Any) -> jax.Array:
    """`jnp.where` with a scalar condition, in the dtype of `on_false`; a Python bool computes one side only.

    A select, never a blend `c * a + (1 - c) * b`: a blend lets a NaN through from the side that was not chosen,
    and fails on integers, booleans and PRNG keys.
    """
    on_false = jnp.asarray(on_false)
    if isinstance(condition, bool):
        return cast(on_true, on_false.dtype) if condition else on_false
    return on_false if on_true is on_false else jnp.where(condition, cast(on_true, on_false.dtype), on_false)


def cast(x: jax.typing.ArrayLike, dtype: Any) -> jax.Array:
    """The array in a dtype; random keys, which have one dtype only, as they are."""
    x = jnp.asarray(x)
    # Not "if it has that dtype": `astype` also makes a Python number's array one whose dtype is not weak.
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.astype(dtype)


def select(condition: jax.Array | bool, on_true: Any, on_false: Any) -> Any:
    """Leaf-wise :func:`where`, with the structure of `on_false` and its leaves wherever `on_true` has None."""

    def leaf(b: jax.Array, a: Any) -> jax.Array:
        return b if a is None else where(condition, a, b)

    return _trees.map_slow(leaf, on_false, on_true)


def start(first: jax.Array, params: optax.Params, slow: optax.Params) -> optax.Params:
    """The slow weights at the start of this period: the live weights at the very first step, later `slow`.

    The first period thus starts from weights that were loaded into the parameters after `init`; otherwise the first
    sync would pull them back towards the initial ones.
    """
    return _trees.map_slow(lambda s, p: where(first, cast(p, s.dtype), s), slow, params)


def rounded(updates: optax.Updates, count: jax.Array) -> optax.Updates:
    """`updates`, each rounded before anything is added to it.

    A compiler may contract `p + -lr * g` to one operation that rounds once, depending on what else is in the
    program: a step that syncs, one that does not, and one that decides at run time would differ in the last bit. To
    prevent that, the maximum with minus infinity is taken in between: it changes nothing, and the compiler cannot
    remove it because it does not know the value.

    Args:
        updates: a tree of arrays; integers and complex numbers are left as they are.
        count: an int32 scalar that is never negative.
    """

    def leaf(u: jax.typing.ArrayLike) -> jax.Array:
        u = jnp.asarray(u)
        if not jnp.issubdtype(u.dtype, jnp.floating) or u.dtype.itemsize == 1:
            return u
        return _at_least_minus_infinity(u, count)

    return jax.tree.map(leaf, updates)


@functools.partial(jax.jit, inline=True)  # one program outside of jit, too, or jax_debug_infs would find the infinity
def _at_least_minus_infinity(x: jax.Array, count: jax.Array) -> jax.Array:
    minus_infinity = jax.lax.bitcast_convert_type(jnp.minimum(count, 0) + _BITS_OF_MINUS_INFINITY, jnp.float32)
    return jnp.maximum(x, minus_infinity.astype(x.dtype))


def pseudo_gradients(params: optax.Params, updates: optax.Updates, slow: optax.Params) -> optax.Updates:
    """`slow - (params + updates)`: the outer step's gradient, in at least float32.

    Args:
        params: the live weights before this step, a tree of arrays.
        updates: the fast optimizer's updates, like `params`; None for a leaf that does not move.
        slow: the slow weights, like `params`; their dtype may differ.

    Returns:
        A tree like `slow`, each leaf in the dtype of its arithmetic; zeros for leaves that are not floating-point or
        do not move.
    """

    def leaf(s: jax.Array, p: jax.Array, u: Any) -> jax.Array:
        if u is None or not _is_inexact(s):
            return jnp.zeros_like(s)
        p, u, s = widen(p, u, s)
        return s - (p + u)

    return _trees.map_slow(leaf, slow, params, updates)


def synchronize(
    sync: jax.Array | bool,
    params: optax.Params,
    updates: optax.Updates,
    slow: optax.Params,
    slow_updates: optax.Updates,
    count: jax.Array,
    *,
    replicated: bool = False,
) -> tuple[optax.Updates, optax.Params]:
    """If `sync`, sends live and slow weights to `slow + slow_updates`; otherwise changes nothing.

    Args:
        sync: boolean scalar; may be traced. The Python bool True computes only a sync.
        params: the live weights before this step.
        updates: the fast optimizer's updates.
        slow: the slow weights before this step, after :func:`start`.
        slow_updates: the outer step's updates of the slow weights.
        count: an int32 scalar that is never negative.
        replicated: the live weights differ between devices but the slow weights must not: compute the latter from
            what the devices share.

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
    # 3. sync does not vary within a leaf. On a CPU, LLVM takes the select out of the loop, and steps without a sync
    #    neither read nor write s. On a GPU nothing does: there a static `sync` saves reading and writing s.
    #
    # XLA may drop a rounding to bfloat16 between two operations (xla_allow_excess_precision), so p + u' here could
    # be computed from an unrounded u' while a later program adds the rounded one: _round_to prevents that.
    #
    # Slow weights wider than the parameters (slow_dtype) keep the bits of `target` that the parameters cannot hold,
    # provided they round to exactly the parameters; otherwise (p + u' was off by one ulp) they take the parameters.
    #
    # Workers differ in p, and so in the last bit of p + u'. With workers s' = target, which all of them share.
    #
    # With a static sync = True, s' and the new parameters would be one value to XLA, which computes it once and copies
    # it to the other buffer in a second kernel (compiled for an H100: 10 passes over the parameters instead of 9). So
    # s' is selected by a condition that always holds, which the compiler does not know.
    write = count != -1 if sync is True else sync

    def leaf(s: Any, p: Any, u: Any, v: Any) -> tuple[Any, Any]:
        if s is None:
            return u, None
        p, s = jnp.asarray(p), jnp.asarray(s)
        if u is None:
            return None, where(write, cast(p, s.dtype), s)
        u = jnp.asarray(u)
        if not _is_inexact(p):
            # Integer leaves cannot be interpolated; the slow tree takes their live value at each sync.
            with jax.numpy_dtype_promotion("standard"):
                return u, where(write, (p + u).astype(s.dtype), s)
        wide_p, wide_u, wide_s = widen(p, u, s)
        target = wide_s + v.astype(wide_s.dtype)
        target_p = _round_to(target, p.dtype)
        sync_u = _round_to(target_p.astype(wide_p.dtype) - wide_p, u.dtype)
        new_u = where(sync, sync_u, u)
        if replicated:
            return new_u, where(sync, _round_to(target, s.dtype), s)
        new_p = _round_to(wide_p + new_u.astype(wide_u.dtype), p.dtype)
        new_s = new_p.astype(s.dtype)
        if s.dtype != p.dtype:
            new_s = jnp.where(target_p == new_p, _round_to(target, s.dtype), new_s)
        return new_u, where(write, new_s, s)

    # Not jax.tree.transpose, which rejects a tree without leaves: optax.partition makes one for a label that no
    # parameter has.
    tree, rows = _trees.columns(slow, params, updates, slow_updates)
    pairs = [leaf(*row) for row in zip(*rows, strict=True)]
    return tree.unflatten(u for u, _ in pairs), tree.unflatten(s for _, s in pairs)


def widen(*leaves: jax.typing.ArrayLike) -> tuple[jax.Array, ...]:
    """The leaves in one dtype, at least float32: bfloat16 loses a small `alpha * (fast - slow)`."""
    arrays = [jnp.asarray(x) for x in leaves]
    dtype = jnp.dtype(jnp.float32)
    for x in arrays:
        dtype = promoted(x.dtype, dtype) if _is_inexact(x) else dtype
    return tuple(x.astype(dtype) for x in arrays)


def widened(tree: optax.Params) -> optax.Params:
    """The tree in the dtypes of :func:`pseudo_gradients`: floating-point leaves in at least float32."""
    return jax.tree.map(lambda x: widen(x)[0] if _is_inexact(x) else x, tree)


def promoted(dtype: Any, least: Any) -> Any:
    """The dtype that holds both; `least` for float8 and narrower dtypes, which JAX does not promote."""
    if dtype.itemsize == 1:
        return least
    with jax.numpy_dtype_promotion("standard"):  # this promotion is intended, under "strict" too
        return jnp.promote_types(dtype, least)


def _is_inexact(x: jax.typing.ArrayLike) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)


def _round_to(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x.astype(dtype)`, with a rounding that XLA may not elide.

    The first rounding keeps the exponent range of `x`, because lax.reduce_precision flushes subnormals.
    """
    if x.dtype != dtype and jnp.issubdtype(x.dtype, jnp.floating):
        x = jax.lax.reduce_precision(x, jnp.finfo(x.dtype).nexp, jnp.finfo(dtype).nmant)
    return x.astype(dtype)
