"""The tables that follow from a study's runs: claims.csv and summary.csv."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train.files import csv_text, write_atomic
from train.study.page.summary import summarise
from train.study.results.cells import short
from train.study.results.records import ComparisonResult, StudyResults, Verdict
from train.study.verdicts.wording import seeds_words

CLAIMS, SUMMARY = "claims.csv", "summary.csv"

# Columns that both tests have, and where their values are.
READINGS = {"low": "low", "high": "high", "sd": "deviation", "df": "freedom", "p": "p", "p_holm": "p_holm"}


def _claim_record(verdict: Verdict, test: ComparisonResult, first_look: int, second_look: int | None) -> dict[str, Any]:
    """A row of claims.csv. Of variants of which the best was chosen it names that one, and the choice behind."""
    comparison, than, beside = test.comparison, test.comparison.than, test.beside
    return {
        "claim": verdict.claim.key,
        "source": verdict.claim.source,
        "text": verdict.claim.text,
        "needs": "any" if verdict.claim.any_of else "all",
        "scale": verdict.scale,
        "verdict": verdict.words,
        "plain_verdict": verdict.plain,
        "claim_p_holm": verdict.p_holm,
        "look": verdict.look,
        "first_look": first_look,
        "second_look": second_look,
        "claim_seeds_if_seen": _seeds(verdict.seeds_if_seen),
        "claim_seeds_at_edge": _seeds(verdict.seeds_at_edge),
        "section": comparison.pair.section,
        "variant": test.variant,
        "baseline": test.baseline,
        "variant_of": " | ".join(comparison.pair.variants),
        "baseline_of": " | ".join(comparison.pair.baselines),
        "quantity": comparison.quantity,
        "baseline_quantity": comparison.baseline_quantity or comparison.quantity,
        "kind": comparison.kind,
        "margin": comparison.margin,
        "unit": "log ratio" if test.relative else "difference",
        "than_section": than and than.section,
        "than_variant": than and " | ".join(than.variants),
        "than_baseline": than and " | ".join(than.baselines),
        "outcome": test.outcome,
        "n": test.n,
        "variant_mean": test.variant_mean,
        "baseline_mean": test.baseline_mean,
        "gain": test.estimate,
        **{name: getattr(test.moderated, attribute) for name, attribute in READINGS.items()},
        "seeds_if_seen": _seeds(test.seeds_if_seen and test.seeds_if_seen.either),
        "seeds_at_edge": _seeds(test.seeds_at_edge and test.seeds_at_edge.either),
        "plain_outcome": test.plain.outcome,
        "plain_n": test.plain.n,
        **{f"plain_{name}": getattr(test.plain, attribute) for name, attribute in READINGS.items()},
        "reference_variant": test.reference_variant,
        "reference_baseline": test.reference_baseline,
        "reference_gain": test.reference_estimate,
        "beside": beside and beside.quantity,
        "beside_variant_mean": beside and beside.variant_mean,
        "beside_baseline_mean": beside and beside.baseline_mean,
        "beside_gain": beside and beside.estimate,
        "beside_low": beside and beside.low,
        "beside_high": beside and beside.high,
        "beside_reference_gain": beside and beside.reference_estimate,
        "note": verdict.note,
    }


def _seeds(number: int | None) -> str | None:
    return None if number is None else seeds_words(number)


def write_claims(out: Path, verdicts: Iterable[Verdict], first_look: int, second_look: int | None) -> None:
    """Writes claims.csv; the looks are numbers of seeds, None if there is no second."""
    records = [_claim_record(verdict, test, first_look, second_look) for verdict in verdicts for test in verdict.tests]
    columns = list(records[0]) if records else ["claim"]
    rows = ({name: short(value) for name, value in record.items()} for record in records)
    write_atomic(out / CLAIMS, csv_text(columns, rows))


def write_summary(out: Path, results: StudyResults) -> None:
    """Writes summary.csv."""
    records = [record._asdict() for record in summarise(results)]
    columns = list(records[0]) if records else ["section"]
    write_atomic(out / SUMMARY, csv_text(columns, ({name: short(value) for name, value in r.items()} for r in records)))


def write_tables(out: Path, results: StudyResults) -> None:
    """Writes the tables that follow from the runs."""
    write_claims(out, results.verdicts, results.study.seeds, results.facts.get("second_look"))
    write_summary(out, results)
