"""The accelerators to compile for, described without having one.

Needs the extra `aot`: the TPU's and the GPU's compilers, as their makers publish them. Neither is asked for a device.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, SingleDeviceSharding

# The public figures of NVIDIA's H100 SXM5 80 GB, as XLA's compiler wants to know them.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator that programs are compiled for.

    Attributes:
        name: for keys and tables.
        platform: JAX's: "tpu" or "cuda".
        topology: which arrangement of chips, as the compiler knows it.
        bandwidth: bytes a second of its main memory, by its maker.
        flops: multiplications and additions a second of a float32 matmul as JAX does it by default, by its maker (TPU:
            in one bfloat16 pass; GPU: TensorFloat-32).
    """

    name: str
    platform: str
    topology: str
    bandwidth: float
    flops: float


V5E = Chip("v5e", "tpu", "v5e:2x2", 819e9, 197e12)
V5E_8 = Chip("v5e, 8 chips", "tpu", "v5e:2x4", 819e9, 197e12)
V5E_256 = Chip("v5e, 256 chips", "tpu", "v5e:16x16", 819e9, 197e12)
H100 = Chip("H100", "cuda", "1x1x1", 3352e9, 495e12)
CHIPS = (V5E, H100)

_PACKAGES = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}


def missing(chip: Chip) -> str:
    """Why a chip cannot be compiled for; empty if it can."""
    if importlib.util.find_spec(_PACKAGES[chip.platform]) is None:
        return f"{_PACKAGES[chip.platform]} is not installed: pip install -e '.[aot]'"
    if chip.platform == "cuda" and _cuda_folder() is None:
        return "nvidia-cuda-nvcc-cu12 is not installed: pip install -e '.[aot]'"
    return ""


def _cuda_folder() -> Path | None:
    with contextlib.suppress(ModuleNotFoundError):
        found = importlib.util.find_spec("nvidia.cuda_nvcc")
        if found is not None and found.submodule_search_locations:
            return Path(next(iter(found.submodule_search_locations)))
    return None


_TOPOLOGIES: dict[Chip, Any] = {}


def devices(chip: Chip) -> Sequence[Any]:
    """Stand-ins for the devices of a chip's topology: for shardings of shapes, not for arrays."""
    if chip not in _TOPOLOGIES:
        options = {"topology": chip.topology, "target_config": _H100} if chip.platform == "cuda" else {}
        # Without these each plugin asks the machine for a device of its kind first, and libtpu, for which a device
        # belongs to one process, keeps a second process out.
        with _environment(
            ALLOW_MULTIPLE_LIBTPU_LOAD="1",
            TPU_SKIP_MDS_QUERY="1",
            TPU_ACCELERATOR_TYPE="v5litepod-4",
            TPU_WORKER_HOSTNAMES="localhost",
            JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1",
        ):
            _TOPOLOGIES[chip] = topologies.get_topology_desc(chip.topology, chip.platform, **options)
    return _TOPOLOGIES[chip].devices


def mesh(chip: Chip, count: int, axis: str) -> Mesh:
    """A mesh of `count` of a chip's devices."""
    return Mesh(np.array(devices(chip)[:count]), (axis,))


def on_chip(chip: Chip, tree: Any, memory_kind: str | None = None) -> Any:
    """A tree of shapes, each on the chip's first device, in its main memory or another one."""
    where = SingleDeviceSharding(devices(chip)[0], memory_kind=memory_kind)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def knows_host_memory(chip: Chip) -> bool:
    """Whether programs can be compiled whose arguments are in the host's memory: not with JAX's stand-in for a GPU."""
    try:
        return any(memory.kind == "pinned_host" for memory in devices(chip)[0].addressable_memories())
    except jax.errors.JaxRuntimeError:
        return False


def compiler_options(chip: Chip) -> dict[str, Any]:
    """What the compiler must be told because there is no device: where CUDA's tools are, and not to try kernels out."""
    if chip.platform != "cuda":
        return {}
    return {"xla_gpu_cuda_data_dir": str(_cuda_folder()), "xla_gpu_autotune_level": 0}


def compile_for(
    chip: Chip, function: Callable[..., Any], args: Sequence[Any], donate: Sequence[int] = (), **jit_options: Any
) -> tuple[Any, float]:
    """Compiles a function of placed shapes.

    Args:
        chip: what for.
        function: pure.
        args: its arguments, from :func:`on_chip` or with shardings over :func:`mesh`.
        donate: indices of the donated arguments.
        jit_options: others of `jax.jit`.

    Returns:
        The compiled program, and the seconds that tracing and compiling took.
    """
    start = time.perf_counter()
    lowered = jax.jit(function, donate_argnums=tuple(donate), **jit_options).lower(*args)
    compiled = lowered.compile(compiler_options(chip))
    return compiled, time.perf_counter() - start


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: value for name, value in variables.items() if before[name] is None})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no such device
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def versions() -> dict[str, str]:
    """Versions of the compilers."""
    found = {}
    for package in ("jax", "jaxlib", "libtpu", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12", "optax", "flax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
