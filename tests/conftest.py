"""Settings that hold for every test: four CPU devices, strict ranks, and where the real data sets are."""

import fcntl
import functools
import gc
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jax.experimental
import pytest

from train.step.runtime import enable_compilation_cache, release_freed_memory

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests compile the same small programs: compile each once, and not again in the next session.
enable_compilation_cache()

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "cifar10": "cifar-10-batches-bin",
    "cifar100": "cifar-100-binary",
    "ptb": "ptb",
    "images20": "images20",
    "imdb": "aclImdb",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("peers"):
            try:
                import torch  # noqa: F401
            except ImportError:
                item.add_marker(pytest.mark.skip(reason="PyTorch is not installed: make test PEERS=1"))
        if (needed := item.get_closest_marker("devices")) and jax.device_count() < needed.args[0]:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed.args[0]} devices, here are {jax.device_count()}"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="JAX sees no GPU here: make gpu on a machine that has one"))


@functools.cache
def _has_gpu():
    return jax.default_backend() == "gpu"


@pytest.fixture(scope="session", autouse=True)
def default_signals():
    """Signals as a shell in the foreground leaves them: under nohup, or in the background, some are ignored."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


def resident_bytes() -> int:
    """Memory of this process; where the system does not say, its peak."""
    if Path("/proc/self/statm").exists():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Forgets compiled programs after a module that leaves more than a gigabyte: two test processes fit into 4 GB.

    Not after every module, since small programs of JAX's own would be compiled again in each.
    """
    yield
    if resident_bytes() > 1 << 30:
        jax.clear_caches()
        gc.collect()
        release_freed_memory()


@pytest.fixture
def x64():
    """float64 for the length of one test."""
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable_x64(True):
        yield


@pytest.fixture(scope="session")
def real_data():
    """A function from a set's name to the folder with its publisher's files; skips where it is not there.

    LOOKAHEAD_DATA is a folder that holds them unpacked; without it they are unpacked by ../shared/data's own
    script into a folder of the system's temporary one, and stay there for the next time.
    """

    def folder(name: str) -> Path:
        if "LOOKAHEAD_DATA" in os.environ:
            found = Path(os.environ["LOOKAHEAD_DATA"]) / FOLDERS[name]
            if not found.is_dir():
                pytest.skip(f"LOOKAHEAD_DATA has no {FOLDERS[name]}")
            return found
        packed = ROOT.parent / "shared" / "data"
        if not (packed / "unpack.py").is_file():
            pytest.skip("no real data: set LOOKAHEAD_DATA to the folder that holds it unpacked")
        if name.startswith("cifar") and importlib.util.find_spec("imagecodecs") is None:
            pytest.skip("unpacking CIFAR needs imagecodecs (pip install imagecodecs), or set LOOKAHEAD_DATA")
        cache = cache_folder()
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes share the folder
            subprocess.run([sys.executable, packed / "unpack.py", cache, name], check=True)
        return cache / FOLDERS[name]

    return folder


def cache_folder() -> Path:
    """A folder of ours in the system's temporary one."""
    cache = Path(tempfile.gettempdir()) / f"lookahead-data-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        pytest.skip(f"{cache} belongs to another user")
    return cache


@pytest.fixture(scope="session")
def cifar10_dir(real_data):
    """A TFDS folder with CIFAR-10 prepared from the publisher's files; made once, and kept beside them."""
    from train.data.__main__ import main

    source, folder = real_data("cifar10"), cache_folder() / "tfds"
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["prepare", "cifar10", f"--from-dir={source}", f"--data-dir={folder}", "--allow-mismatch"]) == 0
    return folder
