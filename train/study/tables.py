"""The tables that follow from a study's runs: claims.csv and summary.csv."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from train.files import write_atomic
from train.study.results import StudyResults, Verdict
from train.study.summary import summarise

CLAIMS, SUMMARY = "claims.csv", "summary.csv"


def exact(value: Any) -> str:
    """A cell: "" for None, lists by slashes, floats so that they read back the same."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return "/".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def short(value: Any) -> str:
    return format(value, ".7g") if isinstance(value, float) else exact(value)


def csv_text(columns: Iterable[str], records: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


CLAIM_COLUMNS = (
    "claim",
    "source",
    "text",
    "needs",
    "scale",
    "verdict",
    "claim_p_holm",
    "section",
    "variant",
    "baseline",
    "quantity",
    "baseline_quantity",
    "kind",
    "margin",
    "unit",
    "than_section",
    "than_variant",
    "than_baseline",
    "outcome",
    "n",
    "variant_mean",
    "baseline_mean",
    "gain",
    "low",
    "high",
    "p",
    "p_holm",
    "report_variant",
    "report_baseline",
    "report_gain",
    "note",
)


def write_claims(out: Path, verdicts: Iterable[Verdict]) -> None:
    """Writes claims.csv. Of variants of which the best was chosen it names that one."""
    records = []
    for verdict in verdicts:
        for test in verdict.tests:
            comparison, than = test.comparison, test.comparison.than
            values: dict[str, Any] = {
                "claim": verdict.claim.key,
                "source": verdict.claim.source,
                "text": verdict.claim.text,
                "needs": "any" if verdict.claim.any_of else "all",
                "scale": verdict.scale,
                "verdict": verdict.verdict,
                "claim_p_holm": verdict.p_holm,
                "section": comparison.pair.section,
                "variant": test.variant,
                "baseline": test.baseline,
                "quantity": comparison.quantity,
                "baseline_quantity": comparison.baseline_quantity or comparison.quantity,
                "kind": comparison.kind,
                "margin": comparison.margin,
                "unit": "log ratio" if test.relative else "difference",
                "than_section": than and than.section,
                "than_variant": than and than.variant,
                "than_baseline": than and than.baseline,
                "outcome": test.outcome,
                "n": test.n,
                "variant_mean": test.variant_mean,
                "baseline_mean": test.baseline_mean,
                "gain": test.estimate,
                "low": test.low,
                "high": test.high,
                "p": test.p,
                "p_holm": test.p_holm,
                "report_variant": test.report_variant,
                "report_baseline": test.report_baseline,
                "report_gain": test.report_estimate,
                "note": verdict.note,
            }
            records.append({name: short(value) for name, value in values.items()})
    write_atomic(out / CLAIMS, csv_text(CLAIM_COLUMNS, records))


def write_summary(out: Path, results: StudyResults) -> None:
    """Writes summary.csv."""
    records = [record._asdict() for record in summarise(results)]
    columns = list(records[0]) if records else ["section"]
    write_atomic(out / SUMMARY, csv_text(columns, ({name: short(value) for name, value in r.items()} for r in records)))
