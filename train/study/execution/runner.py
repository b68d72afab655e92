"""Runs a study: skips published runs, retries failed ones, and publishes each one as soon as it finishes."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.config import differences, to_dict
from train.errors import RunFailed, UserError
from train.files import read_json, with_patience, write_json
from train.identity import earlier_configs, run_id, variant_id
from train.interface.signals import StopRequest
from train.run.provenance import now, run_facts
from train.run.records import read_rows
from train.study.execution.executor import Executor, RunEnd
from train.study.execution.live import Live
from train.study.execution.worker import FAILED, FINISHED, REFUSED, UNUSABLE, log_name, run_directory
from train.study.plan import PlannedRun, Study
from train.study.results.published import RUNS, write_runs
from train.study.results.records import RunRecord, Status, is_finished

POLL_SECONDS = 0.5


@dataclasses.dataclass
class Tally:
    """How a session of a study went.

    Attributes:
      finished: runs that it finished.
      failed: runs that were given up, with the reason.
      open: runs that a signal left for later.
    """

    finished: list[PlannedRun] = dataclasses.field(default_factory=list)
    failed: list[tuple[PlannedRun, str]] = dataclasses.field(default_factory=list)
    open: list[PlannedRun] = dataclasses.field(default_factory=list)


def take_group(waiting: Sequence[PlannedRun], seeds: int) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """The first run with other seeds of its variant, so many at most, and the runs that are left."""
    group = [run for run in waiting if run.variant_id == waiting[0].variant_id][:seeds]
    return group, [run for run in waiting if run not in group]


class Runner:
    """Runs what is planned and not published yet.

    Args:
      study: the plan.
      out: the out directory, held by `published.open_directory`.
      runs: the published runs; grows.
      executor: where runs are trained.
      retries: how often a failed run is tried again.
      live: what a person watching sees.
      seeds_per_program: how many seeds of a variant the executor gets at once.
      published: called with the tally so far whenever a run has ended.
    """

    def __init__(
        self,
        study: Study,
        out: Path,
        runs: dict[str, RunRecord],
        executor: Executor,
        *,
        retries: int,
        live: Live,
        seeds_per_program: int = 1,
        published: Callable[[Tally], None] = lambda tally: None,
    ):
        self._study, self._out, self._runs = study, out, runs
        self._executor, self._retries, self._live, self._published = executor, retries, live, published
        self._seeds_per_program = seeds_per_program
        self._variants = {
            one.id
            for section in study.sections
            for variant in section.variants
            for one in (variant, *section.all_trials(variant))
        }

    def run(self, planned: Sequence[PlannedRun], stop: StopRequest) -> Tally:
        """Goes through the runs in their order; returns when all are done or given up, or after a signal.

        Raises:
          RunFailed: what is finished cannot be published, since the disk stayed full; or no run can start.
        """
        tally = Tally()
        waiting = [run for run in planned if not is_finished(run.id, self._runs)]
        going: dict[str, PlannedRun] = {}
        attempts = dict.fromkeys((run.id for run in waiting), 0)
        asked = False
        while going or (waiting and not stop):
            while waiting and not stop and self._executor.has_room():
                run = waiting[0]
                if self._publish_if_finished(run):
                    waiting.remove(run)
                    self._live.found(run, self._runs[run.id].rows)
                    tally.finished.append(run)
                    self._published(tally)
                    continue
                group, waiting = take_group(waiting, self._seeds_per_program)
                for member in group:
                    attempts[member.id] += 1
                    going[member.id] = member
                    self._continue_earlier(member)
                self._executor.start(group)
                for member in group:
                    self._live.started(member)
            if stop and not asked:
                asked = True
                self._live.say(
                    f"{stop.signal.name if stop.signal else 'stop'}: waiting for the active runs to save and stop ..."
                )
                self._executor.stop()
            for end in self._executor.wait(POLL_SECONDS):
                if end.id not in going:
                    continue  # the end of a process that had reported before
                if end.status == UNUSABLE:
                    raise RunFailed(end.message)
                run = going.pop(end.id)
                if end.status == FAILED and attempts[run.id] <= self._retries and not stop:
                    self._live.failed(run, end.message, again=True)
                    waiting.insert(0, run)
                else:
                    self._ended(run, end, tally)
                    self._published(tally)
            self._live.update()
        tally.open = waiting + tally.open
        return tally

    def _continue_earlier(self, run: PlannedRun) -> None:
        """Gives a run that has no workdir that of a run of fewer epochs which it continues, if checkpoints are there.

        What that one published stays published. A run that the study has as well keeps its workdir.
        """
        directory = run_directory(self._out, run.id)
        if directory.exists():
            return
        kept = {path.parent.parent for path in directory.parent.glob("*/checkpoints/[0-9]*")}
        lengths = sorted({_epochs_of(workdir) for workdir in kept}, reverse=True)  # that of most epochs is continued
        for earlier in earlier_configs(run.config, lengths):
            found = run_directory(self._out, run_id(earlier, run.data))
            if found in kept and variant_id(earlier, run.data) not in self._variants:
                found.rename(directory)
                # Before a process starts that would write it, the study may be stopped and its epochs raised again.
                with_patience(
                    lambda: write_json(directory / "config.json", to_dict(run.config)),
                    seconds=run.config.disk_wait,
                    what=str(directory / "config.json"),
                )
                return

    def _ended(self, run: PlannedRun, end: RunEnd, tally: Tally) -> None:
        if end.status == FINISHED and self._publish_if_finished(run):
            self._live.finished(run, self._runs[run.id].rows)
            tally.finished.append(run)
        elif end.status in (FAILED, REFUSED, FINISHED):
            message = end.message or self._what_is_wrong(run)
            self._live.failed(run, message, again=False)
            tally.failed.append((run, message))
            self._publish(run, "failed", facts=self._facts(run))
        else:
            self._live.stopped(run)
            tally.open.append(run)

    def _publish_if_finished(self, run: PlannedRun) -> bool:
        """Publishes a run whose workdir holds it to its end: of this session, or of one that was cut off."""
        directory, facts = run_directory(self._out, run.id), self._facts(run)
        with contextlib.suppress(OSError, ValueError, AttributeError, UserError):
            config = read_json(directory / "config.json")
            rows = read_rows(directory / "metrics.csv")
            if (
                facts.get("status") == "finished"
                and len(rows) == run.config.epochs
                and facts.get("data", {}).get("digest") == run.data
                and not differences(config, run.config)
            ):
                self._publish(run, "finished", rows, facts=facts)
                return True
        return False

    def _what_is_wrong(self, run: PlannedRun) -> str:
        """Why a run that says it is finished cannot be published."""
        trained_on = self._facts(run).get("data", {}).get("digest", run.data)
        return "it left no complete metrics.csv" if trained_on == run.data else "its data changed during the study"

    def _facts(self, run: PlannedRun) -> dict[str, Any]:
        return run_facts(run_directory(self._out, run.id))

    def _publish(self, run: PlannedRun, status: Status, rows: Sequence[Any] = (), *, facts: dict[str, Any]) -> None:
        versions = facts.get("versions", {})
        self._runs[run.id] = RunRecord(
            id=run.id,
            variant_id=run.variant_id,
            data=run.data,
            scale=self._study.scale,
            config=to_dict(run.config),
            seed=run.config.seed,
            rows=list(rows),
            status=status,
            seconds=float(facts.get("wall_seconds", 0.0)),
            log=log_name(run.id) if (self._out / log_name(run.id)).exists() else "",
            provenance={
                "date": facts.get("updated") or now(),
                "machine": facts.get("machine", ""),
                "python": facts.get("python", ""),
                "versions": ", ".join(f"{name} {versions[name]}" for name in sorted(versions)),
                "commit": facts.get("commit", ""),
            },
        )
        with_patience(
            lambda: write_runs(self._out, self._study, self._runs),
            seconds=run.config.disk_wait,
            what=str(self._out / RUNS),
        )


def _epochs_of(workdir: Path) -> int:
    """The number of epochs that a workdir's config asks for; 0 if it does not say."""
    with contextlib.suppress(OSError, ValueError):
        epochs = read_json(workdir / "config.json").get("epochs")
        return epochs if isinstance(epochs, int) else 0
    return 0
