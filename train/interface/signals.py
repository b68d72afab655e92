"""Stopping a run: a signal asks for it, the loop obeys between two steps."""

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType

from train.errors import UserError

# SIGUSR1 and SIGUSR2 are what batch systems send before a time limit (submitit: SIGUSR2); SIGHUP, a lost terminal.
STOP_SIGNALS = ("INT", "TERM", "HUP", "USR1", "USR2")
VARIABLE = "TRAIN_STOP_SIGNALS"
# EX_TEMPFAIL of sysexits.h: run the same command again.
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130


def stop_signals(environment: Mapping[str, str] = os.environ) -> list[signal.Signals]:
    """Returns the signals that stop a run: `STOP_SIGNALS`, or those that TRAIN_STOP_SIGNALS names ("USR2,TERM").

    Raises:
      UserError: The variable has a name that is no signal, or one that cannot be caught.
    """
    given = environment.get(VARIABLE)
    names = STOP_SIGNALS if given is None else [name.strip() for name in given.split(",") if name.strip()]
    found = []
    for name in names:
        number = getattr(signal.Signals, f"SIG{name.upper().removeprefix('SIG')}", None)
        if number is None or number in (signal.SIGKILL, signal.SIGSTOP):
            raise UserError(f"{VARIABLE}={given}: {name!r} is not a signal that can be caught; for example USR2,TERM")
        found.append(number)
    return found


class StopRequest:
    """Asks a run to save and end. As a context it listens to the stop signals; a second SIGINT ends the process.

    Python hands signals to its main thread alone. In another thread the context listens to none; call `ask`, from any
    thread, instead. A signal that the process ignores (SIGHUP under nohup) stays ignored.

    Args:
      always: signals to listen to whatever TRAIN_STOP_SIGNALS says.

    Attributes:
      signal: The first signal that came, None so far.
    """

    def __init__(self, *always: signal.Signals) -> None:
        self._always = always
        self.signal: signal.Signals | None = None
        self._asked = False
        self._previous: dict[signal.Signals, object] = {}

    def ask(self) -> None:
        """Asks for the end: the run finishes its step, saves, and returns as "stopped"."""
        self._asked = True

    def poll(self) -> None:
        """Called once a step, where processes that train a run together agree on its end; here there is one."""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None and number == signal.SIGINT:
            # No clean-up: whatever is on the disk is whole, by the way it is written.
            os._exit(128 + number)
        self.signal = self.signal or signal.Signals(number)

    def __bool__(self) -> bool:
        return self._asked or self.signal is not None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in dict.fromkeys((*stop_signals(), *self._always)):
                previous = signal.getsignal(number)
                if previous == signal.SIG_IGN and number == signal.SIGHUP:
                    continue
                signal.signal(number, self._on_signal)
                self._previous[number] = previous
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            # None: not set from Python, so it cannot be set back from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous = {}


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    try:
        os.write(2, b"interrupted before anything ran\n")
    finally:
        os._exit(EXIT_INTERRUPTED)


def end_at_interrupt() -> None:
    """Lets Ctrl-C end the process in one line with status 130: for a command's first seconds, which write nothing.

    Not by KeyboardInterrupt: raised inside the import of a compiled module it can come out as another error.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_at_interrupt() -> None:
    """Undoes `end_at_interrupt`."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
