"""Promise: the bounds hold at any length: where errors add up, counts pass 2^24 and entries 2^31."""

import os

import mpmath
import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax.backends import numpy as numpy_kernels
from tests import checks, oracle, processes, structured
from tests.oracle import Exact
from tests.structured import Classes, Pattern, Row

FAMILIES = ("high_first", "high_last", "high_in_the_middle", "hundred_high", "equal", "rounded_down")


@pytest.mark.parametrize(("copies", "axis"), structured.COMPANY)
@pytest.mark.parametrize("family", FAMILIES)
def test_hundred_thousand_entries(family, copies, axis, backend, dtype):
    n = 10**5 // (20 if checks.is_slow(backend) else 1)
    _assert_within_bounds(
        structured.FAMILIES[family](dtype, n)._replace(copies=copies, axis=axis), backend, dtype
    )


@pytest.mark.parametrize(("copies", "axis"), [(1, -1), (2, 0)])
@pytest.mark.parametrize("family", FAMILIES[:2])
def test_a_million_entries(family, copies, axis, backend, dtype):
    if checks.is_slow(backend):
        pytest.skip(f"{backend} takes half a minute")
    row = structured.FAMILIES[family](dtype, 10**6)
    _assert_within_bounds(row._replace(copies=copies, axis=axis), backend, dtype)


PIECES = ("rounded_down", "high_first", "high_last", "equal")


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("family", PIECES)
def test_rows_of_many_pieces(family, axis, dtype, monkeypatch):
    """`numpy` takes long rows in pieces of BLOCK bytes: of smaller ones a row of this length has 800."""
    monkeypatch.setattr(numpy_kernels, "BLOCK", 1024)
    row = structured.FAMILIES[family](dtype, 10**5)
    _assert_within_bounds(row._replace(copies=2, axis=axis), "numpy", dtype)


@pytest.mark.parametrize("place", [0, 700, -1])
def test_saturated_row_of_many_pieces(place, dtype, monkeypatch):
    """The cotangent of the dominant entry is the centre, in whichever piece that is."""
    monkeypatch.setattr(numpy_kernels, "BLOCK", 1024)
    n, size = 1400, 1e6 if dtype == np.float32 else 1e14
    y = np.full((1, n), 1e-12, dtype)
    y[0, place] = 1
    g = size + np.linspace(-1, 1, n).astype(dtype)[None]
    actual = fs.softmax_vjp(y, g, backend="numpy")
    h = g[0].astype(np.longdouble) - g[0, place]
    exact = y[0] * (h - (y[0] * h).sum())
    np.testing.assert_allclose(actual[0], exact.astype(np.float64), rtol=1e-5, atol=1e-17)


@pytest.mark.parametrize("sign", [1, -1])
def test_cotangent_with_equal_ends_in_many_pieces(sign, dtype, monkeypatch):
    """A row with equal ends may have a constant cotangent, or as here not: its centre is then 0."""
    monkeypatch.setattr(numpy_kernels, "BLOCK", 1024)
    n = 1400
    far = (np.arange(n) < 300) | (np.arange(n) == n - 1)
    y = np.where(far, 1e-12, 1 / (n - far.sum())).astype(dtype)[None]
    g = np.where(far, sign * 5, 0).astype(dtype)[None]
    actual = fs.softmax_vjp(y, g, backend="numpy")
    exact = y.astype(np.float64) * (g - (y.astype(np.float64) * g).sum())
    np.testing.assert_allclose(actual, exact, rtol=1e-5)


def test_jacobian_of_many_pieces(monkeypatch):
    monkeypatch.setattr(numpy_kernels, "BLOCK", 1024)
    y = fs.softmax(np.linspace(-3, 3, 50)[None])
    np.testing.assert_allclose(
        fs.softmax_jacobian(y, backend="numpy")[0], np.diag(y[0]) - np.outer(y, y), rtol=1e-14, atol=1e-17
    )


@pytest.mark.parametrize("axis", [-1, 0])
def test_diagonal_of_a_row_that_one_entry_dominates(axis, backend, dtype):
    """The sum of a million equal others, whose roundings all go one way: 0.2 at the entry above 1/2."""
    n = 10**4 if checks.is_slow(backend) else 10**6
    m = np.log(float(n)) + 1
    x = np.zeros((1, n), dtype)
    x[0, n // 3] = m
    y = oracle.longdouble_forward("softmax", x).astype(dtype)
    y, at = (y, (0, n // 3)) if axis else (np.ascontiguousarray(y.T).repeat(2, axis=1), (n // 3, 0))
    diagonal = fs.softmax_jacobian(y, axis, layout="diagonal", backend=backend)
    rest = (n - 1) * mpmath.exp(-mpmath.mpf(float(x.max())))
    for place, exact in ((at, rest / (1 + rest) ** 2), ((0, 0), _gap(1 / (1 / rest + 1) / (n - 1)))):
        off = abs(mpmath.mpf(float(diagonal[place])) - exact)
        assert off <= 7 * float(np.spacing(dtype.type(float(exact))))


def _gap(p):
    return p * (1 - p)


def _assert_within_bounds(row, backend, dtype):
    ratios = structured.ratios(row, dtype, backend)
    failed = {measure: round(ratio, 3) for measure, ratio in ratios.items() if not ratio <= 1}
    assert not failed, f"times their bounds: {failed}"


def test_one_high_logit_over_ten_million(backend):
    """Lower parts of 625,000 sums of one lane, that all round the same way: -0.12 once, 0.47 is right."""
    if checks.is_slow(backend):
        pytest.skip(f"{backend} takes a minute")
    row = Row(10**7, Pattern((16.0, 0.0), (1,)))
    classes = Classes(row, np.dtype(np.float32))
    x = row.spread(classes.row(classes.truth.x.astype(np.float32)))
    y = fs.softmax(x, backend=backend)
    error = classes.truth.softmax.ulps(classes.extremes(y, y))
    assert error <= 3


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision(half, op, axis, backend):
    half = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if half == "bfloat16" else half)
    n = 5000 if checks.is_slow(backend) else 10**5
    row = Row(n, Pattern((11.5, 0.0), (1,)), copies=2, axis=axis)
    classes = Classes(row, np.dtype(np.float32))
    x = row.spread(classes.row(classes.truth.x.astype(half)))
    actual = np.asarray(getattr(fs, op)(x, axis, backend=backend))
    assert actual.dtype == half
    if op not in oracle.ONE_A_ROW:
        actual = classes.extremes(*(end.astype(np.float32) for end in row.ends(actual))).astype(half)
    error = getattr(classes.truth, op).ulps(actual)
    assert error <= 1


@pytest.mark.parametrize("shape", [(300_000, 3), (2**24 + 4099,), (2**24 + 4099, 2)], ids=str)
def test_more_maxima_than_a_float_counts(shape, backend):
    """Counted in floats they would stop at 2^24, in a lane of 16-bit numbers at 65,536."""
    n = shape[0]
    if checks.is_slow(backend):
        pytest.skip(f"{backend} takes half a minute")
    x, labels = np.zeros(shape, np.float32), np.full(shape[1:], n - 1)
    _assert_near(fs.logsumexp(x, 0, backend=backend), np.log(n), 2)
    loss, dx = fs.cross_entropy_with_grad(x, labels, 0, reduction="none", backend=backend)
    _assert_near(loss, np.log(n), 4)
    _assert_near(dx[0], 1 / n, 4)
    _assert_near(dx[-1], 1 / n - 1, 4)
    y = fs.softmax(x, 0, out=x, backend=backend)
    _assert_near(y[[0, n // 2, -1]], 1 / n, 3)


def test_two_maxima_over_a_million(backend, dtype):
    """Few beside so many entries, and all that the row is about."""
    if checks.is_slow(backend):
        pytest.skip(f"{backend} takes half a minute")
    x = np.full(2**20, -1000, dtype)
    x[[5, -5]] = 0
    _assert_near(fs.logsumexp(x, backend=backend), np.log(2), 2)
    _assert_near(fs.log_softmax(x, backend=backend)[5], -np.log(2), 3)
    _assert_near(fs.cross_entropy_with_grad(x, 5, backend=backend)[1][5], -0.5, 4)


def _assert_near(actual, desired, ulps):
    exact = np.broadcast_to(np.float64(desired), np.shape(actual))
    error = Exact(exact, np.zeros_like(exact)).ulps(np.asarray(actual))
    assert error <= ulps, f"{actual} is off by {error:.3g} ULP from {desired}"


@pytest.mark.parametrize(("inner", "axis"), [(1, 0), (2, 0)])
def test_smoothed_loss(inner, axis, backend, dtype):
    """sum_j everywhere[j] * (max - x_j) of many equal terms, and a label on each of three levels."""
    n = 5000 if checks.is_slow(backend) else 10**5
    levels, counts = np.array([5.0, 0.1, -7.77], dtype), (n // 10, n // 5, n - n // 10 - n // 5)
    x = np.broadcast_to(np.repeat(levels, counts)[:, None], (n, inner)).copy()
    mp = mpmath.mp.clone()
    mp.dps = 40
    exact = [mp.mpf(float(v)) for v in levels]
    total = mp.log(mp.fsum(c * mp.exp(v) for c, v in zip(counts, exact, strict=True)))
    everywhere = mp.mpf(0.1) / n * mp.fsum(c * (total - v) for c, v in zip(counts, exact, strict=True))
    for label, v in zip((0, n // 10, n - 1), exact, strict=True):
        loss = fs.cross_entropy(
            x, [label] * inner, axis, label_smoothing=0.1, reduction="none", backend=backend
        )
        _assert_near(loss, float((1 - mp.mpf(0.1)) * (total - v) + everywhere), 4)


FEW_LONG_COLUMNS = """
import resource
import numpy as np
import fastsoftmax as fs

x = np.zeros((3_000_000, 2), np.float32)
for part in (x[:1000], x):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fs.softmax(part, 0, out=part, backend={backend!r}, num_threads=1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / x.nbytes)
"""


def test_scratch_is_no_larger_than_the_array(backend):
    """Few long columns in place: a process needs no several times their size."""
    pytest.importorskip("resource")
    if checks.is_slow(backend):
        pytest.skip("an array that shows would take minutes")
    assert float(processes.python(FEW_LONG_COLUMNS.format(backend=backend))) <= 1.5


# ---- beyond 2^31 entries -----------------------------------------------------------------------

HUGE = 2**31 + 4096


@pytest.mark.slow
def test_beyond_two_to_the_31(backend):
    """In a process that may take the memory that is free, and no more: 9 GB and a minute a backend."""
    if checks.is_slow(backend):
        pytest.skip(f"{backend} takes three hours")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - 2**30
    if free < 4 * HUGE:
        pytest.skip(f"{free / 1e9:.1f} GB are free, and the logits take {4 * HUGE / 1e9:.1f}")
    code = f"from tests import test_long_rows as t; t.check_huge({backend!r}, {free})"
    if "MemoryError" in processes.python(code, timeout=1800):
        pytest.skip(f"{backend} takes more than the {free / 1e9:.1f} GB that are free")


def check_huge(backend, memory):
    """Of more float32 logits than an int32 counts: what a child of the test runs, within so many bytes."""
    resource = pytest.importorskip("resource")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        _assert_huge(np.zeros(HUGE, np.float32), backend)
    except MemoryError as error:
        print(type(error).__name__, error)


def _assert_huge(x, backend):
    _assert_near(fs.logsumexp(x, backend=backend), np.log(HUGE), 2)
    for label in (2**31 - 1, 2**31, HUGE - 1):
        _assert_near(fs.cross_entropy(x, label, backend=backend), np.log(HUGE), 4)
    x[-1] = 21.5
    share = np.exp(21.5) / (np.exp(21.5) + HUGE - 1)
    _assert_near(fs.cross_entropy(x, HUGE - 1, backend=backend), -np.log(share), 4)
    loss, dx = fs.cross_entropy_with_grad(x, 2**31 + 5, out=x, backend=backend)
    _assert_near(loss, 21.5 - np.log(share), 4)
    for at, expected in ((0, share / np.exp(21.5)), (2**31 + 5, share / np.exp(21.5) - 1), (-1, share)):
        _assert_near(dx[at], expected, 4)
