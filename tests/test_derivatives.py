"""Promise: the derivatives are derivatives: identities that hold whatever the numbers."""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

SHAPES = [(1, 5), (35, 5), (7, 33), (3, 100)]


def _forward(op, x, backend):
    (y,) = checks.call(oracle.PRODUCTS.get(op, op), x, backend=backend)
    return y


def _vector(x, seed):
    return inputs.rng(seed).normal(size=x.shape).astype(x.dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_with_the_jacobian(shape, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    y, v = _forward("softmax", x, backend), _vector(x, 1)
    (jacobian,) = checks.call("softmax_jacobian", y, backend=backend)
    desired = np.einsum("pij,pj->pi", jacobian.astype(np.float64), v.astype(np.float64))
    for op in ("softmax_vjp", "softmax_jvp"):
        checks.assert_close(checks.call(op, y, v, backend=backend)[0], desired, dtype, scale=4)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_log_softmax_are_with_its_jacobian(shape, backend, dtype):
    """J = I - 1 y^T; the VJP takes its transpose."""
    x = inputs.rng().normal(size=shape).astype(dtype)
    logy, v = _forward("log_softmax", x, backend), _vector(x, 1)
    n = shape[1]
    jacobian = np.eye(n) - np.exp(logy.astype(np.float64))[:, None, :]
    scale = 4 * np.sqrt(n)
    (jvp,) = checks.call("log_softmax_jvp", logy, v, backend=backend)
    checks.assert_close(jvp, np.einsum("pij,pj->pi", jacobian, v.astype(np.float64)), dtype, scale)
    (vjp,) = checks.call("log_softmax_vjp", logy, v, backend=backend)
    checks.assert_close(vjp, np.einsum("pji,pj->pi", jacobian, v.astype(np.float64)), dtype, scale)


@pytest.mark.parametrize("forward", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", SHAPES)
def test_adjoint(forward, shape, backend, dtype):
    """<g, J t> = <J^T g, t>."""
    x = inputs.rng().normal(size=shape).astype(dtype)
    y, g, t = _forward(forward, x, backend), _vector(x, 1), _vector(x, 2)
    (jvp,) = checks.call(f"{forward}_jvp", y, t, backend=backend)
    (vjp,) = checks.call(f"{forward}_vjp", y, g, backend=backend)
    left = np.vecdot(g.astype(np.float64), jvp.astype(np.float64))
    right = np.vecdot(vjp.astype(np.float64), t.astype(np.float64))
    np.testing.assert_allclose(left, right, rtol=0, atol=100 * shape[1] * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", inputs.FAMILIES)
@pytest.mark.parametrize("constant", [1.0, -3.7, 1e30])
def test_constant_cotangent_gives_exactly_zero(name, constant, backend, dtype):
    y = _forward("softmax", inputs.FAMILIES[name](dtype), backend)
    checks.check_constant_cotangent(y, constant, backend)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_sum_to_zero(shape, backend, dtype):
    """1^T J = 0 for softmax, and for the cotangents that log-softmax returns."""
    x = inputs.rng().normal(size=shape).astype(dtype) * 5
    for op in ("softmax_vjp", "softmax_jvp", "log_softmax_vjp"):
        (dx,) = checks.call(op, _forward(op, x, backend), _vector(x, 1), backend=backend)
        total = dx.astype(np.float64).sum(axis=1)
        np.testing.assert_allclose(total, 0, atol=10 * shape[1] * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", inputs.FAMILIES)
def test_jacobian_is_symmetric_with_rows_of_sum_zero(name, backend, dtype):
    y = _forward("softmax", inputs.FAMILIES[name](dtype)[:50], backend)
    (jacobian,) = checks.call("softmax_jacobian", y, backend=backend)
    checks.assert_same_bits(jacobian.swapaxes(-1, -2).copy(), jacobian)
    sums = jacobian.astype(np.float64).sum(axis=-1)
    np.testing.assert_allclose(sums, 0, atol=8 * np.finfo(dtype).eps)
    diagonal = np.einsum("pii->pi", jacobian)
    assert (diagonal >= 0).all()


@pytest.mark.parametrize("n", [2, 5, 17, 100])
def test_shift_invariance(n, backend, dtype):
    """By a power of two that moves no bit of x, the result is the same to the bit."""
    x = inputs.rng().integers(-64, 64, (9, n)).astype(dtype) / 4
    for op in ("softmax", "log_softmax"):
        (plain,) = checks.call(op, x, backend=backend)
        for shift in (1024.0, -1024.0, 65536.0):
            checks.assert_close(checks.call(op, x + dtype.type(shift), backend=backend)[0], plain, dtype)
    (lse,) = checks.call("logsumexp", x, backend=backend)
    (moved,) = checks.call("logsumexp", x + dtype.type(1024), backend=backend)
    checks.assert_close(moved, lse.astype(np.float64) + 1024, dtype)


@pytest.mark.parametrize(
    "op", ["softmax", "log_softmax", "softmax_vjp", "log_softmax_vjp", "log_softmax_jvp"]
)
@pytest.mark.parametrize("n", [5, 33, 100])
def test_permutation_equivariance(op, n, backend, dtype):
    x = inputs.width(n, dtype, rows=6)
    order = inputs.rng(7).permutation(n)
    args = [_forward(op, x, backend) if op in oracle.PRODUCTS else x]
    args += [_vector(x, 1)] if op in oracle.PRODUCTS else []
    (plain,) = checks.call(op, *args, backend=backend)
    (permuted,) = checks.call(op, *(a[:, order].copy() for a in args), backend=backend)
    checks.assert_close(permuted, plain[:, order], dtype, scale=np.sqrt(n))


@pytest.mark.parametrize("pad", [1, 3, 30])
def test_padding_by_minus_infinity(pad, backend, dtype):
    """Rows of different lengths in one batch: padding changes nothing and gets nothing."""
    x = inputs.width(9, dtype, rows=6)
    padded = np.concatenate([x, np.full((6, pad), -np.inf, dtype)], axis=1)
    for op in ("softmax", "log_softmax", "logsumexp"):
        (plain,) = checks.call(op, x, backend=backend)
        (wide,) = checks.call(op, padded, backend=backend)
        checks.assert_close(wide if op == "logsumexp" else wide[:, :9], plain, dtype)
    y = _forward("softmax", padded, backend)
    (dx,) = checks.call("softmax_vjp", y, _vector(padded, 1), backend=backend)
    assert (dx[:, 9:] == 0).all()
    (jacobian,) = checks.call("softmax_jacobian", y, backend=backend)
    assert (jacobian[:, 9:] == 0).all()
    assert (jacobian[:, :, 9:] == 0).all()


def test_log_of_softmax_is_log_softmax(backend, dtype):
    x = inputs.sources_100x5(dtype)
    y, logy = _forward("softmax", x, backend), _forward("log_softmax", x, backend)
    checks.assert_close(np.exp(logy), y, dtype, scale=4)
    lse = fs.logsumexp(x, keepdims=True, backend=backend)
    checks.assert_close(x - lse, logy, dtype, scale=30)


def test_second_order_by_central_differences(backend):
    """d/dx of the VJP, through the forward pass: y'_i = J t, differentiated once more by hand."""
    x = inputs.rng().normal(size=(4, 6))
    g, t = inputs.rng(1).normal(size=(2, 4, 6))
    h = 1e-5

    def vjp_at(z):
        return fs.softmax_vjp(fs.softmax(z, backend=backend), g, backend=backend)

    difference = (vjp_at(x + h * t) - vjp_at(x - h * t)) / (2 * h)
    y = fs.softmax(x, backend=backend)
    dy = fs.softmax_jvp(y, t, backend=backend)
    # d [y * (g - <g, y>)] = dy * (g - <g, y>) - y * <g, dy>
    dot, ddot = (np.vecdot(g, a)[:, None] for a in (y, dy))
    np.testing.assert_allclose(dy * (g - dot) - y * ddot, difference, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("forward", ["softmax", "log_softmax"])
def test_first_order_by_central_differences(forward, backend):
    x = inputs.rng().normal(size=(4, 6))
    t = inputs.rng(1).normal(size=x.shape)
    h = 1e-5
    difference = (_forward(forward, x + h * t, backend) - _forward(forward, x - h * t, backend)) / (2 * h)
    (jvp,) = checks.call(f"{forward}_jvp", _forward(forward, x, backend), t, backend=backend)
    np.testing.assert_allclose(jvp, difference, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_gradient_by_central_differences(reduction, backend):
    x, labels = inputs.rng().normal(size=(5, 4)), np.array([0, 3, 1, 2, 2])
    options = {
        "reduction": reduction,
        "label_smoothing": 0.2,
        "weight": np.array([1.0, 0.5, 2.0, 3.0]),
        "ignore_index": 1,
        "backend": backend,
    }
    _, dx = fs.cross_entropy_with_grad(x, labels, **options)
    h = 1e-5
    for i, j in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i, j] = h
        up, down = (fs.cross_entropy(x + s * e, labels, **options) for s in (1, -1))
        assert dx[i, j] == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-9)


def test_cross_entropy_through_log_softmax(backend, dtype):
    """The gradient of the loss is the VJP of log-softmax with -onehot."""
    x = inputs.sources_100x5(dtype)
    (labels,) = oracle.extra_inputs("cross_entropy", x)
    _, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, reduction="sum")
    onehot = np.eye(5, dtype=dtype)[labels]
    (vjp,) = checks.call("log_softmax_vjp", _forward("log_softmax", x, backend), -onehot, backend=backend)
    checks.assert_close(dx, vjp, dtype, scale=4)


def test_gradient_through_a_loss(backend):
    """The sources' example: L = sum(a^2), dL/dZ = S * (G - (G * S) 1)."""
    z = inputs.sources_100x5(np.float64)
    s = fs.softmax(z, backend=backend)
    g = 2 * s
    dz = fs.softmax_vjp(s, g, backend=backend)
    checks.assert_close(dz, s * (g - (g * s).sum(axis=1, keepdims=True)), np.float64)


@pytest.mark.parametrize("op", oracle.PRODUCTS)
@pytest.mark.parametrize("n", [1000, 65_537, 140_000])
def test_an_infinite_cotangent_in_a_long_row(op, n, backend, dtype):
    """Its sum is infinite: of long rows, which are gone over in pieces, too."""
    if checks.is_slow(backend):
        n = min(n, 70_000)
    y = np.full(n, 1 / n, dtype)
    g = np.ones(n, dtype)
    g[7] = np.inf
    first = np.log(y) if op.startswith("log") else y
    result = getattr(fs, op)(first, g, backend=backend)
    assert np.isnan(result[7])
    assert np.isneginf(np.delete(result, 7)).all()


def test_largest_cotangents_that_cancel(backend):
    """Two of them overflow in float32, all together do not."""
    largest = np.finfo(np.float32).max
    for n in (2, 5, 8, 64, 100, 1000, 70_000):
        g = np.where(np.arange(n) % 4 < 2, 1, -1).astype(np.float32) * largest
        g[n // 4 * 4 :] = 0
        logy = np.full(n, -np.log(n), np.float32)
        for shape, axis in (((n,), 0), ((n, 1), 0), ((1, n), 1)):
            result = fs.log_softmax_vjp(logy.reshape(shape), g.reshape(shape), axis, backend=backend)
            np.testing.assert_array_equal(result.ravel(), g)
