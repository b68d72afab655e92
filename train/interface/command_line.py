"""The argument parser of every command except `python -m train`: one-line errors, dashes or underscores in flags."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from train.errors import RunFailed, UserError
from train.interface.nearest import did_you_mean
from train.interface.output import os_error_words, with_environment
from train.interface.paths import user_path

__all__ = ["Parser", "argument_path", "import_jax", "optional_path", "run_command"]


def run_command(action: Callable[[], int]) -> int:
    """Calls what a command does; errors that are not the program's become one line on stderr.

    Returns:
      The exit status: what `action` returns; 1 if a run failed, 2 for wrong input or a file that cannot be written.
    """
    try:
        return action()
    except (UserError, RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:
        print(f"error: {os_error_words(error)}", file=sys.stderr)
        return 2


def import_jax() -> None:
    """Imports JAX; if environment variables make that fail, says so in one line and exits with status 1."""
    try:
        import jax  # noqa: F401
    except ImportError:
        raise  # it is not installed, or incomplete
    except Exception as error:
        print(f"error: JAX cannot be imported: {with_environment(error)}", file=sys.stderr)
        sys.exit(1)


def argument_path(text: str) -> Path:
    """The `type` of an argument that is a path; see `train.interface.paths.user_path`."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a path")
    try:
        return user_path(text, "path")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def optional_path(text: str) -> str:
    """The `type` of an argument that is a path, or empty if it is not given."""
    return str(argument_path(text)) if text else ""


class Parser(argparse.ArgumentParser):
    """The argparse parser of this project's commands.

    `--report-only` and `--report_only` are the same flag, however it was added. Errors raise `UserError` and suggest
    the nearest valid flag or word.
    """

    def __init__(self, **options: Any):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def add_register(self) -> None:
        """Adds --register, a file to give to `train.interface.user_code.load_module` before names are looked up."""
        self.add_argument(
            "--register", type=argument_path, help="a config or study file, run for the names that it registers"
        )

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._spelt(word) for word in given], namespace)

    def _spelt(self, word: str) -> str:
        """The argument with its flag spelt as it was added."""
        flag, equals, value = word.partition("=")
        if not flag.startswith("--") or flag in self._option_string_actions:
            return word
        for known in self._option_string_actions:
            if known.replace("-", "_") == flag.replace("-", "_"):
                return known + equals + value
        return word

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self._with_nearest(' '.join(message.split()))}; see: {self.prog} --help")

    def _with_nearest(self, message: str) -> str:
        if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            return message + did_you_mean(found[1], re.findall(r"[^', ]+", found[2]))
        if found := re.search(r"unrecognized arguments: (--[^ =]+)", message):
            return message + did_you_mean(found[1], self._flags())
        return message

    def _flags(self) -> list[str]:
        """The long flags of this parser and of its commands' parsers."""
        found = [flag for flag in self._option_string_actions if flag.startswith("--")]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [flag for parser in action.choices.values() for flag in parser._flags()]
        return found
