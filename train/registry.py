"""Optimizers, models and data sets by name: the project's own, and those that a config, a study or a package adds.

    @train.register_optimizer("adan")
    def adan(learning_rate, config, options: Adan = Adan()):
        return optax.adan(learning_rate, b3=options.b3, weight_decay=config.weight_decay)

A config or study file registers at its top, so that every process that reads the file knows the name. Without any
registration, `my_package.my_module:my_optimizer` is a name too. A factory may take `options`, annotated with a
dataclass whose fields have defaults: `config.optimizer.options` and `config.model.options` carry one, which flags set
like other settings, and which is part of the run's identity. Targets given as "module:attribute" are imported when they
are first used; nothing here imports JAX.
"""

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from train.errors import UnknownName, UserError
from train.interface.nearest import did_you_mean
from train.interface.user_code import error_words

# What a model and a data set are for; see `Entry`.
Task = Literal["image", "text", "text_classification"]
TASKS = get_args(Task)
_IMPORTABLE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


def _spaced(name: str) -> str:
    return " ".join(name.split())


def _type_words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_origin(kind) else str(kind)


def _frozen(kind: Any) -> bool:
    return kind.__dataclass_params__.frozen


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something registered.

    Attributes:
      name: what a config calls it.
      target: the factory, or "module:attribute".
      help: one line for people.
      task: of a model: "image" (images [B, H, W, C] to logits [B, num_classes]), "text" (tokens [B, T] to logits
        [B, T, num_classes]) or "text_classification" (tokens to logits [B, num_classes]); empty if it does not say.
      own: whether it belongs to this project.
      options: of one of the project's own: the dataclass that it takes as `options`, known without importing it.
    """

    name: str
    target: Callable[..., Any] | str
    help: str = ""
    task: str = ""
    own: bool = False
    options: type | None = None

    def load(self) -> Callable[..., Any]:
        """The factory.

        Raises:
          UserError: it cannot be imported.
        """
        if not isinstance(self.target, str):
            return self.target
        module, attribute = self.target.split(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # the module is the user's: it may raise anything
            raise UserError(f"{self.target!r} cannot be imported: {error_words(error)}") from error

    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments that the factory takes."""
        return tuple(inspect.signature(self.load()).parameters)

    def options_type(self) -> type | None:
        """The dataclass that the factory takes as `options`, None if it takes none.

        Raises:
          UserError: `options` is not annotated with a dataclass.
        """
        if self.own or "options" not in self.parameters():
            return self.options
        found = typing.get_type_hints(self.load()).get("options")
        if not (isinstance(found, type) and dataclasses.is_dataclass(found) and not _frozen(found)):
            raise UserError(
                f"{self.name!r} takes options: annotate them with a dataclass that is not frozen, not {found}"
            )
        from train.setting import is_storable  # which needs NumPy, and this module nothing that may be missing

        hints = typing.get_type_hints(found)
        for field in dataclasses.fields(found):
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise UserError(f"{self.name!r}: {found.__name__}.{field.name} has no default; give it one")
            if not is_storable(hints[field.name]):
                raise UserError(
                    f"{self.name!r}: {found.__name__}.{field.name} is {_type_words(hints[field.name])}; an option is "
                    "an int, a float, a str, a bool, or a tuple of numbers such as tuple[float, ...]"
                )
        return found

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What the factory returns for these arguments.

        Raises:
          UserError: it does not take them.
        """
        factory = self.load()
        try:
            inspect.signature(factory).bind(*args, **kwargs)
        except TypeError as error:
            raise UserError(
                f"{self.name!r} takes ({', '.join(self.parameters())}) and cannot be called: {error}; docs/howto/"
                "own_optimizer.md and own_model_and_data.md say what it is given"
            ) from error
        return factory(*args, **kwargs)

    def taken(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the given arguments that the factory takes."""
        parameters = inspect.signature(self.load()).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return dict(given)
        return {name: value for name, value in given.items() if name in parameters}


class Registry(Mapping[str, Entry]):
    """Entries of one kind by name. "module:attribute" is in it too.

    Args:
      kind: what it registers, for messages: "optimizer", "model" or "dataset".
    """

    def __init__(self, kind: str):
        self._kind, self._entries = kind, dict[str, Entry]()

    def add(self, entry: Entry) -> None:
        """Adds an entry, or replaces one that is not the project's own.

        Raises:
          UserError: the name is the project's own, or is not a name.
        """
        if entry.name in self._entries and self._entries[entry.name].own and not entry.own:
            raise UserError(f"{self._kind} {entry.name!r} is built in and cannot be replaced; choose another name")
        name = entry.name
        if not isinstance(name, str) or not name or not name.isprintable() or ":" in name or name != _spaced(name):
            raise UserError(
                f"{self._kind} name {name!r} must be printable, not empty, without a colon, and with single spaces "
                "between words"
            )
        self._entries[entry.name] = entry

    def own(self, name: str, target: str, help: str, *, task: str = "", options: type | None = None) -> None:
        """Registers one of the project's own by "module:attribute"."""
        self.add(Entry(name, target, help, task, own=True, options=options))

    def __getitem__(self, name: str) -> Entry:
        if name in self._entries:
            return self._entries[name]
        if not isinstance(name, str) or not _IMPORTABLE.fullmatch(name):
            known = ", ".join(self)
            raise UnknownName(
                f"unknown {self._kind} {name!r}; choose one of {known}, or give module:name of your own"
                f"{did_you_mean(name, self)}"
            )
        loaded = Entry(name, name).load()
        # One that its module registers as well keeps what it said there.
        registered = (entry for entry in self._entries.values() if entry.target is loaded)
        return next(registered, Entry(name, loaded, task=getattr(loaded, "task", "")))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or (isinstance(name, str) and _IMPORTABLE.fullmatch(name) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


OPTIMIZERS, MODELS, DATASETS = Registry("optimizer"), Registry("model"), Registry("dataset")
# The parts of a config that have a name and options.
PARTS = {"model": MODELS, "optimizer": OPTIMIZERS}


def _decorator(
    registry: Registry, name: str, *, help: str, task: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if callable(name):
        raise UserError(f"the decorator needs a name, for example @train.register_{registry._kind}('mine')")

    def register(factory: Callable[..., Any]) -> Callable[..., Any]:
        registry.add(Entry(name, factory, help, task))
        return factory

    return register


def register_optimizer(name: str, *, help: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a factory of optimizers, which makes it known as `config.optimizer.name`.

    The factory is called `factory(learning_rate, config)`, with a schedule and a `train.config.OptimizerConfig`, and
    `options=` if it takes them; it returns an `optax.GradientTransformation` that applies `config.weight_decay` itself.
    The schedule follows the config, and Lookahead is put around the result if the config says so.

    Args:
      name: replaces an earlier registration of the same name.
      help: one line for people.

    Raises:
      UserError: the name is built in.

    Example:
      >>> @register_optimizer("adan")
      ... def adan(learning_rate, config):
      ...     return optax.adan(learning_rate, weight_decay=config.weight_decay)
    """
    return _decorator(OPTIMIZERS, name, help=help)


def register_model(name: str, *, task: str, help: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a Flax Linen module class, or a function that returns a module: `config.model.name`.

    It receives whichever of these arguments it accepts: num_classes, vocabulary_size, options, and the fields of
    `train.config.ModelConfig`. One with BatchNorm takes axis_name, the axis over which to average under pmap. The
    module is called `module(inputs, train=...)`. If `__call__` also takes `examples`, it gets `examples=N` in training
    when only the first N of the global batch are real and the rest pads it to a multiple of the devices: hand it on to
    `train.models.normalization.BatchNorm` and `train.models.dropout.Dropout`. Such a model gets the same dropout key on
    all devices, any other a key for each device.

    Args:
      name: replaces an earlier registration of the same name.
      task: "image", "text" or "text_classification": see `Entry`.
      help: one line for people.

    Raises:
      UserError: the name is built in, or there is no such task.
    """
    if task not in TASKS:
        raise UserError(
            f"register_model({name!r}): task={task!r} must be one of {', '.join(TASKS)}{did_you_mean(task, TASKS)}"
        )
    return _decorator(MODELS, name, task=task, help=help)


def register_dataset(name: str, *, help: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a function that returns a `train.data.Dataset`: `config.dataset`.

    It receives whichever of these arguments it accepts: name, data_dir, batch_size, test_batch_size, sequence_length,
    skip_corrupt, add_unk.

    Args:
      name: replaces an earlier registration of the same name.
      help: one line for people.

    Raises:
      UserError: the name is built in.
    """
    return _decorator(DATASETS, name, help=help)
