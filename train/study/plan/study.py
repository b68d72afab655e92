"""A study: sections of variants, and claims. A study file's `get_study()` returns a `Study`."""

import dataclasses
from collections.abc import Mapping, Sequence

from train.errors import UserError
from train.interface.nearest import did_you_mean
from train.study.plan.claims import Claim, Pair
from train.study.plan.sections import Section, check_name

SCALES = ("smoke", "mini", "full")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture for a study's page that another program draws, into figures/STEM.png of the study's out directory.

    Attributes:
      stem: the file's name without its ending; the page leaves the picture out if there is no such file.
      title: its heading.
      caption: what it shows.
    """

    stem: str
    title: str
    caption: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Sections and claims.

    Attributes:
      name: the study's name, one word.
      sections: its sections, each with the variants that it compares; a run that occurs in several is run once.
      title: title of its page; the name by default.
      claims: the claims to test.
      seeds: number of seeds of each variant.
      scale: the budget: "smoke", "mini" or "full"; "" for a study that has only one.
      quick_compile: whether to compile the training programs with few of XLA's optimizations, for runs so short that
        compiling takes longer than training. Each run's run.json records it.
      reference: where the variants' references come from, such as "the paper".
      sources: maps each source (`train.study.plan.claims.Claim.source`) to the heading of its verdicts.
      findings: paragraphs for the top of the page on what came out.
      outlook: paragraphs for the page on what the study's budget leaves open, and what resolving it would take.
      pictures: further pictures for the page.
    """

    name: str
    sections: Sequence[Section]
    title: str = ""
    claims: Sequence[Claim] = ()
    seeds: int = 3
    scale: str = ""
    quick_compile: bool = False
    reference: str = "the reference"
    sources: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"own": "What this study claims"})
    findings: Sequence[str] = ()
    outlook: Sequence[str] = ()
    pictures: Sequence[Picture] = ()

    def __post_init__(self):
        for name, value in (
            ("sections", tuple(self.sections)),
            ("claims", tuple(self.claims)),
            ("title", self.title or self.name),
        ):
            object.__setattr__(self, name, value)
        check_name("study", self.name)
        for what, keys in (
            ("sections", [section.ref for section in self.sections]),
            ("figures", [section.figure for section in self.sections]),
            ("claims", [claim.key for claim in self.claims]),
        ):
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise UserError(f"study {self.name}: two {what} are called {twice[0]!r}")
        if not self.sections:
            raise UserError(f"study {self.name}: no sections")
        if self.seeds < 1:
            raise UserError(f"study {self.name}: seeds={self.seeds} must be at least 1")
        for claim in self.claims:
            if claim.source not in self.sources:
                known = ", ".join(self.sources)
                raise UserError(f"claim {claim.key}: source {claim.source!r} has no heading in Study.sources ({known})")
            for comparison in claim.comparisons:
                for pair in comparison.pairs:
                    section = self.section(pair.section)
                    for name in (*pair.variants, *pair.baselines):
                        section.variant(name)
                    quantities = (comparison.quantity, comparison.baseline_quantity, comparison.beside)
                    if not section.language_model and (of_text := [q for q in quantities if "perplexity" in q]):
                        raise UserError(
                            f"claim {claim.key}: {of_text[0]} is of language models, and section {section.ref} has none"
                        )
        folders: dict[str, str] = {}
        for section in self.sections:
            for variant in section.variants:
                folder = variant.config.data_dir
                if folders.setdefault(variant.id, folder) != folder:
                    raise UserError(
                        f"study {self.name}: variant {variant.name!r} of section {section.ref} occurs with two values "
                        "of data_dir, which does not distinguish runs; split it into two studies"
                    )

    def section(self, ref: str) -> Section:
        """The section with this reference, such as "2.1:cifar10".

        Raises:
          UserError: there is none.
        """
        for section in self.sections:
            if section.ref == ref:
                return section
        refs = [section.ref for section in self.sections]
        raise UserError(f"study {self.name} has no section {ref!r}; it has {', '.join(refs)}{did_you_mean(ref, refs)}")


def check_as_written(study: Study) -> Study:
    """The study, if its file says what it can mean. What follows from it, such as tuned values, need not.

    Raises:
      UserError: a variant does not resume, or a claim compares a variant with one of the same settings.
    """
    for section in study.sections:
        for variant in section.variants:
            if not variant.config.resume:
                raise UserError(
                    f"variant {variant.name!r} of section {section.ref}: config.resume=False; a study continues its "
                    "runs: leave it out"
                )
    for claim in study.claims:
        for comparison in claim.comparisons:
            if comparison.baseline_quantity in ("", comparison.quantity):
                for pair in comparison.pairs:
                    _check_pair(claim, pair, study.section(pair.section))
    return study


def _check_pair(claim: Claim, pair: Pair, section: Section) -> None:
    first, second = (set(map(section.settings_id, names)) for names in (pair.variants, pair.baselines))
    if first == second:
        raise UserError(
            f"claim {claim.key}, section {section.ref}: {' | '.join(pair.variants)!r} is compared with itself; "
            f"{' | '.join(pair.baselines)!r} has the same settings"
        )
