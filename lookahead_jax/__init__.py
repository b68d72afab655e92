"""The Lookahead optimizer (Zhang, Lucas, Hinton, Ba, 2019) as an Optax gradient transformation.

>>> import optax
>>> import lookahead_jax as la
>>> tx = la.lookahead(optax.adam(1e-3), sync_period=5, slow_step_size=0.8)

`tx` stands wherever `optax.adam(1e-3)` stood: plain parameters in, plain updates out. The slow weights are in the
optimizer state; `la.slow_params(opt_state)` finds them, for evaluation.

Migration
---------
From **optax.lookahead**: delete `LookaheadParams`; nothing else changes. The parameters are the fast weights
themselves: `params.fast` becomes `params`, and `params.slow` becomes `la.slow_params(opt_state)`. In place of
`reset_state=True` there is `fast_state_at_sync="reset"`, which resets the moments and leaves step counts,
learning-rate schedules and random keys as they are.

From **optax.contrib.schedule_free**: `la.lookahead` takes no learning rate of its own and asks for no change of the
inner optimizer's momentum. `schedule_free_eval_params(opt_state, params)` becomes `la.slow_params(opt_state)`, which
computes nothing. With BatchNorm both have the same caveat: running statistics belong to the live weights. Right after
a sync these are the slow weights, so evaluate there (after a multiple of `sync_period` steps) or estimate the
statistics anew.

From **torch Lookahead wrappers** (michaelrzhang/lookahead, timm, pytorch-optimizer): `la_steps` or `k` is
`sync_period`, `la_alpha` or `alpha` is `slow_step_size`; `pullback_momentum="none" | "reset" | "pullback"` is
`fast_state_at_sync="maintain" | "reset" | "pullback"`; `_backup_and_load_cache()` before an evaluation and
`_clear_and_load_backup()` after it become `la.slow_params(opt_state)`. Slow weights, pulled-back moments and the step
counter are part of the optimizer state, so a checkpoint of that state holds them. The slow weights start as the
initial parameters, and the first sync comes after exactly `sync_period` steps.
"""

import importlib.metadata

from lookahead_jax._adaptive import AdaptiveStepSize, adaptive_step_size
from lookahead_jax._check_chain import check_chain
from lookahead_jax._lookahead import LookaheadState, lookahead
from lookahead_jax._outer import diloco, snoo
from lookahead_jax._primal_averaging import PrimalAveragingState, primal_averaging
from lookahead_jax._ranger import ranger
from lookahead_jax._slow_params import resync, slow_params
from lookahead_jax._sync_step import is_sync_step

try:
    __version__ = importlib.metadata.version("lookahead-jax")
except importlib.metadata.PackageNotFoundError:  # a copy of the sources that was not installed
    __version__ = "0+unknown"

__all__ = [
    "AdaptiveStepSize",
    "LookaheadState",
    "PrimalAveragingState",
    "__version__",
    "adaptive_step_size",
    "check_chain",
    "diloco",
    "is_sync_step",
    "lookahead",
    "primal_averaging",
    "ranger",
    "resync",
    "slow_params",
    "snoo",
]
