"""Stopping a run: SIGINT, SIGTERM and SIGUSR1 ask for it, the loop obeys between two steps."""

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# EX_TEMPFAIL of sysexits.h: run the same command again.
EXIT_STOPPED = 75


class StopRequest:
    """Context in which the stop signals set a flag instead of ending the process; a second SIGINT ends it at once.

    Attributes:
      signal: the first signal that came, None so far.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None and number == signal.SIGINT:
            # No clean-up: whatever is on the disk is whole, by the way it is written.
            os._exit(128 + number)
        self.signal = self.signal or signal.Signals(number)

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> "StopRequest":
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
