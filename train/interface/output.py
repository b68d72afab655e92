"""Output besides the numbers, which may fail without ending the run.

No figure, TensorBoard event, progress bar, log line or page is worth hours of training. `Extras` catches their errors.
`tolerant_output` and `accept_any_text` are for command lines: standard output and error may be closed, full, piped into
a process that has ended, or on a console that cannot show every character.
"""

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from train.errors import first_line, reason

log = logging.getLogger(__name__)


def one_line(error: BaseException) -> str:
    """The type of an error and the first line of its text."""
    name, text = type(error).__name__, first_line(error)
    return name if text == name else f"{name}: {text}"


def os_error_words(error: OSError) -> str:
    """The file that an error of the operating system is about, and why it failed."""
    return f"{error.filename or 'reading or writing'}: {reason(error)}"


def with_environment(error: BaseException) -> str:
    """An error from JAX or its devices in one line, with the environment variables that may have caused it."""
    given = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("JAX_", "XLA_"))]
    return one_line(error) + (f"; environment: {' '.join(given)}" if given else "")


class Extras:
    """What a run or a study produces besides its numbers.

    Attributes:
      missing: What has failed, and why. Anything that works again later is removed.
    """

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._told: set[str] = set()

    @contextlib.contextmanager
    def best_effort(self, what: str) -> Iterator[None]:
        """Runs a block whose errors only cause a warning, one per `what`."""
        try:
            yield
            self.missing.pop(what, None)
        except Exception as error:
            self.missing[what] = one_line(error)
            if what not in self._told:
                self._told.add(what)
                with contextlib.suppress(Exception):  # the log may fail, too
                    log.warning("%s: %s; the run continues without it", what, one_line(error))


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
        """Empties the buffer into the file, or discards it if that is impossible."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            # Python flushes once more when it exits and would end with status 120; a buffer that is kept would go to
            # whatever file gets the descriptor next.
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
    """Opens descriptors 0 to 2 if they are closed: otherwise the next file opened would receive the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """Within the block, errors of standard output and error never end the command."""
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
    """An error handler for encoding: a plain replacement if there is one, otherwise "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def accept_any_text() -> None:
    """Lets standard output and error accept any text, whatever their encoding; call it first in a command.

    Without it, a dash on an ASCII console or a file name that is not UTF-8 ends the command with a traceback.
    """
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        # Notebooks and test runners use other objects here, which accept any text, and a process may have no console.
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors=_HANDLER)


def leave(status: int) -> NoReturn:
    """Ends the process at once: threads that compile, and other processes of a run, are not waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
