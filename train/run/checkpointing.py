"""Checkpoints by Orbax that are whole or not there, and are checked before they are trusted.

    checkpoints/<step>/state/              what Orbax wrote
    checkpoints/<step>/progress.json       the step, the run's id, and what else is no array
    checkpoints/<step>/SHA256SUMS          of the files above, for `sha256sum -c SHA256SUMS` in that folder
    checkpoints/<step>/SHA256SUMS.sha256   of SHA256SUMS itself, so that a shortened list is noticed as well

Orbax itself keeps no sums of array data, casts a wrong dtype, returns a wrong shape and takes an empty directory for
the latest step. So a checkpoint is written under a temporary name, summed, flushed, and only then renamed; before a
restore the sums, the step, the run's id, and each leaf's shape and dtype are compared.

`orbax.checkpoint.CheckpointManager` can delete the latest step when a best one is kept, and offers no place between
commit and publication where sums could be written.
"""

import concurrent.futures
import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions

from train.errors import UserError, reason
from train.files import check_space, fsync_path, with_patience, write_json
from train.hosts import agreement
from train.interface.output import Extras
from train.run.checksums import DamagedCheckpoint, verify, write_sums

PROGRESS = "progress.json"
STATE = "state"
KEEP = 2

log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A checkpoint that was read.

    Attributes:
      step: its step.
      tree: the tree that was saved, placed as the abstract tree asked.
      progress: the plain values saved beside it.
    """

    step: int
    tree: Any
    progress: dict[str, Any]


def saved_steps(directory: Path) -> list[int]:
    """The steps of a run's checkpoints, whole or not, in increasing order; none where there is no such directory.

    Raises:
      UserError: it cannot be read.
    """
    try:
        if not directory.exists():
            return []
        return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())
    except OSError as error:
        raise UserError(f"{directory} cannot be read: {reason(error)}") from error


def _leaf_forms(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """{path: (shape, dtype)} with paths that read alike for NamedTuples, dataclasses and the dicts Orbax stores."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(leaf.shape), str(np.dtype(leaf.dtype)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: where they are.
      run: the run's id (`train.identity`), kept in each checkpoint and compared before it is restored; None to read
        those of any run.
      continued: ids of runs of fewer epochs, whose checkpoints this one continues.
      disk_wait: seconds to wait for space on a full disk.
    """

    def __init__(self, directory: Path, *, run: str | None = None, continued: Any = (), disk_wait: float = 0.0):
        self._directory, self._run, self._continued, self._disk_wait = directory, run, continued, disk_wait
        # The state is the same in every process of a run: the first writes it, and each reads it by itself.
        alone = MultiprocessingOptions(primary_host=agreement.index(), active_processes={agreement.index()})
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        self._checkpointer = ocp.Checkpointer(handler, multiprocessing_options=alone)
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None
        self.newest: int | None = None  # the step that was last saved or restored

    def remove_leftovers(self) -> None:
        """Removes what a process that was killed left in the middle of a save; for the run that has the workdir."""
        if agreement.is_first():
            for left in (*self._directory.glob(".*.writing"), *self._directory.glob(".*.deleting")):
                shutil.rmtree(left, ignore_errors=True)

    def steps(self) -> list[int]:
        """See `saved_steps`."""
        return saved_steps(self._directory)

    def save(self, step: int, tree: Any, progress: dict[str, Any]) -> None:
        """Copies the tree to the host and writes it in the background; waits for an earlier write first.

        Args:
          step: names the checkpoint.
          tree: arrays; may be donated as soon as this returns.
          progress: plain values to keep beside it; a "score" marks the best, which retention keeps.

        Raises:
          RunFailed: the earlier write failed.
        """
        self.wait()
        if not agreement.is_first():
            self.newest = step
            return
        # np.array copies: a view of a CPU buffer would change under the writer once the buffer is donated.
        host = jax.tree.map(np.array, tree)
        self._pending = self._writer.submit(
            with_patience,
            lambda: self._write(step, host, dict(progress)),
            seconds=self._disk_wait,
            what=str(self._directory / str(step)),
        )

    def wait(self) -> None:
        """Returns when the last save is on the disk; raises what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Waits and frees the writer."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._checkpointer.close()

    def _write(self, step: int, tree: Any, progress: dict[str, Any]) -> None:
        final = self._directory / str(step)
        if final.exists():
            try:
                verify(final)
                self._check_identity(step, self._progress(step))
                self.newest = step
                return
            except DamagedCheckpoint:
                os.rename(final, _unused(final.with_name(f"{step}.damaged")))
        temporary = self._directory / f".{step}.writing"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            check_space(temporary, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
            self._checkpointer.save((temporary / STATE).absolute(), args=ocp.args.StandardSave(tree))
            write_json(temporary / PROGRESS, {"step": step, "run": self._run, **progress})
            write_sums(temporary)
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk its space is needed
            raise
        fsync_path(self._directory)
        self.newest = step
        self._retain()

    def _scores(self) -> dict[int, float | None]:
        known: dict[int, float | None] = {}
        for step in self.steps():
            try:
                known[step] = self._progress(step).get("score")
            except DamagedCheckpoint as damage:  # what is whole is saved; this one is not ours to delete
                log.warning("checkpoint %s is damaged and is kept as it is: %s", self._directory / str(step), damage)
        return known

    def best(self) -> int | None:
        """The step with the highest score, the first of equal ones; None if none has any."""
        return _best(self._scores())

    def _retain(self) -> None:
        """Keeps the last `KEEP` checkpoints and the best one; removes older whole ones."""
        known = self._scores()
        best = _best(known)
        for step in sorted(known)[:-KEEP]:
            if step != best:
                # Renamed first, so that a kill in the middle leaves no half checkpoint under a step's name.
                doomed = self._directory / f".{step}.deleting"
                os.rename(self._directory / str(step), doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _progress(self, step: int) -> dict[str, Any]:
        """The plain values of a checkpoint.

        Raises:
          DamagedCheckpoint: they cannot be read.
        """
        try:
            found = json.loads((self._directory / str(step) / PROGRESS).read_text(encoding="utf-8"))
            return found | {}
        except (OSError, ValueError, TypeError) as error:
            raise DamagedCheckpoint(f"{PROGRESS} is missing or cannot be read") from error

    def _check_identity(self, step: int, progress: dict[str, Any]) -> None:
        """Compares what a whole checkpoint says it is with where it lies."""
        if progress.get("step") != step:
            raise DamagedCheckpoint(f"it belongs to step {progress.get('step')}")
        if self._run is not None and progress.get("run") != self._run and progress.get("run") not in self._continued:
            raise DamagedCheckpoint(
                f"it belongs to run {progress.get('run')}, not {self._run}: that run had other settings or other data"
            )

    def restore(self, abstract: Any, *, only: int | None = None) -> Restored | None:
        """Reads the newest checkpoint that is whole, or that of a step.

        Args:
          abstract: tree of `jax.ShapeDtypeStruct` with shardings, of the form that was saved; or a function that gives
            it for a checkpoint's plain values.
          only: the step to read; None for the newest.

        Returns:
          None where nothing was ever saved.

        Raises:
          UserError: there are checkpoints, and none is whole; or a whole one is of another structure, shape or dtype.
        """
        reasons = []
        for step in reversed(self.steps()) if only is None else [only]:
            directory = self._directory / str(step)
            try:
                verify(directory)
                progress = self._progress(step)
                self._check_identity(step, progress)
            except DamagedCheckpoint as damage:
                log.warning("checkpoint %s is skipped: %s", directory, damage)
                reasons.append(f"{step}: {damage}")
                continue
            form = abstract(progress) if callable(abstract) else abstract
            self._compare_forms(directory, form)
            tree = self._checkpointer.restore((directory / STATE).absolute(), args=ocp.args.StandardRestore(form))
            self.newest = step
            return Restored(step, tree, progress)
        if reasons:
            raise UserError(
                f"every checkpoint in {self._directory} is damaged or incomplete ({'; '.join(reasons)}); nothing was "
                "deleted: restore one from a backup, or start in a new workdir"
            )
        return None

    def _compare_forms(self, directory: Path, abstract: Any) -> None:
        metadata: Any = self._checkpointer.metadata((directory / STATE).absolute())
        stored = _leaf_forms(metadata.item_metadata.tree)
        wanted = _leaf_forms(abstract)
        for path in sorted(stored.keys() | wanted.keys()):
            if stored.get(path) != wanted.get(path):
                raise UserError(
                    f"checkpoint {directory} does not fit this run: {path} is {_say(stored.get(path))} there, "
                    f"and {_say(wanted.get(path))} here"
                )


def _best(scores: dict[int, float | None]) -> int | None:
    scored = {step: score for step, score in scores.items() if score is not None}
    return max(scored, key=lambda step: (scored[step], -step), default=None)


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


def _say(form: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if form is None else f"{form[1]}{list(form[0])}"


def _unused(path: Path) -> Path:
    candidate, n = path, 1
    while candidate.exists():
        candidate, n = path.with_name(f"{path.name}-{n}"), n + 1
    return candidate
