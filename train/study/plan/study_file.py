"""Study files: Python files with a `get_study()`, run here and copied for the processes that train."""

import inspect
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from train.errors import UserError
from train.interface.nearest import file_like
from train.interface.user_code import load_module, running
from train.study.plan.study import Study, check_as_written


def run_study_file(path: Path) -> ModuleType:
    """Runs a study file, which may import its neighbours like a script.

    Raises:
      UserError: There is no such file, or it cannot be run.
    """
    if not path.is_file():
        nearest = file_like(path, path.parent, Path("configs/studies"))
        raise UserError(f"--study={path} is not a file{nearest}; the studies are in configs/studies")
    return load_module(path, "--study")


def load_study(path: Path, *, scale: str = "") -> Study:
    """Runs a study file and returns its plan.

    Args:
      path: a Python file.
      scale: passed to `get_study` if that takes one.

    Raises:
      UserError: there is no such file, it is not a study, it does not have this scale, or it cannot mean what it says.
    """
    get_study = getattr(run_study_file(path), "get_study", None)
    if not callable(get_study):
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    has_scales = "scale" in inspect.signature(get_study).parameters
    if scale and not has_scales:
        raise UserError(f"--scale={scale}: the study {path} has one scale only; leave --scale out")
    with running(path, "--study"):
        study = get_study(scale=scale) if scale else get_study()
    if not isinstance(study, Study):
        raise UserError(f"--study={path} has no get_study() that returns a train.study.plan.Study")
    return check_as_written(study)


def copy_study_file(path: Path, folder: Path) -> Path:
    """Copies a study file, and the neighbours that it imported, so that processes started later run the same code.

    Args:
      path: the file, which `load_study` has run in this process.
      folder: where to; it is emptied first.

    Returns:
      The copy of the file.
    """
    home = path.resolve().parent
    ours = (__name__.partition(".")[0], "lookahead_jax")  # the same for every process, wherever it is
    imported = [
        Path(file)
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] not in ours and (file := getattr(module, "__file__", None))
    ]
    library = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    neighbours = {
        file
        for file in imported
        if home in file.parents and file.suffix == ".py"
        if "site-packages" not in file.parts and library.isdisjoint(file.resolve().parents)
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in {path.resolve(), *neighbours}:
        target = folder / file.relative_to(home)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder / path.name
