"""Random damage to the files of a checkpoint: each must be noticed, or restore the very bits that were saved."""

import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from train.errors import UserError
from train.run.checkpointing import Checkpoints


def saved_checkpoint(folder: Path):
    """A checkpoint of a small tree; returns its directory, the tree and its abstract form."""
    key = jax.random.PRNGKey(0)
    tree = {
        "params": {"kernel": jax.random.normal(key, (3, 3, 8, 16)), "bias": jnp.zeros(16)},
        "opt_state": {"mu": jax.random.normal(key, (3, 3, 8, 16)), "count": jnp.int32(7)},
    }
    checkpoints = Checkpoints(folder)
    checkpoints.save(7, tree, {"seconds": 0.5, "score": 0.25})
    checkpoints.close()
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)
    return folder / "7", tree, abstract


def flip_bit(data: bytearray, rng: random.Random) -> bytearray:
    """One bit of the file, the other way round."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    """The file, cut off somewhere."""
    return data[: rng.randrange(len(data))]


def torture_files(flips: int, truncations: int, seed: int, folder: Path) -> dict[str, int]:
    """Damages one file at a time and restores.

    Returns:
      How often the damage was "noticed", "harmless" (every bit restored) or "silent" (another value restored).
    """
    rng = random.Random(seed)
    directory, tree, abstract = saved_checkpoint(folder)
    checkpoints = Checkpoints(folder)
    # Each byte is as likely to be hit as any other, as on a disk; each file is hit for certain by the truncations.
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    counts = {"files": len(files), "bytes": sum(sizes), "noticed": 0, "harmless": 0, "silent": 0}
    blows = [(flip_bit, rng.choices(files, sizes)[0] if n % 2 else rng.choice(files)) for n in range(flips)]
    blows += [(truncate, files[n % len(files)]) for n in range(truncations)]
    for blow, path in blows:
        original = path.read_bytes()
        path.write_bytes(blow(bytearray(original), rng))
        try:
            restored = checkpoints.restore(abstract)
            assert restored is not None
            same = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), restored.tree, tree)
            same = all(jax.tree.leaves(same)) and restored.progress["score"] == 0.25
            counts["harmless" if same else "silent"] += 1
        except UserError:
            counts["noticed"] += 1
        path.write_bytes(original)
    checkpoints.close()
    return counts
