"""Our side of the comparisons: steps by the trainer's programs, one a dispatch or several."""

import jax
import numpy as np
import pytest

from benchmarks import ours
from benchmarks.rows import Row

ROW = Row("text", "text", "ptb_gru", 30, 4, 0, 0, changes=(("batch_size", 4),))


def test_steps_of_one_dispatch_are_the_steps_of_several():
    one = ours.TrainingSteps(ours.make_trainer(ROW.config, ROW.dataset()))
    several = ours.ScannedSteps(ours.make_trainer(ROW.config, ROW.dataset()), 2)
    np.testing.assert_allclose(one.run(4), several.run(4), rtol=1e-6)
    for a, b in zip(jax.tree.leaves(one.state.params), jax.tree.leaves(several.state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_steps_that_do_not_fill_a_dispatch_are_refused():
    several = ours.ScannedSteps(ours.make_trainer(ROW.config, ROW.dataset()), 2)
    with pytest.raises(ValueError, match="3 steps are not a multiple of 2 a dispatch"):
        several.run(3)


@pytest.mark.slow
@pytest.mark.optimized  # float64 convolutions are LLVM's own loops
def test_lowered_convolutions_train_as_xlas_do():
    """40 steps of ResNet18 with the lowerings and with XLA's own convolutions, in float64: the same losses.

    In float32 rounding carries activations across ReLU's kink within a few steps, under XLA's own convolutions from
    weights changed in their last bit just as much: `python -m benchmarks.agreement` shows both.
    """
    from benchmarks import agreement

    row, config = agreement.recipe(8, 0.01, own_optimizer=False)
    own = agreement.losses(row, config, 40, np.float64, lowered=False)
    lowered = agreement.losses(row, config, 40, np.float64, lowered=True)
    assert not np.array_equal(own, lowered), "the lowerings were not in use"
    np.testing.assert_allclose(lowered, own, rtol=0, atol=1e-4)


def test_the_first_loss_of_lowered_convolutions_agrees_in_float32():
    """Of the first step alone: at batch 8 the last maps give BatchNorm eight values, and rounding grows from there."""
    from benchmarks import agreement

    row, config = agreement.recipe(8, 0.001, own_optimizer=False)
    runs = [agreement.losses(row, config, 1, np.float32, lowered=lowered) for lowered in (True, False)]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-4)
