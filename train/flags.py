"""The flags of `python -m train`: a config file, its settings overridden, and the workdir."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from train.config import Config, fill_options, set_name, validate
from train.errors import UserError
from train.hosts.launch import PLACE_FLAGS
from train.interface.nearest import did_you_mean, file_like
from train.interface.paths import user_path
from train.interface.user_code import load_module, running
from train.setting import described, leaves, wanted

HELP = """\
python -m train --config=configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...] [--dry_run]

Trains one run in DIR. Running the same command again continues it; a finished run is left alone. Config files are
Python, and run as such: use only those you trust. --dry_run trains nothing and shows what would be done: settings,
parameters, steps, memory, time, and what would be resumed.

Exit status: 0 done, 1 the run failed, 2 wrong input, 75 stopped by a signal (run the same command again), 130
interrupted before anything ran."""
# What the paper and others call these settings.
_SPELLINGS = {
    f"config.optimizer.{theirs}": f"config.optimizer.{ours}"
    for theirs, ours in (("k", "sync_period"), ("alpha", "slow_step_size"), ("lr", "learning_rate"))
}
# What most people change: --help begins with these settings.
FIRST = ("dataset", "data_dir", "epochs", "batch_size", "seed", "model.name", "optimizer.name")
FIRST += tuple(f"optimizer.{name}" for name in ("learning_rate", "lookahead", "sync_period", "slow_step_size"))


def parse(arguments: Sequence[str]) -> tuple[Config, Path]:
    """Reads the flags.

    Returns:
      The validated config and the workdir.

    Raises:
      UserError: a flag or a config field is wrong.
    """
    path, rest = _take_config([_spelt(word) for word in arguments])
    if any(word in ("--help", "--h") for word in rest):
        _help(path)
        raise SystemExit(0)
    config = Config() if path is None else _load(path)
    _take_names(config, rest)
    _check_names(rest, config)
    if path is None:
        raise UserError("--config=FILE is missing, for example --config=configs/digits_cnn.py")
    config, workdir = _overridden(config, rest)
    if not workdir:
        raise UserError("--workdir=DIR is missing: where the run's files go")
    return validate(config), user_path(workdir, "--workdir")


def _spelt(word: str) -> str:
    """The argument with its flag in one spelling: two dashes, underscores, `--config.data_dir` for `--data-dir`."""
    flag, equals, value = word.partition("=")
    if not re.match("--?[a-zA-Z]", flag):
        return word
    flag = "--" + flag.lstrip("-").replace("-", "_")
    return ("--config.data_dir" if flag == "--data_dir" else flag) + equals + value


def _take_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The config file that is asked for last, and the other arguments."""
    given, rest, words = None, [], iter(arguments)
    for word in words:
        if word == "--config":
            given = next(words, "")
        elif word.startswith("--config="):
            given = word.partition("=")[2]
        else:
            rest.append(word)
    if given == "":
        raise UserError("--config has no value; give a file, for example --config=configs/digits_cnn.py")
    return (None if given is None else user_path(given, "--config")), rest


def _take_names(config: Config, arguments: Sequence[str]) -> None:
    """Sets the names of model and optimizer that flags give, with the options that these take: flags set those too."""
    for part in ("model", "optimizer"):
        flag = f"--config.{part}.name"
        for word, following in itertools.pairwise([*arguments, ""]):
            if word == flag or word.startswith(f"{flag}="):
                set_name(config, part, following if word == flag else word.partition("=")[2])
    fill_options(config)


def _load(path: Path) -> Config:
    """Runs a config file and returns its config."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UserError(
            f"--config={path} {what}{file_like(path, path.parent, Path('configs'))}; the config files are in configs/"
        )
    get_config = getattr(load_module(path, "--config"), "get_config", None)
    if not callable(get_config):
        raise UserError(f"--config={path} has no get_config() that returns a train.config.Config")
    with running(path, "--config"):
        config = get_config()
    if not isinstance(config, Config):
        raise UserError(f"--config={path}: get_config() must return a train.config.Config, not {type(config).__name__}")
    return config


def _check_names(arguments: Sequence[str], config: Config) -> None:
    """Raises UserError for the first flag that there is not, with the nearest one that there is."""
    fields = [f"config.{name}" for name, _, _ in leaves(config)]
    for word in arguments:
        if word == "--":
            return
        name = word.partition("=")[0].lstrip("-")
        if not re.match("--?[a-zA-Z]", word) or name in (*fields, "workdir", "flagfile", "undefok"):
            continue
        if name.startswith("noconfig.") and name.removeprefix("no") in fields:
            continue
        inside = [field for field in fields if field.startswith(f"{name}.")]
        if inside:
            raise UserError(f"--{name} is a group of settings; set one of them, such as --{inside[0]}")
        if name == "register":
            raise UserError("python -m train has no --register: the file given as --config may register names")
        if match := re.match(r"config\.(model|optimizer)\.options\b", name):
            validate(config)  # a name that is not known is told first
            options = [field.rpartition(".")[2] for field in fields if field.startswith(f"{match[0]}.")]
            has = f"has the options {', '.join(options)}" if options else "has no options"
            raise UserError(f"there is no flag --{name}: this {match[1]} {has}")
        others = ("config", "workdir", "dry_run", *PLACE_FLAGS)
        spelt = _SPELLINGS.get(name.lower(), name)
        nearest = did_you_mean(spelt, (f"--{field}" for field in (*fields, *others)))
        raise UserError(f"there is no flag --{name}{nearest}; python -m train --help lists all")


def _overridden(config: Config, arguments: Sequence[str]) -> tuple[Config, str | None]:
    """The config with what the flags set, typed as its fields are, and the value of --workdir."""
    values = flags.FlagValues()
    command = ["train", *arguments]
    flags.DEFINE_string("workdir", None, "Directory of the run; made where missing.", flag_values=values)
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=command)
        rest = values(command)
    except (flags.Error, KeyError, OSError, AttributeError, TypeError, ValueError) as error:
        text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        fields = {f"config.{name}": field for name, _, field in leaves(config)}
        found = re.match(r"flag --([\w.]+)=(.*?): ", text)
        if found and found[1] in fields:
            field = fields[found[1]]
            nearest = did_you_mean(found[2], ("true", "false")) if field.type is bool else ""
            raise UserError(f"{found[1]}={found[2]!r} must be {wanted(field)}{nearest}") from error
        raise UserError(text) from error
    if len(rest) > 1:
        raise UserError(f"argument {rest[1]!r} is not a flag; flags look like --config.epochs=3")
    return values.config, values.workdir


def _help(path: Path | None) -> None:
    config = Config() if path is None else _load(path)
    whose = "their defaults; --config=FILE --help shows a file's" if path is None else f"their values in {path}"
    lines = [HELP, "", f"Settings and {whose}. What most people change first:"]
    fields = sorted(leaves(config), key=lambda leaf: FIRST.index(leaf[0]) if leaf[0] in FIRST else len(FIRST))
    for place, (name, value, field) in enumerate(fields):
        if place == len(FIRST):
            lines += ["", "The others:"]
        lines.append(f"  --config.{name}={value!r}")
        if words := described(field):
            lines.append(f"      {words}")
    lines += ["", "--data_dir=DIR is short for --config.data_dir=DIR."]
    lines += ["", "One run in several processes, each given the same command and its place:"]
    lines += ["  --coordinator_address=HOST:PORT --num_processes=N --process_id=I   (HOST is that of process 0)"]
    lines += ["  --distributed   (under Slurm, Open MPI or Kubernetes, whose environment has the place)"]
    print("\n".join(lines))
