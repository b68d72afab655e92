"""What a study consists of: sections of variants, and claims. A study file's `get_study()` returns a `Study`."""

import dataclasses
import re

from train.config import Config, validate
from train.errors import UserError
from train.identity import run_id
from train.reproduction.logs import report_runs
from train.study.plan.claims import Claim

SCALES = ("smoke", "mini", "full")


def check_name(what: str, name: str) -> None:
    """Checks a name that goes into tables, pages and log lines.

    Raises:
      UserError: It is empty, or has characters that cannot be printed, semicolons, or blanks at an end or in a row.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or ";" in name or name != " ".join(name.split()):
        raise UserError(
            f"{what} {name!r} must be a non-empty text of printable characters, without semicolons and with single "
            "spaces between words"
        )


@dataclasses.dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
      name: short; claims refer to it, unique within its section.
      config: its run; `seed` is set for each seed of the study.
      report_run: name of the report's log that it redoes (`train.reproduction.logs`); "" for none.
      label: as legends and tables show it; the name where not given.
      against: name of the variant that its difference is taken from; "" for the section's baseline.
      data: digest of the data set that the config names, as `with_data` fills it in; "" where the data is not at hand.
    """

    name: str
    config: Config
    report_run: str = ""
    label: str = ""
    against: str = ""
    data: str = ""

    def __post_init__(self):
        check_name("variant", self.name)
        validate(self.config)
        if self.report_run and self.report_run not in report_runs():
            known = ", ".join(report_runs())
            raise UserError(f"variant {self.name!r}: the report has no log {self.report_run!r}; it has {known}")
        if not self.label:
            object.__setattr__(self, "label", self.name)
        check_name(f"label of variant {self.name!r}:", self.label)

    @property
    def id(self) -> str:
        """Which variant it is, whatever the seed: the run id with seed 0."""
        return run_id(dataclasses.replace(self.config, seed=0), self.data)

    def at(self, seed: int) -> Config:
        """Its config with that seed."""
        return dataclasses.replace(self.config, seed=seed)


@dataclasses.dataclass(frozen=True)
class Section:
    """Variants that are compared with each other on one data set, paired by seed.

    Attributes:
      key: number in the report, such as "2.3.1"; "2.5-controls" and the like for what the study adds.
      dataset: word of the data set that it speaks of, such as "cifar10" (at smoke scale the runs use a smaller one).
      title: of its figures.
      baseline: name of the variant that differences are taken from.
      variants: all of them, the baseline included.
      figure: stem of its figures' files, such as "cifar10_base".
      budget: epochs and examples in words.
      report_budget: whether that is the report's own budget, so that its logged curves may be laid beside ours.
    """

    key: str
    dataset: str
    title: str
    baseline: str
    variants: tuple[Variant, ...]
    figure: str
    budget: str = ""
    report_budget: bool = False

    def __post_init__(self):
        check_name("section", self.key)
        check_name(f"section {self.key}: dataset", self.dataset)
        if not re.fullmatch(r"\w[\w.-]*", self.figure):
            raise UserError(
                f"section {self.ref}: figure {self.figure!r} must be a file name without a folder: letters, digits, "
                "dots, dashes and underscores"
            )
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise UserError(f"section {self.ref}: two variants have the same name; names are {', '.join(names)}")
        if self.baseline not in names:
            raise UserError(f"section {self.ref}: the baseline {self.baseline!r} is not among {', '.join(names)}")
        for variant in self.variants:
            chain = [variant]
            while chain[-1].against:
                chain.append(self.against(chain[-1]))
                if chain[-1] in chain[:-1]:
                    raise UserError(f"section {self.ref}: variant {variant.name!r} is held against itself in the end")

    def against(self, variant: Variant) -> Variant:
        """What a variant's difference is taken from; itself for the baseline."""
        return self.variant(variant.against or self.baseline)

    @property
    def ref(self) -> str:
        """How claims and --only refer to it: "2.1:cifar10"."""
        return f"{self.key}:{self.dataset}"

    @property
    def language_model(self) -> bool:
        """Whether its runs have perplexities."""
        return self.variants[0].config.model.name == "gru"

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
          UserError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise UserError(f"section {self.ref} has no variant {name!r}; its variants are {names}")


@dataclasses.dataclass(frozen=True)
class Study:
    """Sections and claims.

    Attributes:
      name: of the study; a word.
      title: of its page.
      sections: each with the runs that it compares; a run that occurs in several is run once.
      claims: what is tested.
      seeds: how many seeds each variant has.
      scale: the budgets: "smoke", "mini" or "full"; "" for a study that has but one.
      quick_compile: compile the training programs with few of XLA's optimizations: for runs so short that compiling
        takes longer than training. Each run's run.json records it.
    """

    name: str
    title: str
    sections: tuple[Section, ...]
    claims: tuple[Claim, ...] = ()
    seeds: int = 3
    scale: str = ""
    quick_compile: bool = False

    def __post_init__(self):
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
            for comparison in claim.comparisons:
                for pair in comparison.pairs:
                    for names in (pair.variant, pair.baseline):
                        for name in (names,) if isinstance(names, str) else names:
                            self.section(pair.section).variant(name)
        folders: dict[str, str] = {}
        for section in self.sections:
            for variant in section.variants:
                folder = variant.config.data_dir
                if folders.setdefault(variant.id, folder) != folder:
                    raise UserError(
                        f"study {self.name}: variant {variant.name!r} of section {section.ref} occurs with two "
                        "data_dir, which do not tell runs apart; make two studies of it"
                    )

    def section(self, ref: str) -> Section:
        """The section of that reference, such as "2.1:cifar10".

        Raises:
          UserError: there is none.
        """
        for section in self.sections:
            if section.ref == ref:
                return section
        raise UserError(f"study {self.name} has no section {ref!r}; it has {', '.join(s.ref for s in self.sections)}")
