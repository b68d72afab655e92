"""What a study has found: its runs, and the verdicts on its claims. Figures and page are made of this."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from train.run.records import Row
from train.study.plan import Section, Study
from train.study.plan.claims import Claim, Comparison

Status = Literal["finished", "failed", "missing"]
Outcome = Literal["supported", "contradicted", "not resolved"]
Progress = Literal["run", "partly run", "not run"]
# A verdict as it is shown.
Words = Literal["supported", "contradicted", "not resolved", "partly run", "not run", "run"]


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
      provenance: date, machine, python, versions, commit: all words.
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


def is_finished(run_id: str, runs: Mapping[str, RunRecord]) -> bool:
    """Whether this run is among the published ones, and did not fail."""
    return run_id in runs and runs[run_id].status == "finished"


@dataclasses.dataclass(frozen=True)
class Reading:
    """A comparison as one of the two tests reads it.

    Attributes:
      outcome: "supported" (shown), "contradicted" (refuted) or "not resolved", by `p_holm`.
      low, high: 95 % interval of the gain; None where n < 2.
      p: raw; of being shown or of being refuted, whichever `outcome` is or, where that is open, has the smaller
        corrected p-value. None where it cannot be tested.
      p_holm: corrected over claims and looks. None where it cannot be tested.
      deviation: standard deviation of a gain; None where n < 2.
      freedom: degrees of freedom of that; None where n < 2.
      n: pairs of seeds at the look that gave the outcome.
    """

    outcome: Outcome
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    deviation: float | None = None
    freedom: float | None = None
    n: int = 0


@dataclasses.dataclass(frozen=True)
class Beside:
    """Another quantity of the same comparison, without a verdict.

    Attributes:
      quantity: a name of `train.study.plan.quantities.QUANTITIES`.
      variant_mean, baseline_mean, estimate: as in `ComparisonResult`.
      low, high: Student's 95 % interval of the gain; None where n < 2.
      reference_variant, reference_baseline, reference_estimate: as in `ComparisonResult`.
    """

    quantity: str
    variant_mean: float | None = None
    baseline_mean: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    reference_variant: float | None = None
    reference_baseline: float | None = None
    reference_estimate: float | None = None


class SeedsNeeded(NamedTuple):
    """How many seeds a comparison needs to be shown, and to be refuted."""

    shown: int
    refuted: int

    @property
    def either(self) -> int:
        """To be resolved, whichever way."""
        return min(self)


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """A comparison with its numbers. Gains are positive where the variant is better than the baseline.

    Attributes:
      comparison: what was compared.
      variant, baseline: the names compared, where the comparison leaves a choice: the best of them.
      n: pairs of seeds (where a second pair is taken off: the smaller of the two numbers).
      relative: whether gains are logarithms of a ratio (times 100: about per cent), rather than differences.
      variant_mean, baseline_mean: of the quantity over the paired seeds; None where there are no runs.
      estimate: mean gain; None where there are no runs.
      moderated: by the t-test with moderated variances, which verdicts go by.
      plain: by the plain paired t-test.
      beside: another quantity of the same comparison; None where none is wanted.
      seeds_if_seen: seeds that would resolve it if the true gain is `estimate`; a number above
        `train.study.verdicts.power.MOST_SEEDS` stands for all of those. None where it is resolved or cannot be tested.
      seeds_at_edge: likewise if the true gain is at the edge of the margin; or zero, for kinds that say there is none.
      reference_variant, reference_baseline: the quantity in the reference runs (one seed each), where there are any.
      reference_estimate: the gain in the reference runs.
    """

    comparison: Comparison
    variant: str
    baseline: str
    n: int
    relative: bool
    variant_mean: float | None
    baseline_mean: float | None
    estimate: float | None
    moderated: Reading
    plain: Reading
    beside: Beside | None = None
    seeds_if_seen: SeedsNeeded | None = None
    seeds_at_edge: SeedsNeeded | None = None
    reference_variant: float | None = None
    reference_baseline: float | None = None
    reference_estimate: float | None = None

    @property
    def outcome(self) -> Outcome:
        """By the moderated test."""
        return self.moderated.outcome


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the data says of a claim.

    Attributes:
      claim: the claim.
      verdict: "supported", "contradicted" or "not resolved": see `train.study.plan.claims.Claim`.
      plain: what the plain paired t-test would make of it.
      tests: a result for each of the claim's comparisons.
      p_holm: corrected over looks and over the claims of the same source; None where no comparison can be tested.
      note: what a reader must know: the claim's own note, runs that are missing, a fault of a reference.
      scale: that it was measured at, and speaks of.
      look: 1 at the study's own number of seeds, 2 with the seeds that were added.
      progress: "run" once every run of the first look has ended, "not run" where none of its comparisons has any.
      seeds_if_seen: what the claim needs, from its open comparisons (`train.study.verdicts.seeds.claim_seeds`). None
        where it is resolved, or one of them has none.
      seeds_at_edge: likewise.
    """

    claim: Claim
    verdict: Outcome
    plain: Outcome
    tests: tuple[ComparisonResult, ...]
    p_holm: float | None
    note: str
    scale: str
    look: int = 1
    progress: Progress = "run"
    seeds_if_seen: int | None = None
    seeds_at_edge: int | None = None

    @property
    def n(self) -> int:
        """The smallest number of seeds among the comparisons."""
        return min(test.n for test in self.tests)

    @property
    def words(self) -> Words:
        """The verdict as it is shown: how far its runs are, where it is open for that."""
        return self.progress if self.verdict == "not resolved" and self.progress != "run" else self.verdict

    @property
    def waits(self) -> bool:
        """Whether there is nothing to show of it yet."""
        return self.words == "not run"


@dataclasses.dataclass(frozen=True)
class StudyResults:
    """A study with everything that was found.

    Attributes:
      study: the plan.
      runs: every published run by its id, and the planned ones that are missing.
      verdicts: one a claim, in the study's order.
      facts: of study.json: command, versions, machine, date, sessions.
      trials: the published trials of tuning by their ids.
    """

    study: Study
    runs: dict[str, RunRecord]
    verdicts: tuple[Verdict, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    trials: dict[str, RunRecord] = dataclasses.field(default_factory=dict)

    def by_variant(self, section: Section, variant: str) -> list[RunRecord]:
        """The finished runs of a variant of a section, ordered by seed; more than planned where there are more."""
        wanted = section.variant(variant).id
        found = [run for run in self.runs.values() if run.variant_id == wanted and run.status == "finished"]
        return sorted(found, key=lambda run: run.seed)
