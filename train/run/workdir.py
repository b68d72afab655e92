"""A run's directory: whose it is, who may write to it now, and what became of the run."""

import contextlib
import json
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from train.config import Config, differences, to_dict, validate
from train.errors import RunFailed, UserError, reason
from train.files import with_patience, write_json
from train.hosts import agreement
from train.identity import ContinuedRuns, continues, run_id
from train.interface.output import one_line, with_environment
from train.interface.paths import user_path
from train.locks import exclusive
from train.run.provenance import machine_words, now, source_commit, versions


class Workdir:
    """Paths and identity of a run. Made by `open_workdir`.

    Attributes:
      path: the directory.
      has_run: whether a run has started here and left something, or may be going on: then the directory is its own.
      started: whether this process has taken the run up.
      writes: whether this process writes the run's files: the first of those that train it.
      under_way: whether it has finished an epoch since.
      extended: whether the config has more epochs than the run had when it was last taken up.
      disk_wait: seconds to wait for space on a full disk.
    """

    def __init__(self, path: Path, config: Config):
        self.path, self.has_run, self.started, self.under_way = path, False, False, False
        self.writes, self.extended = agreement.is_first(), False
        self._settings, self.disk_wait = config, config.disk_wait
        self._run: dict[str, Any] = {}
        self._data: dict[str, str] = {}
        self._convolutions: dict[str, str] = {}
        self._before, self._since = 0.0, time.monotonic()

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def model(self) -> Path:
        return self.path / "model.json"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    def finished(self) -> bool:
        """Whether the run came to its end, which more epochs put off."""
        # The epoch as well: a kill may have come between config.json's number of epochs and run.json's status.
        done = self._run.get("epoch", self._settings.epochs) >= self._settings.epochs
        return self._run.get("status") == "finished" and done and not self.extended

    def load(self) -> None:
        """Looks at what is there; a damaged run.json counts as none, since it is only a record.

        Raises:
          UserError: it cannot be looked at.
        """
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.run.read_text(encoding="utf-8"))
            self._run = found if isinstance(found, dict) else {}
        try:
            saved = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
            self.has_run = saved or self.metrics.exists() or self._run.get("status", "failed") != "failed"
        except OSError as error:
            raise UserError(f"{error.filename or self.path} cannot be read: {reason(error)}") from error
        if not self.has_run:
            self._run = {}

    @property
    def last_saved(self) -> int | None:
        """The step of the newest checkpoint that is known to have been saved, as run.json has it."""
        step = self._run.get("checkpoint")
        return step if isinstance(step, int) else None

    def check_settings(self) -> None:
        """Compares the config with that of the run that is here.

        Raises:
          UserError: they are not the same run, or the config does not resume.
        """
        try:
            stored = json.loads(self.config.read_text(encoding="utf-8"))
            found = differences(stored, self._settings)
        except FileNotFoundError as error:
            raise UserError(
                f"workdir {self.path} contains files of a run but no config.json; choose another workdir"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(f"{self.config} cannot be read ({error}); choose another workdir") from error
        self.extended = bool(found) and continues(self._settings, stored)
        if found and not self.extended:
            raise UserError(
                f"workdir {self.path} contains a run of another config: {'; '.join(found)}; choose another workdir"
            )
        if not self._settings.resume:
            raise UserError(f"workdir {self.path} contains a run, and config.resume=False; choose another workdir")

    def check_data(self, source: str, digest: str, convolutions: str | None) -> None:
        """Compares the data, and what computes convolutions, with what the run began on; keeps both for run.json.

        Raises:
          UserError: one of them has changed since. On accelerators `convolutions` is None and is not compared.
        """
        ours = {"source": source, "digest": digest}
        theirs = self._run.get("data")
        if isinstance(theirs, dict) and theirs.get("digest") != ours["digest"]:
            raise UserError(
                f"the data of workdir {self.path} has changed since its run began: it was {theirs.get('source')} "
                f"(SHA-256 {str(theirs.get('digest'))[:16]}), is now {ours['source']} (SHA-256 {ours['digest'][:16]}); "
                "bring the data back, or choose another workdir"
            )
        if None not in (began := self.convolutions, convolutions) and began != convolutions:
            raise UserError(
                f"workdir {self.path} contains a run whose convolutions were computed by {began}; here {convolutions} "
                f"would compute them, with different rounding; go on as it began (oneDNN: pip install -e "
                '".[onednn]", in one process, with config.parallel=pmap), or choose another workdir'
            )
        self._data, found = ours, convolutions or began
        self._convolutions = {"convolutions": found} if found else {}

    @property
    def convolutions(self) -> str | None:
        """What computed the run's convolutions so far, as run.json has it; None if a run begins, or lost that file.

        A run.json that does not say it is from before there was a choice.
        """
        return self._run.get("convolutions", "XLA") if self._run else None

    @property
    def run_id(self) -> str:
        """Stands for the config and the data, which must have been checked."""
        return run_id(self._settings, self._data["digest"])

    @property
    def continued_runs(self) -> ContinuedRuns:
        """The ids of the runs of fewer epochs that this one continues."""
        return ContinuedRuns(self._settings, self._data["digest"])

    def start(self, devices: list[str], model: dict[str, Any]) -> None:
        """Records that the run goes on now. Up to here nothing is written, so that a refused command leaves nothing.

        Args:
          devices: that it is on, in words.
          model: what `train.load_model` needs to know of its data.

        Raises:
          RunFailed: the files cannot be written, or the disk stayed full.
        """
        import jax

        settings = to_dict(self._settings)
        if self.writes and (not self.has_run or self.extended):
            self.patiently(lambda: write_json(self.config, settings), self.config)
            self.patiently(lambda: write_json(self.model, model), self.model)
        # There from the beginning, so that it is noticed if someone takes it away.
        if self.writes:
            self.patiently(lambda: self.checkpoints.mkdir(exist_ok=True), self.checkpoints)
        self._run = {
            "status": "running",
            "started": self._run.get("started", now()),
            "starts": self._run.get("starts", 0) + 1,
            "wall_seconds": self._run.get("wall_seconds", 0.0),
            **{name: self._run[name] for name in ("epoch", "step", "checkpoint") if name in self._run},
            "data": self._data,
            **self._convolutions,
            "devices": devices,
            "machine": machine_words(devices),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": versions(),
            "commit": source_commit(),
            "quick_compile": jax.config.read("jax_disable_most_optimizations"),
        }
        self._since, self._before = time.monotonic(), self._run["wall_seconds"]
        self.has_run = self.started = True
        self.record("running", patient=True)

    def patiently(self, write: Callable[[], Any], path: Path) -> None:
        """Writes a path of the workdir, waiting for space on a full disk as long as the config allows."""
        with_patience(write, seconds=self.disk_wait, what=str(path))

    def record(self, status: str, *, patient: bool = False, **facts: Any) -> None:
        """Writes run.json: running, stopped, finished or failed, and facts of it.

        Args:
          status: of the run.
          patient: whether to wait for space on a full disk.
          **facts: what else to keep; None takes a fact away.

        Raises:
          RunFailed: the file cannot be written.
        """
        self.under_way |= "epoch" in facts
        self._run |= {
            "status": status,
            "updated": now(),
            "wall_seconds": round(self._before + time.monotonic() - self._since, 3),
            **facts,
        }
        self._run = {name: value for name, value in self._run.items() if value is not None}
        if not self.writes:
            return
        seconds = self.disk_wait if patient else 0.0
        with_patience(lambda: write_json(self.run, self._run), seconds=seconds, what=str(self.run))

    def fail(self, error: BaseException) -> None:
        """Records what ended the run. Where that is impossible, the error is still the one to report."""
        with contextlib.suppress(Exception):
            self.record("failed", error=one_line(error), traceback="".join(traceback.format_exception(error)))


@contextlib.contextmanager
def open_workdir(path: Path | str, config: Config) -> Iterator[Workdir]:
    """Makes or opens the workdir of a run, and keeps other processes out of it while the block runs.

    Of several processes that train the run, the first does it.

    Raises:
      UserError: the config is not valid, or the directory cannot be made or written, or belongs to a run of another
        config.
      InUse: another process has it.
    """
    path, config = user_path(path, "workdir"), validate(config)
    with contextlib.ExitStack() as held:
        workdir = Workdir(path, config)

        def take() -> None:
            held.enter_context(exclusive(path, f"workdir {path}", disk_wait=config.disk_wait))
            workdir.load()
            if workdir.has_run:
                workdir.check_settings()

        agreement.on_first(take)
        if not workdir.writes:
            workdir.load()
        yield workdir


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


def not_started(error: Exception, directory: Workdir) -> RunFailed:
    """The one line for an error from before the first epoch was done, which is mostly one of JAX or its devices."""
    where = f"; its traceback is in {directory.run}" if directory.run.exists() else ""
    return RunFailed(f"the run failed before it finished its first epoch: {with_environment(error)}{where}")
