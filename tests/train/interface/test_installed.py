"""A command whose requirements are not installed says so in one line; the list of them is complete."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from train.interface.installed import EXTRAS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("command", "extra"), [("train", "train"), ("train.study", "study")])
def test_a_command_without_its_requirements_is_one_line(command, extra):
    # -S: no site-packages, as in a fresh environment.
    done = subprocess.run(
        [sys.executable, "-S", "-m", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: not installed: jax, optax, absl, ")
    assert done.stderr.endswith(f'-m pip install -e ".[{extra}]"\n')
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_every_package_that_is_imported_is_asked_for():
    asked = {name.partition(".")[0] for names in EXTRAS.values() for name in names} | {"lookahead_jax", "train"}
    found = set()
    for path in ROOT.glob("train/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    assert sorted(found - asked - sys.stdlib_module_names) == []
