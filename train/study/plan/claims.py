"""What a claim consists of: comparisons of variants, each in a quantity, a direction and a margin. Data only.

A claim is checked by `train.study.verdicts.judge`; what the quantities are says `train.study.plan.quantities`.
"""

import dataclasses

from train.errors import UserError
from train.study.plan.quantities import QUANTITIES

# What a comparison states of the gain g of `variant` over `baseline` (positive: the variant is better), with the
# margin m below which a difference counts as none. Each is shown, refuted, or neither; where both, shown.
#
# | kind       | shown where    | refuted where  |
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
    """A variant and what it is held against, in a section.

    Attributes:
      section: reference of the section, such as "2.1:cifar10".
      variant: name of the variant; several names: that of them with the best mean over the seeds that all have.
      baseline: likewise.
    """

    section: str
    variant: str | tuple[str, ...]
    baseline: str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One test: the gain of a pair in a quantity.

    Attributes:
      pair: what is compared, paired by seed.
      kind: one of `KINDS`.
      quantity: a name of `train.study.plan.quantities.QUANTITIES`.
      margin: of the gain below which a difference counts as none; a fraction of accuracy, or, where the quantity is
        compared by ratio, of the ratio's logarithm (.02: 2 %).
      baseline_quantity: what the baseline is measured by, where that is another quantity ("" the same).
      than: the gain of this other pair is taken off (other runs, so not paired: Welch's test).
      beside: a quantity whose gain is shown beside this one, without a verdict; "" for none.
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
        if self.margin < 0:
            raise UserError(f"comparison in {self.pair.section}: margin={self.margin} must not be negative")

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that it needs runs of."""
        return (self.pair,) if self.than is None else (self.pair, self.than)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement, and the comparisons that it amounts to.

    It is supported where every comparison is shown, contradicted where one is refuted, else not resolved. With `any_of`
    it is supported where one is shown, and contradicted where every one is refuted.

    Attributes:
      key: short, such as "1a"; claims are sorted and referred to by it.
      text: the statement in one sentence.
      comparisons: all that it says; at least one.
      source: who states it, in a word: "paper"; "own" for the study itself. `Study.sources` has a heading for each. The
        claims of one source are a family for Holm's correction.
      note: what a reader of its verdict must know.
      any_of: one comparison that is shown is enough.
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
    def sections(self) -> tuple[str, ...]:
        """References of the sections that it speaks of, each once."""
        found = [pair.section for comparison in self.comparisons for pair in comparison.pairs]
        return tuple(dict.fromkeys(found))
