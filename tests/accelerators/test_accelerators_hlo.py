"""The reader of compiled programs: against programs whose traffic and kernels can be counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.aot.hlo import Program, Traffic
from benchmarks.aot.hlo_text import HOST, MAIN, Array


def compiled(function, *shapes, donate=()):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return Program(jax.jit(function, donate_argnums=donate).lower(*args).compile().as_text())


def test_an_elementwise_program_reads_its_arguments_and_writes_its_result_once():
    program = compiled(lambda x, y: jnp.sin(x) * y + x, (64, 64), (64, 64))
    assert program.traffic() == Traffic(main=3 * 4 * 64 * 64)
    assert program.kernels() == 1


def test_a_donated_argument_is_aliased_and_another_is_not():
    assert compiled(lambda x, y: (x + 1, y + 1), (8, 8), (8, 8), donate=(1,)).aliased == {1}
    assert compiled(lambda x, y: (x + 1, y + 1), (8, 8), (8, 8)).aliased == set()


# A loop of 5 rounds that takes a row of %all [5,100] and puts a row into %out [5,100] in each; and a few kernels more.
LOOP = """\
HloModule jit_f, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_layout={(...)}

%taken (p0: f32[5,100], p1: s32[]) -> f32[1,100] {
  %p0 = f32[5,100]{1,0:T(8,128)} parameter(0)
  %p1 = s32[] parameter(1)
  %c = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%p0, %p1, %c), dynamic_slice_sizes={1,100}
  ROOT %sine = f32[1,100]{1,0} sine(%row)
}

%put (p2: f32[5,100], p3: f32[1,100], p4: s32[]) -> f32[5,100] {
  %p2 = f32[5,100]{1,0} parameter(0)
  %p3 = f32[1,100]{1,0} parameter(1)
  %p4 = s32[] parameter(2)
  %c2 = s32[] constant(0)
  ROOT %updated = f32[5,100]{1,0} dynamic-update-slice(%p2, %p3, %p4, %c2)
}

%body (s: (s32[], f32[5,100], f32[5,100])) -> (s32[], f32[5,100], f32[5,100]) {
  %s = (s32[], f32[5,100]{1,0}, f32[5,100]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %all = f32[5,100]{1,0} get-tuple-element(%s), index=1
  %out = f32[5,100]{1,0} get-tuple-element(%s), index=2
  %row1 = f32[1,100]{1,0} fusion(%all, %i), kind=kLoop, calls=%taken
  %new = f32[5,100]{1,0} fusion(%out, %row1, /*index=2*/%i), kind=kLoop, calls=%put
  ROOT %t = (s32[], f32[5,100]{1,0}, f32[5,100]{1,0}) tuple(%i, %all, %new)
}

%condition (s2: (s32[], f32[5,100], f32[5,100])) -> pred[] {
  %s2 = (s32[], f32[5,100]{1,0}, f32[5,100]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (a: f32[5,100], b: f32[5,100], h: f32[7]) -> (f32[5,100], f32[7]) {
  %a = f32[5,100]{1,0} parameter(0)
  %b = f32[5,100]{1,0} parameter(1)
  %h = f32[7]{0:S(5)} parameter(2)
  %zero = s32[] constant(0)
  %start = (s32[], f32[5,100]{1,0}, f32[5,100]{1,0}) tuple(%zero, %a, %b)
  %w = (s32[], f32[5,100]{1,0}, f32[5,100]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %h2 = (f32[7]{0}, f32[7]{0:S(5)}, u32[]{:S(2)}) copy-start(%h)
  %h3 = f32[7]{0} copy-done(%h2)
  %turned = f32[100,5]{1,0} transpose(%b), dimensions={1,0}
  %copied = f32[100,5]{1,0} copy(%turned)
  %conv = (f32[5,100]{1,0}, u8[999]{0}) custom-call(%b, %copied), custom_call_target="__cudnn$convForward"
  %got = f32[5,100]{1,0} get-tuple-element(%w), index=2
  ROOT %r = (f32[5,100]{1,0}, f32[7]{0}) tuple(%got, %h3)
}
"""


def test_of_a_loop_only_the_slices_taken_and_put_count_as_often_as_it_runs():
    row, index, whole = 4 * 100, 4, 4 * 500
    in_the_loop = 5 * ((row + index + row) + (row + index + row))
    elsewhere = 2 * whole + 2 * whole + 3 * whole  # transpose, copy, convolution without its workspace
    assert Program(LOOP).traffic() == Traffic(main=in_the_loop + elsewhere + 4 * 7, host=4 * 7)


def test_kernels_copies_transposes_and_convolutions_are_told_apart():
    program = Program(LOOP)
    assert program.kernels() == 5 * 2 + 3  # the transfer from the host is none
    assert [(a.shape, a.space) for a in program.copies()] == [((100, 5), MAIN)]
    assert [a.shape for a in program.transposes()] == [(100, 5)]
    assert program.convolutions() == 1
    assert program.aliased == {0}
    assert program.entry["h"].arrays == (Array("f32", (7,), HOST),)


def test_a_call_of_the_host_is_found():
    def function(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((8,), jnp.float32), x)

    assert len(compiled(function, (8,)).host_callbacks()) == 1
    assert compiled(lambda x: x + 1, (8,)).host_callbacks() == []


@pytest.mark.parametrize(("dtype", "size"), [("f32", 24), ("bf16", 12), ("pred", 6), ("s4", 3), ("f8e4m3fn", 6)])
def test_bytes_of_an_array(dtype, size):
    assert Array(dtype, (2, 3), MAIN).bytes == size


def test_all_reduces_between_devices_are_found_with_their_bytes():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("x",))
    spec = jax.sharding.PartitionSpec("x")
    mean = jax.shard_map(lambda x: jax.lax.pmean(x, "x"), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    assert compiled(mean, (8, 16)).collectives() == [("all-reduce", 4 * 2 * 16)]
