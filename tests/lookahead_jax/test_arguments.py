"""Arguments that other implementations take, or that would pass in silence: each is refused with its remedy."""

import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import lookahead_jax as la

SGD = optax.sgd(0.1)
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

SPELLINGS = [
    (la.lookahead, (SGD,), {"reset_state": True}, r'lookahead\(\) has no argument .reset_state.; .*="reset"'),
    (la.ranger, (0.1, 0.9, 0.999, 1e-8, 6), {}, r"takes 4 positional arguments, got 5; pass the others by name$"),
    (la.snoo, (SGD, 5, 0.5, 0.9), {"k": 5}, r"snoo\(\) has no argument 'k'; use sync_period"),
    (la.snoo, (SGD, 5, 0.5, 0.9), {"alpha": 0.5}, r"no argument 'alpha'; use learning_rate, that of the outer step"),
    (la.diloco, (SGD,), {"slow_optimizer": SGD}, r"for another use lookahead\(slow_optimizer=...\)"),
    (la.ranger, (0.1,), {"base_optimizer": SGD}, r"the inner optimizer is RAdam; for another use lookahead"),
    (la.diloco, (SGD,), {"outer_lr": 0.5}, r"diloco\(\) has no argument 'outer_lr'; use learning_rate"),
    (la.lookahead, (SGD, 5, 0.5, True), {}, r'3 positional arguments.*reset_state.*fast_state_at_sync="reset"'),
    (la.lookahead, (SGD,), {"k": 5}, "use sync_period"),
    (la.lookahead, (SGD,), {"la_steps": 5}, "use sync_period"),
    (la.lookahead, (SGD,), {"alpha": 0.5}, "use slow_step_size"),
    (la.lookahead, (), {"base_optimizer": SGD}, "use fast_optimizer"),
    (la.lookahead, (SGD,), {"pullback_momentum": "none"}, 'use fast_state_at_sync="maintain"'),
    (la.ranger, (0.1,), {"N_sma_threshhold": 5}, r"ranger\(\).*use threshold"),
    (la.ranger, (), {"lr": 0.1}, "use learning_rate"),
    (la.ranger, (0.1,), {"betas": (0.95, 0.999)}, "use b1 and b2"),
]


@pytest.mark.parametrize(("factory", "args", "kwargs", "message"), SPELLINGS)
def test_other_implementations_spellings_are_refused_with_ours(factory, args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        factory(*args, **kwargs)


def test_an_argument_that_nobody_has_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        la.lookahead(SGD, nonsense=1)


PERIODS = [np.array(0), jnp.array(-1), np.int64(0), np.array(2.5), np.array([5]), np.array(True), jnp.float32(0.5)]


@pytest.mark.parametrize("value", PERIODS, ids=repr)
def test_a_known_array_is_no_better_a_period_than_its_value(value):
    with pytest.raises(ValueError, match=r"sync_period=.*use an integer >= 1"):
        la.lookahead(SGD, value)


@pytest.mark.parametrize("value", [10**10, np.int64(2**31), jnp.float32(3e9), 2**31], ids=repr)
def test_a_period_beyond_int32_is_refused_in_one_line_at_construction(value):
    with pytest.raises(
        ValueError, match=r"^sync_period=.* too large: steps are counted in int32; use at most 2147483647$"
    ):
        la.lookahead(SGD, value)
    la.lookahead(SGD, 2**31 - 1)


SIZES = [np.array(7.0), jnp.array(-0.5), np.float32("nan"), np.array([0.5]), ml_dtypes.bfloat16(1.5), np.array(True)]


@pytest.mark.parametrize("value", SIZES, ids=repr)
def test_a_known_array_is_no_better_a_step_size_than_its_value(value):
    with pytest.raises(ValueError, match=r"slow_step_size=.*use a number in \[0, 1\]"):
        la.lookahead(SGD, slow_step_size=value)


@pytest.mark.parametrize("value", [0.5, np.array(0), jnp.bfloat16(1), np.float64(1.0), 1], ids=repr)
def test_arrays_in_range_and_traced_ones_are_taken(value):
    la.lookahead(SGD, np.array(3), value)
    jax.jit(lambda k, a: la.lookahead(SGD, k, a).init(jnp.ones(2)).sync_count)(jnp.array(0), jnp.array(7.0))


BESIDE = {"default": 0.8, "numpy": np.array(0.8), "array": jnp.float32(0.8), "rule": la.adaptive_step_size(b2=0.9)}


@pytest.mark.parametrize("value", BESIDE.values(), ids=BESIDE)
def test_a_step_size_beside_a_slow_optimizer_is_refused_whatever_its_value(value):
    with pytest.raises(
        ValueError, match=r"slow_step_size=.*cannot be combined with slow_optimizer.*put the step size into"
    ):
        la.lookahead(SGD, slow_step_size=value, slow_optimizer=optax.sgd(0.5))


def test_and_also_where_it_is_injected():
    tx = optax.inject_hyperparams(la.lookahead)(SGD, slow_step_size=0.8, slow_optimizer=optax.sgd(0.5))
    with pytest.raises(ValueError, match="cannot be combined with slow_optimizer"):
        tx.init(jnp.ones(2))


FACTORIES = {
    "lookahead": lambda: optax.inject_hyperparams(la.lookahead)(SGD, slow_dtype="float32"),
    "ranger": lambda: optax.inject_hyperparams(la.ranger)(0.1, threshold=4.0, fast_state_at_sync="reset"),
    "ranger, scheduled": lambda: optax.inject_hyperparams(la.ranger)(optax.linear_schedule(0.1, 0.0, 10)),
    "snoo": lambda: optax.inject_hyperparams(la.snoo)(SGD, 3, 0.7, 0.5),
    "diloco": lambda: optax.inject_hyperparams(la.diloco)(SGD),
    "primal_averaging": lambda: optax.inject_hyperparams(la.primal_averaging)(SGD, 0.9, 0.9),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_works_under_inject_hyperparams(name):
    tx = FACTORIES[name]()
    params = jnp.ones(3)
    opt_state = tx.init(params)
    for _ in range(2):
        updates, opt_state = jax.jit(tx.update)(params, opt_state, params)
    assert np.all(np.isfinite(updates))
    assert la.slow_params(opt_state).shape == (3,)


MAKERS = {"lookahead": lambda: la.lookahead(SGD), "primal_averaging": lambda: la.primal_averaging(SGD, 0.9, 0.9)}


@pytest.mark.parametrize("name", MAKERS)
def test_init_with_shapes_names_eval_shape(name):
    tx, shapes = MAKERS[name](), {"w": jax.ShapeDtypeStruct((2,), jnp.float32)}
    with pytest.raises(TypeError, match=r"ShapeDtypeStruct.*use jax.eval_shape\(tx.init, params\)"):
        tx.init(shapes)
    assert la.slow_params(jax.eval_shape(tx.init, shapes))["w"].shape == (2,)


@pytest.mark.parametrize(("arguments", "what"), [({}, "neither"), ({"b2": 0.9, "curvature": lambda s: s}, "both")])
def test_the_adaptive_step_size_does_not_guess_b2(arguments, what):
    with pytest.raises(ValueError, match=rf"{what} b2 .* curvature; give b2=.*or curvature="):
        la.adaptive_step_size(**arguments)


@pytest.mark.parametrize(("mu_x", "mu_y", "name"), [(1.5, 0.5, "mu_x"), (0.5, 1.0, "mu_y"), (0.5, -0.1, "mu_y")])
def test_primal_averaging_refuses_weights_out_of_range(mu_x, mu_y, name):
    with pytest.raises(ValueError, match=rf"{name}=.* use a number in \[0, 1"):
        la.primal_averaging(SGD, mu_x, mu_y)


def half(count):
    return 0.5


OUT_OF_RANGE = {
    "b2": lambda: la.adaptive_step_size(b2=1.0),
    "momentum": lambda: la.snoo(SGD, 5, 0.5, 1.5),
    "momentum of diloco": lambda: la.diloco(SGD, momentum=1.0),
}
NO_SCHEDULES = {
    "minimum": lambda: la.adaptive_step_size(minimum=half, b2=0.9),
    "mu_x": lambda: la.primal_averaging(SGD, half, 0.5),
    "mu_y": lambda: la.primal_averaging(SGD, 0.5, half),
    "momentum": lambda: la.snoo(SGD, 5, 0.5, half),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_decays_and_momenta_are_below_one(name):
    with pytest.raises(ValueError, match=rf"{name.split()[0]}=1.* use a number in \[0, 1\)"):
        OUT_OF_RANGE[name]()


@pytest.mark.parametrize("name", NO_SCHEDULES)
def test_a_schedule_is_refused_where_none_is_called(name):
    with pytest.raises(ValueError, match=rf"{name}=<function half.* is a schedule; use a number or an array"):
        NO_SCHEDULES[name]()


def test_pairs_of_fast_and_slow_weights_are_refused_with_what_to_pass():
    pairs = optax.LookaheadParams(jnp.ones(2), jnp.ones(2))
    for call in (lambda: la.lookahead(SGD).init(pairs), lambda: la.lookahead(SGD).update(pairs, None, pairs)):
        with pytest.raises(TypeError, match=r"optax.LookaheadParams, .*pass plain parameters, here params\.fast"):
            call()


def test_no_momentum_may_be_said_as_optax_says_it():
    assert la.slow_params(la.snoo(SGD, 5, 0.5, None).init(jnp.ones(2))).shape == (2,)


def test_an_adaptive_step_size_of_each_worker_is_refused():
    with pytest.raises(ValueError, match=r"axis_name averages.*use a number or a schedule"):
        la.lookahead(SGD, slow_step_size=la.adaptive_step_size(b2=0.9), axis_name="workers")


def test_the_version_is_pyprojects(monkeypatch):
    if la.__version__ != "0+unknown":  # which it is where the package is not installed
        assert la.__version__ == tomllib.loads(PYPROJECT.read_text())["project"]["version"]

    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", not_installed)
    spec = importlib.util.spec_from_file_location("a_copy_of_it", la.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.__version__ == "0+unknown"
