"""Promise: `logsumexp(x, b=)` is SciPy's, with sums that keep their digits, on every backend."""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, tolerances

INF, NAN = np.inf, np.nan

FACTORS = {
    "ones": lambda x: np.ones(x.shape),
    "positive": lambda x: inputs.rng(1).uniform(0.1, 3, x.shape),
    "far apart": lambda x: 10.0 ** inputs.rng(1).integers(-8, 9, x.shape),
    "some zero": lambda x: np.maximum(inputs.rng(1).normal(size=x.shape), 0) + (np.arange(x.shape[1]) == 0),
    "all but one zero": lambda x: (
        np.where(np.arange(x.shape[1]) == x.shape[1] // 2, 0.3, 0.0) + np.zeros(x.shape)
    ),
    "alternating": lambda x: np.where(np.arange(x.shape[1]) % 2, -0.5, 1.0) + np.zeros(x.shape),
    "a difference": lambda x: np.where(x == x.max(axis=1, keepdims=True), 1.0, -1e-3),
}


def _assert_bound(actual, x, b):
    exact, gaps = oracle.exact_weighted_logsumexp(x, b)
    eps, spare = np.finfo(x.dtype).eps, float(np.finfo(x.dtype).smallest_subnormal) * x.shape[-1]
    largest = np.maximum(np.abs(np.where(b == 0, -INF, x).max(axis=-1)), np.abs(exact.high))
    bound = eps * (tolerances.LOGSUMEXP_EPS * largest + tolerances.WEIGHTED_SUM_EPS * gaps) + spare
    off = np.abs((actual.astype(np.float64) - exact.high) - exact.low)
    assert (off <= bound).all(), f"{np.max(off / bound):.3g} times the bound"


FINITE = ("sources_100x5", "offset_rows", "far_apart", "one_dominant", "near_ties", "ties", "saturated")


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("name", [*FINITE, 1, 2, 8, 17, 65, 129, 1000], ids=str)
def test_bound(name, kind, backend, dtype):
    x = inputs.width(name, dtype, rows=4) if isinstance(name, int) else inputs.FAMILIES[name](dtype)[:9]
    b = FACTORS[kind](x).astype(dtype)
    largest = np.where(b == 0, -INF, x).max(axis=1, keepdims=True)
    terms = b * np.exp(np.minimum(x.astype(np.longdouble) - largest, 0))
    sums = terms.sum(axis=1)
    b *= np.sign(sums)[:, np.newaxis].astype(dtype)
    kept = np.abs(sums) > 1e-6 * np.abs(terms).sum(axis=1)
    assert kept.any()
    x, b = x[kept], b[kept]
    _assert_bound(fs.logsumexp(x, b=b, backend=backend), x, b)
    columns = [np.ascontiguousarray(a.T) for a in (x, b)]
    _assert_bound(fs.logsumexp(columns[0], 0, b=columns[1], backend=backend), x, b)
    assert np.isnan(fs.logsumexp(x, b=-b, backend=backend)).all()


@pytest.mark.parametrize("n", [4097, 100_000, 1_000_000])
def test_long_rows(n, backend, dtype):
    """Equal factors whose roundings go one way, and a sum of which all but one term cancel."""
    if checks.is_slow(backend):
        n = 4097
    x, b = np.full((1, n), 0.1, dtype), np.full((1, n), 0.1, dtype)
    expected = float(x[0, 0]) + np.log(np.longdouble(n) * np.longdouble(b[0, 0]))
    actual = fs.logsumexp(x, b=b, backend=backend)
    assert abs(actual - expected) <= 8 * np.finfo(dtype).eps * max(1, abs(expected))
    b[0] = np.resize([1, -1], n)
    b[0, -1] = 3
    total = np.longdouble(b.astype(np.longdouble).sum())
    assert total > 0
    off = abs(fs.logsumexp(x, b=b, backend=backend) - (float(x[0, 0]) + np.log(total)))
    assert off <= 8 * np.finfo(dtype).eps * n / float(total)


ROWS = {
    "an infinity that takes no part": ([INF, 1, 0], [0, 1, 1], np.log(np.e + 1)),
    "a NaN that takes no part": ([NAN, 1, 0], [0, 1, 1], np.log(np.e + 1)),
    "nothing takes part": ([5, 1, 0], [0, 0, 0], -INF),
    "nothing but -inf": ([-INF, -INF, -INF], [1, 2, 3], -INF),
    "+inf": ([INF, 1000, 0], [1, -1, 1], INF),
    "a negative +inf": ([INF, 1, 0], [-1, 1, 1], NAN),
    "two infinities": ([INF, INF, 0], [1, -1, 1], NAN),
    "NaN": ([NAN, 1, 0], [1, 1, 1], NAN),
    "a factor that is NaN": ([0, 1, 0], [1, NAN, 1], NAN),
    "NaN beside infinity": ([INF, 1, 0], [1, NAN, 1], NAN),
    "an infinite factor": ([0, 1, 0], [1, INF, 1], INF),
    "an infinite factor of nothing": ([-INF, 1, 0], [INF, 1, 1], NAN),
    "an infinite factor of nothing at all": ([-INF, -INF, -INF], [INF, 1, 1], NAN),
    "infinities of both signs": ([INF, 1, 0], [1, -INF, 1], NAN),
    "infinities of one": ([INF, 1, 0], [1, INF, 1], INF),
    "an infinite factor of next to nothing": ([-3e4, 0, 7], [INF, 1, 1], INF),
    "a sum of 0": ([1, 1, -INF], [1, -1, 1], -INF),
    "a negative sum": ([1, 2, 0], [1, -1, 0], NAN),
    "far from 0": ([1000, 1000, -1000], [1, -0.5, 1], 1000 - np.log(2)),
    "the ends of the range": ([1e38, -1e38, 0], [2, 1, 1], 1e38),
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("case", ROWS)
def test_special_rows(case, copies, axis, backend, dtype):
    row, factors, expected = ROWS[case]
    x, b = (np.array([a] * copies, dtype) for a in (row, factors))
    x, b = (x, b) if axis else (x.T.copy(), b.T.copy())
    checks.assert_close(fs.logsumexp(x, axis, b=b, backend=backend), [expected] * copies, dtype)


def test_small_sums(backend, dtype):
    """Of subnormal factors, whose logarithm is no special number."""
    tiny = np.finfo(dtype).smallest_subnormal
    for factor in (tiny, tiny * 7, np.finfo(dtype).tiny, np.finfo(dtype).tiny * dtype.type(1.5)):
        b = np.array([factor, 0], dtype)
        expected = np.log(factor.astype(np.longdouble))
        checks.assert_close(fs.logsumexp(np.zeros(2, dtype), b=b, backend=backend), expected, dtype)


@pytest.mark.parametrize("layout", inputs.LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 10), -1), ((3, 10, 4), 1), ((2, 3, 20), (0, 2)), ((9, 300), -1)]
)
def test_layouts(layout, shape, axis, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    b = inputs.rng(1).uniform(size=shape).astype(dtype)
    expected = fs.logsumexp(x, axis, b=b, backend=backend)
    given = [inputs.LAYOUTS[layout](a) for a in (x, b)]
    checks.assert_same_bits(fs.logsumexp(given[0], axis, b=given[1], backend=backend), expected)
    out = np.zeros(expected.shape, dtype)
    assert fs.logsumexp(x, axis, b=b, out=out, num_threads=3, backend=backend) is out
    checks.assert_same_bits(out, expected)
    assert fs.logsumexp(x, axis, b=b, keepdims=True, backend=backend).ndim == x.ndim


def test_halves_of_columns(backend):
    """Which are cut in blocks of columns, their factors as well."""
    columns = 40 if checks.is_slow(backend) else 4000
    x, b = inputs.rng().normal(size=(70, columns)).astype("f2"), inputs.rng(1).uniform(size=(70, columns))
    expected = fs.logsumexp(x.astype("f4"), 0, b=b, backend=backend).astype("f2")
    for threads in (1, 2):
        checks.assert_same_bits(fs.logsumexp(x, 0, b=b, backend=backend, num_threads=threads), expected)


@pytest.mark.parametrize("x_dtype", [np.float64, np.float32, np.float16, np.int64], ids=str)
@pytest.mark.parametrize("b_dtype", [np.float64, np.float32, np.int64, np.bool_], ids=str)
def test_dtypes_and_broadcasting(x_dtype, b_dtype, backend):
    x = (inputs.rng().normal(size=(6, 5)) * 3).astype(x_dtype)
    b = np.array([1.0, 0.0, 2.0, 3.0, 1.0]).astype(b_dtype)
    computed = np.float32 if x_dtype == np.float16 else np.float64 if x_dtype == np.int64 else x_dtype
    expected = fs.logsumexp(x.astype(computed), b=np.tile(b.astype(computed), (6, 1)), backend=backend)
    actual = fs.logsumexp(x, b=b, backend=backend)
    result = np.float64 if x_dtype == np.int64 else x_dtype
    checks.assert_same_bits(actual, expected.astype(result))
    checks.assert_same_bits(fs.logsumexp(x, b=b.tolist(), backend=backend), actual)


def test_where(backend, dtype):
    """What is masked out takes no part, whatever its factor."""
    x, mask = inputs.rng().normal(size=(9, 7)).astype(dtype), inputs.rng(1).random((9, 7)) < 0.6
    b = inputs.rng(2).uniform(size=(9, 7)).astype(dtype)
    expected = fs.logsumexp(x, b=np.where(mask, b, 0), backend=backend)
    b[~mask], x[~mask] = NAN, INF
    checks.assert_same_bits(fs.logsumexp(x, b=b, where=mask, backend=backend), expected)


@pytest.mark.parametrize("shape", [(4,), (5, 3), (2, 3, 4), (3, 3)])
def test_factors_of_another_shape(shape, backend):
    with pytest.raises(ValueError, match=r"^b has shape .*, which does not broadcast to x's \(3, 5\)"):
        fs.logsumexp(np.zeros((3, 5)), b=np.ones(shape), backend=backend)


def test_factors_of_another_dtype(backend):
    with pytest.raises(TypeError, match=r"^b has dtype complex128; expected float64"):
        fs.logsumexp(np.zeros((3, 5)), b=np.ones(5, complex), backend=backend)
