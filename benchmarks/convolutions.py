"""Every convolution of the models by every lowering: what `train.models.cpu.convolution.TABLE` is made from.

    python -m benchmarks.convolutions [--models=resnet18,resnet18-cifar,cnn] [--rounds=7] [--torch] [--out=FILE]

Times the output and both gradients of each distinct convolution of a training step, in turn, on random float32
values, and prints the fastest lowering beside the table's choice. A choice that loses more than a tenth is marked: put
the faster one into the table if it is so on the machines that matter. `--torch` adds oneDNN's time through torch, for
what else might be had.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from train.models.cpu.convolution import choose
from train.models.cpu.coverage import geometries_in
from train.models.cpu.geometry import Geometry, Lowering
from train.models.cpu.lowerings import LOWERINGS, applicable
from train.step import runtime

# Model, its options, and the images of a training step of its recipe.
MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int, int]]] = {
    "resnet18": ("resnet18", {"stem": "imagenet"}, (128, 32, 32, 3)),
    "resnet18-cifar": ("resnet18", {"stem": "cifar"}, (128, 32, 32, 3)),
    "cnn": ("cnn", {}, (36, 224, 224, 3)),
}
PRODUCTS = Lowering._fields
# A chosen lowering this much slower than the fastest is marked.
TOLERANCE = 1.1


def operands(geometry: Geometry) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Random operands of each product."""
    rng = np.random.default_rng(0)
    shapes = (geometry.input_shape, geometry.kernel_shape, geometry.output_shape)
    x, kernel, dy = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    return {"forward": (x, kernel), "kernel_gradient": (x, dy), "input_gradient": (dy, kernel)}


def lowered(geometry: Geometry, product: str, values: tuple[jax.Array, jax.Array]) -> dict[str, Callable[[], Any]]:
    """A compiled call for each lowering that has this product in its own way."""
    own = getattr(LOWERINGS["xla"], product)
    calls: dict[str, Callable[[], Any]] = {}
    for name, lowering in LOWERINGS.items():
        function = getattr(lowering, product)
        if name != "xla" and (function is own or not applicable(name, geometry)):
            continue
        program = jax.jit(functools.partial(function, geometry=geometry))
        calls[name] = lambda program=program: program(*values).block_until_ready()
    return calls


def torch_call(geometry: Geometry, product: str, values: tuple[jax.Array, jax.Array]) -> Callable[[], Any]:
    """The same product by torch, channels_last."""
    import torch

    a, b = (torch.from_numpy(np.array(value)) for value in values)

    def images(t: torch.Tensor) -> torch.Tensor:
        return t.permute(0, 3, 1, 2)

    def kernel(t: torch.Tensor) -> torch.Tensor:
        return t.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)

    strides, pads = list(geometry.strides), [low for low, _ in geometry.padding]
    if product == "forward":
        x, weight = images(a), kernel(b)
        return torch.inference_mode()(lambda: torch.conv2d(x, weight, None, strides, pads))
    blank = torch.zeros
    if product == "kernel_gradient":
        x, dy, weight = images(a), images(b), kernel(blank(geometry.kernel_shape))
    else:
        x, dy, weight = images(blank(geometry.input_shape)), images(a), kernel(b)
    wanted = [product == "input_gradient", product == "kernel_gradient", False]
    arguments = (dy, x, weight, None, strides, pads, [1, 1], False, [0, 0], 1, wanted)
    return torch.inference_mode()(lambda: torch.ops.aten.convolution_backward(*arguments))


def gigaflops(geometry: Geometry) -> float:
    """Multiplications and additions of one product, taps in the padding included."""
    return 2e-9 * np.prod(geometry.output_shape) * np.prod(geometry.kernel_shape[:3])


def describe_geometry(geometry: Geometry) -> str:
    height, width, channels = geometry.input_shape[1:]
    size, _, _, features = geometry.kernel_shape
    return f"{height}x{width}, {channels} -> {features}, {size}x{size}/{geometry.strides[0]}"


def measure(geometry: Geometry, product: str, rounds: int, with_torch: bool) -> dict[str, Any]:
    """Milliseconds of each lowering of a product, and which is the table's and the fastest."""
    values = operands(geometry)[product]
    calls = lowered(geometry, product, values)
    if with_torch:
        calls["torch"] = torch_call(geometry, product, values)
    seconds = harness.seconds_in_turn(calls, rounds)
    milliseconds = {name: harness.Summary.of([1e3 * s for s in taken]) for name, taken in seconds.items()}
    ours = {name: summary.median for name, summary in milliseconds.items() if name != "torch"}
    return {
        "milliseconds": milliseconds,
        "chosen": getattr(choose(geometry), product),
        "fastest": min(ours, key=ours.__getitem__),
        "gigaflops": gigaflops(geometry),
    }


def row(geometry: Geometry, product: str, result: dict[str, Any]) -> list[str]:
    times = {name: summary.median for name, summary in result["milliseconds"].items()}
    chosen, fastest = result["chosen"], result["fastest"]
    note = f"{fastest} {times[chosen] / times[fastest]:.2f}x" if times[chosen] > TOLERANCE * times[fastest] else ""
    names = [*LOWERINGS, *(["torch"] if "torch" in times else [])]
    cells = [f"{times[name]:.1f}" if name in times else "" for name in names]
    rate = f"{1e3 * result['gigaflops'] / times[chosen]:.0f}"
    return [describe_geometry(geometry), product.replace("_", " "), *cells, rate, chosen, note]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_arguments(parser, "convolutions", rounds=7)
    parser.add_argument("--models", default=",".join(MODELS), help=f"which of {','.join(MODELS)} (default: all)")
    parser.add_argument("--torch", action="store_true", help="torch's time as well")
    flags = parser.parse_args()
    unknown = sorted(set(flags.models.split(",")) - set(MODELS))
    if unknown:
        parser.error(f"unknown model {unknown[0]!r}; the models are {', '.join(MODELS)}")
    runtime.set_up()
    about = harness.machine()
    for model in flags.models.split(","):
        results, lines = {}, []
        name, options, images = MODELS[model]
        for geometry in geometries_in(name, images, **options):
            for product in PRODUCTS:
                result = measure(geometry, product, flags.rounds, flags.torch)
                results[f"{describe_geometry(geometry)} {product}"] = result
                lines.append(row(geometry, product, result))
        names = [*LOWERINGS, *(["torch"] if flags.torch else [])]
        print(f"\n{model}, batch {images[0]}, ms, medians of {flags.rounds}\n")
        print(harness.table(["map, channels, kernel", "product", *names, "GFLOP/s", "chosen", "faster"], lines))
        harness.write_rows(harness.result_path("convolutions", flags), {model: results}, about)
    print("\n" + harness.describe(about))


if __name__ == "__main__":
    main()
