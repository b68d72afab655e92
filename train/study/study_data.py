"""Loads a study's data once, before its first run: missing or short data is one error, not one for each run."""

from collections.abc import Iterable, Mapping

from train.config import Config
from train.errors import UserError
from train.experiment import load_dataset
from train.study.plan import PlannedRun, Study, with_data, with_data_dir
from train.study.results import RunRecord


def _key(config: Config) -> tuple:
    """Settings that decide what `load_dataset` gives."""
    return (
        config.dataset,
        config.data_dir,
        config.train_examples,
        config.test_examples,
        config.batch_size,
        config.test_batch_size,
        config.sequence_length,
        config.skip_corrupt,
    )


def load_digests(planned: Iterable[PlannedRun], data_dir: str) -> dict[tuple, str]:
    """Loads each data set that the runs need.

    Returns:
      Its digest, by the settings that it was loaded with.

    Raises:
      UserError: One is missing, damaged, or has too few examples; the message names the first run that needs it.
    """
    found: dict[tuple, str] = {}
    for run in planned:
        key = _key(run.config)
        if key not in found:
            try:
                found[key] = load_dataset(with_data_dir(run.config, data_dir)).digest
            except UserError as error:
                raise UserError(f"run {run.name} lacks its data: {error}") from error
    return found


def identified(study: Study, loaded: Mapping[tuple, str], runs: Mapping[str, RunRecord]) -> Study:
    """Returns the study with the digest of every variant's data: as loaded, else that of its published runs.

    Raises:
      UserError: The published runs were trained on two versions of a data set, and it was not loaded.
    """
    published: dict[str, set[str]] = {}
    for run in runs.values():
        published.setdefault(run.config["dataset"], set()).add(run.data)

    def digest(config: Config) -> str:
        if _key(config) in loaded:
            return loaded[_key(config)]
        found = published.get(config.dataset, {""})
        if len(found) > 1:
            raise UserError(
                f"the published runs on {config.dataset} were trained on {len(found)} versions of it (SHA-256 "
                f"{', '.join(sorted(data[:16] for data in found))}); give --data_dir with the version you mean"
            )
        return next(iter(found))

    return with_data(study, digest)
