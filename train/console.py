"""Standard output and error on consoles that cannot show every character."""

import codecs
import sys

__all__ = ["accept_any_text"]

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
