"""Writes what a reader must know about a verdict, in sentences."""

from collections.abc import Sequence

from train.study.plan import Study, Variant
from train.study.plan.claims import Claim
from train.study.results.records import ComparisonResult, Outcome, Progress
from train.study.verdicts.rulings import Ruling
from train.study.verdicts.seeds import MAX_SEEDS
from train.study.verdicts.wording import gain_words, seeds_words


def variants_of(study: Study, claim: Claim) -> list[Variant]:
    """All variants that a claim compares, each once."""
    found: dict[str, Variant] = {}
    for pair in (pair for comparison in claim.comparisons for pair in comparison.pairs):
        for name in (*pair.variants, *pair.baselines):
            variant = study.section(pair.section).variant(name)
            found[variant.id] = variant
    return list(found.values())


def note(
    study: Study,
    claim: Claim,
    results: Sequence[ComparisonResult],
    *,
    ready: Sequence[bool],
    progress: Progress,
    lost: int,
    moderated: Ruling,
    plain: Ruling,
) -> str:
    """The note on a verdict.

    Args:
      study: the plan.
      claim: the claim.
      results: the results of its comparisons.
      ready: whether each of them has its runs.
      progress: the progress of the claim's runs.
      lost: how many of its runs failed.
      moderated: the ruling that gives the verdict.
      plain: the plain test's ruling.
    """
    found = [claim.note] if claim.note else []
    found += _runs(study, results, ready, progress, lost)
    found += _tuning(study, claim)
    found += _two_tests(moderated.verdict, plain.verdict)
    if any(result.moderated.deviation == 0.0 for result in results):
        found.append("The gain is the same in all seeds, so its variance cannot be estimated: p = 0 is not certainty.")
    if moderated.look == 2:
        again = sum(result.n > study.seeds for result in results)
        some = f"{again} of {len(results)} comparisons {'was' if again == 1 else 'were'} looked"
        found.append(f"{'Looked' if again == len(results) else some} at a second time, with more seeds.")
    found += _out_of_reach(results)
    logged = [_fits(result) for result in results if result.reference_estimate is not None]
    if len(logged) == len(results) and not (any(logged) if claim.any_of else all(logged)):
        found.append(f"The runs of {study.reference} themselves do not support it at the margins used here.")
    if study.scale != "full" and all(study.section(ref).same_budget for ref in claim.sections):
        found.append(f"Measured at the budget of {study.reference}.")
    faults = [variant.reference.fault for variant in variants_of(study, claim) if variant.reference]
    found += dict.fromkeys(filter(None, faults))
    return " ".join(found)


def _runs(
    study: Study, results: Sequence[ComparisonResult], ready: Sequence[bool], progress: Progress, lost: int
) -> list[str]:
    if progress == "not run":
        return ["Not run yet."]
    found = []
    if missing := ready.count(False):
        which = "It has" if len(ready) == 1 else f"{missing} of {len(ready)} comparisons have"
        found.append(f"{which} fewer than the {study.seeds} seeds that this study plans.")
    few = sum(result.n < 2 for result, done in zip(results, ready, strict=True) if done)
    if few == len(results):
        found.append("With fewer than two seeds there is no interval, so nothing can be resolved.")
    elif few:
        found.append(f"{few} of {len(results)} comparisons have fewer than two seeds.")
    if lost:
        found.append(f"{lost} run{'s' * (lost > 1)} failed and {'are' if lost > 1 else 'is'} left out.")
    return found


def _tuning(study: Study, claim: Claim) -> list[str]:
    """Whether what is compared was tuned alike; of studies that tune nothing the page says so once."""
    if not any(section.trials for section in study.sections):
        return []
    trials = {study.section(ref).trials for ref in claim.sections}
    if trials == {0}:
        return ["Not tuned."]
    if len(trials) == 1:
        return [f"Tuned equally ({trials.pop()} trials)."]
    return [f"Tuned unequally (from {min(trials)} to {max(trials)} trials)."]


def _two_tests(verdict: Outcome, plain: Outcome) -> list[str]:
    if verdict == plain:
        return []
    if plain == "not resolved":
        return ["Only the moderated test gives this verdict; the plain paired t-test does not resolve it."]
    if verdict == "not resolved":
        return [f"Only the plain paired t-test gives a verdict: {plain}."]
    return [f"The plain paired t-test gives the opposite verdict: {plain}."]


def _out_of_reach(results: Sequence[ComparisonResult]) -> list[str]:
    found = {}
    for result in results:
        comparison, needed = result.comparison, result.seeds_at_edge
        if comparison.kind == "equal" and needed is not None and needed.shown > MAX_SEEDS:
            margin = gain_words(comparison.quantity, comparison.margin).lstrip("+")
            found[margin] = max(needed.shown, found.get(margin, 0))
    return [
        f"Equal within {margin} is out of reach at this budget: it would take {seeds_words(needed)} seeds even if "
        "there were no difference at all."
        for margin, needed in found.items()
    ]


def _fits(result: ComparisonResult) -> bool:
    """Whether the reference's gain is where the comparison says; its one seed "differs" if it does by the margin."""
    gain, margin = result.reference_estimate, result.comparison.margin
    assert gain is not None
    return {
        "better": gain > 0,
        "worse": gain < 0,
        "not_better": gain < margin,
        "not_worse": gain > -margin,
        "equal": abs(gain) < margin,
        "differs": abs(gain) >= margin,
    }[result.comparison.kind]
