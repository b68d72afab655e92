"""How a process runs programs: memory, compilation cache, dispatch. Set up once, before JAX has made its devices.

XLA's CPU backend takes the temporary buffers of each step from malloc. glibc maps every large one anew and gives it
back at once, so the kernel clears the same gigabyte of pages at every step: about 160,000 page faults for one 7x7
convolution of 36 images of 224x224, and more time than its arithmetic (354 ms against 135 ms, two AMD Zen 3 cores).
`keep_freed_memory` turns that off for the process: large blocks come from the heap, and the heap is not trimmed.
A training step of ResNet18 takes 222 ms for 272 so. What is resident stays at the peak, so `release_freed_memory`
gives back once what compiling has used.

`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`, the other way, has to be set before the process starts.
"""

import ctypes
import os
import sys

from train.interface.paths import cache_folder

# <malloc.h>; the values are ABI.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to map no blocks one by one and to keep what is freed, for the rest of the process.

    Returns:
      Whether it did: not on other systems, and not where the C library is another one.
    """
    library = _glibc()
    if library is None:
        return False
    # -1: never. The largest threshold that an int holds would trim a heap with 2 GB free at its end.
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1, M_TOP_PAD: 64 << 20}
    return all(library.mallopt(name, value) == 1 for name, value in settings.items())


def release_freed_memory() -> None:
    """Gives what is free at this moment back to the system; where there is no glibc, does nothing."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's own cache directory, so that a second start compiles nothing.

    JAX_COMPILATION_CACHE_DIR says otherwise where it is set (empty: no cache). What is in the cache is run as code, so
    the directory is made for its owner alone, and one that others can write to is not used.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = cache_folder("xla")
    if directory is None:
        return  # compile each time
    import jax

    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def set_up() -> None:
    """Sets up the process as every command that trains has it; call it before JAX has made its devices.

    Freed memory stays with the process, compiled programs are kept on disk, and a program on the CPU runs within the
    call that asks for it: a step waiting behind another one gains nothing if both need the same cores, and its
    temporary buffers are a second set of them (ResNet18: peak of the process 710 MB, not 1013, when measured).
    """
    import jax

    keep_freed_memory()
    enable_compilation_cache()
    jax.config.update("jax_cpu_enable_async_dispatch", False)
