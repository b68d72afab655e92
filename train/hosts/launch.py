"""How the processes of a run find each other, and what is said when one of them is lost.

JAX ends a process whose peer has died from C++, with a stack trace. So each process of a run is a pair: the one that
was started waits, passes signals on and speaks last; its child trains, and dies with it.
"""

import ctypes
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence

from train.errors import UserError
from train.hosts import agreement
from train.interface.signals import EXIT_STOPPED, stop_signals

# A process that has been silent so long is lost. JAX's own default is 100.
HEARTBEAT_SECONDS = 20
# What the child ends with if it notices itself that another process is gone.
LOST = 76

PLACE_FLAGS = ("coordinator_address", "num_processes", "process_id")
# <sys/prctl.h>
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of a run this one is.

    Attributes:
      coordinator_address: HOST:PORT at which process 0 listens; None, like the next two, where JAX finds it out.
      num_processes: of the run.
      process_id: of this process, from 0.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def take_flags(arguments: Sequence[str]) -> tuple[Place | None, list[str]]:
    """Takes the flags about processes out of a command line.

    Returns:
      The place of this process, None in a run of one process; and the other arguments.

    Raises:
      UserError: a flag is missing or has a wrong value.
    """
    given: dict[str, str] = {}
    rest, words = [], iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        name = name.lstrip("-").replace("-", "_")
        if word.startswith("-") and name in (*PLACE_FLAGS, "distributed"):
            given[name] = value if equals or name == "distributed" else next(words, "")
        else:
            rest.append(word)
    if not given:
        return None, rest
    if "distributed" in given:
        if given["distributed"] not in ("", "true", "True") or len(given) > 1:
            raise UserError(
                "--distributed lets JAX find the processes in the environment of Slurm, Open MPI or Kubernetes; it "
                f"takes no value, and cannot be combined with {', '.join('--' + flag for flag in PLACE_FLAGS)}"
            )
        return Place(), rest
    if missing := [f"--{flag}" for flag in PLACE_FLAGS if not given.get(flag)]:
        raise UserError(
            f"{missing[0]} is missing; each process needs --coordinator_address=HOST:PORT (of process 0), "
            "--num_processes=N and --process_id=I, for example --coordinator_address=10.0.0.1:4321 --num_processes=2 "
            "--process_id=0; or --distributed alone under Slurm, Open MPI or Kubernetes"
        )
    host, _, port = given["coordinator_address"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"--coordinator_address={given['coordinator_address']} must be HOST:PORT, for example 10.0.0.1:4321"
        )
    for flag in PLACE_FLAGS[1:]:
        if not given[flag].isdecimal():
            raise UserError(f"--{flag}={given[flag]} must be a whole number")
    count, index = int(given["num_processes"]), int(given["process_id"])
    if not 0 <= index < count:
        raise UserError(f"--process_id={index} must be from 0 to {count - 1}, with --num_processes={count}")
    return Place(given["coordinator_address"], count, index), rest


def split(place: Place) -> int | None:
    """Goes on in a child of this process, which alone returns None; call it before JAX starts a thread.

    Returns:
      The exit status, in the process that was called.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if not child:
        # Ctrl-C reaches the parent alone, which passes it on once. Without the parent there is no child.
        os.setsid()
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(EXIT_STOPPED)
        return None
    for number in {signal.SIGINT, *stop_signals()}:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os.kill(child, number))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (LOST, -signal.SIGABRT):
        return status if status >= 0 else 128 - status
    who = "a process" if place.process_id is None else f"process {place.process_id}"
    print(
        f"error: {who} of this run ended because another process of the run was lost; run the same command again for "
        "every process, and the run continues from its last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    return EXIT_STOPPED


def join(place: Place) -> None:
    """Joins the other processes of the run; call it before JAX has made its devices.

    Raises:
      UserError: the environment names no processes, or they did not meet.
    """
    import jax

    try:
        jax.distributed.initialize(
            place.coordinator_address,
            place.num_processes,
            place.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            cluster_detection_method=None if place.coordinator_address is None else "deactivate",
        )
    except (ValueError, RuntimeError) as error:
        where = place.coordinator_address or "the environment of Slurm, Open MPI or Kubernetes"
        raise UserError(f"the processes of the run could not connect through {where}: {error}") from error
    agreement.set_place(jax.process_index(), jax.process_count())
    agreement.barrier("joined")


def is_loss(error: BaseException | None) -> bool:
    """Whether an error is that of a collective whose other process is gone."""
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in str(error) for word in ("Gloo", "gloo", "NCCL", "Connection", "coordination", "heartbeat")
    )
