"""Sums over every sample of an epoch, from which its mean loss and accuracy are exact."""

import math

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Metrics:
    """Sums over every sample seen.

    The loss is a compensated sum (Neumaier): with total t and next batch's loss x,

        t' = t + x,   lost' = lost + ((t - t') + x   if |t| >= |x|   else   (x - t') + t),

    so that an epoch of 400 batches loses no digits. A short batch counts with its own size.

    Attributes:
      loss: float32 scalar, sum of the samples' losses.
      lost: float32 scalar, what rounding took from `loss` so far.
      correct: int32 scalar, samples whose target was the most likely class.
      count: int32 scalar, samples (images, or tokens).
    """

    loss: jax.Array
    lost: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def zeros(cls) -> "Metrics":
        """Sums before the first sample."""

        def zero(dtype):
            return jnp.zeros([], dtype)

        return cls(zero(jnp.float32), zero(jnp.float32), zero(jnp.int32), zero(jnp.int32))

    def add(self, loss: jax.Array, correct: jax.Array, count: jax.Array) -> "Metrics":
        """Adds the sums of one batch."""
        loss = loss.astype(jnp.float32)
        total = self.loss + loss
        larger = jnp.abs(self.loss) >= jnp.abs(loss)
        rounding = jnp.where(larger, (self.loss - total) + loss, (loss - total) + self.loss)
        return Metrics(total, self.lost + rounding, self.correct + correct, self.count + count)

    def samples(self) -> int:
        """Number of samples, on the host."""
        return int(self.count)

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy, on the host; NaN if there are no samples."""
        values = jax.device_get(self)
        count = int(values.count) or math.nan
        return (float(values.loss) + float(values.lost)) / count, int(values.correct) / count
