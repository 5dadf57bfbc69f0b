"""Promise: the bounds of docs/numerics.md hold for long rows, on data whose roundings all have one sign.

Rows of a few distinct values, so that mpmath has the exact answers at once. With many equal terms every
rounding of a sum goes the same way, and a compensation that is never carried over saturates.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import mpmath
import numpy as np
import pytest

from tests import checks, processes, tolerances

mp = mpmath.mp.clone()
mp.dps = 60

# The values of a row and how many of each there are, the last taking what is left; the first is set apart.
FAMILIES = {
    "one high": ((16.0, 0.0), (1,)),
    "one high, small ones": ((0.3, -15.9), (1,)),
    "smaller yet": ((0.0, -17.3), (1,)),
    "all equal": ((0.0,), ()),
    "equal, unshifted sum below 1": ((-14.2,), ()),
    "two levels": ((0.0, -3.3), (0.5,)),
    "three levels": ((5.0, 0.1, -7.77), (0.1, 0.2)),
    "two maxima far above": ((7.0, -40.1), (2,)),
    "offset": ((1016.0, 1000.0), (1,)),
    "offset below": ((-994.9, -999.9, -1007.77), (0.1, 0.2)),
}

# Along a row, along few columns, and along many.
SHAPES = {"row": (600_000, 1), "few columns": (50_000, 2), "columns": (70_000, 20)}


class Long(NamedTuple):
    """Logits (n, inner), all columns alike, with each value's entries and what is exact of it."""

    x: np.ndarray
    places: list
    counts: list
    exps: list  # of x - max
    rest: mp.mpf  # their sum but for one maximum

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, family, shape, dtype, slow):
        n, inner = SHAPES[shape]
        n = n // 100 if slow else n
        values, counts = FAMILIES[family]
        counts = [c if isinstance(c, int) else int(c * n) for c in counts]
        counts.append(n - sum(counts))
        values = np.array(values, dtype)
        row = np.roll(np.repeat(values, counts), n // 2)
        exps = [mp.exp(mp.mpf(float(v)) - float(values.max())) for v in values]
        rest = sum(c * e for c, e in zip(counts, exps, strict=True)) - 1
        x = np.ascontiguousarray(np.broadcast_to(row[:, None], (n, inner)))
        return cls(x, [row == v for v in values], counts, exps, rest)

    def call(self, op, *others, **options):
        return checks.call(op, self.x, *others, 0, **options)

    def spread(self, values):
        """An array like ``x`` of one value for each of its own."""
        a = np.empty_like(self.x)
        for place, v in zip(self.places, values, strict=True):
            a[place] = v
        return a

    def check(self, actual, exact, bound_of):
        """Every entry is as near to the exact value of its kind as ``bound_of`` says."""
        for place, value in zip(self.places, exact, strict=True):
            assert_within(actual[place], value, bound_of(value))


def assert_within(actual, value, bound):
    """All entries are, if the least and the largest are."""
    off = max(abs(mp.mpf(float(a)) - value) for a in (np.min(actual), np.max(actual)))
    assert off <= bound, f"{float(off / bound):.3g} times the bound"


def ulps(op, dtype):
    """The bound of an op, as a function of the exact value."""
    return lambda value: tolerances.of(dtype).ulps[op] * float(np.spacing(np.abs(dtype.type(float(value)))))


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(params=SHAPES)
def long(request, family, backend, dtype):
    return Long.of(family, request.param, dtype, checks.is_slow(backend))


def test_softmax(long, backend, dtype):
    (y,) = long.call("softmax", backend=backend)
    long.check(y, [e / (1 + long.rest) for e in long.exps], ulps("softmax", dtype))
    sums = [math.fsum(column) for column in y.T[:2].astype(np.float64).tolist()]
    assert max(abs(total - 1) for total in sums) <= tolerances.ROW_SUM_EPS * np.finfo(dtype).eps


def test_log_softmax_and_logsumexp(long, backend, dtype):
    (logy,) = long.call("log_softmax", backend=backend)
    log_sum = mp.log1p(long.rest)
    long.check(logy, [mp.log(e) - log_sum for e in long.exps], ulps("log_softmax", dtype))
    (lse,) = long.call("logsumexp", backend=backend)
    m = mp.mpf(float(long.x.max()))
    bound = tolerances.LOGSUMEXP_EPS * np.finfo(dtype).eps * max(abs(m), abs(m + log_sum))
    assert_within(lse, m + log_sum, bound)


@pytest.mark.parametrize("vector", [(1.7, -0.3, 0.9), (1e-3, 1.37, 2.9)], ids=str)
@pytest.mark.parametrize("op", ["softmax_vjp", "log_softmax_vjp", "log_softmax_jvp"])
def test_products(op, vector, long, backend, dtype):
    """To 6 eps of the size of the terms; from an output that is rounded to the dtype."""
    vector = np.array(vector, dtype)[: len(long.exps)]
    v, y = [mp.mpf(float(a)) for a in vector], [e / (1 + long.rest) for e in long.exps]
    if op != "softmax_vjp":
        logy = [dtype.type(float(mp.log(a))) for a in y]
        y = [mp.exp(mp.mpf(float(a))) for a in logy]
    given = [float(a) for a in y] if op == "softmax_vjp" else logy
    (actual,) = checks.call(op, long.spread(given), long.spread(vector), 0, backend=backend)
    outer, inner = {"softmax_vjp": (1, y), "log_softmax_vjp": (y, [1] * len(y)), "log_softmax_jvp": (1, y)}[
        op
    ]
    terms = [c * a * b for c, a, b in zip(long.counts, inner, v, strict=True)]
    for i, place in enumerate(long.places):
        scale = outer[i] if op == "log_softmax_vjp" else 1
        exact, size = v[i] - scale * sum(terms), abs(v[i]) + scale * sum(map(abs, terms))
        if op == "softmax_vjp":
            exact, size = y[i] * exact, y[i] * size
        assert_within(actual[place], exact, tolerances.PRODUCT_EPS * np.finfo(dtype).eps * size)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing, long, backend, dtype):
    n, inner = long.x.shape
    nll = [mp.log1p(long.rest) - mp.log(e) for e in long.exps]
    y = [e / (1 + long.rest) for e in long.exps]
    each, share = mp.mpf(smoothing) / n, 1 - mp.mpf(smoothing)
    everywhere = each * sum(c * a for c, a in zip(long.counts, nll, strict=True))
    options = {"label_smoothing": smoothing, "reduction": "none", "backend": backend}
    for i, place in enumerate(long.places):
        label = int(np.argmax(place))
        labels = np.full(inner, label)
        loss, dx = long.call("cross_entropy_with_grad", labels, **options)
        (alone,) = long.call("cross_entropy", labels, **options)
        bound = ulps("cross_entropy", dtype)
        exact = share * nll[i] + everywhere
        assert_within((*loss, *alone), exact, bound(exact))
        bound = ulps("cross_entropy_with_grad", dtype)
        others = long.rest / (1 + long.rest) if long.exps[i] == 1 else 1 - y[i]
        at = mp.mpf(smoothing) * y[i] - each - share * others
        size = mp.mpf(smoothing) * y[i] + each + share * others
        assert_within(dx[label], at, bound(size))
        dx[label] = dx[label - 1] if place[label - 1] else dx[label + 1] if place[(label + 1) % n] else 0
        for j, where in enumerate(long.places):
            if j != i or long.counts[j] > 1:
                assert_within(dx[where], y[j] - each, bound(y[j] + each))


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
