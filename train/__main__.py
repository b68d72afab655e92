"""python -m train --config=configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]

Trains one run in DIR. Running the same command again continues it; a finished run is left alone. Config files are
Python, and run as such: use only those you trust.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from train.errors import RunFailed, UserError
from train.output import tolerant_output
from train.run.signals import EXIT_STOPPED, end_at_interrupt, raise_at_interrupt


def parse(arguments: list[str]):
    """Reads the flags.

    Returns:
      The validated config and the workdir.

    Raises:
      UserError: a flag or a config field is wrong.
    """
    from absl import flags
    from ml_collections import config_flags

    from train.config import validate

    values = flags.FlagValues()
    command = ["train", *arguments]
    config_flags.DEFINE_config_file("config", None, "Path of a config file.", flag_values=values, sys_argv=command)
    flags.DEFINE_string("workdir", None, "Directory of the run; made where missing.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    try:
        rest = values(command)
        # For a file that could not be read, config_flags gives an object that raises on any access.
        getattr(values.config, "epochs", None)
    except (
        flags.Error,
        KeyError,
        OSError,
        AttributeError,
        ImportError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(_one_line(error)) from error
    if values.help:
        raise SystemExit(_help())
    if len(rest) > 1:
        raise UserError(f"argument {rest[1]!r} is not a flag; flags look like --config.epochs=3")
    if values.config is None:
        raise UserError("--config=FILE is missing, for example --config=configs/digits_cnn.py")
    if not values.workdir:
        raise UserError("--workdir=DIR is missing: where the run's files go")
    return validate(values.config), Path(values.workdir)


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _help() -> str:
    from train.config import Config, described, leaves

    lines = [(__doc__ or "").strip(), "", "Config fields and their defaults (those of a config file may differ):"]
    for name, value, field in leaves(Config()):
        lines.append(f"  --config.{name}={value!r}")
        if words := described(field):
            lines.append(f"      {words}")
    print("\n".join(lines))
    return 0  # type: ignore[return-value]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong input, 75 stopped by a signal.

    130 is Ctrl-C before anything ran, or for the second time.
    """
    end_at_interrupt()
    with tolerant_output():
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        # Orbax logs a traceback of each error that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        try:
            config, workdir = parse(sys.argv[1:] if arguments is None else arguments)
            with start_up(config, workdir):
                from train.run.loop import train
                from train.step import runtime

                runtime.set_up()
            return 0 if train(config, workdir).status == "finished" else EXIT_STOPPED
        except (UserError, RunFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UserError) else 1
        finally:
            raise_at_interrupt()


@contextlib.contextmanager
def start_up(config, workdir: Path) -> Iterator[None]:
    """Turns an error of starting JAX into one line and the ending of the run.

    Raises:
      RunFailed: instead of that error.
    """
    try:
        yield
    except Exception as error:
        from train.run.workdir import not_started, open_workdir

        with open_workdir(workdir, config) as directory:
            directory.fail(error)
            raise not_started(error, directory) from error


if __name__ == "__main__":
    sys.exit(main())
