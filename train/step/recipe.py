"""What a training program is a function of: everything that a config and the shape of its data decide."""

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
import optax

from train.step.input_pipeline import DeviceSplit, Preprocessing
from train.step.objectives import Objective
from train.step.share import WHOLE, Share


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in an epoch, a short last one included."""
    return -(-examples // batch_size)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A run without its numbers: no arrays, no devices, no files. Static under jit; made by `train.experiment`.

    Attributes:
      task: what the targets are, as in `train.data.Dataset`.
      model: Flax module; its BatchNorm averages over `share.axis_name`.
      tx: the optimizer.
      schedule: its learning rate, from the number of batches done.
      objective: how the task scores a batch.
      preprocessing: how the data set is read and augmented.
      train_data: shapes and dtypes of the training data.
      test_data: shapes and dtypes of the test data.
      batch_size: examples of a full training batch.
      test_batch_size: examples of a test batch; divides over the devices.
      epochs: of the run.
      lookahead: whether the optimizer's state has slow weights.
      label_smoothing: in the training loss alone.
      recalibration_batches: training batches over which the BatchNorm statistics of slow and averaged weights are
        re-estimated; 0 evaluates them with the running statistics.
      validation_data: shapes and dtypes of the validation data; None if there is none.
      ema_decay: of the moving average in the optimizer's state; 0 if there is none.
      share: how a batch is split over devices.
    """

    task: str
    model: nn.Module
    tx: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    objective: Objective
    preprocessing: Preprocessing
    train_data: DeviceSplit
    test_data: DeviceSplit
    batch_size: int
    test_batch_size: int
    epochs: int
    lookahead: bool
    label_smoothing: float = 0.0
    recalibration_batches: int = 0
    validation_data: DeviceSplit | None = None
    ema_decay: float = 0.0
    share: Share = WHOLE

    @property
    def train_examples(self) -> int:
        """Training examples."""
        return self.train_data.inputs.shape[0]

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the last one included, which takes what remains."""
        return steps_per_epoch(self.train_examples, self.batch_size)

    @property
    def last_batch_size(self) -> int:
        """Examples of an epoch's last batch; `batch_size` if nothing remains."""
        return self.train_examples - (self.steps_per_epoch - 1) * self.batch_size

    @property
    def total_steps(self) -> int:
        """Number of steps in the whole run, one per batch."""
        return self.epochs * self.steps_per_epoch

    @property
    def samples_per_example(self) -> int:
        """1 for images, tokens of a segment for text: what rates and metrics count."""
        return math.prod(self.train_data.targets.shape[1:])

    def learning_rate(self, step: int) -> float:
        """The rate of step `step`, counted from 0, on the host."""
        return float(jnp.asarray(self.schedule(step)))
