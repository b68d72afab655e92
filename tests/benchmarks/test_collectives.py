"""What a training step sends between devices, read off the compiled program."""

import jax
import numpy as np
import pytest

from benchmarks.aot.collectives import collectives
from tests.train.step.test_local_steps import text_trainer
from train.step import steps


@pytest.mark.parametrize("mode", ["pmap", "local"])
def test_the_parameters_are_sent_by_the_step_that_syncs_alone(mode):
    """Read off the compiled program: outside branches of conditionals only a few scalars are summed up."""
    trainer = text_trainer(mode, inner="adam")
    state, metrics = trainer.abstract_state(), trainer.abstract_metrics()
    order = trainer.parallel.placed(jax.ShapeDtypeStruct((20,), np.int32))
    program = trainer.train_program(state, metrics, order)
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(steps.abstract_state(trainer.recipe).params))
    compiled = trainer.compiled(program)
    found = collectives(getattr(compiled, "func", compiled).as_text())
    if mode == "pmap":
        assert size <= found.bytes <= size + 16
        assert found.branches == ()
    else:
        assert found.bytes <= 16  # loss, correct, and whether all workers took a step
        # One branch is the sync; one, taken by the run's first step alone, makes sure that all start alike.
        assert [sent for _, sent in found.branches] == [size, size]


def test_what_a_program_sends_is_read_off_its_text():
    text = """HloModule made_up
%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}
%then (p: f32[2,3]) -> (f32[2,3], bf16[4]) {
  ROOT %both = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%p, %q), to_apply=%sum
}
%else (p: f32[2,3]) -> (f32[2,3], bf16[4]) {
  ROOT %t = (f32[2,3]{1,0}, bf16[4]{0}) tuple(%p, %q)
}
ENTRY %main (p: f32[2,3]) -> f32[5] {
  %g = s32[5]{0} all-gather(%p), dimensions={0}
  %c = (f32[2,3], bf16[4]) conditional(%i, %p, %p), branch_computations={%else, %then}
  ROOT %l = f32[] all-reduce(%x), to_apply=%sum
}
"""
    assert collectives(text) == (2, 24, ((1, 32),))
