"""What a claim consists of: comparisons of variants, each in a quantity, a direction and a margin. Data only.

`train.study.verdicts.judge` checks a claim; `train.study.plan.quantities` defines the quantities.
"""

import dataclasses
import math
from typing import Literal

from train.errors import UserError
from train.study.plan.quantities import QUANTITIES

# What a comparison states about the gain g of `variant` over `baseline` (positive: the variant is better), with the
# margin m below which a difference counts as none. It is shown, refuted, or neither; if both, it counts as shown.
#
# | kind       | shown if       | refuted if     |
# |------------|----------------|----------------|
# | better     | g > 0          | g < m          |
# | worse      | g < 0          | g > -m         |
# | not_better | g < m          | g > 0          |
# | not_worse  | g > -m         | g < 0          |
# | equal      | -m < g < m     | g < 0 or g > 0 |
# | differs    | g < 0 or g > 0 | -m < g < m     |
KINDS = ("better", "worse", "not_better", "not_worse", "equal", "differs")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A variant and what it is compared with, in a section.

    Attributes:
      section: reference of the section, such as "2.1:cifar10".
      variant: name of the variant; of several names, the one with the best mean over the seeds that all have is used.
      baseline: name or names of the baseline, likewise.
    """

    section: str
    variant: str | tuple[str, ...]
    baseline: str | tuple[str, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the variant."""
        return (self.variant,) if isinstance(self.variant, str) else self.variant

    @property
    def baselines(self) -> tuple[str, ...]:
        """The names of the baseline."""
        return (self.baseline,) if isinstance(self.baseline, str) else self.baseline


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One test: the gain of a pair in a quantity.

    Attributes:
      pair: what is compared, paired by seed.
      kind: one of `KINDS`.
      quantity: a name of `train.study.plan.quantities.QUANTITIES`.
      margin: the gain below which a difference counts as none: a fraction for accuracies, the logarithm of the ratio
        for quantities compared by ratio (.02: 2 %).
      baseline_quantity: the quantity by which the baseline is measured; "" for the same one.
      than: another pair whose gain is subtracted (these are other runs, so it is not paired: Welch's test).
      beside: a quantity whose gain is shown next to this one, without a verdict; "" for none.
    """

    pair: Pair
    kind: str
    quantity: str
    margin: float
    baseline_quantity: str = ""
    than: Pair | None = None
    beside: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"comparison in {self.pair.section}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        for quantity in filter(None, (self.quantity, self.baseline_quantity, self.beside)):
            if quantity not in QUANTITIES:
                known = ", ".join(QUANTITIES)
                raise UserError(f"comparison in {self.pair.section}: quantity {quantity!r} is not one of {known}")
        if not 0 <= self.margin < math.inf:
            raise UserError(f"comparison in {self.pair.section}: margin={self.margin} must be finite and not negative")
        if self.kind == "equal" and not self.margin:
            raise UserError(f"comparison in {self.pair.section}: kind 'equal' needs a margin above 0")

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that it needs runs of."""
        return (self.pair,) if self.than is None else (self.pair, self.than)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement, and the comparisons that it consists of.

    It is supported if every comparison is shown, contradicted if one is refuted, and otherwise not resolved. With
    `any_of` it is supported if one is shown, and contradicted if every one is refuted.

    Attributes:
      key: a short name such as "1a", by which claims are sorted and referred to.
      text: the statement in one sentence.
      comparisons: the comparisons; at least one.
      source: who states it, in one word, such as "paper"; "own" for the study itself. `Study.sources` has a heading for
        each. The claims of one source are a family for Holm's correction.
      note: what a reader of its verdict must know.
      any_of: whether one comparison that is shown is enough.
    """

    key: str
    text: str
    comparisons: tuple[Comparison, ...]
    source: str = "own"
    note: str = ""
    any_of: bool = False

    def __post_init__(self):
        if not self.comparisons:
            raise UserError(f"claim {self.key}: no comparisons")
        if not self.source:
            raise UserError(f'claim {self.key}: source must not be empty; leave it out for "own"')

    @property
    def decided_by_one(self) -> Literal["shown", "refuted"]:
        """What one comparison is enough for: "shown" supports the claim alone, or "refuted" contradicts it alone."""
        return "shown" if self.any_of else "refuted"

    @property
    def sections(self) -> tuple[str, ...]:
        """References of the sections that it is about, each once."""
        found = [pair.section for comparison in self.comparisons for pair in comparison.pairs]
        return tuple(dict.fromkeys(found))
