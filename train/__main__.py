"""Trains one run: `python -m train`, whose flags and help are in `train.flags`."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from train.errors import RunFailed, UserError
from train.hosts.launch import LOST, is_loss, join, split, take_flags
from train.interface.installed import require
from train.interface.output import accept_any_text, leave, tolerant_output
from train.interface.signals import EXIT_STOPPED, end_at_interrupt, raise_at_interrupt

EXAMPLES = """Trains one run in a folder, and continues it when the same command is given again. Three examples:

  python -m train --config=configs/digits_cnn.py --workdir=checkpoints/digits
  python -m train --config=configs/digits_cnn.py --workdir=checkpoints/adam --config.optimizer.name=adam
  python -m train --config=configs/cifar10_resnet18.py --workdir=checkpoints/cifar10 --data_dir=~/data

All settings: python -m train --help. Data sets: python -m train.data list.
What a command would do: add --dry_run."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong input, 75 stopped by a signal.

    130 is Ctrl-C before anything ran, or for the second time.
    """
    end_at_interrupt()
    accept_any_text()
    with tolerant_output():
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        # Orbax logs a traceback of each error that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        given = sys.argv[1:] if arguments is None else arguments
        if not given:
            print(EXAMPLES, file=sys.stderr)
            return 2
        require("train")
        place = None
        try:
            place, given = take_flags(given)
            if place is not None and (status := split(place)) is not None:
                return status
            from train.flags import parse

            dry = [word for word in given if re.fullmatch("--?dry[-_]run(=[Tt]rue|=[Ff]alse)?", word)]
            config, workdir = parse([word for word in given if word not in dry])
            if dry and not dry[-1].lower().endswith("false"):
                from train.run.dry_run import dry_run

                print(dry_run(config, runs_of(config, workdir)))
                return 0
            with start_up(config, workdir):
                from train.run.loop import train
                from train.step import runtime

                runtime.set_up()
            if place is not None:
                join(place)
            if config.seeds_per_program > 1:
                return train_seeds(config, workdir)
            return 0 if train(config, workdir).status == "finished" else EXIT_STOPPED
        except (UserError, RunFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2 if isinstance(error, UserError) else 1
            if place is not None:
                leave(LOST if is_loss(error.__cause__) else status)
            return status
        except Exception as error:
            if place is not None and is_loss(error):
                leave(LOST)
            raise
        finally:
            raise_at_interrupt()


def runs_of(config, workdir: Path) -> list:
    """What a command trains, config and workdir of each: one run, or one for each of `config.seeds_per_program`."""
    from train.seeds.together import seed_runs

    return seed_runs(config, workdir) if config.seeds_per_program > 1 else [(config, workdir)]


def train_seeds(config, workdir: Path) -> int:
    """Trains the seeds of `config.seeds_per_program` together; returns the exit status."""
    from train.seeds.together import train_together

    runs = runs_of(config, workdir)
    results = train_together(runs)
    for (run, _), result in zip(runs, results, strict=True):
        if isinstance(result, UserError | RunFailed):
            print(f"error: seed {run.seed}: {result}", file=sys.stderr)
        elif isinstance(result, Exception):
            raise result  # a fault of the program, with its traceback
    if errors := [result for result in results if isinstance(result, Exception)]:
        return 2 if all(isinstance(error, UserError) for error in errors) else 1
    return 0 if all(not isinstance(r, Exception) and r.status == "finished" for r in results) else EXIT_STOPPED


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
    from train.step.compiling import end_process

    end_process(main())
