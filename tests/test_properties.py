"""Promise: whatever the dtype, layout, axis, shape and values, the answer is the longdouble reference's."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastsoftmax as fs
from tests import checks, inputs, oracle

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SPECIALS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1000.0, -1000.0, 1e-30]


@st.composite
def arrays(draw, specials=True, most_axes=4):
    """An array of awkward values in an awkward layout, and an axis of it."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=most_axes)))
    if draw(st.booleans()):
        shape = (*shape[:-1], draw(st.integers(1, 70)))
    dtype = np.dtype(draw(st.sampled_from([np.float64, np.float32])))
    rng = inputs.rng(draw(st.integers(0, 2**32)))
    x = rng.normal(size=shape) * draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 500.0]))
    x += draw(st.sampled_from([0.0, 1000.0, -1000.0]))
    if specials:
        hit = rng.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.5]))
        x = np.where(hit, rng.choice(SPECIALS, shape), x)
    layout = draw(st.sampled_from([None, *inputs.LAYOUTS]))
    x = x.astype(dtype)
    return (x if layout is None else inputs.LAYOUTS[layout](x)), draw(axes(len(shape)))


def axes(ndim):
    several = st.permutations(range(ndim)).flatmap(lambda p: st.integers(1, ndim).map(lambda n: tuple(p[:n])))
    return st.one_of(st.none(), st.integers(-ndim, ndim - 1), several)


def _reference(op, x, axis):
    """Of the right dtype's values; longdouble's exp is exact to far below an eps of either."""
    native = np.asarray(x).astype(x.dtype.newbyteorder("="))
    with np.errstate(all="ignore"):
        return oracle.longdouble_forward(op, native, axis).astype(native.dtype)


@pytest.mark.parametrize("op", oracle.FORWARD)
@given(case=arrays())
@SETTINGS
def test_forward(op, backend, case):
    x, axis = case
    (actual,) = checks.call(op, x, axis, backend=backend)
    desired = _reference(op, x, axis)
    checks.assert_close(
        actual, desired, desired.dtype, scale=np.max(np.abs(x), where=np.isfinite(x), initial=1.0)
    )
    if op not in oracle.ONE_A_ROW:
        checks.assert_close(actual, desired, desired.dtype)


@given(case=arrays(), seed=st.integers(0, 99))
@SETTINGS
def test_where(backend, case, seed):
    x, axis = case
    where = inputs.rng(seed).random(x.shape) < 0.7
    masked = np.where(where, x, -np.inf).astype(x.dtype.newbyteorder("="))
    desired = _reference("softmax", masked, axis)
    none_left = ~np.any(where, axis=axis, keepdims=True)
    desired = np.where(where, desired, 0).astype(desired.dtype)
    desired[np.broadcast_to(none_left, x.shape)] = 0
    checks.assert_close(
        checks.call("softmax", x, axis, backend=backend, where=where)[0], desired, desired.dtype
    )


@given(case=arrays(specials=False), seed=st.integers(0, 99))
@SETTINGS
def test_product(backend, case, seed):
    """dx = y * (g - sum(g * y)), to the size of what is summed."""
    x, axis = case
    native = np.asarray(x).astype(x.dtype.newbyteorder("="))
    g = inputs.rng(seed).normal(size=x.shape).astype(native.dtype)
    y = _reference("softmax", native, axis)
    exact = oracle.longdouble_forward("softmax", native, axis)
    desired = exact * (g - (g * exact).sum(axis=axis, keepdims=True))
    (actual,) = checks.call("softmax_vjp", y, g, axis, backend=backend)
    checks.assert_close(actual, desired, native.dtype, scale=np.max(np.abs(g)))
    checks.assert_same_bits(checks.call("softmax_jvp", y, g, axis, backend=backend)[0], actual)


@given(case=arrays(specials=False, most_axes=2))  # n is up to 420: of all axes together
@SETTINGS
def test_jacobian(backend, case):
    x, axis = case
    y = _reference("softmax", x, axis)
    (actual,) = checks.call("softmax_jacobian", y, axis, backend=backend)
    kept, rows, n = oracle.rows_of(oracle.longdouble_forward("softmax", x, axis), axis)
    desired = rows[:, :, None] * (np.eye(n) - rows[:, None, :])
    checks.assert_close(actual, desired.reshape(*kept, n, n), y.dtype)


@given(case=arrays(specials=False), seed=st.integers(0, 99))
@SETTINGS
def test_cross_entropy(backend, case, seed):
    x, axis = case
    (labels,) = oracle.extra_inputs("cross_entropy", x, axis, seed)
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, axis, backend=backend, reduction="none")
    _, rows, n = oracle.rows_of(np.asarray(x, np.longdouble), axis)
    flat = labels.reshape(-1)
    desired = -oracle.longdouble_forward("log_softmax", rows)[np.arange(len(rows)), flat]
    dtype = x.dtype.newbyteorder("=")
    checks.assert_close(np.reshape(loss, -1), desired, dtype)
    desired = oracle.longdouble_forward("softmax", rows) - np.eye(n)[flat]
    checks.assert_close(oracle.rows_of(dx, axis)[1], desired, dtype)


@given(case=arrays())
@SETTINGS
def test_inputs_are_not_written(backend, case):
    x, axis = case
    before = x.tobytes()
    fs.softmax(x, axis, backend=backend)
    assert x.tobytes() == before
