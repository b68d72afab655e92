"""The Lookahead optimizer (Zhang, Lucas, Hinton, Ba, 2019) as an Optax gradient transformation.

>>> import optax
>>> import lookahead_jax as la
>>> tx = la.lookahead(optax.adam(1e-3), sync_period=5, slow_step_size=0.8)

Use `tx` wherever you would use `optax.adam(1e-3)`: plain parameters in, plain updates out. The slow weights are in the
optimizer state; `la.slow_params(opt_state)` finds them, for evaluation.

============================ ======================================================================================
:func:`lookahead`            k steps forward, 1 step back; any inner optimizer, any outer step
:func:`ranger`               Lookahead around RAdam
:func:`snoo`, :func:`diloco` a Nesterov outer step, for one worker or averaged over several
:func:`primal_averaging`     averaging at every step instead of syncs (GPA)
:func:`slow_params`          the slow weights in an optimizer state
:func:`resync`               resets the slow weights after the parameters were edited
:func:`is_sync_step`         when to sync, for loops that pass ``update(..., sync=...)``
:func:`emitted_update`       whether a call made an update or, say, only accumulated
:func:`check_chain`          checks that nothing changes the updates after Lookahead
:func:`adaptive_step_size`   the paper's step size for a quadratic model of the loss
============================ ======================================================================================

Migration
---------
Arguments of other implementations and their names here:

=================================== =================================== ============================================
there                               argument                            here
=================================== =================================== ============================================
optax.lookahead                     fast_optimizer, sync_period,        the same
                                    slow_step_size
optax.lookahead                     reset_state=True                    fast_state_at_sync="reset"
optax.lookahead                     LookaheadParams(fast, slow)         plain params; la.slow_params(opt_state)
optax.contrib.schedule_free         base_optimizer, b1                  la.primal_averaging(fast_optimizer, mu_x,
                                                                        mu_y=b1), see below
schedule_free_eval_params(s, p)                                         la.slow_params(s)
torch_optimizer.Lookahead           optimizer, k=5, alpha=0.5           fast_optimizer, sync_period, slow_step_size=0.5
pytorch_optimizer.Lookahead         the same, and pullback_momentum     fast_state_at_sync, see below
michaelrzhang/lookahead             la_steps=5, la_alpha=0.8            sync_period=5, slow_step_size=0.8
michaelrzhang/lookahead             pullback_momentum="none"            fast_state_at_sync="maintain"
michaelrzhang/lookahead             pullback_momentum="reset"           fast_state_at_sync="reset"
michaelrzhang/lookahead             pullback_momentum="pullback"        fast_state_at_sync="pullback"
michaelrzhang/lookahead             _backup_and_load_cache()            la.slow_params(opt_state)
timm.optim.Lookahead                base_optimizer, alpha=0.5, k=6      fast_optimizer, slow_step_size, sync_period
tfa.optimizers.Lookahead            sync_period=6, slow_step_size=0.5   the same
Ranger (lessw2020)                  lr, alpha=0.5, k=6, betas=(.95,     la.ranger(lr, 0.95, 0.999, 1e-5, sync_period=6,
                                    .999), eps=1e-5, N_sma_threshhold   slow_step_size=0.5, threshold=5)
=================================== =================================== ============================================

`primal_averaging` keeps an exponential average with decay `mu_x`; Schedule-Free averages over all steps.

``reset_state=True`` of `optax.lookahead` resets the whole inner state, including step counts, learning-rate schedules
and random keys; "reset" resets only the moments and the step count of their bias correction.

The slow weights, the pulled-back moments and the step counter are part of the optimizer state, so checkpoints include
them. The slow weights start as the parameters of the first `update`, and the first sync comes after exactly
`sync_period` steps (timm's slow weights start after step 1; TensorFlow's original period is k + 1).

BatchNorm's running statistics belong to the live weights. Live and slow weights are equal right after a sync, so
evaluate then (after a multiple of `sync_period` steps, or after an update with ``sync=True``), or re-estimate the
statistics.
"""

import importlib.metadata

from lookahead_jax._adaptive import AdaptiveStepSize, adaptive_step_size
from lookahead_jax._check_chain import check_chain
from lookahead_jax._fast_state import emitted_update
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
    "emitted_update",
    "is_sync_step",
    "lookahead",
    "primal_averaging",
    "ranger",
    "resync",
    "slow_params",
    "snoo",
]
