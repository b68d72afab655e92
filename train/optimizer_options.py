"""What single optimizers have besides the settings that all share: `config.optimizer.options`. Defaults are Optax's."""

import dataclasses

from train.setting import setting

_BELOW_ONE = 0.999999


@dataclasses.dataclass
class AdamW:
    """Of adamw and nadamw."""

    b1: float = setting(0.9, help="decay of the first moment", at_least=0.0, at_most=_BELOW_ONE)
    b2: float = setting(0.999, help="decay of the second moment", at_least=0.0, at_most=_BELOW_ONE)
    eps: float = setting(1e-8, help="added to the root of the second moment", at_least=0.0)


@dataclasses.dataclass
class Lion:
    """Of lion."""

    b1: float = setting(0.9, help="weight of the momentum in the update", at_least=0.0, at_most=_BELOW_ONE)
    b2: float = setting(0.99, help="decay of the momentum", at_least=0.0, at_most=_BELOW_ONE)


@dataclasses.dataclass
class Muon:
    """Of muon."""

    beta: float = setting(0.95, help="decay of the momentum", at_least=0.0, at_most=_BELOW_ONE)
    nesterov: bool = setting(True)
    ns_steps: int = setting(5, help="Newton-Schulz iterations", at_least=1)
    consistent_rms: float = setting(
        0.0,
        help="RMS of an update before the learning rate is applied; 0.2 matches AdamW; 0: scale by width",
        at_least=0.0,
    )
    convolutions: bool = setting(
        True, help="true: treat kernels [H, W, in, out] as matrices [H W in, out]; false: leave them to AdamW"
    )
    adam_ratio: float = setting(1.0, help="AdamW's learning rate divided by Muon's", above=0.0)


@dataclasses.dataclass
class ScheduleFreeAdamW:
    """Of schedule_free_adamw."""

    b1: float = setting(
        0.9, help="weight of the average in the point where gradients are taken", above=0.0, at_most=_BELOW_ONE
    )
    b2: float = setting(0.999, help="decay of the second moment", at_least=0.0, at_most=_BELOW_ONE)
    eps: float = setting(1e-8, help="added to the root of the second moment", at_least=0.0)
    weight_lr_power: float = setting(
        2.0, help="each iterate is weighted in the average by its learning rate to this power", at_least=0.0
    )
