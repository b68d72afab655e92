"""oneDNN's convolutions: XLA's values, bits that repeat, and runs that keep what they began with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.models.helpers import normal, relative_error
from train.models.cpu import native, onednn
from train.models.cpu.convolution import choose, conv_general_dilated, conv_general_dilated_onednn
from train.models.cpu.coverage import geometries_in
from train.models.cpu.geometry import DIMENSION_NUMBERS, Geometry
from train.models.cpu.lowerings import LOWERINGS

installed = pytest.mark.skipif(onednn.version() is None, reason="oneDNN or a compiler is missing (extra onednn)")
fast = pytest.mark.skipif(
    not onednn.is_fast(Geometry((2, 32, 32, 64), (3, 3, 64, 64), (1, 1), ((1, 1), (1, 1)))),
    reason="oneDNN, a compiler or AVX-512 is missing (extra onednn)",
)

GEOMETRIES = [
    Geometry((3, 6, 4, 16), (3, 3, 16, 32), (1, 1), ((1, 1), (0, 2))),  # a batch that does not divide by two
    Geometry((1, 9, 9, 32), (5, 5, 32, 16), (2, 2), ((0, 0), (0, 0))),  # fewer images than threads
    Geometry((4, 9, 7, 3), (7, 7, 3, 16), (2, 2), ((3, 3), (3, 2))),
    Geometry((5, 8, 8, 32), (1, 1, 32, 64), (2, 2), ((0, 0), (0, 0))),
    Geometry((2, 5, 3, 2), (3, 2, 2, 4), (2, 1), ((1, 0), (0, 2))),  # no multiple of a vector
]
PRODUCTS = {"forward": ("x", "kernel"), "kernel_gradient": ("x", "dy"), "input_gradient": ("dy", "kernel")}


def operands(geometry):
    shapes = {"x": geometry.input_shape, "kernel": geometry.kernel_shape, "dy": geometry.output_shape}
    return {name: jnp.asarray(normal(seed, shape)) for seed, (name, shape) in enumerate(shapes.items())}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def computed(way, product, geometry, a, b):
    return getattr(LOWERINGS[way], product)(a, b, geometry)


@installed
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: "x".join(map(str, g.input_shape)))
def test_each_product_equals_xla_in_float64(geometry):
    values = operands(geometry)
    for product, names in PRODUCTS.items():
        ours = computed("onednn", product, geometry, *(values[name] for name in names))
        with jax.enable_x64(True):
            exact = (jnp.asarray(np.asarray(values[name], np.float64)) for name in names)
            expected = np.asarray(computed("xla", product, geometry, *exact))
        assert relative_error(np.asarray(ours), expected) <= 1e-6, product


@fast
def test_a_batch_of_kernels_is_computed_one_by_one():
    geometry = GEOMETRIES[0]
    x, kernel = (jnp.stack([value, 2 * value]) for value in list(operands(geometry).values())[:2])
    ours = jax.jit(jax.vmap(lambda x, k: LOWERINGS["onednn"].forward(x, k, geometry)))(x, kernel)
    for lane in range(2):
        np.testing.assert_array_equal(ours[lane], computed("onednn", "forward", geometry, x[lane], kernel[lane]))


SAME = ((1, 1), (1, 1))
LARGE = Geometry((4, 32, 32, 32), (3, 3, 32, 32), (1, 1), SAME)


def convolve(convolution, x, kernel):
    return convolution(x, kernel, (1, 1), SAME, dimension_numbers=DIMENSION_NUMBERS)


@fast
def test_float64_and_bfloat16_take_the_lowerings_without_onednn(x64):
    for dtype in (jnp.float64, jnp.bfloat16):
        shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in (LARGE.input_shape, LARGE.kernel_shape)]
        plain, ours = (
            jax.jit(functools.partial(convolve, way)).lower(*shapes).as_text()
            for way in (conv_general_dilated, conv_general_dilated_onednn)
        )
        assert plain == ours
        assert "lookahead_" not in ours


def lowered(platform):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (LARGE.input_shape, LARGE.kernel_shape)]
    loss = lambda x, kernel: convolve(conv_general_dilated_onednn, x, kernel).sum()  # noqa: E731
    return jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()


@fast
def test_only_programs_of_the_cpu_call_onednn():
    assert lowered("cpu").count("lookahead_") >= 2
    for platform in ("cuda", "tpu"):
        assert "lookahead_" not in lowered(platform)
        assert "stablehlo.convolution" in lowered(platform)


@fast
def test_onednn_serves_the_large_maps_and_not_the_smallest():
    used = geometries_in("resnet18", (4, 32, 32, 3), stem="cifar") + geometries_in("resnet18", (4, 32, 32, 3))
    chosen = {g.input_shape[1]: choose(g, onednn=True).forward for g in used if g.kernel_shape[0] == 3}
    assert chosen == {32: "onednn", 16: "onednn", 8: "onednn", 4: "winograd", 2: "dense", 1: "dense"} | chosen


@fast
@pytest.mark.devices(2)
def test_two_devices_under_pmap_compute_what_one_does():
    values = operands(LARGE)

    def gradient(kernel, x):
        return jax.grad(lambda kernel: (convolve(conv_general_dilated_onednn, x, kernel) ** 2).sum())(kernel)

    halves = values["x"].reshape(2, 2, *LARGE.input_shape[1:])
    both = jax.pmap(gradient, in_axes=(None, 0), devices=jax.devices()[:2])(values["kernel"], halves).sum(0)
    assert relative_error(both, jax.jit(gradient)(values["kernel"], values["x"])) <= 1e-5


def without(monkeypatch, reason):
    """oneDNN cannot be loaded, and what was said and made before is forgotten."""

    def load():
        raise native.Unavailable(reason)

    monkeypatch.setattr(native, "load", load)
    onednn._library.cache_clear()
    onednn.implementation.cache_clear()


@pytest.fixture
def forget():
    """After the test, the library is looked for again."""
    yield
    onednn._library.cache_clear()
    onednn.implementation.cache_clear()


def test_without_the_library_one_line_says_so_and_the_lowerings_serve(monkeypatch, caplog, forget):
    without(monkeypatch, "no C++ compiler is found (g++)")
    assert onednn.version() is None
    assert onednn.version() is None
    x, kernel = (jnp.asarray(normal(0, shape)) for shape in (LARGE.input_shape, LARGE.kernel_shape))
    ours, plain = (convolve(way, x, kernel) for way in (conv_general_dilated_onednn, conv_general_dilated))
    np.testing.assert_array_equal(ours, plain)
    assert [record.message for record in caplog.records] == [
        "oneDNN's convolutions are not in use, XLA's and our own are: no C++ compiler is found (g++)"
    ]
