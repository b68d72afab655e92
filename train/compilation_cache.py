"""JAX's persistent compilation cache in the user's own cache directory: a second start compiles nothing."""

import os
import stat
from pathlib import Path


def enable_compilation_cache() -> None:
    """Turns the cache on, unless JAX_COMPILATION_CACHE_DIR already says where it is (empty: nowhere).

    What lies in the cache is run as code, so the directory is made for its owner alone, and one that others may
    write to is not used.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lookahead_jax" / "xla"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError:
        return  # no home to write to: compile each time
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
