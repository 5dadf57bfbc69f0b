"""Promise: an op can be used wherever a function can, whether or not it has a compiled short way."""

import copy
import functools
import gc
import inspect
import pickle
import pydoc
import typing
import weakref

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import api, registry
from tests import oracle, processes

NAMES = (*oracle.OPS, *registry.SEGMENTS)
EVERY_OP = pytest.mark.parametrize("op", [getattr(fs, name) for name in NAMES], ids=NAMES)


@EVERY_OP
def test_named_as_a_function(op):
    name = op.__name__
    assert getattr(fs, name) is op
    assert (op.__qualname__, op.__module__) == (name, "fastsoftmax.api")
    assert op.__doc__ == inspect.unwrap(op).__doc__
    assert callable(op)
    assert name in repr(op)
    assert str(inspect.signature(op)) == str(inspect.signature(inspect.unwrap(op)))
    assert op.__wrapped__ is not None
    assert f"def {name}(" in inspect.getsource(op)
    assert inspect.getmodule(op) is api
    assert typing.get_type_hints(op) == {}


@EVERY_OP
def test_weakly_referenced(op):
    """By jax.jit, functools.singledispatch's cache and the like."""
    assert weakref.ref(op)() is op
    table = weakref.WeakKeyDictionary({op: 1})
    gc.collect()
    assert table[op] == 1
    assert weakref.WeakSet([op, op]).pop() is op


@EVERY_OP
def test_hashed_and_compared(op):
    assert len({op, op, fs.softmax}) == (1 if op is fs.softmax else 2)
    assert {op: 1}[getattr(fs, op.__name__)] == 1
    assert op == op
    assert op != op.__wrapped__
    assert functools.lru_cache(lambda f: f.__name__)(op) == op.__name__


@EVERY_OP
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_by_name(op, protocol):
    assert pickle.loads(pickle.dumps(op, protocol)) is op
    partial = pickle.loads(pickle.dumps(functools.partial(op, axis=0), protocol))
    assert partial.func is op


@EVERY_OP
def test_copied_as_itself(op):
    assert copy.copy(op) is op
    assert copy.deepcopy([op])[0] is op


def _in_one_line(text):
    """Without spaces: from 3.13 on a long signature has a line for each argument."""
    return "".join(text.split()).replace(",)", ")")


@EVERY_OP
def test_documented_as_a_function(op):
    """By `help`, and by Sphinx, which ask whether it is a routine."""
    assert inspect.isroutine(op)
    text = pydoc.plain(pydoc.render_doc(op))
    name = op.__name__
    assert text.startswith("Python Library Documentation: ")
    assert _in_one_line(f"{name}{inspect.signature(op)}") in _in_one_line(text)
    assert op.__doc__.splitlines()[0] in text
    assert dict(inspect.getmembers(fs, inspect.isroutine))[name] is op
    page = pydoc.plain(pydoc.render_doc(api))
    assert f"{name}(" in page[page.index("FUNCTIONS") :]


@EVERY_OP
def test_wrapped_and_bound_as_a_function(op):
    """A class that holds one has a method; `staticmethod` keeps it as it is."""

    @functools.wraps(op)
    def wrapper(*args, **kwargs):
        return op(*args, **kwargs)

    assert inspect.signature(wrapper) == inspect.signature(op)
    assert wrapper.__doc__ == op.__doc__

    class Array(np.ndarray):
        method = op
        plain = staticmethod(op)

    assert Array.method is op
    assert Array.plain is op
    args = _arguments(op.__name__, np.array([[0.0, 1.0, 3.0], [2.0, 2.0, 5.0]]))
    array = args[0].view(Array)
    for actual, expected in zip(_flat(array.method(*args[1:])), _flat(op(*args)), strict=True):
        np.testing.assert_array_equal(actual, expected)
    for actual, expected in zip(_flat(array.plain(*args)), _flat(op(*args)), strict=True):
        np.testing.assert_array_equal(actual, expected)


def _arguments(op, x):
    if op not in registry.SEGMENTS:
        return oracle.arguments(op, x)
    return (*(a.ravel() for a in oracle.arguments(registry.SEGMENTS[op], x)), np.array([0, 3, 6]))


def _flat(results):
    return results if isinstance(results, tuple) else (results,)


@EVERY_OP
def test_attributes_can_be_set(op):
    op.of_this_test = 1
    assert op.of_this_test == 1
    del op.of_this_test


def test_the_same_without_compiled_kernels():
    """These tests hold for plain functions as well."""
    code = processes.HIDE_EXTENSIONS + (
        "\nimport sys, pytest, warnings; warnings.simplefilter('default')"
        "\nsys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'no:randomly', '-p', 'no:xdist', "
        f"{__file__!r}, '-k', 'not without_compiled']))"
    )
    assert "passed" in processes.python(code)
