"""Promise: a call that names no backend is the fastest backend's, to the bit and to the words of its errors.

Small plain calls may take a shorter way to the kernels; nothing but the time may show it.
"""

import warnings

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, processes


def _long_way(op):
    """The function that is called where the compiled short way does not know what is asked for."""
    function = getattr(fs, op)
    return getattr(function, "__wrapped__", function)


def _assert_same(op, *args, **kwargs):
    plain = checks.as_tuple(getattr(fs, op)(*args, **kwargs))
    long = checks.as_tuple(_long_way(op)(*args, **kwargs))
    assert [type(a) for a in plain] == [type(a) for a in long]
    checks.assert_same_bits(plain, long)


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
        _assert_same(op, *[a.tolist() for a in args], **oracle.options(op))


VIEWS = {
    "columns left out": lambda rows, n: (inputs.rng().normal(size=(rows, n + 3))[:, 1 : n + 1], 1),
    "rows left out": lambda rows, n: (inputs.rng().normal(size=(2 * rows, n))[::2], 1),
    "backwards": lambda rows, n: (inputs.rng().normal(size=(rows, n + 1))[::-1, :n], 1),
    "one row again and again": lambda rows, n: (np.broadcast_to(inputs.rng().normal(size=n), (rows, n)), 1),
    "inner left out": lambda rows, n: (inputs.rng().normal(size=(3, n, rows + 2))[..., 1 : rows + 1], 1),
    "outer and entries left out": lambda rows, n: (inputs.rng().normal(size=(6, n + 1, rows))[::2, 1:], 1),
    "four axes": lambda rows, n: (inputs.rng().normal(size=(2, 3, n + 2, rows))[:, :2, :n], 2),
    "transposed": lambda rows, n: (inputs.rng().normal(size=(n, rows)).T, 1),
}


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("view", VIEWS)
def test_rows_apart(op, view, dtype):
    """The bits are those of the same rows without gaps."""
    for rows, n in ((1, 10), (7, 1), (33, 3), (70, 5), (70, 17), (7, 40), (5, 200)):
        x, axis = VIEWS[view](rows, n)
        x = x if x.dtype == dtype else _like(x, dtype)
        first, *others = oracle.arguments(op, x, axis)
        spread = [
            _like(x, dtype, values) if values.shape == x.shape else values for values in (first, *others)
        ]
        expected = checks.as_tuple(_long_way(op)(first, *others, axis=axis))
        for args in (spread, [first, *spread[1:]], [spread[0], *others]):
            checks.assert_same_bits(checks.as_tuple(getattr(fs, op)(*args, axis=axis)), expected)


def _like(x, dtype, values=None):
    """The values of x, or others, in an array that lies as x does."""
    if 0 in x.strides:
        values = (x if values is None else values).astype(dtype)
        return np.broadcast_to(values[0], x.shape) if (values == values[0]).all() else values
    base = np.zeros(x.base.shape, dtype)
    scale = base.itemsize / x.itemsize
    at = (x.__array_interface__["data"][0] - x.base.__array_interface__["data"][0]) * scale
    view = np.ndarray(x.shape, dtype, base, int(at), [int(s * scale) for s in x.strides])
    view[...] = x if values is None else values
    return view


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
    expected = checks.as_tuple(_long_way(op)(*args, axis=axis))
    out = checks.poisoned(expected[-1].shape, dtype)
    results = checks.as_tuple(getattr(fs, op)(*args, axis=axis, out=out))
    assert results[-1] is out
    checks.assert_same_bits(results, expected)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("num_threads", [1, 2, 3, np.int64(2), None])
def test_backends_and_threads(op, num_threads, dtype):
    backend = fs.available_backends()[0]
    for shape in ((32, 10), (3000, 40)):
        args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype))
        _assert_same(op, *args, backend=backend, num_threads=num_threads)
        with fs.use_backend(backend), fs.threads(2):
            _assert_same(op, *args, num_threads=num_threads)


FACTORS = {
    "each its own": lambda shape: inputs.rng().normal(size=shape),
    "one a column": lambda shape: inputs.rng().normal(size=shape[-1]),
    "one a row": lambda shape: inputs.rng().normal(size=(*shape[:-1], 1)),
    "with an axis more": lambda shape: inputs.rng().normal(size=(1, *shape)),
    "0-d": lambda shape: np.array(2.0),
    "transposed": lambda shape: inputs.rng().normal(size=shape[::-1]).T,
    "some 0, none, infinite": lambda shape: inputs.rng().choice([0.0, np.nan, np.inf, -1.0, 1.0], shape),
}


@pytest.mark.parametrize("kind", FACTORS)
def test_factors(kind, backend, dtype):
    for shape, axis in (((4, 6), -1), ((40, 5), 0), ((3, 4, 5), (0, 2)), ((2, 3, 70), None)):
        x = inputs.rng().normal(size=shape).astype(dtype)
        b = FACTORS[kind](shape).astype(dtype)
        for options in ({}, {"keepdims": True}, {"where": x > 0}, {"backend": backend}):
            _assert_factors_same(x, axis, b=b, **options)
        _assert_factors_same(x, axis, b=b.tolist(), backend=backend)
        _assert_factors_same(x.astype(np.float16), axis, b=b.astype(np.float16), backend=backend)
        _assert_factors_same((9 * x).astype(np.int64), axis, b=b > 0, backend=backend)


def _assert_factors_same(x, axis, b, **options):
    """Or the same error: what has an axis more does not broadcast."""
    if np.ndim(b) > x.ndim:
        with pytest.raises(ValueError, match="does not broadcast"):
            fs.logsumexp(x, axis, b=b, **options)
    else:
        _assert_same("logsumexp", x, axis, b=b, **options)


@pytest.mark.parametrize("ridge", [1e-3, 2.0, 1, 0.0, 1e-60, 1e39, -1.0, float("nan"), None, "1"])
def test_ridges(ridge, dtype):
    """Those that are positive and finite in what is computed with go the short way, on any backend."""
    for shape, axis in (((32, 10), -1), ((3, 40, 5), 1), ((400, 300), 0)):
        args = oracle.arguments("softmax_solve", inputs.rng().normal(size=shape).astype(dtype), axis)
        for options in (
            {},
            {"axis": axis},
            {"axis": axis, "backend": "numpy"},
            {"axis": axis, "num_threads": 2},
        ):
            given = args, {"ridge": ridge, **options}
            assert _error(fs.softmax_solve, *given) == _error(_long_way("softmax_solve"), *given)
            if _error(fs.softmax_solve, *given) is None:
                _assert_same("softmax_solve", *args, ridge=ridge, **options)


LABELS = {
    "int8": lambda labels: labels.astype(np.int8),
    "uint8": lambda labels: labels.astype(np.uint8),
    "int32": lambda labels: labels.astype(np.int32),
    "uint64": lambda labels: labels.astype(np.uint64),
    "big-endian": lambda labels: labels.astype(">i8"),
    "strided": lambda labels: np.repeat(labels, 2, axis=-1)[..., ::2],
    "list": lambda labels: labels.tolist(),
}


@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_with_grad"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(op, kind, dtype):
    for shape, axis in (((40, 10), -1), ((3, 10, 4), 1), ((1000, 3), 1)):
        x = inputs.rng().normal(size=shape).astype(dtype)
        (labels,) = oracle.extra_inputs(op, x, axis)
        before = labels.copy()
        for ignore_index in (None, 1, -100, 2**31, -(2**63)):
            _assert_same(op, x, LABELS[kind](labels), axis=axis, ignore_index=ignore_index)
            _assert_same(op, x, labels, axis=axis, ignore_index=ignore_index)
        assert (labels == before).all()


def _weights(dtype):
    weight = inputs.rng().uniform(size=10)
    yield from (
        weight.astype(dtype),
        weight,
        weight.tolist(),
        weight.astype(dtype)[::-1],
        np.zeros(10, dtype),
    )
    for value in (np.inf, np.nan, 0.0):
        weight = weight.copy()
        weight[3] = value
        yield weight.astype(dtype)


@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_with_grad"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0, 1])
def test_losses(op, reduction, smoothing, dtype):
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for shape, axis in (((40, 10), -1), ((3, 10, 4), 1), ((10,), 0), ((2000, 10), -1)):
        x = inputs.rng().normal(size=shape).astype(dtype)
        (labels,) = oracle.extra_inputs(op, x, axis)
        for weight in (None, *_weights(dtype)):
            for ignore_index in (None, 3):
                _assert_same(op, x, labels, axis=axis, weight=weight, ignore_index=ignore_index, **options)
        _assert_same(op, x, np.zeros_like(labels), axis=axis, ignore_index=0, **options)


def test_a_gradient_in_its_place(dtype):
    """Which may be that of the logits, but not of labels or weights."""
    x = inputs.rng().normal(size=(40, 10)).astype(dtype)
    labels, weight = inputs.rng().integers(0, 10, 40), inputs.rng().uniform(size=10).astype(dtype)
    expected = _long_way("cross_entropy_with_grad")(x, labels, weight=weight)
    for place in ("apart", "x", "labels", "weight"):
        x_here, labels_here, weight_here, out = x.copy(), labels, weight, checks.poisoned((40, 10), dtype)
        if place == "x":
            out = x_here
        if place == "labels":
            labels_here = out.reshape(-1).view(np.intp)[-40:]
            labels_here[...] = labels
        if place == "weight":
            weight_here = out[-1]
            weight_here[...] = weight
        loss, dx = fs.cross_entropy_with_grad(x_here, labels_here, weight=weight_here, out=out)
        assert dx is out
        checks.assert_same_bits((loss, dx), expected)


BAD_CALLS = [
    lambda op, args: ((args[0].astype(complex), *args[1:]), {}),
    lambda op, args: ((args[0].astype(object), *args[1:]), {}),
    lambda op, args: ((np.ma.array(args[0]), *args[1:]), {}),
    lambda op, args: (args, {"axis": 2}),
    lambda op, args: (args, {"axis": (0, 0)}),
    lambda op, args: (args, {"axis": 1.0}),
    lambda op, args: (args, {"axis": True}),
    lambda op, args: (args, {"num_threads": 0}),
    lambda op, args: (args, {"num_threads": 1.5}),
    lambda op, args: (args, {"num_threads": True}),
    lambda op, args: (args, {"backend": "no such"}),
    lambda op, args: (args, {"backend": 3}),
    lambda op, args: (args, {"weight": np.ones(7)}),
    lambda op, args: (args, {"weight": np.ones((6, 1))}),
    lambda op, args: (args, {"ignore_index": 1.0}),
    lambda op, args: (args, {"ignore_index": [1]}),
    lambda op, args: (args, {"reduction": "no such"}),
    lambda op, args: (args, {"label_smoothing": 1.5}),
    lambda op, args: (args, {"label_smoothing": np.nan}),
    lambda op, args: ((*args, -1), {"axis": -1}),
    lambda op, args: (
        (args[0], *(np.full(a.shape, 2**64 - 100, np.uint64) for a in args[1:])),
        {"ignore_index": -100},
    ),
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
    assert _error(getattr(fs, op), args, kwargs) == _error(_long_way(op), args, kwargs)


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
