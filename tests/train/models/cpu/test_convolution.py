"""Every lowering equals XLA's convolution, in value and in both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.train.models.helpers import normal, relative_error
from train.models.cpu import convolution
from train.models.cpu.convolution import Choice, choose
from train.models.cpu.coverage import geometries_in
from train.models.cpu.geometry import DIMENSION_NUMBERS, Geometry
from train.models.cpu.lowerings import LOWERINGS

USED = {
    geometry: None
    for used in (
        geometries_in("resnet18", (4, 32, 32, 3)),
        geometries_in("resnet18", (4, 32, 32, 3), stem="cifar"),
        geometries_in("cnn", (2, 224, 224, 3)),
        geometries_in("small_cnn", (4, 8, 8, 1)),
    )
    for geometry in used
}
LOWERED = [geometry for geometry in USED if choose(geometry) != Choice()]


def describe(geometry: Geometry) -> str:
    (_, height, width, channels), kernel = geometry.input_shape, geometry.kernel_shape
    return f"{height}x{width}x{channels}-{kernel[0]}x{kernel[1]}x{kernel[3]}-stride{geometry.strides[0]}"


def convolve(convolution, geometry, x, kernel):
    return convolution(x, kernel, geometry.strides, geometry.padding, dimension_numbers=DIMENSION_NUMBERS)


@functools.partial(jax.jit, static_argnums=(0, 1))
def products(convolution, geometry, x, kernel, dy):
    """Output, gradient by the input, gradient by the kernel."""
    y, gradients = jax.vjp(functools.partial(convolve, convolution, geometry), x, kernel)
    return y, *gradients(dy)


def operands(geometry, dtype=np.float32):
    x, kernel = normal(0, geometry.input_shape, dtype), normal(1, geometry.kernel_shape, dtype)
    return jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(normal(2, geometry.output_shape, dtype))


@pytest.mark.parametrize("geometry", LOWERED, ids=describe)
def test_the_chosen_lowering_equals_xla_on_a_shape_that_a_model_uses(geometry):
    given = operands(geometry)
    ours = products(convolution.conv_general_dilated, geometry, *given)
    for actual, expected in zip(ours, products(lax.conv_general_dilated, geometry, *given), strict=True):
        assert relative_error(actual, expected) <= 1e-5


ODD = [
    Geometry((2, 4, 4, 3), (3, 3, 3, 5), (1, 1), ((1, 1), (1, 1))),
    Geometry((2, 5, 3, 2), (3, 2, 2, 4), (2, 1), ((1, 0), (0, 2))),
    Geometry((3, 2, 2, 2), (1, 1, 2, 3), (2, 2), ((0, 0), (0, 0))),
    Geometry((2, 1, 1, 2), (3, 3, 2, 3), (1, 1), ((1, 1), (1, 1))),
    Geometry((2, 6, 4, 3), (3, 3, 3, 2), (1, 1), ((1, 1), (0, 2))),
]
# Rows are for kernels that move by single columns, Winograd for 3x3 of stride 1 and outputs of even size.
PAIRS = (
    [(name, geometry) for name in ("im2col", "dense") for geometry in ODD]
    + [("rows", geometry) for geometry in ODD if geometry.strides[1] == 1]
    + [("winograd", geometry) for geometry in (ODD[0], ODD[4])]
)


def test_every_lowering_is_tested():
    assert {name for name, _ in PAIRS} == set(LOWERINGS) - {"xla", "onednn"}  # which has tests of its own


@pytest.mark.parametrize(
    ("name", "geometry"), PAIRS, ids=lambda value: value if isinstance(value, str) else describe(value)
)
def test_every_lowering_equals_xla_in_float64_whatever_the_table_says(name, geometry, x64):
    lowering, xla = LOWERINGS[name], LOWERINGS["xla"]
    x, kernel, dy = operands(geometry, np.float64)
    for product, given in (("forward", (x, kernel)), ("kernel_gradient", (x, dy)), ("input_gradient", (dy, kernel))):
        actual, expected = (getattr(way, product)(*given, geometry) for way in (lowering, xla))
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11, err_msg=product)


def lower(platform):
    geometry = Geometry((4, 2, 2, 8), (3, 3, 8, 8), (1, 1), ((1, 1), (1, 1)))
    shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (geometry.input_shape, geometry.kernel_shape))
    call = functools.partial(convolve, convolution.conv_general_dilated, geometry)
    return jax.jit(call).trace(*shapes).lower(lowering_platforms=(platform,))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_backends_are_left_to_xla(platform):
    assert "stablehlo.convolution" in lower(platform).as_text()


def test_the_compiled_program_of_the_cpu_holds_the_lowering_alone():
    text = lower("cpu").compile().as_text()
    assert "dot" in text
    assert "convolution(" not in text
    assert "conditional(" not in text


@pytest.mark.parametrize(
    "options",
    [{"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}, {"feature_group_count": 2}],
    ids=lambda options: next(iter(options)),
)
def test_forms_that_the_table_does_not_speak_of_are_xla(options):
    x, kernel = normal(0, (2, 2, 2, 4)), normal(1, (3, 3, 4 // options.get("feature_group_count", 1), 4))
    given = (x, kernel, (1, 1), ((2, 2), (2, 2)))
    ours = convolution.conv_general_dilated(*given, dimension_numbers=DIMENSION_NUMBERS, **options)
    xla = lax.conv_general_dilated(*given, dimension_numbers=DIMENSION_NUMBERS, **options)
    np.testing.assert_array_equal(ours, xla)


def test_named_padding_is_understood():
    x, kernel = normal(0, (2, 2, 2, 4)), normal(1, (3, 3, 4, 4))
    ours, xla = (
        f(x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSION_NUMBERS)
        for f in (convolution.conv_general_dilated, lax.conv_general_dilated)
    )
    np.testing.assert_allclose(ours, xla, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("geometry", LOWERED[-2:], ids=describe)
def test_a_batch_sharded_over_four_devices_gives_the_same(geometry):
    x, kernel, dy = operands(geometry)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), P("batch"))
    sharded = products(
        convolution.conv_general_dilated,
        geometry,
        *jax.device_put((x,), sharding),
        kernel,
        jax.device_put(dy, sharding),
    )
    assert sharded[0].sharding.is_equivalent_to(sharding, 4)
    for actual, expected in zip(
        sharded, products(convolution.conv_general_dilated, geometry, x, kernel, dy), strict=True
    ):
        assert relative_error(actual, expected) <= 1e-5
