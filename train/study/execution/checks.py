"""Checks a study's data and settings before its first run: a fault is one error then, not one for each run."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from train.config import Config, from_dict
from train.errors import UserError
from train.experiment import data_settings, load_dataset, make_recipe
from train.identity import variant_id
from train.step.steps import abstract_state, tree_bytes
from train.study.plan import PlannedRun, Study, with_data, with_data_dir
from train.study.results.records import RunRecord


def _key(config: Config) -> tuple:
    """Settings that decide what `load_dataset` gives."""
    return (config.dataset, *data_settings(config).values())


class Checked(NamedTuple):
    """What is known of a study's runs before the first one.

    Attributes:
      digests: of each data set, by the settings that it was loaded with.
      checkpoint_bytes: of the largest checkpoint among the runs.
    """

    digests: dict[tuple, str]
    checkpoint_bytes: int


def check_runs(planned: Iterable[PlannedRun], data_dir: str, *, seeds_per_program: int = 1) -> Checked:
    """Loads each data set that the runs need, and works out each run on it as far as that takes no training.

    Raises:
      UserError: A data set is missing, damaged, or has too few examples; or a model, an optimizer and settings do not
        fit the data, or several seeds not into one program. The message names the first run that it concerns.
    """
    by_data: dict[tuple, dict[str, PlannedRun]] = {}
    for run in planned:
        by_data.setdefault(_key(run.config), {}).setdefault(run.variant_id, run)
    digests: dict[tuple, str] = {}
    largest = 0
    for key, runs in by_data.items():
        run = next(iter(runs.values()))
        try:
            dataset = load_dataset(with_data_dir(run.config, data_dir))
            digests[key] = dataset.digest
            for run in runs.values():
                if seeds_per_program > 1 and run.config.local_steps:
                    raise UserError(f"--seeds_per_program={seeds_per_program} is not for local_steps; leave it out")
                largest = max(largest, tree_bytes(abstract_state(make_recipe(run.config, dataset))))
        except UserError as error:
            raise UserError(f"run {run.name} cannot be trained: {error}") from error
    return Checked(digests, largest)


def identified(study: Study, loaded: Mapping[tuple, str], runs: Mapping[str, RunRecord]) -> Study:
    """Returns the study with the digest of every variant's data: as loaded, else that of its published runs.

    Raises:
      UserError: The published runs were trained on two versions of a data set, and it was not loaded.
    """
    published: dict[str, set[str]] = {}
    of_settings: dict[str, set[str]] = {}
    for run in runs.values():
        published.setdefault(run.config["dataset"], set()).add(run.data)
        of_settings.setdefault(variant_id(from_dict(run.config), ""), set()).add(run.data)

    def digest(config: Config) -> str:
        if _key(config) in loaded:
            return loaded[_key(config)]
        found = published.get(config.dataset, {""})
        if len(found) > 1:
            found = of_settings.get(variant_id(config, ""), found)
        if len(found) > 1:
            raise UserError(
                f"the published runs on {config.dataset} were trained on {len(found)} versions of it (SHA-256 "
                f"{', '.join(sorted(data[:16] for data in found))}); give --data_dir with the version you mean"
            )
        return next(iter(found))

    return with_data(study, digest)
