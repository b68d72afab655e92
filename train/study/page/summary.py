"""The variants of a study as numbers over their seeds: mean, spread, paired gain over what each is compared with."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from train.run.records import Row
from train.study.plan import Section
from train.study.plan.quantities import QUANTITIES, gain, values_of_pair
from train.study.results.records import StudyResults, Verdict
from train.study.verdicts.statistics import estimate
from train.study.verdicts.wording import NONE, gain_number, is_accuracy, seeds_words


class Summary(NamedTuple):
    """A quantity of a variant.

    Attributes:
      section: reference of its section.
      variant: its name.
      quantity: a name of `train.study.plan.quantities.QUANTITIES`.
      n: seeds.
      mean, sd, low, high: of the quantity, with its 95 % t interval; None for what takes two seeds.
      against: name of the variant that the gain is taken from; "" for the baseline.
      pairs: seeds that both have.
      unit: of the gain: "difference", or "log ratio" (times 100: about per cent).
      gain, gain_low, gain_high: mean over the pairs, positive where the variant is better; 95 % t interval.
      reference: the quantity in the reference run.
    """

    section: str
    variant: str
    quantity: str
    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    against: str
    pairs: int
    unit: str
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    reference: float | None


IMAGE_QUANTITIES = (
    "final_train_loss",
    "final_test_loss",
    "late_accuracy",
    "final_accuracy",
    "slow_final_accuracy",
    "accuracy_area",
    "slow_accuracy_area",
    "loss_area",
    "epochs_to_loss",
)
TEXT_QUANTITIES = (
    "late_perplexity",
    "perplexity",
    "slow_perplexity",
    "perplexity_area",
    "slow_perplexity_area",
    "loss_area",
    "epochs_to_loss",
)


def summarise(results: StudyResults) -> list[Summary]:
    """Every quantity of every variant that has runs, section by section."""
    found = []
    for section in results.study.sections:
        rows = {
            variant.name: {run.seed: run.rows for run in results.by_variant(section, variant.name)}
            for variant in section.variants
        }
        for variant in section.variants:
            for quantity in TEXT_QUANTITIES if section.language_model else IMAGE_QUANTITIES:
                if rows[variant.name] and (record := _summary(section, variant.name, quantity, rows)):
                    found.append(record)
    return found


def _summary(
    section: Section, name: str, quantity: str, rows: Mapping[str, Mapping[int, Sequence[Row]]]
) -> Summary | None:
    rule, variant = QUANTITIES[quantity], section.variant(name)
    if quantity.startswith("slow_") and not variant.config.optimizer.lookahead:
        return None
    values = [value for run in rows[name].values() if (value := rule.of(run)) is not None]
    against, pairs = section.against(variant).name, []
    if against != name:
        for seed in sorted(rows[name].keys() & rows[against].keys()):
            both = values_of_pair(rows[name][seed], rows[against][seed], quantity)
            pairs.append(gain(both, quantity) if both else None)
    gains = [value for value in pairs if value is not None]
    if not values and not gains:
        return None
    own, paired = (estimate(numbers) if numbers else None for numbers in (values, gains))
    published = variant.reference if not quantity.startswith("slow_") else None  # it has no scores of slow weights
    return Summary(
        section=section.ref,
        variant=name,
        quantity=quantity,
        n=len(values),
        mean=own and own.mean,
        sd=own and own.deviation,
        low=own and own.low,
        high=own and own.high,
        against=against if against != name else "",
        pairs=len(gains),
        unit="log ratio" if rule.relative else "difference",
        gain=paired and paired.mean,
        gain_low=paired and paired.low,
        gain_high=paired and paired.high,
        reference=rule.of(published.rows) if published else None,
    )


# For a terminal


def _columns(section: Section) -> dict[str, str]:
    """Quantities and their headings."""
    if section.language_model:
        return {"perplexity": "perplexity", "slow_perplexity": "slow weights", "loss_area": "loss area"}
    return {"final_accuracy": "accuracy %", "slow_final_accuracy": "slow weights %", "loss_area": "loss area"}


def _cell(record: Summary | None) -> str:
    if record is None or record.mean is None:
        return NONE
    accuracy = is_accuracy(record.quantity)
    scale, digits = (100.0, 2) if accuracy else (1.0, 1 if "perplexity" in record.quantity else 4)
    text = f"{scale * record.mean:.{digits}f}"
    if record.sd is not None:
        text += f" ± {scale * record.sd:.{digits}f}"
    if record.gain is not None:
        text += f"  ({gain_number(record.quantity, record.gain)}" + ("" if accuracy else " %")
        if record.gain_low is not None and record.gain_high is not None:
            low, high = (gain_number(record.quantity, bound) for bound in (record.gain_low, record.gain_high))
            text += f", {low} to {high}"
        text += ")"
    return text


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, its first row underlined."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines.insert(1, "-" * max(map(len, lines)))
    return lines


def format_tables(results: StudyResults, sections: Sequence[Section]) -> str:
    """A table a section: mean ± standard deviation; in brackets the gain with its 95 % interval."""
    records = {(r.section, r.variant, r.quantity): r for r in summarise(results)}
    parts = []
    for section in sections:
        if not any(key[0] == section.ref for key in records):
            continue
        columns = _columns(section)
        table = [["", "seeds", *columns.values()]]
        for variant in section.variants:
            n = len(results.by_variant(section, variant.name))
            cells = [_cell(records.get((section.ref, variant.name, quantity))) for quantity in columns]
            table.append([variant.label, str(n), *cells])
        heading = f"{section.key}  {section.title}" + (f" ({section.budget})" if section.budget else "")
        parts.append("\n".join([heading, "", *aligned(table)]))
    parts.append(
        "mean ± standard deviation over seeds; in brackets the gain over the baseline (points of accuracy; of losses\n"
        "and perplexities per cent; positive where better), paired by seed, with its 95 % t interval"
    )
    return "\n\n".join(parts)


def format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """A line a claim that has runs, then how many have none."""
    known = [verdict for verdict in verdicts if not verdict.waits]
    if not known:
        return ""
    table = [["claim", "verdict", "plain t-test", "p (Holm)", "seeds", "needed", ""]]
    for verdict in known:
        p = NONE if verdict.p_holm is None else f"{verdict.p_holm:.2g}"
        plain = verdict.plain if verdict.progress == "run" or verdict.plain != "not resolved" else NONE
        wanted = f"{seeds_words(verdict.seeds_if_seen)} / {seeds_words(verdict.seeds_at_edge)}"
        wanted = NONE if verdict.seeds_if_seen is None else wanted
        row = [verdict.claim.key, verdict.words, plain, p, str(verdict.n), wanted, verdict.claim.text]
        table.append(row)
    lines = aligned(table)
    if len(known) < len(verdicts):
        lines.append(f"({len(verdicts) - len(known)} claims wait for their runs)")
    lines.append(
        "needed: seeds to resolve it with power 0.8, if the true gain is the one seen / at the edge of its margin"
    )
    return "\n".join(lines)
