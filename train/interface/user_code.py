"""Runs users' Python files (configs and studies) so that an error in one is reported in one line with its place."""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from train.errors import UserError

__all__ = ["error_words", "load_module", "running"]


def load_module(path: Path, flag: str) -> ModuleType:
    """Runs a Python file, which may import its neighbours like a script, also in functions that are called later.

    Args:
      path: the file.
      flag: see `running`.

    Raises:
      UserError: There is no such file; or see `running`.
    """
    if not path.is_file():
        raise UserError(f"{flag}={path} {'is not a file' if path.exists() else 'does not exist'}")
    name = f"{flag.lstrip('-')}_file"
    spec = spec_from_loader(name, SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[name] = module  # where dataclasses look for the module of a class
    sys.path.insert(0, folder)
    try:
        with running(path, flag):
            spec.loader.exec_module(module)
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed sys.path itself
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
    return module


@contextlib.contextmanager
def running(path: Path, flag: str) -> Iterator[None]:
    """Runs a block that executes code from the file at `path`.

    Args:
      path: a Python file.
      flag: the flag that named it, for errors, such as "--config".

    Raises:
      UserError: The code raised an error or tried to end the process. Its own `UserError` and an interrupt are passed
        on unchanged.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"{flag}={path} cannot be read: {error_words(error, path)}") from error


def error_words(error: BaseException, path: Path | None = None) -> str:
    """Says in one line what the code raised and, if the file at `path` was involved, in which of its lines."""
    message = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        where = "" if error.filename == str(path) else f"{error.filename}, "
        return f"{where}line {error.lineno}: {error.msg}" if error.lineno else message
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f"line {own[-1]}: " if own else ""
    if isinstance(error, SystemExit):
        return f"{place}it ends the process (exit {message or 0})"
    if isinstance(error, ImportError):
        return f"{place}{message}"
    return f"{place}{kind}: {message}" if message else f"{place}{kind}"
