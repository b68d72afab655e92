"""Checks that what a command needs beyond the library is installed, before anything is imported."""

import importlib.util
import sys

__all__ = ["require"]

TRAIN = (
    *("jax", "optax", "absl", "array_record", "flax", "importlib_resources", "matplotlib", "ml_collections", "numpy"),
    *("orbax.checkpoint", "PIL", "sklearn", "tensorboardX", "tensorflow_datasets", "tqdm"),
)
# For each extra of pyproject.toml, the modules that it installs and those of the library itself.
EXTRAS = {"train": TRAIN, "study": (*TRAIN, "jinja2", "markupsafe", "scipy")}


def require(extra: str) -> None:
    """Ends the command with status 2 and one line on stderr if a module of an extra is not installed.

    Args:
      extra: "train" or "study".
    """
    if missing := [name for name in EXTRAS[extra] if not _found(name)]:
        print(
            f'error: not installed: {", ".join(missing)}; run: {sys.executable} -m pip install -e ".[{extra}]"',
            file=sys.stderr,
        )
        raise SystemExit(2)


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # its parent package is missing
        return False
