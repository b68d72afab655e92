"""From a config to a run: data, model and optimizer are built here, `train.run` does the rest."""

import dataclasses
from pathlib import Path
from typing import Any

from train import data
from train.checkpointing import Checkpoints
from train.config import Config, ModelConfig, validate
from train.errors import UserError
from train.identity import run_id
from train.metrics import MetricsFile
from train.models import MODELS, create_model
from train.optimizers import make_optimizer, make_schedule
from train.parallel import Parallel, local_devices
from train.programs import Programs
from train.run import Outcome, Run
from train.sampling import Preprocessing
from train.signals import StopRequest
from train.workdir import open_workdir


def model_options(config: ModelConfig, dataset: data.Dataset) -> dict[str, Any]:
    """The settings of a model that this one has a use for.

    Raises:
      UserError: the model is unknown, or is for another task than the data set's.
    """
    if config.name not in MODELS:
        raise UserError(f"unknown model {config.name!r}; the models are {', '.join(MODELS)}")
    spec = MODELS[config.name]
    if spec.task != dataset.task:
        kinds = {"image": "images", "text": "language models", "text_classification": "classes of texts"}
        raise UserError(
            f"config.model.name={config.name!r} is for {kinds[spec.task]}, config.dataset={dataset.name!r} for "
            f"{kinds[dataset.task]}; choose two that fit"
        )
    given = dataclasses.asdict(config) | {"vocabulary_size": dataset.vocab_size}
    return {name: value for name, value in given.items() if name in spec.options}


def load_dataset(config: Config) -> data.Dataset:
    """The data set that a config names, in host memory.

    Raises:
      UserError: it is missing or damaged, or the config asks for more examples than it has.
    """
    return data.load(
        config.dataset,
        data_dir=config.data_dir,
        train_examples=config.train_examples,
        test_examples=config.test_examples,
        batch_size=config.batch_size,
        test_batch_size=config.test_batch_size,
        sequence_length=config.sequence_length,
        skip_corrupt=config.skip_corrupt,
    )


def build_programs(config: Config, dataset: data.Dataset | None = None) -> Programs:
    """Data, model and optimizer of a config, on their devices; the data is loaded where it is not given.

    Raises:
      UserError: a name is unknown, the data is missing, or the batch does not fit.
    """
    dataset = dataset or load_dataset(config)
    parallel = Parallel.of(local_devices(config.devices), config.parallel)
    options = model_options(config.model, dataset)
    if config.recalibrate_batch_stats and not MODELS[config.model.name].batch_stats:
        raise UserError(f"config.recalibrate_batch_stats=True, but the model {config.model.name} has no BatchNorm")
    model = create_model(config.model.name, num_classes=dataset.num_classes, axis_name=parallel.axis_name, **options)
    steps_per_epoch = -(-len(dataset.train.inputs) // config.batch_size)
    schedule = make_schedule(config.optimizer, steps_per_epoch=steps_per_epoch, epochs=config.epochs)
    return Programs(
        model,
        make_optimizer(config.optimizer, schedule),
        dataset,
        parallel,
        schedule=schedule,
        batch_size=config.batch_size,
        test_batch_size=config.test_batch_size or config.batch_size,
        lookahead=config.optimizer.lookahead,
        label_smoothing=config.label_smoothing,
        preprocessing=Preprocessing.of(dataset, cutout=config.cutout, image_size=config.image_size),
        recalibrate_batch_stats=config.recalibrate_batch_stats,
    )


def train(config: Config, workdir: Path, *, stop: StopRequest | None = None, quiet: bool = False) -> Outcome:
    """Trains a config in a workdir; continues the run that the workdir holds, and leaves a finished one alone.

    Args:
      config: the run.
      workdir: its directory, made where missing.
      stop: a request that is already listening; by default signals are listened to here.
      quiet: say nothing of single epochs or of the end: a study reports its runs itself.

    Returns:
      How it ended, and the rows of metrics.csv.

    Raises:
      UserError: what the user gave is wrong; nothing is overwritten.
      RunFailed: the numbers or the disk gave out; the last good checkpoint is intact.
    """
    validate(config)
    if stop is None:
        with StopRequest() as listening:
            return train(config, workdir, stop=listening, quiet=quiet)
    with open_workdir(workdir, config) as directory:
        if directory.finished():
            if not quiet:
                print(f"{workdir} is finished; choose another workdir to train again")
            return Outcome("finished", MetricsFile(directory.metrics, language_model=False).rows)
        dataset = load_dataset(config)
        directory.check_data(dataset)
        programs = build_programs(config, dataset)
        run = run_id(config, dataset.digest)
        checkpoints = Checkpoints(directory.checkpoints, run=run, disk_wait=config.disk_wait)
        try:
            return Run(config, directory, programs, checkpoints, stop, quiet=quiet).run()
        finally:
            checkpoints.close()
