"""Promise: the table of special values holds, other rows do not notice, and nothing ever warns."""

import math
import warnings

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

NAN, INF = np.nan, np.inf

# Widths that put special values into the lanes, the vectors and the tails of a kernel.
WIDE = (4, 8, 17, 64, 100, 1025)


@pytest.mark.parametrize("op", oracle.FORWARD)
def test_table(op, backend, dtype):
    checks.check_special_rows(op, dtype, backend)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("case", inputs.SPECIAL_SINGLES)
def test_one_element(op, case, backend, dtype):
    case = inputs.SPECIAL_SINGLES[case]
    for rows in (1, 40):
        (actual,) = checks.call(op, np.array([case.row] * rows, dtype), backend=backend)
        checks.assert_exact_values(actual, [getattr(case, op)] * rows)
        np.testing.assert_allclose(actual, [getattr(case, op)] * rows, rtol=0)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("n", WIDE)
@pytest.mark.parametrize("value", [NAN, INF])
def test_at_every_place_of_a_wide_row(op, n, value, backend, dtype):
    places = [p for p in (0, 1, n // 2, n - 2, n - 1) if 0 <= p < n]
    x = inputs.width(n, dtype, rows=2 * len(places))
    expected = checks.call(op, x, backend=backend)[0]
    for i, place in enumerate(places):
        x[2 * i, place] = value
    (actual,) = checks.call(op, x, backend=backend)
    checks.assert_same_bits(actual[1::2], expected[1::2])
    answer = INF if (op == "logsumexp" and value == INF) else NAN
    np.testing.assert_array_equal(actual[::2], np.full_like(actual[::2], answer))


@pytest.mark.parametrize("n", WIDE)
def test_mask_in_a_wide_row(n, backend, dtype):
    """-inf takes no part: exactly 0, exactly -inf, and the rest is that of the row without it."""
    x = inputs.width(n, dtype, rows=6)
    x[:, ::2] = -INF
    (y,) = checks.call("softmax", x, backend=backend)
    (logy,) = checks.call("log_softmax", x, backend=backend)
    assert (y[:, ::2] == 0).all()
    assert np.isneginf(logy[:, ::2]).all()
    kept = np.ascontiguousarray(x[:, 1::2])
    checks.assert_close(y[:, 1::2], oracle.longdouble_forward("softmax", kept), dtype)
    checks.assert_close(logy[:, 1::2], oracle.longdouble_forward("log_softmax", kept), dtype)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("name", [n for n in inputs.FAMILIES if n != "masked"])
def test_finite_input_never_gives_nan(op, name, backend, dtype):
    (actual,) = checks.call(op, inputs.FAMILIES[name](dtype), backend=backend)
    assert not np.isnan(actual).any()


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1000.0])
def test_ends_of_the_range(offset, backend):
    x = np.array([1e308, -1e308]) + offset
    np.testing.assert_array_equal(fs.softmax(x, backend=backend), [1, 0])
    np.testing.assert_array_equal(fs.log_softmax(x, backend=backend), [0, -INF])
    assert fs.logsumexp(x, backend=backend) == 1e308


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 3), (0, 0)])
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_empty(shape, axis, backend, dtype):
    x = np.empty(shape, dtype)
    for op in ("softmax", "log_softmax"):
        (y,) = checks.call(op, x, axis, backend=backend)
        assert (y.shape, y.dtype) == (shape, dtype)
    reduced = np.asarray(fs.logsumexp(x, axis, backend=backend))
    desired = np.full(np.sum(x, axis=axis).shape, -INF, dtype)
    np.testing.assert_array_equal(reduced, desired, strict=True)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_empty_derivatives(shape, backend, dtype):
    y = np.empty(shape, dtype)
    for op in oracle.PRODUCTS:
        (dx,) = checks.call(op, y, y, backend=backend)
        assert (dx.shape, dx.dtype) == (shape, dtype)
    for layout in ("batched", "dense"):
        jacobian = fs.softmax_jacobian(y, layout=layout, backend=backend)
        assert jacobian.size == 0
        assert jacobian.shape == ((*shape, shape[-1]) if layout == "batched" else shape * 2)


def test_zero_dimensional_as_scipy(backend, dtype):
    special = pytest.importorskip("scipy.special")
    x = np.array(2.5, dtype)
    for op in oracle.FORWARD:
        actual = getattr(fs, op)(x, backend=backend)
        desired = getattr(special, op)(x)
        assert (np.shape(actual), np.asarray(actual).dtype) == (np.shape(desired), desired.dtype)
        assert actual == desired


def test_zero_dimensional(backend):
    assert fs.softmax(2.5, backend=backend) == 1.0
    assert fs.log_softmax(2.5, backend=backend) == 0.0
    assert fs.logsumexp(2.5, backend=backend) == 2.5
    assert fs.softmax(np.float64(NAN), backend=backend) != 1.0


def test_subnormal_results_are_not_flushed(backend, dtype):
    x = inputs.subnormal_results(dtype)
    (y,) = checks.call("softmax", x, backend=backend)
    checks.assert_not_flushed(y, oracle.exact_forward("softmax", x))
    assert ((y > 0) & (y < np.finfo(dtype).tiny)).any()


@pytest.mark.parametrize("op", [*oracle.PRODUCTS, *oracle.JACOBIANS])
def test_derivatives_at_a_row_of_nan(op, backend, dtype):
    """What the forward op makes of NaN: all NaN again, and its neighbours do not notice."""
    args = [a.copy() for a in oracle.arguments(op, inputs.rng().normal(size=(5, 4)).astype(dtype))]
    (expected,) = checks.call(op, *args, backend=backend)
    args[0][2] = NAN
    (actual,) = checks.call(op, *args, backend=backend)
    assert np.isnan(actual[2]).all()
    checks.assert_same_bits(np.delete(actual, 2, axis=0), np.delete(expected, 2, axis=0))


@pytest.mark.parametrize("op", oracle.PRODUCTS)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_products_with_a_vector_beyond_the_reals(op, value, backend, dtype):
    """No number is made up for its row; which of NaN and infinity each entry gets is not promised."""
    x = inputs.rng().normal(size=(5, 4)).astype(dtype)
    x[3, 1] = 9.0  # dominant
    y, v = oracle.arguments(op, x)
    (expected,) = checks.call(op, y, v, backend=backend)
    for row in (2, 3):
        given = v.copy()
        given[row, 1] = value
        (actual,) = checks.call(op, y, given, backend=backend)
        assert not np.isfinite(actual[row]).any()
        checks.assert_same_bits(np.delete(actual, row, axis=0), np.delete(expected, row, axis=0))


@pytest.mark.parametrize("op", ["softmax_vjp", "softmax_jvp"])
@pytest.mark.parametrize(
    ("y", "g"), [((0.1, 0.9), (1, -1)), ((0.75, 0.25), (1, -1)), ((0.25, 0.25, 0.5), (1, -1, -1))]
)
def test_products_with_cotangents_at_the_ends_of_the_range(op, y, g, backend, dtype):
    """A finite product is finite, though a difference of cotangents is not."""
    top = np.finfo(dtype).max * dtype.type(0.9)
    y, g = np.array([y] * 3, dtype), np.array([g] * 3, dtype) * top
    g[1] = 1  # its neighbours are as ever
    exact = y * ((unit := np.sign(g).astype(np.longdouble)) - (y * unit).sum(axis=1, keepdims=True))
    for axis in (1, 0):
        args = (y, g) if axis == 1 else (np.ascontiguousarray(y.T), np.ascontiguousarray(g.T))
        (dx,) = checks.call(op, *args, axis, backend=backend)
        dx = dx if axis == 1 else dx.T
        checks.assert_close(dx[::2] / top, exact[::2], dtype)
        assert (dx[1] == 0).all()


def test_label_on_a_masked_logit(backend, dtype):
    """Loss inf, gradient finite: softmax - onehot."""
    x = np.array([[0.0, -INF, 1.0], [1.0, 2.0, 3.0]], dtype)
    loss, dx = checks.call("cross_entropy_with_grad", x, [1, 0], backend=backend, reduction="sum")
    assert loss == INF
    assert fs.cross_entropy(x, [1, 0], backend=backend, reduction="sum") == INF
    y = oracle.longdouble_forward("softmax", x)
    checks.assert_close(dx, y - np.eye(3)[[1, 0]], dtype)


def test_every_op_on_every_special_row_is_silent(backend, dtype):
    """No warning, and `np.errstate` neither raises nor changes a bit."""
    rows = np.array([case.row for case in inputs.SPECIAL_ROWS.values()], dtype)
    for x in (rows, inputs.largest_numbers(dtype), inputs.subnormal_results(dtype)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = _every_op(x, backend)
        with np.errstate(all="raise"):
            checks.assert_same_bits(_every_op(x, backend), expected)


def _every_op(x, backend):
    labels = np.zeros(len(x), int)
    results = []
    for op in oracle.OPS:
        args = (x, *([labels] if op.startswith("cross") else [x] if op in oracle.TWO_ARRAYS else []))
        said = oracle.options(op) if op in oracle.SOLVES else {}
        results += checks.as_tuple(getattr(fs, op)(*args, backend=backend, **said))
    return tuple(results)


def test_errstate_of_the_caller_survives(backend):
    with np.errstate(divide="raise", over="ignore"):
        before = np.geterr()
        fs.softmax([NAN, INF], backend=backend)
        assert np.geterr() == before


def test_gradient_of_a_row_with_nan(backend, dtype):
    """A NaN row of the forward output stays in its row."""
    y = np.array([[0.25, 0.75], [NAN, NAN], [0.5, 0.5]], dtype)
    g = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 5.0]], dtype)
    (dx,) = checks.call("softmax_vjp", y, g, backend=backend)
    assert np.isnan(dx[1]).all()
    checks.assert_close(dx[[0, 2]], [[-0.1875, 0.1875], [-0.5, 0.5]], dtype)


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_where(op, backend, dtype):
    """False takes no part, as a -inf; a row with none left is zeros, -inf and -inf."""
    x = inputs.rng().normal(size=(6, 9)).astype(dtype)
    where = inputs.rng(1).random(x.shape) < 0.6
    where[2] = False
    x[~where] = NAN  # whatever is masked out has no say
    masked = np.where(where, x, -INF)
    fill = {"softmax": 0.0, "log_softmax": -INF, "logsumexp": -INF}[op]
    desired = oracle.longdouble_forward(op, masked)
    desired[2] = fill
    if op != "logsumexp":
        desired[~where] = fill
    (actual,) = checks.call(op, x, backend=backend, where=where)
    checks.assert_close(actual, desired, dtype)
    checks.assert_exact_values(actual, desired)


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_where_broadcasts(op, backend, dtype):
    x = inputs.rng().normal(size=(3, 4, 5)).astype(dtype)
    columns = np.array([True, False, True, True, False])
    for where, axis in ((columns, -1), (columns[None, :4, None], 1), (np.True_, 0), (columns, (0, 2))):
        whole = np.broadcast_to(where, x.shape)
        (actual,) = checks.call(op, x, axis, backend=backend, where=where)
        checks.assert_same_bits(actual, checks.call(op, x, axis, backend=backend, where=whole)[0])
        desired = oracle.longdouble_forward(op, np.where(whole, x, -INF), axis)
        checks.assert_close(actual, desired, dtype)


def test_where_keeps_rules_of_what_is_left(backend, dtype):
    """NaN and +inf among the True entries act as in the table."""
    x = np.array([[1, NAN, 2], [1, INF, 2], [NAN, 1, 2], [INF, 1, 2]], dtype)
    where = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]], bool)
    y = fs.softmax(x, where=where, backend=backend)
    assert np.isnan(y[:2]).all()
    checks.assert_close(y[2], [0, 1 / (1 + math.e), math.e / (1 + math.e)], dtype)
    checks.assert_same_bits(y[3], y[2])


@pytest.mark.parametrize("where", [[1, 0, 1], [1.0, 0.0, 1.0], "yes"])
def test_where_is_bool(where, backend):
    with pytest.raises(TypeError, match="where has dtype"):
        fs.softmax([1.0, 2.0, 3.0], where=where, backend=backend)


def test_where_of_another_shape(backend):
    with pytest.raises(ValueError, match=r"where has shape \(4,\).*\(2, 3\)"):
        fs.softmax(np.zeros((2, 3)), where=np.ones(4, bool), backend=backend)
