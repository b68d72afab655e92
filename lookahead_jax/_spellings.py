"""What the arguments of other implementations are called here, for error messages."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_RESET = 'use fast_state_at_sync="reset"'

FOURTH = f"For reset_state, the fourth argument of optax.lookahead, {_RESET}"

_PERIOD = {
    "reset_state": _RESET,  # optax.lookahead
    "la_steps": "use sync_period",  # michaelrzhang/lookahead
    "k": "use sync_period",  # timm, torch_optimizer, pytorch_optimizer
}
_FAST = {
    "base_optimizer": "use fast_optimizer",  # torch wrappers, schedule_free
    "optimizer": "use fast_optimizer",
    "inner_optimizer": "use fast_optimizer",
}
_ALPHA = {
    "la_alpha": "use slow_step_size",
    "alpha": "use slow_step_size",
    "pullback_momentum": 'use fast_state_at_sync="maintain", "reset" or "pullback"; "none" is "maintain"',
}

LOOKAHEAD: Mapping[str, str] = {**_PERIOD, **_FAST, **_ALPHA, "outer_optimizer": "use slow_optimizer"}

_OUTER_STEP = (
    "the outer step is Nesterov's, with learning_rate and momentum; for another use lookahead(slow_optimizer=...)"
)
OUTER: Mapping[str, str] = {
    **_PERIOD,
    **_FAST,
    **dict.fromkeys(("lr", "outer_lr", "alpha", "slow_step_size"), "use learning_rate, that of the outer step"),
    "outer_momentum": "use momentum, that of the outer step",
    **dict.fromkeys(("slow_optimizer", "outer_optimizer"), _OUTER_STEP),
}

RANGER: Mapping[str, str] = {
    **_PERIOD,
    **_ALPHA,
    **dict.fromkeys(("fast_optimizer", *_FAST), "the inner optimizer is RAdam; for another use lookahead"),
    "lr": "use learning_rate",
    "betas": "use b1 and b2",
    "N_sma_threshhold": "use threshold",  # lessw2020's spelling
    "n_sma_threshold": "use threshold",
}


def other_spellings(
    remedies: Mapping[str, str], positional_hint: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a factory's TypeError for an unknown argument say what to use instead.

    Args:
        remedies: maps the foreign argument's name to what to do.
        positional_hint: a sentence on further positional arguments that another implementation takes.
    """

    def decorate(factory: Callable[P, R]) -> Callable[P, R]:
        name, parameters = factory.__name__, inspect.signature(factory).parameters
        positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values())

        @functools.wraps(factory)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > positional:
                takes = f"{name}() takes {positional} positional arguments, got {len(args)}; pass the others by name"
                raise TypeError(f"{takes}. {positional_hint}" if positional_hint else takes)
            for given in kwargs:
                if given not in parameters and given in remedies:
                    raise TypeError(f"{name}() has no argument {given!r}; {remedies[given]}")
            return factory(*args, **kwargs)

        return checked

    return decorate
