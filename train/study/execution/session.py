"""What study.json says of a study: what it is, how to make it again, and each session that added runs to it."""

import argparse
import dataclasses
import platform
import shlex
import time
from collections.abc import Sequence
from typing import Any

from train.config import Config
from train.errors import UserError
from train.files import with_patience, write_json
from train.run.provenance import machine_words, now, source_commit, versions
from train.study.execution.runner import Tally
from train.study.plan import Study
from train.study.results.facts import FACTS, read_facts


@dataclasses.dataclass(frozen=True)
class SessionFacts:
    """One call of the command, as an entry of "sessions" in study.json.

    Attributes:
      date: when it began.
      command: as it was given.
      machine: in words.
      commit: of the source; "unknown" outside git.
      seconds: from its beginning to the last run that it published, or to its end.
      finished, failed: runs that it published.
    """

    date: str
    command: str
    machine: str
    commit: str
    seconds: float = 0.0
    finished: int = 0
    failed: int = 0


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "train.study", *arguments])


class Session:
    """A session's place in study.json, brought up to date with each run that it publishes: a kill takes nothing away.

    A session that publishes no run leaves the file as it was; but a new study has its file from the beginning, which
    keeps other studies out of the directory.

    Args:
      flags: of the command line.
      arguments: the same as they were given.
      study: the plan.

    Raises:
      UserError: study.json is damaged, or its second look is at another number of seeds.
      RunFailed: the disk stayed full.
    """

    def __init__(self, flags: argparse.Namespace, arguments: Sequence[str], study: Study):
        self._path, self._began = flags.out / FACTS, time.monotonic()
        before = read_facts(flags.out)
        self._earlier = before.get("sessions", [])
        whole = [f"--{name}={getattr(flags, name)}" for name in ("study", "out", "scale") if getattr(flags, name)]
        whole += [f"--epochs={flags.epochs}"] if flags.epochs else []
        # More seeds of some sections are not a plan that the command could make again.
        whole += [f"--seeds={flags.seeds}"] * ((flags.seeds or 0) > study.seeds and not flags.only)
        whole += [f"--until={flags.until}", f"--max_seeds={flags.max_seeds}"] if flags.until else []
        looked = before.get("second_look", 0)
        second = flags.max_seeds if flags.until else max(flags.seeds or 0, looked)
        if study.claims and looked and second > study.seeds and second != looked:
            raise UserError(
                f"the second look of the study in {flags.out} is at {looked} seeds, not {second}, and its verdicts pay "
                f"for two looks only: use {looked}, or another --out"
            )
        self._session = SessionFacts(now(), _command(arguments), machine_words(), source_commit())
        self._facts: dict[str, Any] = {
            "study": str(flags.study),
            "name": study.name,
            "title": study.title,
            "scale": study.scale,
            "command": _command(whole),
            "date": self._session.date,
            "machine": self._session.machine,
            "versions": {"python": platform.python_version()} | versions(),
            "commit": self._session.commit,
        }
        if second > study.seeds:
            self._facts["second_look"] = second
        if not before:
            self._write(self._facts | {"sessions": []})

    def record(self, tally: Tally) -> None:
        """Writes what it has come to so far.

        Raises:
          RunFailed: the disk stayed full.
        """
        if tally.finished or tally.failed:
            session = dataclasses.replace(
                self._session,
                seconds=round(time.monotonic() - self._began, 1),
                finished=len(tally.finished),
                failed=len(tally.failed),
            )
            facts = self._facts | {"sessions": [*self._earlier, dataclasses.asdict(session)]}
            self._write(facts)

    def _write(self, facts: dict[str, Any]) -> None:
        with_patience(lambda: write_json(self._path, facts), seconds=Config().disk_wait, what=str(self._path))
