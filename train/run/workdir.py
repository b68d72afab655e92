"""A run's directory: whose it is, who may write to it now, and what became of the run."""

import contextlib
import json
import os
import platform
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from train.config import Config, differences, to_dict
from train.data import Dataset
from train.errors import UserError
from train.files import write_json
from train.locks import exclusive
from train.run.provenance import machine_words, source_commit, versions


class Workdir:
    """Paths and identity of a run. Made by `open_workdir`.

    Attributes:
      path: the directory.
    """

    def __init__(self, path: Path):
        self.path = path
        self._run: dict[str, Any] = {}
        self._data: dict[str, str] = {}

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
    def run(self) -> Path:
        return self.path / "run.json"

    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self._run.get("status") == "finished"

    def load_status(self) -> None:
        """Reads run.json, where there is one; a damaged one counts as none, since it is only a record."""
        with contextlib.suppress(OSError, ValueError):
            self._run = json.loads(self.run.read_text(encoding="utf-8"))

    def check_data(self, dataset: Dataset) -> None:
        """Compares the data with what the run began on, and keeps its digest for run.json.

        Raises:
          UserError: the data has changed since.
        """
        ours = {"source": dataset.source, "digest": dataset.digest}
        theirs = self._run.get("data")
        if isinstance(theirs, dict) and theirs.get("digest") != ours["digest"]:
            raise UserError(
                f"the data of workdir {self.path} has changed since its run began: it was {theirs.get('source')} "
                f"(SHA-256 {str(theirs.get('digest'))[:16]}), is now {ours['source']} (SHA-256 {ours['digest'][:16]}); "
                "bring the data back, or choose another workdir"
            )
        self._data = ours

    def start(self, devices: list[str]) -> None:
        """Records that the run goes on now."""
        self._run = {
            "status": "running",
            "started": self._run.get("started", _now()),
            "starts": self._run.get("starts", 0) + 1,
            "wall_seconds": self._run.get("wall_seconds", 0.0),
            "data": self._data,
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
        self._since = time.monotonic()
        self._before = self._run["wall_seconds"]
        self.record("running")

    def record(self, status: str, **facts: Any) -> None:
        """Writes run.json: running, stopped, finished or failed, and facts of it."""
        self._run |= {
            "status": status,
            "updated": _now(),
            "wall_seconds": round(self._before + time.monotonic() - self._since, 3),
            **facts,
        }
        write_json(self.run, self._run)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


@contextlib.contextmanager
def open_workdir(path: Path, config: Config) -> Iterator[Workdir]:
    """Makes or opens the workdir of a run, and keeps other processes out of it while the block runs.

    Raises:
      UserError: the directory cannot be made or written, or belongs to a run of another config.
      InUse: another process has it.
    """
    with exclusive(path, f"workdir {path}"):
        workdir = Workdir(path)
        _check_identity(workdir, config)
        workdir.load_status()
        yield workdir


def _check_identity(workdir: Workdir, config: Config) -> None:
    if not workdir.config.exists():
        if workdir.metrics.exists() or workdir.checkpoints.exists():
            raise UserError(f"workdir {workdir.path} holds files of a run but no config.json; choose another workdir")
        write_json(workdir.config, to_dict(config))
        return
    try:
        stored = json.loads(workdir.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir.config} cannot be read ({error}); choose another workdir") from error
    if found := differences(stored, config):
        raise UserError(
            f"workdir {workdir.path} holds a run of another config: {'; '.join(found)}; choose another workdir"
        )
    if not config.resume:
        raise UserError(f"workdir {workdir.path} holds a run and config.resume=False; choose another workdir")
