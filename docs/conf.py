"""Sphinx: the docstrings are reStructuredText with formulas, as Optax's are, and its search works from the disk."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # the training system is not installed

project = "lookahead_jax"
author = "The lookahead_jax maintainers"
release = importlib.metadata.version("lookahead-jax")
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "myst_nb",
]
exclude_patterns = ["_build", "images"]

# Markdown and the notebook
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True

# Reference
default_role = "code"
autodoc_typehints = "none"  # the docstrings say them, in a line instead of ten
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# Other projects' inventories would need a network; `make docs ONLINE=1` checks links to other sites.
nitpick_ignore_regex = [(r"py:.*", r"(jax|jaxlib|optax|flax|numpy|np|typing|collections|dataclasses|ArrayTree)(\..*)?")]
linkcheck_timeout = 20

# Pages
html_theme = "furo"
html_title = f"lookahead_jax {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_extra_path = ["_extra"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _results() -> None:
    """A page for each page of results/, and the study's own page with what it shows beside it."""
    left_out = ("README", "performance_notes")
    sources = {path.name: path for path in (ROOT / "results").glob("*.md") if path.stem not in left_out}
    sources["analysis_plan.md"] = ROOT / "results" / "report" / "analysis_plan.md"
    sources["gpu.md"] = ROOT / "results" / "gpu" / "README.md"
    for stale in set((HERE / "results").glob("*.md")) - {HERE / "results" / name for name in sources}:
        stale.unlink()
    for name, page in sources.items():
        # Figures and data of results/NAME.md are in results/NAME/.
        include = f"{{include}} ../../{page.relative_to(ROOT)}\n:relative-docs: {page.stem}/\n:relative-images:"
        _write(HERE / "results" / name, f"```{include}\n```\n")
    extra = HERE / "_extra"
    shutil.rmtree(extra, ignore_errors=True)
    ignored = shutil.ignore_patterns("runs", "on_a_cpu", ".*", "*.md")
    shutil.copytree(ROOT / "results" / "report", extra / "study", ignore=ignored)


_results()
