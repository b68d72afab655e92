"""How long Lookahead takes to compile on a tree of many leaves, over its inner optimizer.

    python -m benchmarks.compile_time [--rounds=3] [--leaves=1000] [--out=FILE]

One program applies one update: Adam, each Lookahead around it, `optax.apply_updates`; traced, lowered and compiled for
the CPU from shapes alone, in turn, without the compilation cache. Ratios are seconds over those of Adam alone.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lookahead_jax as la
from benchmarks import harness

ADAM = optax.adam(1e-3)
OPTIMIZERS = {
    "Adam": ADAM,
    "Lookahead(Adam)": la.lookahead(ADAM),
    'Lookahead(Adam), "reset"': la.lookahead(ADAM, fast_state_at_sync="reset"),
    'Lookahead(Adam), "pullback"': la.lookahead(ADAM, fast_state_at_sync="pullback"),
    "Nesterov outer step(Adam)": la.snoo(ADAM, 5, 0.7, 0.9),
    "adaptive step size(Adam)": la.lookahead(ADAM, 5, la.adaptive_step_size(b2=0.999)),
    "optax.lookahead(Adam)": optax.lookahead(ADAM, 5, 0.8),
}
ALLOWED = 2.0


def compilation(tx: optax.GradientTransformation, leaves: int, *, pairs: bool) -> Callable[[], None]:
    """Compiles an update of so many leaves; `pairs` for `optax.lookahead`, whose parameters are pairs."""
    params: Any = [jax.ShapeDtypeStruct((4,), jnp.float32)] * leaves
    held = optax.LookaheadParams(fast=params, slow=params) if pairs else params
    state = jax.eval_shape(tx.init, held)

    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def compile() -> None:
        jax.clear_caches()
        jax.jit(step, donate_argnums=(0, 1)).lower(held, state, params).compile()

    return compile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, "compile_time", rounds=3)
    parser.add_argument("--leaves", type=int, default=1000, help="of the tree (default 1000)")
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    about = harness.machine()
    sides = {name: compilation(tx, flags.leaves, pairs=name.startswith("optax")) for name, tx in OPTIMIZERS.items()}
    seconds = harness.seconds_in_turn(sides, flags.rounds, warm_up=1 if flags.rounds > 1 else 0)
    ratios = harness.ratios_to("Adam", seconds)
    lines = [
        harness.table_line(
            f"compile time of {name} / Adam alone, {flags.leaves:,} leaves",
            "",
            "",
            ratio,
            "" if name.startswith("optax") else f"at most {ALLOWED:.1f}",
            "",
            flags.rounds,
        )
        for name, ratio in ratios.items()
    ]
    alone = harness.Summary.of(seconds["Adam"])
    print(f"Adam alone: {alone.text()} s")
    print(harness.table(["optimizer", "compile time / Adam's"], [[k, v.text()] for k, v in ratios.items()]))
    print("\n" + harness.describe(about))
    rows = {"compile_time": {"table": lines, "leaves": flags.leaves, "seconds": seconds}}
    harness.write_rows(harness.result_path("compile_time", flags), rows, about)


if __name__ == "__main__":
    main()
