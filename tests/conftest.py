"""Settings that hold for every test: four CPU devices, strict ranks, and where the real data sets are."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

from train.compilation_cache import enable_compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests compile the same small programs: compile each once, and not again in the next session.
enable_compilation_cache()

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("peers"):
            try:
                import torch  # noqa: F401
            except ImportError:
                item.add_marker(pytest.mark.skip(reason="PyTorch is not installed: make test PEERS=1"))


@pytest.fixture
def x64():
    """float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
