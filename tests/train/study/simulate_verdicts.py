"""The whole procedure on made-up studies of the report's size, with known truth: how often is a verdict false?

    python tests/train/study/simulate_verdicts.py STUDIES

Each study has the report's variants and its 25 claims: three seeds, then eight where `train.study.verdicts.resolve`
adds them.
The true gains lie where errors are most likely (zero, the margins) or anywhere; all pairs of a section share their
baseline; the noise has heavy tails (t with four degrees of freedom) and unequal spread: 0.3 points, and 2.3 for some
variants or for one. All of it may be made smaller: where a margin is many standard errors wide, nearly every claim is
resolved one way, and errs the other way if the correction for many claims is then relaxed. Not simulated: the controls,
of which some choose the best of several variants, and comparisons between two quantities.
"""

import dataclasses
import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.study.plan import load_study
from train.study.verdicts.judge import decide
from train.study.verdicts.measurements import variant_ids
from train.study.verdicts.notes import variants_of
from train.study.verdicts.resolve import decidable

REPORT = Path(__file__).resolve().parents[3] / "configs" / "studies" / "report.py"
MAX_SEEDS = 8

# By column of the rows: margin, usual and large standard deviation of a gain. Accuracies differ; others are logarithms.
COLUMNS = {
    "test_accuracy": (0.005, 0.003, 0.023),
    "train_loss": (0.02, 0.008, 0.06),
    "test_perplexity": (0.01, 0.004, 0.03),
}
QUANTITIES = {"late_accuracy": "test_accuracy", "loss_area": "train_loss", "late_perplexity": "test_perplexity"}

# Which variants have the large one: about one in seven, or only Lookahead(RAdam) on CIFAR-10, as in the runs seen.
SPREADS = ("some", "one")
OUTLIER = ("2.1:cifar10", "Lookahead(RAdam)")

# By what all noise is multiplied.
NOISES = (1.0, 0.35, 0.15)

# Each scenario draws the gains of the variants over what they are held against: (margin, standard deviation, n) -> n.
SCENARIOS = {
    "all gains 0": lambda rng, margin, sd: 0.0 * sd,
    "all gains at the margin": lambda rng, margin, sd: margin + 0.0 * sd,
    "all gains at minus the margin": lambda rng, margin, sd: -margin + 0.0 * sd,
    "gains 0 or a margin": lambda rng, margin, sd: margin * rng.choice([-1.0, 0.0, 1.0], size=len(sd)),
    "gains of 1, 2, 3 sd": lambda rng, margin, sd: sd * rng.choice([1.0, 2.0, 3.0], size=len(sd)),
}


class Truth(NamedTuple):
    """A made-up study's true values, larger is better, and the standard deviations of its variants' noise."""

    values: dict[str, dict[str, float]]
    deviations: dict[str, dict[str, float]]


class Plan:
    """The report's study with its own claims alone, and its variants in an order in which baselines come first."""

    def __init__(self):
        study = load_study(REPORT, scale="mini")
        claims = tuple(claim for claim in study.claims if claim.source == "report")
        self.study = dataclasses.replace(study, claims=claims)
        self.ids = variant_ids(self.study)
        self.variants = {claim.key: {variant.id for variant in variants_of(self.study, claim)} for claim in claims}
        self.against = {}
        for section in self.study.sections:
            for variant in section.variants:
                ids = variant.id, section.against(variant).id
                if ids[0] not in self.against:
                    self.against[ids[0]] = None if ids[0] == ids[1] else ids[1]
        # Whatever a section's baseline is held against elsewhere comes before it.
        self.order = []
        while len(self.order) < len(self.against):
            ready = [v for v, b in self.against.items() if v not in self.order and (b is None or b in self.order)]
            self.order += ready

    def truth(self, rng, scenario, spread, noise=1.0):
        values, deviations = {}, {}
        for column, (margin, small, large) in COLUMNS.items():
            # A gain is the difference of two runs: each has half the variance.
            outlier = [variant == self.ids[OUTLIER] for variant in self.order]
            wide = rng.random(len(self.order)) < 0.15 if spread == "some" else np.array(outlier)
            sd = noise * np.where(wide, large, small) / np.sqrt(2.0)
            deviations[column] = dict(zip(self.order, sd, strict=True))
            of_run = deviations[column]
            of_pair = [np.hypot(of_run[v], of_run[self.against[v] or v]) for v in self.order]
            gains = SCENARIOS[scenario](rng, margin, np.array(of_pair))
            found = {}
            for variant, gain in zip(self.order, gains, strict=True):
                baseline = self.against[variant]
                found[variant] = 0.0 if baseline is None else found[baseline] + gain
            values[column] = found
        return Truth(values, deviations)

    def runs(self, rng, truth):
        """Rows of a single epoch at all seeds, by variant; they share the luck of their seed."""
        shape = len(self.order), MAX_SEEDS
        noise = {column: rng.standard_t(4, size=shape) / np.sqrt(2.0) for column in COLUMNS}
        luck = {column: 5 * COLUMNS[column][1] * rng.normal(size=MAX_SEEDS) for column in COLUMNS}
        found = {}
        for row, variant in enumerate(self.order):
            score = {
                column: true[variant] + truth.deviations[column][variant] * noise[column][row] + luck[column]
                for column, true in truth.values.items()
            }
            found[variant] = {
                seed: [
                    {
                        "epoch": 1,
                        "test_accuracy": 0.5 + score["test_accuracy"][seed],
                        "train_loss": np.exp(-score["train_loss"][seed]),
                        "test_perplexity": 100 * np.exp(-score["test_perplexity"][seed]),
                    }
                ]
                for seed in range(MAX_SEEDS)
            }
        return found

    def true_gain(self, comparison, truth):
        """The true gain of a comparison, and the standard deviation of one of its gains."""
        values = truth.values[QUANTITIES[comparison.quantity]]
        noise = truth.deviations[QUANTITIES[comparison.quantity]]
        total, variance = 0.0, 0.0
        for sign, pair in zip((1, -1), comparison.pairs, strict=False):
            ids = [self.ids[pair.section, *side] for side in (pair.variants, pair.baselines)]
            total += sign * (values[ids[0]] - values[ids[1]])
            variance += noise[ids[0]] ** 2 + noise[ids[1]] ** 2
        return total, float(np.sqrt(variance))


def is_false(outcomes_true, any_of, verdict):
    """Whether a verdict is false, given for each comparison whether it is truly shown, and truly refuted."""
    shown, refuted = zip(*outcomes_true, strict=True)
    if verdict == "supported":
        return not (any(shown) if any_of else all(shown))
    return verdict == "contradicted" and not (all(refuted) if any_of else any(refuted))


def truly(kind, gain, margin):
    """Whether a comparison is shown, and refuted, by the true gain."""
    gain = 0.0 if abs(gain) < 1e-12 else gain
    at = abs(abs(gain) - margin) < 1e-12
    below, above = gain < margin and not (at and gain > 0), gain > -margin and not (at and gain < 0)
    within = below and above
    return {
        "better": (gain > 0, below),
        "worse": (gain < 0, above),
        "not_better": (below, gain > 0),
        "not_worse": (above, gain < 0),
        "equal": (within, gain != 0),
        "differs": (gain != 0, within),
    }[kind]


class Tally(NamedTuple):
    """What came out of the studies of a scenario.

    Attributes:
      studies: how many.
      false: by test, studies with a false verdict.
      resolved: by test, claims that were resolved.
      effects: (test, size in standard deviations): comparisons "better" of that size, and those found.
      added: runs that were added in all.
    """

    studies: int
    false: Counter
    resolved: Counter
    effects: dict
    added: int


def simulate(plan, scenario, spread, noise, studies, seed):
    """Runs the procedure on so many made-up studies."""
    rng = np.random.default_rng([seed, list(SCENARIOS).index(scenario), SPREADS.index(spread), NOISES.index(noise)])
    false, resolved, effects, added = Counter(), Counter(), {}, 0
    for _ in range(studies):
        truth = plan.truth(rng, scenario, spread, noise)
        runs = plan.runs(rng, truth)
        first = {v: {s: r for s, r in by_seed.items() if s < plan.study.seeds} for v, by_seed in runs.items()}
        decided = decide(plan.study, plan.ids, first)
        extended = set().union(*(plan.variants[claim.key] for claim in decidable(decided, MAX_SEEDS)))
        if extended:
            more = first | {variant: runs[variant] for variant in extended}
            decided = decide(plan.study, plan.ids, more, MAX_SEEDS)
        added += len(extended) * (MAX_SEEDS - plan.study.seeds)
        wrong = Counter()
        for one in decided:
            gains = [plan.true_gain(comparison, truth) for comparison in one.claim.comparisons]
            true = [truly(c.kind, g, c.margin) for c, (g, _) in zip(one.claim.comparisons, gains, strict=True)]
            for test, ruling in (("moderated", one.moderated), ("plain", one.plain)):
                wrong[test] += is_false(true, one.claim.any_of, ruling.verdict)
                resolved[test] += ruling.verdict != "not resolved"
                for comparison, (gain, sd), finding in zip(one.claim.comparisons, gains, ruling.findings, strict=True):
                    size = round(gain / sd, 6)
                    if comparison.kind == "better" and comparison.than is None and size in (1.0, 2.0, 3.0):
                        count = effects.setdefault((test, int(size)), [0, 0])
                        count[0] += 1
                        count[1] += finding.outcome == "supported"
        false.update({test: 1 for test, number in wrong.items() if number})
    return Tally(studies, false, resolved, effects, added)


def false_share(tallies, test):
    """The share of studies with a false verdict, and its Monte-Carlo standard error."""
    studies, false = sum(tally.studies for tally in tallies), sum(tally.false[test] for tally in tallies)
    share = false / studies
    return share, float(np.sqrt(max(share * (1 - share), 1 / studies) / studies))


def lines(tallies):
    """What was found, for people."""
    said = []
    for (scenario, spread, noise), tally in tallies.items():
        added = tally.added / tally.studies
        said.append(
            f"{scenario}, {spread} with a large spread, noise x {noise:g}: {tally.studies} studies, "
            f"{added:.0f} runs added to each"
        )
        for test in ("moderated", "plain"):
            share, error = false_share([tally], test)
            resolved = f"{tally.resolved[test] / tally.studies:.1f} of 25 claims resolved"
            said.append(f"  {test}: {100 * share:.2f} ± {100 * error:.2f} % have a false verdict, {resolved}")
        for size in (1, 2, 3):
            if ("moderated", size) in tally.effects:
                found = [tally.effects[test, size] for test in ("moderated", "plain")]
                shown = [f"{100 * hits / number:.0f} %" for number, hits in found]
                said.append(
                    f"  true gains of {size} sd found: moderated {shown[0]}, plain {shown[1]} (of {found[0][0]})"
                )
    return said


if __name__ == "__main__":
    made, number = Plan(), int(sys.argv[1])
    for cell in itertools.product(SCENARIOS, SPREADS, NOISES):
        print("\n".join(lines({cell: simulate(made, *cell, number, seed=0)})), flush=True)
