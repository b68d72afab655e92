"""What the arguments of other implementations are called here, for error messages."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_RESET = 'use fast_state_at_sync="reset"'

FOURTH = f"For reset_state, the fourth argument of optax.lookahead, {_RESET}"

LOOKAHEAD: Mapping[str, str] = {
    "reset_state": _RESET,  # optax.lookahead
    "base_optimizer": "use fast_optimizer",  # torch wrappers, schedule_free
    "optimizer": "use fast_optimizer",
    "inner_optimizer": "use fast_optimizer",
    "la_steps": "use sync_period",  # michaelrzhang/lookahead
    "k": "use sync_period",  # timm, torch_optimizer, pytorch_optimizer
    "la_alpha": "use slow_step_size",
    "alpha": "use slow_step_size",
    "pullback_momentum": 'use fast_state_at_sync="maintain", "reset" or "pullback"; "none" is "maintain"',
    "outer_optimizer": "use slow_optimizer",
}

OUTER: Mapping[str, str] = {**LOOKAHEAD, "lr": "use learning_rate", "outer_lr": "use learning_rate"}

RANGER: Mapping[str, str] = {
    **OUTER,
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
