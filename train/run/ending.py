"""How a call that trains ends: what it returns, and what run.json and the checkpoints are left with."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Literal

from train.errors import RunFailed, UserError
from train.interface.output import Extras
from train.run.checkpointing import Checkpoints
from train.run.records import Row
from train.run.workdir import Workdir, not_started


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      status: "finished", or "stopped" by a signal (run the same command again).
      rows: of metrics.csv.
    """

    status: Literal["finished", "stopped"]
    rows: list[Row]


@contextlib.contextmanager
def closing(checkpoints: Checkpoints) -> Iterator[None]:
    """Closes the checkpoints after the block; an error of that must not hide what ended the block."""
    try:
        yield
    except BaseException:
        with Extras().best_effort("the checkpoint in the making"):
            checkpoints.close()
        raise
    checkpoints.close()


@contextlib.contextmanager
def ending_recorded(directory: Workdir) -> Iterator[None]:
    """Writes an error that ends the run to run.json; one before the first epoch is done becomes a `RunFailed`."""
    try:
        yield
    except UserError as error:
        if directory.started:
            directory.fail(error)
        raise
    except Exception as error:
        directory.fail(error)
        if isinstance(error, RunFailed) or directory.under_way:
            raise
        raise not_started(error, directory) from error
    except BaseException as error:
        directory.fail(error)
        raise
