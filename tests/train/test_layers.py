"""The house's own rule: imports go one way, from the command lines down to the library, and no module is too long."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# From the ground up: a module may import from its own layer and from those before it. The first that fits counts.
LAYERS = (
    ("lookahead_jax",),
    ("train.errors", "train.interface.nearest", "train.interface.installed"),
    ("train.interface.paths", "train.interface.user_code"),
    ("train.files", "train.hosts", "train.locks", "train.interface", "train.registry", "train.setting"),
    ("train.data", "train.models"),
    ("train.optimizer_options", "train.config", "train.identity"),
    ("train.averages", "train.optimizers"),
    ("train.step",),
    ("train.experiment",),
    ("train.run",),
    ("train.seeds", "train.flags", "train.__main__"),
    ("train.study",),
    ("train.",),  # what is built on it
)
# Module: why it is longer than 300 lines.
LONG = {
    "train.config": "every setting with its range, and reading them back",
}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules():
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "train/*.py", "lookahead_jax/*.py"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    paths = [ROOT / file for file in files] or [*ROOT.glob("train/**/*.py"), *ROOT.glob("lookahead_jax/**/*.py")]
    return {name_of(path): path for path in paths if path.exists()}


MODULES = modules()


def imports_of(name, *, at_start_only=False):
    """Modules of ours that a module imports, those inside its functions included unless `at_start_only`."""
    tree = ast.parse(MODULES[name].read_text())
    skipped = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda) if at_start_only else ()

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, skipped):
                yield child
                yield from walk(child)

    found = set()
    for node in walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module for a in node.names
            }
    return {other for other in found if other in MODULES and other != name}


def layer(name):
    for number, prefixes in enumerate(LAYERS):
        if any(name == p.rstrip(".") or name.startswith(f"{p.rstrip('.')}.") for p in prefixes):
            return number
    raise AssertionError(name)


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"train"}))
def test_imports_go_down(name):
    upward = [other for other in imports_of(name) if other != "train" and layer(other) > layer(name)]
    assert upward == []


def test_no_circle():
    graph = {name: imports_of(name) for name in MODULES if name not in ("train", "lookahead_jax")}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name in done or name not in graph:
            return
        open_.append(name)
        for other in sorted(graph[name]):
            visit(other)
        open_.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_is_over_300_lines_without_a_reason(name):
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= 300 or name in LONG, f"{name} has {lines} lines: divide it, or name it in LONG with the reason"
    assert lines > 300 or name not in LONG, f"{name} has {lines} lines only: take it out of LONG"


@pytest.mark.parametrize("room", sorted({path.parent for path in MODULES.values()} - {ROOT / "train" / "study"}))
def test_no_room_has_more_than_fourteen_modules(room):
    modules = [path for path in MODULES.values() if path.parent == room and path.name != "__init__.py"]
    assert len(modules) <= 14, f"{room} has {len(modules)} modules: a reader looks through them all, so group them"


def test_no_test_of_a_package_imports_benchmarks():
    for path in [*ROOT.glob("tests/lookahead_jax/*.py"), *ROOT.glob("tests/train/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] == "benchmarks"], path
