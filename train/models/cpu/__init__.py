"""Operations that exist for speed on XLA's CPU backend; each computes what JAX's own does, to rounding."""
