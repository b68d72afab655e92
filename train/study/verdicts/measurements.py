"""From a study's runs to the gains of its comparisons, and to the samples for their tests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from train.run.records import Row
from train.study.plan import Section, Study
from train.study.plan.claims import Comparison, Pair
from train.study.plan.quantities import QUANTITIES, gain, values_of_pair
from train.study.results.records import RunRecord
from train.study.verdicts.moderation import Prior, fit, moderate
from train.study.verdicts.statistics import Sample, sample

# The runs of a variant by seed: their rows, or None for a run that failed.
BySeed = Mapping[int, Sequence[Row] | None]


class Paired(NamedTuple):
    """A pair, seed by seed.

    Attributes:
      variant, baseline: the names; the best ones if there was a choice.
      seeds: the seeds that both have finished, in order.
      values: the quantity's values for variant and baseline, one pair per seed.
      gains: the gains, one per seed.
    """

    variant: str
    baseline: str
    seeds: list[int]
    values: list[tuple[float, float]]
    gains: list[float]


class Measured(NamedTuple):
    """A comparison, measured.

    Attributes:
      comparison: what was measured.
      pairs: its pair, and the pair whose gain is subtracted, if any.
      ready: whether all runs of the first look have ended, so that it may be tested.
      priors: the prior of each pair's variance; None if it is not moderated.
      beside: the same pairs measured in the additional quantity; empty if there is none.
    """

    comparison: Comparison
    pairs: tuple[Paired, ...]
    ready: bool
    priors: tuple[Prior | None, ...]
    beside: tuple[Paired, ...] = ()

    @property
    def n(self) -> int:
        """Number of paired seeds; the smaller number if there are two pairs."""
        return min(len(pair.gains) for pair in self.pairs)

    @property
    def testable(self) -> bool:
        """Whether it has p-values."""
        return self.ready and self.n > 1

    @property
    def plain(self) -> tuple[Sample, ...]:
        """The gains of each pair, which must not be empty."""
        return tuple(sample(pair.gains) for pair in self.pairs)

    @property
    def moderated(self) -> tuple[Sample, ...]:
        """The same with moderated variances."""
        return tuple(moderate(one, prior) for one, prior in zip(self.plain, self.priors, strict=True))


def runs_by_variant(runs: Iterable[RunRecord]) -> dict[str, dict[int, Sequence[Row] | None]]:
    """Runs that have ended, by variant id and seed."""
    found: dict[str, dict[int, Sequence[Row] | None]] = {}
    for run in runs:
        if run.status != "missing":
            found.setdefault(run.variant_id, {})[run.seed] = run.rows if run.status == "finished" else None
    return found


def variant_ids(study: Study) -> dict[tuple[str, str], str]:
    """The id of every variant by section and name."""
    return {(section.ref, variant.name): variant.id for section in study.sections for variant in section.variants}


class Measurements:
    """Measures the comparisons of a study on its runs at one look.

    Args:
      study: the plan.
      ids: its `variant_ids`.
      runs: its `runs_by_variant`.
      seeds: use only seeds below this number; None uses all.
    """

    def __init__(
        self,
        study: Study,
        ids: Mapping[tuple[str, str], str],
        runs: Mapping[str, BySeed],
        seeds: int | None = None,
    ):
        self._study, self._ids = study, ids
        self._runs = {
            variant: {seed: rows for seed, rows in by_seed.items() if seeds is None or seed < seeds}
            for variant, by_seed in runs.items()
        }
        self._priors: dict[tuple[str, str], Prior | None] = {}

    def __call__(self, comparison: Comparison) -> Measured:
        """The comparison, measured."""
        found = tuple(self.paired(pair, comparison.quantity, comparison.baseline_quantity) for pair in comparison.pairs)
        # A gain between two different quantities belongs to no group.
        crossed = comparison.baseline_quantity not in ("", comparison.quantity)
        priors = tuple(
            None if crossed else self.prior(self._study.section(pair.section).dataset, comparison.quantity)
            for pair in comparison.pairs
        )
        ready = all(
            self._by_seed(pair.section, name).keys() >= set(range(self._study.seeds))
            for pair in comparison.pairs
            for name in (*pair.variants, *pair.baselines)
        )
        beside = [
            self.paired(Pair(pair.section, chosen.variant, chosen.baseline), comparison.beside)
            for pair, chosen in zip(comparison.pairs, found, strict=True)
            if comparison.beside
        ]
        return Measured(comparison, found, ready, priors, tuple(beside))

    def paired(self, pair: Pair, quantity: str, baseline_quantity: str = "") -> Paired:
        """Measures a pair in a quantity. Of several names the best is used."""
        # The best of some is not the best of all: a seed counts once all candidates have run with it, or failed.
        names = (*pair.variants, *pair.baselines)
        seeds = set.intersection(*(set(self._by_seed(pair.section, name)) for name in names))
        variant = self._best(pair.section, pair.variants, quantity, seeds)
        baseline = self._best(pair.section, pair.baselines, baseline_quantity or quantity, seeds)
        found = Paired(variant, baseline, [], [], [])
        ours, theirs = self._by_seed(pair.section, variant), self._by_seed(pair.section, baseline)
        for seed in sorted(seeds):
            first, second = ours[seed], theirs[seed]
            if first is None or second is None:
                continue
            both = values_of_pair(first, second, quantity, baseline_quantity)
            difference = gain(both, quantity) if both else None
            if both and difference is not None:
                found.seeds.append(seed)
                found.values.append(both)
                found.gains.append(difference)
        return found

    def prior(self, dataset: str, quantity: str) -> Prior | None:
        """The prior of a gain's variance, from all distinct pairs that the data set's sections compare."""
        key = dataset, quantity
        if key not in self._priors:
            pairs: dict[tuple[str, str], Pair] = {}
            for section in self._study.sections:
                if section.dataset == dataset:
                    pairs |= self._compared(section)
            gains = [self.paired(pair, quantity).gains for pair in pairs.values()]
            self._priors[key] = fit([sample(values) for values in gains if values])
        return self._priors[key]

    def _compared(self, section: Section) -> dict[tuple[str, str], Pair]:
        """Each variant with what it is compared with, by the ids of the two."""
        found = {}
        for variant in section.variants:
            against = section.against(variant).name
            ids = self._ids[section.ref, variant.name], self._ids[section.ref, against]
            if ids[0] != ids[1]:
                found[ids] = Pair(section.ref, variant.name, against)
        return found

    def _by_seed(self, section: str, name: str) -> BySeed:
        return self._runs.get(self._ids[section, name], {})

    def _best(self, section: str, names: tuple[str, ...], quantity: str, seeds: Iterable[int]) -> str:
        """The variant with the best mean over the seeds that all of them have finished.

        If there is no such seed, the variants with the fewest seeds are dropped until there is; if none has finished
        any, it is the first.
        """
        if len(names) == 1:
            return names[0]
        rule = QUANTITIES[quantity]
        values: dict[str, dict[int, float]] = {}
        for name in names:
            by_seed = self._by_seed(section, name)
            finished = {seed: rows for seed in seeds if (rows := by_seed[seed]) is not None}
            values[name] = {seed: value for seed, rows in finished.items() if (value := rule.of(rows)) is not None}
        while values and not (common := set.intersection(*map(set, values.values()))):
            del values[min(values, key=lambda name: len(values[name]))]
        if not values:
            return names[0]
        sign = 1 if rule.higher_is_better else -1
        return max(values, key=lambda name: sign * sum(values[name][seed] for seed in common))
