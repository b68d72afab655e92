"""Settings that hold for every test: four CPU devices, strict ranks, and where the real data sets are.

Most of the suite's time goes to compiling, most of that to LLVM and to MLIR. Programs are therefore compiled with few
of LLVM's optimizations and without MLIR, here and in the processes that tests start; XLA's own passes, which fuse and
lay out, run all the same. A training step of the small CNN takes a quarter of the time to compile so. Tests marked
`optimized`, those of the library among them, check rounding or an accelerator: they compile as users do.
"""

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
from jax._src import compiler

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
        if item.path.relative_to(ROOT / "tests").parts[0] in ("lookahead_jax", "accelerators", "gpu"):
            item.add_marker("optimized")
        if item.get_closest_marker("peers"):
            try:
                import torch  # noqa: F401
            except ImportError:
                item.add_marker(pytest.mark.skip(reason="PyTorch is not installed: make test PEERS=1"))
        if (needed := item.get_closest_marker("devices")) and jax.device_count() < needed.args[0]:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed.args[0]} devices, here are {jax.device_count()}"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="JAX sees no GPU here: make gpu on a machine that has one"))


QUICK = {"xla_cpu_use_fusion_emitters": False}
try:  # which also makes JAX's devices: from here on XLA_FLAGS are for other processes only
    jax.jit(lambda: 0, compiler_options=QUICK)()
except jax.errors.JaxRuntimeError:  # an XLA that has no such option
    QUICK = {}
_compile_options, _xla_flags = compiler.get_compile_options, os.environ.get("XLA_FLAGS", "")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Compiles as the test's marker says; programs compiled the other way are forgotten, and any before a slow test."""
    quick = item.get_closest_marker("optimized") is None
    switched = quick != jax.config.read("jax_disable_most_optimizations")
    if switched:
        jax.config.update("jax_disable_most_optimizations", quick)
        # JAX has no setting for other options of XLA's that can change within a process.
        compiler.get_compile_options = _quick_options if quick else _compile_options
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick))
        flags = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()]
        os.environ["XLA_FLAGS"] = " ".join([_xla_flags, *(flags if quick else [])]).strip()
    if switched or item.get_closest_marker("slow") is not None:
        forget_programs()


def _quick_options(*args, env_options_overrides=None, **kwargs):
    return _compile_options(*args, env_options_overrides=QUICK | dict(env_options_overrides or {}), **kwargs)


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


_kept = [0]  # resident after programs were last forgotten


def forget_programs():
    """Gives back the memory of compiled programs; those that are needed again are read from the cache on disk."""
    jax.clear_caches()
    gc.collect()
    release_freed_memory()
    _kept[0] = resident_bytes()


@pytest.fixture(autouse=True)
def bounded_memory():
    """Forgets compiled programs after a test that leaves more than a gigabyte: two test processes fit into 4 GB.

    Not after every test, since reading small programs takes time, too; nor where that gives little back.
    """
    yield
    if resident_bytes() > max(1 << 30, _kept[0] + (256 << 20)):
        forget_programs()


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
            stamp = cache / f"{name}-unpacked"  # the script would check, or write again, each of 50,000 reviews
            if not stamp.exists() or stamp.stat().st_mtime < (packed / "unpack.py").stat().st_mtime:
                subprocess.run([sys.executable, packed / "unpack.py", cache, name], check=True)
                stamp.touch()
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
