"""Studies that are disturbed at random instants until they come to their end, against one that was left alone.

    python -m tests.train.study.chaos [--rounds=20] [--seed=N] [--out=FILE]

In each round the study's process and one of its workers are killed, its disk is full for a while, the clock is set
back, and two more of these happen, or all processes are killed at once, or a signal asks it to stop. The same command
is given again until it ends with status 0; what it has published must then be what the undisturbed study published.
"""

import argparse
import csv
import gzip
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.train.reliability import machine, write_section
from tests.train.study.chaos.full_disk import FullDisk, enter_namespace
from train.run.records import TIMING_COLUMNS

ROOT, HERE = Path(__file__).resolve().parents[4], Path(__file__).resolve().parent
EVERY_ROUND = ("study killed", "worker killed", "disk full for a while", "clock set back")
ALL = (*EVERY_ROUND, "all killed at once", "asked to stop")
# What a study may say of when it ran, and of nothing else.
TIMES = {"runs.csv": {"date", "seconds"}, "curves.csv.gz": set(TIMING_COLUMNS), "claims.csv": set[str]()}


def published(out: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of what a study publishes, as text, without the times."""
    found = {}
    for name, times in TIMES.items():
        data = (out / name).read_bytes()
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
        rows = csv.DictReader(io.StringIO(text, newline=""))
        found[name] = [{column: cell for column, cell in row.items() if column not in times} for row in rows]
    return found


def children(process: int) -> list[int]:
    """Its child processes, of all its threads."""
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*"):
        try:
            found += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return found


def kill(*processes: int) -> None:
    """SIGKILL; those that have ended by themselves are passed over."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Round:
    """One study and what happens to it.

    Args:
      folder: made; holds everything, logs included.
      rng: of the instants and events.
    """

    def __init__(self, folder: Path, cache: Path, rng: random.Random):
        folder.mkdir()
        self.disk, self._rng = FullDisk(folder / "disk"), rng
        self.out, self.log, self._clock = folder / "disk" / "out", folder / "log.txt", folder / "clock"
        # A compilation cache of its own: a kill may leave an entry of it half written.
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": f"{HERE / 'clock'}{os.pathsep}{ROOT}",
            "CHAOS_CLOCK": str(self._clock),
        }
        self._back = 0.0
        self._timers: list[threading.Timer] = []
        self.happened: Counter[str] = Counter()
        self.sessions = 0

    def start(self) -> subprocess.Popen:
        """The study's command, always the same."""
        self.sessions += 1
        flags = [f"--study={HERE / 'study_file.py'}", f"--out={self.out}", "--jobs=2"]
        command = [sys.executable, "-m", "train.study", *flags]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def happen(self, what: str, study: subprocess.Popen) -> None:
        """Makes one of `ALL` happen to a session."""
        workers = children(study.pid)
        while what == "worker killed" and not workers:
            if study.poll() is not None:
                return  # it has come to its end
            time.sleep(0.05)
            workers = children(study.pid)
        self.happened[what] += 1
        if what == "worker killed":
            kill(self._rng.choice(workers))
        elif what == "study killed":
            kill(study.pid)
        elif what == "all killed at once":
            kill(study.pid, *workers)
        elif what == "asked to stop":
            study.send_signal(signal.SIGTERM)
        elif what == "clock set back":
            self._set_back(self._rng.uniform(60.0, 100_000.0))
        else:
            self.disk.fill([study.pid, *workers])
            self._timers.append(threading.Timer(self._rng.uniform(1.0, 12.0), self.disk.free))
            self._timers[-1].start()

    def _set_back(self, seconds: float) -> None:
        self._back -= seconds
        self._clock.write_text(str(self._back))
        # The kernel's clock goes on: files written before the change must be from the future, as seen by that clock.
        for path in self.out.rglob("*"):
            try:
                status = path.stat()
                os.utime(path, (status.st_atime + seconds, status.st_mtime + seconds))
            except OSError:
                continue

    def run(self, events: list[str], pause: float) -> None:
        """Gives the command again and again until it comes to its end.

        Args:
          events: what happens; those that are left when the study has ended do not.
          pause: seconds, at most, from one to the next.

        Raises:
          AssertionError: a session of its own accord ends with another status than 0, or with a traceback.
        """
        status = None
        while status != 0:
            disturbed, study = self.disk.full, self.start()
            while events:
                try:
                    study.wait(self._rng.uniform(0.0, pause))
                    break
                except subprocess.TimeoutExpired:
                    self.happen(events.pop(), study)
                    disturbed = True
            status = study.wait()
            # 2: it found too little space for a checkpoint at its start.
            allowed = (0, 1, 2, 75, -signal.SIGKILL, -signal.SIGTERM) if disturbed else (0,)
            assert status in allowed, f"status {status}\n{self.log.read_text()[-3000:]}"
        for timer in self._timers:
            timer.join()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()[-5000:]


def disturb(rounds: int, seed: int, folder: Path) -> dict[str, Any]:
    """Runs a study once undisturbed, then `rounds` times disturbed.

    Raises:
      AssertionError: a disturbed study publishes something else, or does not come to its end.
    """
    rng, cache, began = random.Random(seed), folder / "cache", time.monotonic()
    whole = Round(folder / "whole", cache, rng)
    whole.run([], 0.0)
    pause, expected = (time.monotonic() - began) / 6, published(whole.out)
    assert [row["status"] for row in expected["runs.csv"]] == ["finished"] * 4
    happened: Counter[str] = Counter()
    sessions, kind = 0, whole.disk.kind
    number = tried = 0
    while number < rounds:
        tried += 1
        events = [*EVERY_ROUND, *rng.choices(ALL, k=2)]
        rng.shuffle(events)
        disturbed = Round(folder / f"round-{tried}", cache, rng)
        disturbed.run(events, pause)
        for name, rows in published(disturbed.out).items():
            assert rows == expected[name], f"{name} differs: {disturbed.out}"
        said = f"as undisturbed, after {disturbed.sessions} sessions; {dict(disturbed.happened)}"
        if not all(disturbed.happened[what] for what in EVERY_ROUND):
            print(f"{said}: it ended before all had happened, and does not count", flush=True)
            pause /= 2  # the machine has become faster
            continue
        number += 1
        print(f"round {number} of {rounds}: {said}", flush=True)
        happened += disturbed.happened
        sessions += disturbed.sessions
    seconds = round(time.monotonic() - began)
    return {"rounds": rounds, "seed": seed, "events": happened, "sessions": sessions, "disk": kind, "seconds": seconds}


SECTION = """Made by `python -m tests.train.study.chaos --rounds={rounds} --seed={seed}` ({machine}). {seconds} s.

A study of four runs (two variants, two seeds, two jobs) was disturbed at random instants in {rounds} rounds, each time
in at least four ways: its process killed, a worker killed, its disk full for 1 to 12 seconds, its clock set back by a
minute to a day. The same command was repeated until it finished on its own: {sessions} times in all. In {rounds} of
{rounds} rounds `runs.csv`, `curves.csv.gz` and `claims.csv` were then bit-identical to those of an undisturbed study,
except for dates and durations, and no log had a traceback. The full disk was a {disk}.

| what happened | times |
|---|---|
{events}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--out", type=Path, help="write the figures there, as a section of a Markdown file")
    enter_namespace("tests.train.study.chaos", sys.argv[1:])
    flags = parser.parse_args()
    print(f"seed {flags.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    figures = disturb(flags.rounds, flags.seed, folder)
    print(f"every study ended as the undisturbed one: {figures}")
    if flags.out:
        events = "\n".join(f"| {what} | {count} |" for what, count in sorted(figures.pop("events").items()))
        write_section(flags.out, "Studies", SECTION.format(**figures, events=events, machine=machine()))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
