"""Calls from compiled code: one row, and many, within Numba's ``@njit``, beside a user's loop."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")
import fastsoftmax as fs  # noqa: E402
from fastsoftmax import _numba_entry  # noqa: E402

_numba_entry.init()  # where the package is not installed with its entry point
SHAPES = ((1, 10), (1, 20), (1, 64), (1, 1000), (1000, 1000))
CALLS = {10: 2000, 20: 2000, 64: 1000, 1000: 200, 1_000_000: 1}


@numba.njit
def ours(x, out, calls):
    for _ in range(calls):
        fs.softmax(x, out=out)


@numba.njit
def by_hand(x, out, calls):
    for _ in range(calls):
        for i in range(x.shape[0]):
            most, total = -np.inf, 0.0
            for j in range(x.shape[1]):
                most = max(most, x[i, j])
            for j in range(x.shape[1]):
                out[i, j] = np.exp(x[i, j] - most)
                total += out[i, j]
            for j in range(x.shape[1]):
                out[i, j] /= total


@pytest.mark.parametrize("function", [ours, by_hand], ids=["fastsoftmax", "by hand"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_inside(benchmark, shape, function):
    x = np.random.default_rng(0).normal(size=shape)
    out, calls = np.empty_like(x), CALLS[x.size]
    function(x, out, 1)
    np.testing.assert_allclose(out, fs.softmax(x), rtol=1e-13)
    benchmark.group = f"softmax {shape} within @njit"
    benchmark.pedantic(function, (x, out, calls), rounds=25)
    benchmark.extra_info |= {
        "case": f"softmax {'x'.join(map(str, shape))} f64 {calls} times within @njit",
        "candidate": "fastsoftmax" if function is ours else "a user's loop",
        "threads": 1,
        "bytes": 2 * x.nbytes * calls,
    }
