"""What is told and shown beside the numbers: it may fail, and the run goes on.

A drawing, TensorBoard, a progress bar, a log line, a page: none of them is worth hours of training. `Extras` is where
their errors end. `tolerant_output` and `accept_any_text` are for command lines: standard output and error that may be
closed, full, piped into a process that has gone, or on a console that cannot show every character.
"""

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

log = logging.getLogger(__name__)


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of its text."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def with_environment(error: BaseException) -> str:
    """An error of JAX or its devices in one line, with the environment variables that may be its cause."""
    given = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("JAX_", "XLA_"))]
    return one_line(error) + (f"; environment: {' '.join(given)}" if given else "")


class Extras:
    """What a run or a study does beside its numbers.

    Attributes:
      missing: What has failed and why. Something that works again later is taken out.
    """

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._told: set[str] = set()

    @contextlib.contextmanager
    def best_effort(self, what: str) -> Iterator[None]:
        """Runs a block whose errors are one warning each `what`, and nothing else."""
        try:
            yield
            self.missing.pop(what, None)
        except Exception as error:
            self.missing[what] = one_line(error)
            if what not in self._told:
                self._told.add(what)
                with contextlib.suppress(Exception):  # a log is beside the numbers, too
                    log.warning("%s: %s; the run goes on without it", what, one_line(error))


class TolerantStream:
    """A text stream whose writes never raise: what cannot be written is lost, what cannot be encoded is escaped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def settle(self) -> None:
        """Empties the buffer: into the file or, where that is impossible, into nothing."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            # Python flushes once more at its end, and would end with status 120; a buffer that is kept would go to
            # whatever the descriptor is next.
            with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
                number = self._stream.fileno()
                saved, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                self._stream.flush()
                os.dup2(saved, number)
                os.close(saved)
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_closed_descriptors() -> None:
    """Gives descriptors 0 to 2 a place where they have none: else the next file that is opened becomes the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """Standard output and error that never end a command; for the length of the block."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        ours = [TolerantStream(stream if stream is not None else nowhere) for stream in before]
        sys.stdout, sys.stderr = ours  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            for stream in ours:
                stream.settle()


_HANDLER = "lookahead.plain"
_PLAIN = {"–": "-", "—": "-", "−": "-", "±": "+/-", "×": "x", "…": "...", "≥": ">=", "≤": "<=", "’": "'"}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """An error handler for encoding: a plain word for what has one, "?" for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def accept_any_text() -> None:
    """Lets standard output and error take any text, whatever their encoding; call it first in a command.

    Without it a dash on an ASCII console, or a file's name that is not UTF-8, ends the command with a traceback.
    """
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        # Notebooks and test runners put other objects here, which take any text, and a process may have no console.
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors=_HANDLER)
