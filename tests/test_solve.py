"""Promise: `softmax_solve` is within its bound of the exact solution, and refuses a `b` that has none."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax._solvable import _sums
from tests import checks, inputs, oracle

RIDGES = (1e-30, 1e-12, 1e-7, 1e-3, 0.25, 3.0, 1e6)
NAN, INF = np.nan, np.inf


def _system(x):
    """A softmax output and a product with its Jacobian."""
    return oracle.arguments("softmax_solve", x)


def _vectors(y):
    """Others, which need a ridge: of one size and of many, sums that nearly vanish, a gradient."""
    m, n = y.shape
    rng = inputs.rng(n)
    wide = rng.choice([-1.0, 1.0], y.shape) * 2.0 ** rng.integers(-60, 3, y.shape)
    pairs = wide.copy()
    pairs[:, 1 : n // 2 * 2 : 2] = -pairs[:, : n // 2 * 2 : 2]
    onehot = np.eye(n)[rng.integers(0, n, m)]
    return [v.astype(y.dtype) for v in (rng.normal(size=y.shape), wide, pairs, y - onehot, np.ones_like(y))]


@pytest.mark.parametrize("name", [*inputs.FAMILIES, 1, 2, 7, 8, 17, 33, 65], ids=str)
def test_bound(name, backend, dtype):
    x = inputs.width(name, dtype, rows=3) if isinstance(name, int) else inputs.FAMILIES[name](dtype)[:3]
    y, b = _system(x)
    checks.check_solutions(y, b, 0.0, backend)
    for ridge in RIDGES:
        for v in (b, *_vectors(y)):
            checks.check_solutions(y, v, ridge, backend)


@pytest.mark.parametrize("n", [1, 3, 40, 200])
def test_bound_along_the_first_axis(n, backend, dtype):
    y, b = _system((inputs.rng(n).normal(size=(9, n)) * 5).astype(dtype))
    for ridge in (0.0, 1e-7, 0.25):
        checks.check_solutions(y, b, ridge, backend, axis=0)


def _structured(n, dtype):
    """Rows of few distinct numbers: dominated, equal, with roundings of one sign; and right-hand sides."""
    half = n // 2
    dominated = np.full(n, 2.0**-40 / n)
    dominated[half] = 1.0
    two = np.where(np.arange(n) < half, 1.2 / n, 0.8 / n)
    rows = np.array([dominated, np.full(n, 1 / n), two, np.roll(dominated, 7)]).astype(dtype)
    thirds = np.where(np.arange(n) % 2, 1 / 3, -1 / 3)
    spike = np.full(n, 2.0**-30 / 3)
    spike[half] = 1.0
    cancelling = np.full(n, 2.0**-60 / 3)
    cancelling[:2] = 1.0, -1.0
    return rows, np.array([thirds, spike, cancelling, np.full(n, 0.1)]).astype(dtype)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("ridge", [1e-25, 1e-12, 1e-6, 0.1, 30.0])
def test_bound_of_long_rows(ridge, axis, backend, dtype):
    n = 2_000 if checks.is_slow(backend) else 200_001
    rows, vectors = _structured(n, dtype)
    for b in vectors:
        checks.check_solutions(rows, np.broadcast_to(b, rows.shape), ridge, backend, axis)


def test_bound_of_a_million_entries(backend, dtype):
    """Sums are made of parts by then."""
    if checks.is_slow(backend):
        pytest.skip("naive loops take seconds")
    rows, vectors = _structured(1_200_007, dtype)
    for ridge in (1e-12, 0.1):
        checks.check_solutions(rows[:1], vectors[:1], ridge, backend)
        checks.check_solutions(rows[1:2], vectors[2:3], ridge, backend)


def test_bound_at_entries_as_large_as_the_ridge(backend, dtype):
    """On both sides of where a share is formed otherwise."""
    y = np.array([[0.125, 0.125, 0.25, 0.5]], dtype)
    b = np.array([[1.0, -3.0, 1e-3, 2.0]], dtype)
    one = dtype.type(0.125)
    for ridge in (one, np.nextafter(one, dtype.type(0)), np.nextafter(one, dtype.type(1))):
        checks.check_solutions(y, b, float(ridge), backend)


def test_subnormal_entries(backend, dtype):
    """Without a ridge they are divided by, and their inverse is out of range."""
    tiny = np.finfo(dtype).smallest_subnormal
    y = np.array([[tiny, 8 * tiny, 0.5, 0.5]], dtype)
    b = np.array([[3 * tiny, -8 * tiny, 1e-3, -1e-3]], dtype)
    checks.check_solutions(y, b, 0.0, backend)
    checks.check_solutions(y, b, 1e-30, backend)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.25, 3.0])
@pytest.mark.parametrize("name", ["sources_100x5", "offset_rows", "one_dominant", 9, 33], ids=str)
def test_autograds_product_with_the_solution(name, ridge, backend, dtype):
    x = inputs.width(name, dtype) if isinstance(name, int) else inputs.FAMILIES[name](dtype)
    checks.check_product_of_solution(x, _system(x)[1], backend, ridge=ridge)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_lapack_on_a_mild_row(ridge, backend):
    """Of least norm without a ridge, as the pseudo-inverse has it; of rows that sum to 1 + eps too."""
    y, b = _system(inputs.rng().normal(size=(20, 6)))
    matrix = np.einsum("pi,ij->pij", y, np.eye(6)) - np.einsum("pi,pj,p->pij", y, y, 1 / y.sum(axis=1))
    inverse = np.linalg.pinv(matrix + ridge * np.eye(6), rcond=1e-10)
    v = fs.softmax_solve(y, b, ridge=ridge, backend=backend)
    np.testing.assert_allclose(v, np.einsum("pij,pj->pi", inverse, b), rtol=1e-11)


def test_rows_whose_sum_is_not_one(backend):
    """The matrix is ``diag(y) - y y^T / sum(y) + ridge I``: of y in half precision, 1 is missed by 10^-3."""
    y = fs.softmax(inputs.rng().normal(size=(3, 8)) * 3).astype(np.float16).astype(np.float64)
    assert (np.abs(y.sum(axis=1) - 1) > 1e-5).all()
    for ridge in (1e-9, 0.25):
        checks.check_solutions(y, inputs.rng(1).normal(size=y.shape), ridge, backend)


def test_half_precision(backend):
    y, b = _system((inputs.rng().normal(size=(7, 12)) * 3).astype(np.float16))
    for ridge in (0.0, 0.01):
        wide = (
            fs.softmax_solve(y.astype("f4"), b.astype("f4"), ridge=ridge, backend=backend) if ridge else None
        )
        v = fs.softmax_solve(y, b, ridge=ridge, backend=backend)
        assert v.dtype == np.float16
        if ridge:
            checks.assert_same_bits(v, wide.astype(np.float16))


def test_threads_and_places(backend, dtype):
    """The bits of a row are the same on any number of threads, among any others, in place of either input."""
    rows = 20 if checks.is_slow(backend) else 3000
    y, b = _system((inputs.rng().normal(size=(rows, 70)) * 3).astype(dtype))
    for ridge in (0.0, 0.01):
        expected = fs.softmax_solve(y, b, ridge=ridge, backend=backend, num_threads=1)
        checks.assert_same_bits(fs.softmax_solve(y, b, ridge=ridge, backend=backend, num_threads=3), expected)
        checks.assert_same_bits(fs.softmax_solve(y[5:6], b[5:6], ridge=ridge, backend=backend), expected[5:6])
        for k in range(2):
            args = [y.copy(), b.copy()]
            fs.softmax_solve(*args, ridge=ridge, out=args[k], backend=backend)
            checks.assert_same_bits(args[k], expected)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 2.0])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_special_rows(at, bad, ridge, backend, dtype):
    """NaN or an infinity in either array makes its row NaN, though b has no solution then, and no other."""
    y, b = _system((inputs.rng().normal(size=(6, 5)) * 3).astype(dtype))
    y[:, 4], b[:, 4] = 0, 0
    b[:, :4] -= y[:, :4] * (b.sum(axis=1) / y.sum(axis=1))[:, None]
    expected = fs.softmax_solve(y, b, ridge=ridge, backend=backend)
    assert np.isfinite(expected).all()
    y[1, at] = b[4, at] = bad
    b[1, 1] += 1
    expected[[1, 4]] = NAN
    checks.assert_same_bits(fs.softmax_solve(y, b, ridge=ridge, backend=backend), expected)
    turned = fs.softmax_solve(*map(np.ascontiguousarray, (y.T, b.T)), 0, ridge=ridge, backend=backend)
    np.testing.assert_array_equal(np.isnan(turned.T), np.isnan(expected))


def test_rows_of_nothing(backend, dtype):
    """What `where=` makes of a row without entries: the matrix is the ridge alone."""
    y = np.zeros((2, 3), dtype)
    b = np.array([[1, 2, 4], [0, 0, 0]], dtype)
    np.testing.assert_array_equal(fs.softmax_solve(y, b, ridge=0.5, backend=backend), 2 * b)
    np.testing.assert_array_equal(fs.softmax_solve(y, 0 * b, backend=backend), y)
    for shape in ((0, 3), (3, 0)):
        assert fs.softmax_solve(np.empty(shape), np.empty(shape), backend=backend).shape == shape


def test_beyond_the_range(backend, dtype):
    """A row whose solution overflows is not finite, others are."""
    large = np.finfo(dtype).max / 2
    y, b = np.array([[0.5, 0.5]] * 2, dtype), np.array([[large, large], [1, 1]], dtype)
    v = fs.softmax_solve(y, b, ridge=0.01, backend=backend)
    assert not np.isfinite(v[0]).any()
    assert np.isfinite(v[1]).all()


# ---- what has no solution ----------------------------------------------------------------------


def _refused(match, y, b, axis=-1, **options):
    y, b = np.asarray(y), np.asarray(b)
    out = checks.poisoned(y.shape, np.result_type(y, b))
    with pytest.raises(ValueError, match=match):
        fs.softmax_solve(y, b, axis, out=out, **options)
    assert np.isnan(out).all()


def test_sums_other_than_zero(backend, dtype):
    y, b = _system(inputs.rng().normal(size=(3, 4, 5)).astype(dtype))
    b[1, 2, 0] += 0.5
    b[2, 3, 1] += 0.25
    _refused(
        r"b sums to 0\.(5|49999).* in row \[1, 2\], .* b must sum to 0 \(to 16 ULP", y, b, backend=backend
    )
    turned = np.ascontiguousarray(np.swapaxes(y, 1, 2)), np.ascontiguousarray(np.swapaxes(b, 1, 2))
    _refused(r"b sums to 0\.(5|49999).* in row \[1, 2\],", *turned, 1, backend=backend)
    _refused(r"b sums to 0\.(75|74999).*, but", y, b, None, backend=backend)
    assert np.isfinite(fs.softmax_solve(y, b, ridge=1e-3, backend=backend)).all()


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_sums_that_are_zero_but_for_roundings(name, backend):
    """Some units in the last place of each entry, in the dtype that b has: not of what y makes of it."""
    own = pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)
    eps = float(np.spacing(np.ones((), own)))
    y = np.full(4, 0.25)
    for ulps in (12, -12):
        b = np.array([-1, 0.5, 0.25, 0.25 + 2 * ulps * eps]).astype(own)
        assert np.isfinite(fs.softmax_solve(y, b, backend=backend)).all()
    for ulps in (20, -20):
        b = np.array([-1, 0.5, 0.25, 0.25 + 2 * ulps * eps]).astype(own)
        _refused("b sums to", y, b, backend=backend)


def test_sums_beyond_the_range(backend, dtype):
    """Of a row whose sizes add up to infinity."""
    top = np.finfo(dtype).max
    y = np.full(4, 0.25, dtype)
    for b in ([top, top, -top, 1], [top, top, top, top], [top, top / 2, -top, -top / 4]):
        _refused("b sums to", y, np.array(b, dtype), backend=backend)
    solved = fs.softmax_solve(
        np.array([y, y]), np.array([[top, top, -top, -top], [1, 2, -3, 0]], dtype), backend=backend
    )
    np.testing.assert_array_equal(solved[1], [4, 8, -12, 0])


def test_sums_that_rounding_hides(backend):
    """Large entries cancel; what is left of the others counts, at any length."""
    n = 1001
    b = np.zeros(n)
    b[:2] = 1.0, -1.0
    b[2:] = 2.0**-47
    y = np.full(n, 1 / n)
    _refused("b sums to 7.09", y, b, backend=backend)
    b[2:] = 2.0**-60
    assert np.isfinite(fs.softmax_solve(y, b, backend=backend)).all()


def test_sums_of_long_rows(backend):
    """The roundings of the sum are no reason to refuse: one by one, 4000 of 0.1 are off by 10^-11."""
    b = np.full((4001, 16), 0.1)
    b[-1] = -math.fsum(b[:-1, 0])
    y = np.full(b.shape, 1 / len(b))
    assert np.isfinite(fs.softmax_solve(y, b, 0, backend=backend)).all()


def test_sums_to_twice_the_digits():
    a = inputs.rng().normal(size=(3, 1001, 2)) * 2.0 ** inputs.rng(1).integers(-40, 40, size=(3, 1001, 2))
    a[:, 500:1000] = -a[:, inputs.rng(2).permutation(500)]
    for rows, sums in zip(a, _sums(a), strict=True):
        for i in range(2):
            assert abs(sums[i] - math.fsum(rows[:, i])) <= 2.0**-100 * np.abs(rows[:, i]).sum()


def test_gradients_of_the_library_sum_to_zero(backend, dtype):
    """Also where a row is saturated, as the textbook's do not."""
    for name in ("saturated", "one_dominant", "sources_times_100", "far_apart"):
        x = inputs.FAMILIES[name](dtype)
        y = fs.softmax(x, backend=backend)
        _, dx = fs.cross_entropy_with_grad(x, x.argmax(axis=1), backend=backend)
        assert np.isfinite(fs.softmax_solve(y[:3], dx[:3], ridge=1e-3, backend=backend)).all()
        fs.softmax_solve(y, np.where(y > 0, dx, 0), backend=backend)


def test_entries_where_y_is_zero(backend, dtype):
    y, b = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0]], dtype), np.array([[1, -1, 0], [1, -2, 1]], dtype)
    np.testing.assert_array_equal(fs.softmax_solve(y[:1], b[:1], backend=backend), [[2, -2, 0]])
    _refused(r"b is 1\.0 at entry 2 in row \[1\], where y is 0", y, b, backend=backend)


# ---- the ridge ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [-1e-300, -1, NAN, INF, -INF], ids=str)
def test_wrong_ridges(ridge, backend):
    _refused("ridge must be 0 or more, and finite", [0.5, 0.5], [1.0, 2.0], ridge=ridge, backend=backend)


@pytest.mark.parametrize("ridge", [None, "1", True, [1.0], 1j, np.ones(2)], ids=str)
def test_ridges_of_another_type(ridge, backend):
    with pytest.raises(TypeError, match="ridge must be a number of 0 or more"):
        fs.softmax_solve([0.5, 0.5], [1.0, 2.0], ridge=ridge, backend=backend)


@pytest.mark.parametrize("ridge", [1, np.float32(1), np.array(1.0), Fraction(1), np.int8(1)], ids=repr)
def test_any_number_is_a_ridge(ridge, backend):
    expected = fs.softmax_solve([0.5, 0.5], [1.0, 2.0], ridge=1.0, backend=backend)
    checks.assert_same_bits(fs.softmax_solve([0.5, 0.5], [1.0, 2.0], ridge=ridge, backend=backend), expected)


def test_ridges_are_rounded(backend):
    """To float32 where that is computed in: beyond its range is an error, and what rounds to 0 is none."""
    y, b = np.array([0.5, 0.5], np.float32), np.array([1, -1], np.float32)
    _refused("finite as float32; got 1e\\+39", y, b, ridge=1e39, backend=backend)
    _refused("b sums to 2.0", y, abs(b), ridge=1e-60, backend=backend)
    np.testing.assert_array_equal(fs.softmax_solve(y, b, ridge=1e-60, backend=backend), [2, -2])
    near = fs.softmax_solve(y, b, ridge=0.1, backend=backend)
    checks.assert_same_bits(near, fs.softmax_solve(y, b, ridge=float(np.float32(0.1)), backend=backend))


# ---- the operator ------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), [((4, 5), -1), ((4, 5), 0), ((2, 3, 4), 1), ((5,), -1)])
def test_operator(shape, axis, backend, dtype):
    pytest.importorskip("scipy")
    x = inputs.rng().normal(size=shape).astype(dtype)
    (y,) = oracle.arguments("softmax_jacobian", x, axis)
    J = fs.softmax_jacobian(y, axis, layout="operator", backend=backend, num_threads=1)
    b = J @ inputs.rng(1).normal(size=y.size).astype(dtype)
    rows = np.moveaxis(y, axis, -1).reshape(-1, y.shape[axis])
    for ridge in (0.0, 0.25):
        v = J.solve(b, ridge)
        expected = fs.softmax_solve(rows, b.reshape(rows.shape), ridge=ridge, backend=backend)
        checks.assert_close(v, expected.ravel(), dtype, scale=4)
        np.testing.assert_allclose(J @ v + ridge * v, b, atol=50 * np.finfo(dtype).eps)
        several = np.stack([b, 2 * b, -b], axis=1)
        checks.assert_close(J.solve(several, ridge=ridge), np.stack([v, 2 * v, -v], axis=1), dtype, scale=8)
        checks.assert_same_bits(pickle.loads(pickle.dumps(J)).solve(b, ridge), v)


def test_operator_refuses_other_shapes(backend):
    pytest.importorskip("scipy")
    J = fs.softmax_jacobian(np.full((2, 3), 1 / 3), layout="operator", backend=backend)
    for shape in ((5,), (2, 3), (), (6, 1, 1)):
        with pytest.raises(ValueError, match=r"expected \(6,\), or \(6, k\)"):
            J.solve(np.zeros(shape))
    assert J.solve(np.zeros((6, 0))).shape == (6, 0)
    with pytest.raises(ValueError, match=r"b sums to 3.0 in row \[0, 0\]"):
        J.solve(np.ones(6))
    assert not hasattr(fs.log_softmax_jacobian(np.zeros((2, 3)), layout="operator"), "solve")
