"""What a study compares: variants, in sections, each on one data set."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from train.config import Config, validate
from train.data import TITLES
from train.errors import UserError
from train.identity import variant_id
from train.interface.nearest import did_you_mean
from train.registry import MODELS
from train.run.records import Row
from train.study.plan.tuning import Range, trial_values, with_settings


def check_name(what: str, name: str) -> None:
    """Checks a name that goes into tables, pages and log lines.

    Raises:
      UserError: It is empty, or has unprintable characters, semicolons, or leading, trailing or repeated blanks.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or ";" in name or name != " ".join(name.split()):
        raise UserError(
            f"{what} {name!r} must be a non-empty text of printable characters, without semicolons and with single "
            "spaces only between words"
        )


@dataclasses.dataclass(frozen=True)
class Reference:
    """A run that someone else published, for comparison.

    Attributes:
      name: the run's name, one word.
      rows: one per epoch, with the columns of metrics.csv.
      fault: what is wrong with it, as a sentence; "" if nothing is.
    """

    name: str
    rows: Sequence[Row] = dataclasses.field(compare=False, repr=False)
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
      name: a short name, unique within its section, by which claims refer to it.
      config: the config of its run; `seed` is set for each seed of the study.
      label: its name in legends and tables; `name` by default.
      against: name of the variant that it is compared with; "" for the section's baseline.
      reference: the published run that it repeats.
      tune: ranges of its own, by setting, beside the section's or instead of them.
      data: digest of the config's data set, filled in by `with_data`; "" if the data is not available.
    """

    name: str
    config: Config
    _: dataclasses.KW_ONLY
    label: str = ""
    against: str = ""
    reference: Reference | None = None
    tune: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    data: str = ""

    def __post_init__(self):
        check_name("variant", self.name)
        validate(self.config)
        if not self.label:
            object.__setattr__(self, "label", self.name)
        check_name(f"label of variant {self.name!r}:", self.label)

    @property
    def id(self) -> str:
        """The variant's id, the same for all seeds."""
        return variant_id(self.config, self.data)

    def at(self, seed: int) -> Config:
        """Its config with that seed."""
        return dataclasses.replace(self.config, seed=seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Variants that are compared with each other on one data set, paired by seed.

    Attributes:
      key: a short name, such as "2.3.1", by which claims and --only refer to it.
      variants: its variants; at least one.
      dataset: name of the data set, for claims and --only; that of the first variant's config by default.
      dataset_title: the data set as the page calls it; `train.data.TITLES` has those of ours.
      baseline: name of the variant that the others are compared with; the first one by default.
      title: title of its figures; the key by default.
      figure: stem of its figures' file names; made from key and data set by default.
      budget: description of epochs and examples.
      same_budget: whether the references had this budget, so that their curves can be drawn over ours.
      tune: the ranges in which settings of every variant are looked for (`train.study.plan.tuning`), such as
        {"learning_rate": log_uniform(1e-4, 1)}.
      trials: how many each variant has; 0 tunes nothing.
      target: the validation score (accuracy; of language models the negative loss) whose time is taken; by default
        the mean that the baseline ends with.
    """

    key: str
    variants: Sequence[Variant]
    dataset: str = ""
    dataset_title: str = ""
    baseline: str = ""
    title: str = ""
    figure: str = ""
    budget: str = ""
    same_budget: bool = False
    tune: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    trials: int = 0
    target: float | None = None

    def __post_init__(self):
        check_name("section", self.key)
        if not self.variants:
            raise UserError(f"section {self.key}: no variants")
        defaults = {
            "variants": tuple(self.variants),
            "dataset": self.dataset or self.variants[0].config.dataset,
            "baseline": self.baseline or self.variants[0].name,
            "title": self.title or self.key,
        }
        defaults["dataset_title"] = self.dataset_title or TITLES.get(defaults["dataset"], defaults["dataset"])
        defaults["figure"] = self.figure or re.sub(r"\W+", "_", f"{self.key}_{defaults['dataset']}")
        for name, value in defaults.items():
            object.__setattr__(self, name, value)
        check_name(f"section {self.key}: dataset", self.dataset)
        check_name(f"section {self.key}: dataset_title", self.dataset_title)
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
        datasets = list(dict.fromkeys(variant.config.dataset for variant in self.variants))
        if len(datasets) > 1:
            raise UserError(
                f"section {self.ref}: its variants are on {' and '.join(datasets)}; give each data set its own section"
            )
        for variant in self.variants:
            chain = [variant]
            while chain[-1].against:
                chain.append(self.against(chain[-1]))
                if chain[-1] in chain[:-1]:
                    raise UserError(f"section {self.ref}: variant {variant.name!r} is compared with itself")
            self._check_tuning(variant)

    def _check_tuning(self, variant: Variant) -> None:
        ranges = self.ranges(variant)
        if self.trials < 0 or bool(ranges) != bool(self.trials):
            raise UserError(
                f"section {self.ref}: trials={self.trials} with {len(ranges)} settings to tune for {variant.name!r}; "
                "give both tune and trials, or neither"
            )
        if self.trials and not variant.config.validation_examples:
            raise UserError(
                f"section {self.ref}: variant {variant.name!r} cannot be tuned without validation_examples: the test "
                "set chooses nothing"
            )
        self.trial_values(variant)

    def ranges(self, variant: Variant) -> dict[str, Range]:
        """What is tuned for a variant."""
        return {**self.tune, **variant.tune}

    def trial_values(self, variant: Variant) -> list[dict[str, float]]:
        """What the trials of a variant set, in their order."""
        return trial_values(variant.config, self.ranges(variant), self.trials) if self.trials else []

    def all_trials(self, variant: Variant) -> list[Variant]:
        """The variant at the values of each trial, in their order, under names of their own."""
        return [
            Variant(f"{variant.name} trial {number}", with_settings(variant.config, values), data=variant.data)
            for number, values in enumerate(self.trial_values(variant), start=1)
        ]

    def trial(self, variant: Variant, number: int) -> Variant:
        """One of `all_trials`, counted from 1."""
        return self.all_trials(variant)[number - 1]

    def settings_id(self, name: str) -> str:
        """Stands for what the runs of a variant may be: its settings or, if it is tuned, its trials'."""
        variant = self.variant(name)
        if not self.trials:
            return variant.id
        return f"{self.trial(variant, 1).id} {sorted(self.ranges(variant))}"

    def against(self, variant: Variant) -> Variant:
        """What a variant is compared with; itself for the baseline."""
        return self.variant(variant.against or self.baseline)

    @property
    def ref(self) -> str:
        """How claims and --only refer to it: "2.1:cifar10"."""
        return f"{self.key}:{self.dataset}"

    @property
    def language_model(self) -> bool:
        """Whether its runs have perplexities."""
        return MODELS[self.variants[0].config.model.name].task == "text"

    def variant(self, name: str) -> Variant:
        """The variant with this name.

        Raises:
          UserError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = [variant.name for variant in self.variants]
        raise UserError(
            f"section {self.ref} has no variant {name!r}; its variants are {', '.join(names)}"
            f"{did_you_mean(name, names)}"
        )
