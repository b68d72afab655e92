"""What a study has found: its runs, and the verdicts on its claims. Figures and page are made of this."""

import dataclasses
from typing import Any, Literal

from train.run.records import Row
from train.study.claims import Claim, Comparison
from train.study.plan import Section, Study

Status = Literal["finished", "failed", "missing"]
Outcome = Literal["supported", "contradicted", "not resolved"]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run as it is published.

    Attributes:
      id: see `train.identity`.
      variant_id: the id that it would have with seed 0: the same for all seeds of a variant.
      data: digest of the data set that it was trained and tested on.
      scale: of the study that ran it.
      config: its settings, nested as in config.json.
      seed: of the run.
      rows: of metrics.csv, one an epoch; empty unless finished.
      status: "finished", "failed" (its log says why), or "missing" (planned, not run).
      seconds: wall time, all starts together; 0 where not run.
      log: path of its log relative to the out directory; "" where not run.
      provenance: date, machine, python, platform, versions, commit: all words.
    """

    id: str
    variant_id: str
    data: str
    scale: str
    config: dict[str, Any]
    seed: int
    rows: list[Row]
    status: Status
    seconds: float = 0.0
    log: str = ""
    provenance: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """A comparison with its numbers. Gains are positive where the variant is better than the baseline.

    Attributes:
      comparison: what was compared.
      variant, baseline: the names compared, where the comparison leaves a choice: the best of them.
      outcome: "supported" (shown), "contradicted" (refuted) or "not resolved", by the adjusted p-value.
      n: pairs of seeds (where a second pair is taken off: the smaller of the two numbers).
      relative: whether gains are logarithms of a ratio (times 100: about per cent), rather than differences.
      variant_mean, baseline_mean: of the quantity over the paired seeds; None where there are no runs.
      estimate: mean gain; None where there are no runs.
      low, high: 95 % interval of the gain; None where n < 2.
      p: raw; of being shown or of being refuted, whichever `outcome` is or, where that is open, has the smaller
        corrected p-value. None where n < 2.
      p_holm: corrected; what `outcome` goes by. None where n < 2.
      report_variant, report_baseline: the quantity in the report's own logs (one seed), where it has them.
      report_estimate: the gain in the report's own logs.
    """

    comparison: Comparison
    variant: str
    baseline: str
    outcome: Outcome
    n: int
    relative: bool
    variant_mean: float | None
    baseline_mean: float | None
    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    report_variant: float | None = None
    report_baseline: float | None = None
    report_estimate: float | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the data says of a claim.

    Attributes:
      claim: the claim.
      verdict: "supported", "contradicted" or "not resolved": see `train.study.claims.Claim`.
      tests: a result for each of the claim's comparisons.
      p_holm: corrected over the claims of the same source; None where no comparison has two seeds.
      note: what a reader must know: the claim's own note, runs that are missing, a faulty log of the report.
      scale: that it was measured at, and speaks of.
      waits: whether no comparison has its runs yet, and none of them failed.
    """

    claim: Claim
    verdict: Outcome
    tests: tuple[ComparisonResult, ...]
    p_holm: float | None
    note: str
    scale: str
    waits: bool = False

    @property
    def n(self) -> int:
        """The smallest number of seeds among the comparisons."""
        return min(test.n for test in self.tests)


@dataclasses.dataclass(frozen=True)
class StudyResults:
    """A study with everything that was found.

    Attributes:
      study: the plan.
      runs: every published run by its id, and the planned ones that are missing.
      verdicts: one a claim, in the study's order.
      facts: of study.json: command, versions, machine, date, sessions.
    """

    study: Study
    runs: dict[str, RunRecord]
    verdicts: tuple[Verdict, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def by_variant(self, section: Section, variant: str) -> list[RunRecord]:
        """The finished runs of a variant of a section, ordered by seed; more than planned where there are more."""
        wanted = section.variant(variant).id
        found = [run for run in self.runs.values() if run.variant_id == wanted and run.status == "finished"]
        return sorted(found, key=lambda run: run.seed)

    def sections_of(self, run: RunRecord) -> list[tuple[Section, str]]:
        """The places of a run: section and name of the variant."""
        return [
            (section, variant.name)
            for section in self.study.sections
            for variant in section.variants
            if variant.id == run.variant_id
        ]
