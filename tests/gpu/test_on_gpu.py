"""What has to hold on a GPU: the oracle's numbers, the CPU's training, resume and repetition bit for bit.

`make gpu` runs these on a machine that has one; elsewhere they skip.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookahead_jax as la
from tests import reference
from tests.train import runs
from train import data
from train.config import Config, ModelConfig, OptimizerConfig
from train.experiment import make_recipe
from train.step import input_pipeline, steps
from train.step.evaluation import evaluate
from train.step.metrics import Metrics

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]


def on(platform, function, *args):
    """The function's result, computed on the first device of a platform."""
    with jax.default_device(jax.devices(platform)[0]):
        return jax.tree.map(np.asarray, jax.jit(function)(*args))


@pytest.mark.parametrize("inner", ["sgd", "adam", "radam"])
def test_fifteen_updates_are_the_oracles(inner):
    rng = np.random.default_rng(0)
    params, target = rng.normal(size=(2, 257)).astype(np.float32)
    optimizers = {
        "sgd": (optax.sgd(0.1, 0.9), reference.Sgd(0.1, momentum=0.9)),
        "adam": (optax.adam(0.1), reference.Adam(0.1)),
        "radam": (optax.radam(0.1), reference.RAdam(0.1)),
    }
    ours, theirs = optimizers[inner]
    tx = la.lookahead(ours, 5, 0.8)

    def train(w, target):
        state = tx.init(w)
        for _ in range(15):
            updates, state = tx.update(w - target, state, w)
            w = optax.apply_updates(w, updates)
        return w, la.slow_params(state)

    live, slow = on("gpu", train, params, target)
    expected = reference.Lookahead(theirs, sync_period=5, slow_step_size=0.8, params=params.astype(np.float64))
    w = params.astype(np.float64)
    for _ in range(15):
        w = expected.step(w, w - target)
    np.testing.assert_allclose(live, w, rtol=0, atol=2e-4)
    np.testing.assert_allclose(slow, expected.slow, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "gru"])
def test_two_steps_train_as_on_the_cpu(name):
    """Products in full float32: their order alone differs.

    Images in batches of 32: with 8, whose last BatchNorms normalise eight values, a change of the weights by 3e-7 of
    themselves changes ResNet18's gradients by a tenth on one device, with 32 by 1e-5.
    """
    rng = np.random.default_rng(0)
    if name == "gru":
        tokens = rng.integers(0, 50, (16, 9)).astype(np.int32)
        dataset = data.Dataset(
            "made-up", "text", *2 * [data.Split(tokens[:, :-1], tokens[:, 1:])], 50, "none", (), (), False, 50
        )
        model = ModelConfig(name="gru", embedding_size=8, hidden_size=8)
    else:
        images, classes = rng.integers(0, 256, (64, 32, 32, 3), np.uint8), rng.integers(0, 10, 64).astype(np.int32)
        dataset = data.Dataset(
            "made-up",
            "image",
            *2 * [data.Split(images, classes)],
            num_classes=10,
            augmentation="pad_crop_flip",
            mean=(125.0,) * 3,
            std=(63.0,) * 3,
            shuffle=True,
        )
        model = ModelConfig(name=name)
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.01, lookahead=True, sync_period=2, slow_step_size=0.5)
    batch = 8 if name == "gru" else 32
    config = Config(dataset="made-up", epochs=2, batch_size=batch, sequence_length=8, model=model, optimizer=optimizer)
    recipe = make_recipe(config, dataset)

    def train(split):
        state, metrics = steps.init_state(recipe, jax.random.PRNGKey(3)), Metrics.zeros()
        order = steps.epoch_order(recipe, state.key, state.step)
        for _ in range(2):
            state, metrics, _ = steps.train_step(recipe, state, metrics, split, order)
        return state.params, metrics, evaluate(recipe, state.params, state.batch_stats, split)

    def means(result):
        params, *sums = result
        return params, [one.means() for one in sums]

    split = input_pipeline.to_host_arrays(dataset.train)
    with jax.default_matmul_precision("float32"):
        ours, cpu = means(on("gpu", train, split)), means(on("cpu", train, split))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(cpu), strict=True):
        assert np.linalg.norm(a - b) <= 1e-2 * np.linalg.norm(b)


def test_every_buffer_of_a_step_is_donated():
    params = {"w": jnp.ones((64, 64))}
    tx = la.lookahead(optax.adam(1e-3), 5, 0.8)
    step = jax.jit(lambda p, s, g: _apply(tx, p, s, g), donate_argnums=(0, 1))
    state = tx.init(params)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state)) if leaf.ndim}
    params, state = step(params, state, {"w": jnp.ones((64, 64))})
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state)) if leaf.ndim} == pointers


def _apply(tx, params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


DIGITS = Config(
    dataset="digits",
    epochs=3,
    batch_size=32,
    train_examples=320,
    test_examples=64,
    devices=1,
    model=ModelConfig(name="small_cnn"),
    optimizer=OptimizerConfig(name="radam", learning_rate=0.01, lookahead=True, sync_period=7),
)


@pytest.fixture(scope="module")
def train_command(tmp_path_factory):
    """`train_command(workdir)` starts a run of the digits in a process of its own, with XLA's reproducible kernels."""
    from train.config import to_dict

    script = tmp_path_factory.mktemp("scripts") / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom train.config import from_dict\nfrom train.run.loop import train\n"
        f"sys.exit(train(from_dict({to_dict(DIGITS)!r}), Path(sys.argv[1])).status != 'finished')\n"
    )
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

    def start(workdir):
        return subprocess.Popen([sys.executable, script, workdir], cwd=ROOT, env=environment)

    return start


def test_a_killed_run_ends_bit_for_bit_as_one_left_alone(train_command, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = train_command(killed)
    assert train_command(whole).wait() == 0
    # After its first epoch or wherever it then is.
    deadline = time.monotonic() + 120
    while not (killed / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train_command(killed).wait() == 0
    runs.assert_same_run(whole, killed)
