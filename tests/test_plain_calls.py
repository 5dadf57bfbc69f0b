"""Promise: a call that names no backend is the fastest backend's, to the bit and to the words of its errors.

Small plain calls may take a shorter way to the kernels; nothing but the time may show it.
"""

import warnings

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, processes


def _named(op, *args, **kwargs):
    """The same call, told to take the backend that speed chooses."""
    return getattr(fs, op)(*args, backend=fs.explain(op, np.shape(args[0])).backend, **kwargs)


def _assert_same(op, *args, **kwargs):
    plain = checks.as_tuple(getattr(fs, op)(*args, **kwargs))
    named = checks.as_tuple(_named(op, *args, **kwargs))
    assert [type(a) for a in plain] == [type(a) for a in named]
    checks.assert_same_bits(plain, named)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("name", [*inputs.FAMILIES, *(n for n in inputs.WIDTHS if n <= 100)], ids=str)
def test_values(op, name, dtype):
    x = inputs.width(name, dtype) if isinstance(name, int) else inputs.FAMILIES[name](dtype)
    _assert_same(op, *oracle.arguments(op, x))


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize(("shape", "axis"), inputs.SHAPES, ids=str)
def test_axes(op, shape, axis, dtype):
    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)
    _assert_same(op, *args, axis)
    _assert_same(op, *args, axis=axis)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("layout", inputs.LAYOUTS)
def test_layouts(op, layout, dtype):
    for shape in ((4, 6), (40, 5)):
        args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype))
        _assert_same(op, *[inputs.LAYOUTS[layout](a) for a in args])
        _assert_same(op, *[a.tolist() for a in args])


@pytest.mark.parametrize("op", oracle.PRODUCTS)
def test_one_array_twice(op, dtype):
    (y,) = oracle.arguments("softmax_jacobian", inputs.rng().normal(size=(4, 6)).astype(dtype))
    _assert_same(op, y, y)
    checks.assert_same_bits(getattr(fs, op)(y, y), getattr(fs, op)(y, y.copy()))


@pytest.mark.parametrize("op", oracle.OPS)
def test_special_rows_are_silent(op, dtype):
    x = np.array([case.row for case in inputs.SPECIAL_ROWS.values()], dtype)
    args = (x, x) if op in oracle.PRODUCTS else (x, *oracle.extra_inputs(op, x))
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        _assert_same(op, *args)


@pytest.mark.parametrize("op", oracle.TAKE_OUT)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_out(op, axis, dtype):
    args = oracle.arguments(op, inputs.rng().normal(size=(4, 6, 5)).astype(dtype), axis)
    expected = checks.as_tuple(_named(op, *args, axis=axis))
    out = checks.poisoned(expected[-1].shape, dtype)
    results = checks.as_tuple(getattr(fs, op)(*args, axis=axis, out=out))
    assert results[-1] is out
    checks.assert_same_bits(results, expected)


BAD_CALLS = [
    lambda op, args: ((args[0].astype(complex), *args[1:]), {}),
    lambda op, args: ((args[0].astype(object), *args[1:]), {}),
    lambda op, args: ((np.ma.array(args[0]), *args[1:]), {}),
    lambda op, args: (args, {"axis": 2}),
    lambda op, args: (args, {"axis": (0, 0)}),
    lambda op, args: (args, {"axis": 1.0}),
    lambda op, args: (args, {"axis": True}),
    lambda op, args: (args, {"num_threads": 0}),
    lambda op, args: (args, {"no_such_option": 1}),
    lambda op, args: (args, {"out": None}),  # which one op does not take
    lambda op, args: ((*args, 0), {"out": None}),
    lambda op, args: (args, {"out": None, "axis": 0}),
    lambda op, args: (args, {"out": [0.0]}),
    lambda op, args: ((args[0], *(np.ma.array(a) for a in args[1:])), {}),
    lambda op, args: ((args[0][:0], *args[1:]), {"num_threads": -4}),
    lambda op, args: ((), {}),
    lambda op, args: ((args[0], *(np.ones(99, a.dtype) for a in args[1:])), {}),
    lambda op, args: ((args[0], *(a + 99 for a in args[1:])), {}),
    lambda op, args: ((args[0], *(np.array(["a"]) for _ in args[1:])), {}),
]


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("bad", range(len(BAD_CALLS)))
def test_errors(op, bad):
    args, kwargs = BAD_CALLS[bad](op, oracle.arguments(op, inputs.rng().normal(size=(4, 6))))
    assert _error(getattr(fs, op), args, kwargs) == _error(_kept_long(op), args, kwargs)


def _kept_long(op):
    """The op told its backend, which is the long way."""
    backend = fs.available_backends()[0]
    return lambda *args, **kwargs: getattr(fs, op)(*args, backend=backend, **kwargs)


def _error(function, args, kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:  # whatever it is, both ways must raise it
        return type(error), str(error)
    return None


def test_the_environment_reaches_plain_calls():
    code = """
import numpy as np, fastsoftmax as fs
from fastsoftmax import registry
registry._kernels["softmax", "python"] = lambda x, out: out.fill(7.0)
print(fs.softmax(np.zeros((2, 3)))[0, 0])
"""
    assert processes.python(code, FASTSOFTMAX_BACKEND="python").strip() == "7.0"


def test_settings_reach_plain_calls():
    """`use_backend`, `set_backend` and a backend of higher priority are noticed at once."""
    calls = []
    kernel = {"softmax": lambda x, out: (calls.append(1), out.fill(7.0))}
    x = np.zeros((2, 3))
    fs.register_backend("mine", kernel, priority=-1)
    assert fs.softmax(x)[0, 0] != 7.0
    with fs.use_backend("mine"):
        assert fs.softmax(x)[0, 0] == 7.0
    assert fs.softmax(x)[0, 0] != 7.0
    fs.set_backend("mine")
    assert fs.softmax(x)[0, 0] == 7.0
    fs.set_backend(None)
    assert fs.softmax(x)[0, 0] != 7.0
    fs.register_backend("mine", kernel, priority=10_000)
    assert fs.softmax(x)[0, 0] == 7.0
    assert len(calls) == 3
