"""Verdicts recomputed from a study's published CSV files alone, by formulas of its own: nothing of `train` is imported.

    python tests/train/recompute_verdicts.py DIR

reads DIR/runs.csv, DIR/curves.csv.gz, which pairs DIR/summary.csv compares, and what DIR/claims.csv says is compared,
how, and at how many seeds. It prints the claims of which a verdict by either test, a corrected p-value, or a
comparison's outcome, p-value or interval comes out differently. Exit status 1 if there are any. It follows the same
method, `results/report/analysis_plan.md`, so it finds faults of the program and not of the plan.
"""

import csv
import functools
import gzip
import itertools
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median, variance

from scipy.optimize import brentq
from scipy.special import polygamma, psi
from scipy.stats import t as student


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Study:
    """What is published.

    Attributes:
      curves: by (section, variant) and seed; None for a run that failed.
      ids: of variants, by (section, variant).
      against: {(section, variant): baseline} of the pairs that the sections compare.
      claims: rows of claims.csv by claim.
      failed: (section, variant) of which a run failed.
    """

    def __init__(self, out):
        epochs = defaultdict(list)
        with gzip.open(out / "curves.csv.gz", "rt", newline="") as file:
            for row in csv.DictReader(file):
                epochs[row["run"]].append({k: float(v) for k, v in row.items() if k != "run" and v})
        self.curves, self.ids, self.claims = defaultdict(dict), {}, defaultdict(list)
        for run in rows_of(out / "runs.csv"):
            for place in zip(run["sections"].split(";"), run["variants"].split(";"), strict=True):
                self.ids[place] = run["variant_id"]
                self.curves[place][int(run["seed"])] = epochs[run["id"]] if run["status"] == "finished" else None
        self.against = {
            (r["section"], r["variant"]): r["against"] for r in rows_of(out / "summary.csv") if r["against"]
        }
        for row in rows_of(out / "claims.csv"):
            self.claims[row["claim"]].append(row)
        self.failed = {place for place, by_seed in self.curves.items() if None in by_seed.values()}
        looks = {(int(row["first_look"]), row["second_look"]) for rows in self.claims.values() for row in rows}
        for first, second in looks:  # one pair, if there are claims
            # The second look is at all of a variant's seeds or at none of those that were added; without one at none.
            for by_seed in self.curves.values():
                whole = second != "" and set(by_seed) >= set(range(int(second)))
                for seed in [s for s in by_seed if s >= (int(second) if whole else first)]:
                    del by_seed[seed]


def value(rows, quantity):
    """A quantity of one run, as larger-is-better: accuracies as they are, others as minus their logarithm."""
    slow = quantity.startswith("slow_")
    kind, _, rest = quantity.removeprefix("slow_").partition("_")
    column = {
        "accuracy": "test_accuracy",
        "loss": "train_loss",
        "perplexity": "test_perplexity",
    }[rest if kind in ("late", "final") else kind]
    series = [row.get("slow_" + column, row[column]) if slow else row[column] for row in rows]
    if kind == "late":
        series = series[len(series) - -(-len(series) // 6) :]
    elif rest != "area":
        series = series[-1:]
    if column == "test_perplexity":
        return -fmean(map(math.log, series))
    return fmean(series) if column == "test_accuracy" else -math.log(fmean(series))


def gains(study, section, variant, baseline, quantities, seeds):
    """By seed, of the runs of both that finished."""
    ours, theirs = study.curves[section, variant], study.curves[section, baseline]
    return {
        seed: value(ours[seed], quantities[0]) - value(theirs[seed], quantities[1])
        for seed in sorted(ours.keys() & theirs.keys())
        if seed in seeds and ours[seed] and theirs[seed]
    }


@functools.cache
def prior(study, dataset, quantity, seeds):
    """(d0, at most 2; s0^2; the group's degrees of freedom) by Smyth's moments; None for fewer than three pairs."""
    known = {}
    for (section, variant), baseline in study.against.items():
        ids = study.ids[section, variant], study.ids.get((section, baseline))  # None: not run
        if section.rpartition(":")[2] == dataset and ids[0] != ids[1]:
            found = gains(study, section, variant, baseline, (quantity, quantity), seeds)
            if len(found) > 1:
                known[ids] = (variance(found.values()), len(found) - 1)
    if len(known) < 3 or not median(s2 for s2, _ in known.values()):
        return None
    floor = 1e-5 * median(s2 for s2, _ in known.values())
    total = sum(d for _, d in known.values())
    logs = [math.log(max(s2, floor)) - psi(d / 2) + math.log(d / 2) for s2, d in known.values()]
    spread = variance(logs) - fmean(float(polygamma(1, d / 2)) for _, d in known.values())
    if spread <= 0:
        return 2.0, sum(s2 * d for s2, d in known.values()) / total, total
    d0 = 2 * brentq(lambda x: float(polygamma(1, x)) - spread, 1e-6, 1e9, xtol=1e-12, rtol=1e-13)
    return min(d0, 2.0), math.exp(fmean(logs) + psi(d0 / 2) - math.log(d0 / 2)), total


def error(values, of_group):
    """(squared standard error, degrees of freedom) of a mean."""
    s2, d = variance(values), len(values) - 1
    # No spread but of rounding.
    s2 = 0.0 if math.sqrt(s2) <= 1e-12 * max(1.0, *map(abs, values)) else s2
    if of_group:
        d0, s02, total = of_group
        s2 = (d0 * s02 + d * s2) / (d0 + d)
        d = max(d, min(d0 + d, total))
    return s2 / len(values), d


def p_greater(sets, errors, bound):
    """Twice the one-sided p-value of "the gain is above the bound": of one set, or of two's difference (Welch)."""
    mean = fmean(sets[0]) - (fmean(sets[1]) if len(sets) > 1 else 0.0)
    squared = sum(e for e, _ in errors)
    if not squared:
        return 0.0 if mean > bound else 1.0
    freedom = squared**2 / sum(e**2 / d for e, d in errors)
    return min(1.0, 2 * float(student.sf((mean - bound) / math.sqrt(squared), freedom)))


def best(study, section, names, quantity, seeds):
    """Of several variants the best over the seeds that all have finished."""
    if len(names) == 1:
        return names[0]
    scores = {
        name: {s: value(study.curves[section, name][s], quantity) for s in seeds if study.curves[section, name][s]}
        for name in names
    }
    while scores and not set.intersection(*map(set, scores.values())):
        del scores[min(scores, key=lambda name: len(scores[name]))]
    common = set.intersection(*map(set, scores.values())) if scores else set()
    return max(scores, key=lambda name: fmean(scores[name][s] for s in common)) if scores else names[0]


def test(study, row, moderated, last):
    """(sizes, (p shown, p refuted) or None, (p of each, low, high)) of a comparison at the first or the last look."""
    first_look = range(int(row["first_look"]))
    sides = [(row["section"], row["variant_of"].split(" | "), row["baseline_of"].split(" | "))]
    if row["than_section"]:
        sides.append((row["than_section"], row["than_variant"].split(" | "), row["than_baseline"].split(" | ")))
    quantities = row["quantity"], row["baseline_quantity"]
    sets, errors, ready = [], [], True
    for section, variants, baselines in sides:
        ended = set.intersection(*(set(study.curves[section, name]) for name in (*variants, *baselines)))
        ready = ready and ended >= set(first_look)
        seeds = ended if last else ended & set(first_look)
        pair = [best(study, section, n, q, seeds) for n, q in zip((variants, baselines), quantities, strict=True)]
        sets.append(list(gains(study, section, *pair, quantities, seeds).values()))
        looked = range(10**6) if last else first_look
        same = quantities[0] == quantities[1]
        group = prior(study, section.rpartition(":")[2], quantities[0], looked) if moderated and same else None
        errors.append(error(sets[-1], group) if len(sets[-1]) > 1 else None)
    sizes = tuple(map(len, sets))
    if not ready or min(sizes) < 2:
        return sizes, None, None
    mirrored = [[-v for v in values] for values in sets]
    margin = float(row["margin"])
    positive, negative = p_greater(sets, errors, 0.0), p_greater(mirrored, errors, 0.0)
    not_low, not_high = p_greater(sets, errors, -margin), p_greater(mirrored, errors, -margin)
    single = {
        "better": (positive, not_high),
        "worse": (negative, not_low),
        "not_better": (not_high, positive),
        "not_worse": (not_low, negative),
        "equal": (max(not_low, not_high), min(positive, negative)),
        "differs": (min(positive, negative), max(not_low, not_high)),
    }[row["kind"]]
    # What a difference in either direction says is at the full level, all else at half of it.
    for_claim = {"equal": (single[0], 2 * single[1]), "differs": (2 * single[0], single[1])}.get(row["kind"], single)
    return sizes, tuple(min(1.0, p) for p in for_claim), (single, *interval(sets, errors))


def interval(sets, errors):
    """The ends of the 95 % interval of a mean, or of a difference of two (Welch)."""
    mean, squared = fmean(sets[0]) - (fmean(sets[1]) if len(sets) > 1 else 0.0), sum(e for e, _ in errors)
    freedom = squared**2 / sum(e**2 / d for e, d in errors) if squared else 1.0
    half = math.sqrt(squared) * float(student.ppf(0.975, freedom))
    return mean - half, mean + half


def p_of(one_is_enough, ps, side):
    """p-value of a claim's support (side 0) or contradiction (side 1), from its comparisons'; None counts as 1."""
    values = [1.0 if p is None else p[side] for p in ps]
    return min(1.0, len(values) * min(values)) if one_is_enough == (side == 0) else max(values)


def corrected(family):
    """{claim: p} after Holm's procedure, step by step from the smallest, doubled for the two looks."""
    found, largest = {}, 0.0
    for left, key in zip(itertools.count(len(family), -1), sorted(family, key=family.get)):
        largest = max(largest, 2 * left * family[key])
        found[key] = min(1.0, largest)
    return found


def family_verdicts(study, keys, moderated):
    """{claim: (verdict, corrected p-value, its comparisons' tests, their outcomes)} of a family, after both looks."""
    enough = {key: study.claims[key][0]["needs"] == "any" for key in keys}
    first = {key: [test(study, row, moderated, False) for row in study.claims[key]] for key in keys}
    second = {key: [test(study, row, moderated, True) for row in study.claims[key]] for key in keys}
    # What has no more seeds in each of its pairs is not looked at again.
    for key in keys:
        for place, (early, late) in enumerate(zip(first[key], second[key], strict=True)):
            if any(before == after for before, after in zip(early[0], late[0], strict=True)):
                second[key][place] = early
    found = {}
    for looked in (first, second):
        tests = {key: first[key] if key in found else looked[key] for key in keys}
        ps = {key: [p for _, p, _ in tests[key]] for key in keys}
        support = {key: p_of(enough[key], ps[key], 0) for key in keys}
        # What a comparison that is shown says against its claim does not count.
        shown = {key: alone(support, key, enough[key], ps[key], 0) for key in keys}
        for key in keys:
            ps[key] = [(p[0], 1.0) if p and q < 0.05 else p for p, q in zip(ps[key], shown[key], strict=True)]
        against = {key: p_of(enough[key], ps[key], 1) for key in keys}
        for_it, against_it = corrected(support), corrected(against)
        here = {}
        for key in set(keys) - set(found):
            words = word(for_it[key], against_it[key])
            p = for_it[key] if words == "supported" else min(for_it[key], against_it[key])
            refuted = alone(against, key, enough[key], ps[key], 1)
            outcomes = [word(*both) for both in zip(shown[key], refuted, strict=True)]
            here[key] = (words, p if any(ps[key]) else None, tests[key], outcomes)
        found |= {key: one for key, one in here.items() if one[0] != "not resolved" or looked is second}
    return found


def word(shown, refuted):
    """What two corrected p-values say."""
    return "supported" if shown < 0.05 else "contradicted" if refuted < 0.05 else "not resolved"


def alone(family, key, one_is_enough, ps, side):
    """Of each comparison, the corrected p-value that its claim would have from it alone; family: {claim: p}."""
    times = len(ps) if one_is_enough == (side == 0) else 1
    return [corrected(family | {key: 1.0 if p is None else min(1.0, times * p[side])})[key] for p in ps]


def progress(study, rows):
    """How far the runs of a claim are."""
    ready, failed, started = [], False, False
    for row in rows:
        places = [(row["section"], name) for side in ("variant_of", "baseline_of") for name in row[side].split(" | ")]
        for side in ("than_variant", "than_baseline"):
            places += [(row["than_section"], name) for name in row[side].split(" | ") if name]
        runs = [study.curves[place] for place in places]
        ready.append(all(set(by_seed) >= set(range(int(row["first_look"]))) for by_seed in runs))
        failed = failed or not study.failed.isdisjoint(places)
        started = started or min(test(study, row, False, False)[0]) > 0
    return "run" if all(ready) else "partly run" if any(ready) or failed or started else "not run"


def recomputed(study):
    """{claim: (verdict as shown, plain verdict, corrected p-value)}, {(claim, test's name): [(test, outcome)]}."""
    found, tests = {}, {}
    for source in {rows[0]["source"] for rows in study.claims.values()}:
        keys = [key for key, rows in study.claims.items() if rows[0]["source"] == source]
        moderated, plain = (family_verdicts(study, keys, how) for how in (True, False))
        for key in keys:
            words, p, *_ = moderated[key]
            runs = progress(study, study.claims[key])
            shown = runs if words == "not resolved" and runs != "run" else words
            found[key] = shown, plain[key][0], p
            for how, of in (("moderated", moderated), ("plain", plain)):
                tests[key, how] = list(zip(*of[key][2:], strict=True))
    return found, tests


def same(p, q):
    """Whether two p-values agree: tables have seven digits, which tiny p-values feel."""
    if p is None or q is None:
        return p is q
    return math.isclose(p, q, rel_tol=1e-3) or max(p, q) < 1e-6


def same_numbers(row, prefix, test):
    """Whether a comparison's p-value and interval are as published: "" where it cannot be tested."""
    published = [row[f"{prefix}{name}"] for name in ("p", "low", "high")]
    if test[2] is None:
        return not published[0]
    ps, low, high = test[2]
    p, *ends = map(float, published)
    # The curves have seven digits, which do not tell more of runs that hardly differ.
    enough = 1e-5 * max(map(abs, ends)) + 1e-6
    near = all(abs(end - ours) <= enough for end, ours in zip(ends, (low, high), strict=True))
    return near and (high - low < 1e-3 or any(same(p, ours) for ours in ps))


def disagreements(out):
    """Claims that are published otherwise: {key: (published, recomputed)}."""
    study, found = Study(out), {}
    ours, tests = recomputed(study)
    for key, mine in ours.items():
        row = study.claims[key][0]
        theirs = row["verdict"], row["plain_verdict"], float(row["claim_p_holm"]) if row["claim_p_holm"] else None
        if theirs[:2] != mine[:2] or not same(theirs[2], mine[2]):
            found[key] = (theirs, mine)
        for how, prefix in (("moderated", ""), ("plain", "plain_")):
            for number, (row, one) in enumerate(zip(study.claims[key], tests[key, how], strict=True), 1):
                test, outcome = one
                if row[prefix + "outcome"] != outcome or not same_numbers(row, prefix, test):
                    published = [row[prefix + name] for name in ("outcome", "p", "low", "high")]
                    found[f"{key}, comparison {number}, {how}"] = (published, (outcome, test[2]))
    return found


if __name__ == "__main__":
    different = disagreements(Path(sys.argv[1]))
    for key, (theirs, ours) in different.items():
        print(f"claim {key}: published as {theirs}, recomputed as {ours}")
    sys.exit(bool(different))
