"""The examples in the library's docstrings run and print what they say."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import lookahead_jax as la

MODULES = ["lookahead_jax", *(f"lookahead_jax.{m.name}" for m in pkgutil.iter_modules(la.__path__))]


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    assert doctest.testmod(importlib.import_module(module), verbose=False, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("name", [n for n in la.__all__ if inspect.isfunction(getattr(la, n))])
def test_every_public_function_has_an_example_and_states_its_arguments(name):
    doc = inspect.getdoc(getattr(la, name))
    for section in ("Args:", "Example:"):
        assert section in doc
    assert ("Returns:" in doc) or name == "check_chain"
    for parameter in inspect.signature(getattr(la, name)).parameters:
        assert f"{parameter}:" in doc or f"**{parameter}:" in doc
