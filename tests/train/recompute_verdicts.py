"""Verdicts recomputed from a study's published CSV files alone, by formulas of its own: nothing of `train` is imported.

    python tests/train/recompute_verdicts.py DIR

reads DIR/runs.csv, DIR/curves.csv.gz and what claims.csv says is compared, and prints the claims whose verdict comes
out differently; exit status 1 where there are any.
"""

import csv
import gzip
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student


def read(out):
    """Curves by (section, variant) and seed, and the rows of claims.csv by claim."""
    epochs = defaultdict(list)
    with gzip.open(out / "curves.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            epochs[row["run"]].append({k: float(v) for k, v in row.items() if k != "run" and v})
    curves = defaultdict(dict)
    with (out / "runs.csv").open(newline="") as file:
        for run in csv.DictReader(file):
            if run["status"] == "finished":
                for place in zip(run["sections"].split(";"), run["variants"].split(";"), strict=True):
                    curves[place][int(run["seed"])] = epochs[run["id"]]
    claims = defaultdict(list)
    with (out / "claims.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            claims[row["claim"]].append(row)
    return curves, claims


def value(rows, quantity):
    """A quantity of one run, as larger-is-better: accuracies as they are, others as minus their logarithm."""
    slow = quantity.startswith("slow_")
    quantity = quantity.removeprefix("slow_")
    column = {
        "final_accuracy": "test_accuracy",
        "accuracy_area": "test_accuracy",
        "loss_area": "train_loss",
        "perplexity": "test_perplexity",
        "perplexity_area": "test_perplexity",
    }[quantity]
    series = [row.get("slow_" + column, row[column]) if slow else row[column] for row in rows]
    if quantity == "perplexity_area":
        return -fmean(map(math.log, series))
    number = fmean(series) if quantity.endswith("_area") else series[-1]
    return number if "accuracy" in quantity else -math.log(number)


def gains(curves, section, variant, baseline, row):
    ours, theirs = curves[section, variant], curves[section, baseline]
    return [
        value(ours[seed], row["quantity"]) - value(theirs[seed], row["baseline_quantity"])
        for seed in sorted(ours.keys() & theirs.keys())
    ]


def p_greater(sets, bound):
    """Twice the one-sided p-value of "the gain is above the bound": of one set, or of two's difference (Welch)."""
    errors = [stdev(values) ** 2 / len(values) for values in sets]
    mean = fmean(sets[0]) - (fmean(sets[1]) if len(sets) > 1 else 0.0)
    if sum(errors) < 1e-24:
        return 0.0 if mean > bound else 1.0
    freedom = sum(errors) ** 2 / sum(e**2 / (len(values) - 1) for e, values in zip(errors, sets, strict=True))
    return min(1.0, 2 * float(student.sf((mean - bound) / math.sqrt(sum(errors)), freedom)))


def p_pair(row, curves):
    """(p shown, p refuted) of a comparison; None with fewer than two seeds."""
    sets = [gains(curves, row["section"], row["variant"], row["baseline"], row)]
    if row["than_section"]:
        sets.append(gains(curves, row["than_section"], row["than_variant"], row["than_baseline"], row))
    if min(map(len, sets)) < 2:
        return None
    mirrored = [[-value for value in values] for values in sets]
    margin = float(row["margin"])
    positive, negative = p_greater(sets, 0.0), p_greater(mirrored, 0.0)
    not_low, not_high = p_greater(sets, -margin), p_greater(mirrored, -margin)
    return {
        "better": (positive, not_high),
        "worse": (negative, not_low),
        "not_better": (not_high, positive),
        "not_worse": (not_low, negative),
        "equal": (max(not_low, not_high), min(positive, negative)),
        "differs": (min(positive, negative), max(not_low, not_high)),
    }[row["kind"]]


def verdicts(out):
    """The verdict on every claim by its key."""
    curves, claims = read(out)
    found = {}
    for source in ("report", "control"):
        pairs = {
            key: [p_pair(row, curves) for row in rows] for key, rows in claims.items() if rows[0]["source"] == source
        }
        one_is_enough = {key: claims[key][0]["needs"] == "any" for key in pairs}

        def every(ps, side):
            return max(1.0 if p is None else p[side] for p in ps)

        def some(ps, side):
            return min((min(1.0, len(ps) * p[side]) for p in ps if p), default=1.0)

        family = {
            key: min(some(ps, 0), every(ps, 1)) if one_is_enough[key] else min(every(ps, 0), some(ps, 1))
            for key, ps in pairs.items()
        }

        def passes(key, p, family=family):
            """Holm's procedure with p in the claim's place: every smaller p-value must pass first."""
            others = sorted(q for name, q in family.items() if name != key)
            ahead = [q for q in others if q < p]
            return all(q * (len(others) + 1 - i) < 0.05 for i, q in enumerate([*ahead, p]))

        for key, ps in pairs.items():
            # As a comparison alone may contradict a claim that others support, all are looked at.
            easy, hard = (len(ps), 1) if one_is_enough[key] else (1, len(ps))
            shown = [p is not None and passes(key, min(1.0, easy * p[0])) for p in ps]
            refuted = [
                p is not None and not yes and passes(key, min(1.0, hard * p[1]))
                for p, yes in zip(ps, shown, strict=True)
            ]
            support, against = (any(shown), all(refuted)) if one_is_enough[key] else (all(shown), any(refuted))
            found[key] = "supported" if support else "contradicted" if against else "not resolved"
    return found


def disagreements(out):
    """Claims whose published verdict is another: {key: (published, recomputed)}."""
    _, claims = read(out)
    recomputed = verdicts(out)
    published = {key: rows[0]["verdict"] for key, rows in claims.items()}
    return {key: (published[key], recomputed[key]) for key in published if published[key] != recomputed[key]}


if __name__ == "__main__":
    different = disagreements(Path(sys.argv[1]))
    for key, (theirs, ours) in different.items():
        print(f"claim {key}: published as {theirs}, recomputed as {ours}")
    sys.exit(bool(different))
