"""Promise: `fastsoftmax.scipy` is SciPy's three functions: its own tests pass; what differs is said here."""

import inspect
import os
import re

import numpy as np
import pytest

from tests import inputs, processes

scipy_special = pytest.importorskip("scipy.special")
from fastsoftmax import scipy as ours  # noqa: E402

NAMES = ours.__all__


def test_scipys_own_tests():
    """All of them, with the functions replaced before they are imported."""
    arguments = ["-m", "pytest", "-q", "-c", os.devnull, "-p", "no:randomly", "-p", "no:cacheprovider"]
    arguments += [
        "-W",
        "default",
        "-p",
        "tests.scipys_functions",
        "--pyargs",
        "scipy.special.tests.test_logsumexp",
    ]
    result = processes.start(arguments, timeout=300)
    passed = re.search(r"^(\d+) passed", result.stdout, re.MULTILINE)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert int(passed[1]) >= 10  # of SciPy 1.13 11, of 1.15 62, of 1.17 some 400


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name):
    theirs = inspect.signature(getattr(scipy_special, name)).parameters
    mine = inspect.signature(getattr(ours, name)).parameters
    assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "i8", "u2"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), (0, 2)])
def test_values(name, dtype, axis):
    x = (np.abs(inputs.rng().normal(size=(5, 4, 3))) * 5).astype(dtype)
    reals = x if x.dtype.kind == "f" else x.astype(float)
    mine, theirs = getattr(ours, name)(x, axis=axis), getattr(scipy_special, name)(reals, axis=axis)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5 if dtype == "f4" else 1e-12, strict=True)


def _exact(a, b):
    """``log |sum b exp(a)|`` and the sign, with 50 digits."""
    import mpmath

    with mpmath.workdps(50):
        total = mpmath.fsum(float(w) * mpmath.exp(float(v)) for v, w in zip(a, b, strict=True) if w)
        return (float(mpmath.log(abs(total))) if total else -np.inf), float(mpmath.sign(total))


@pytest.mark.parametrize("weights", ["positive", "with zeros", "of both signs"])
def test_weights(weights, dtype):
    rng = inputs.rng()
    for scale in (1, 30, 300):
        a = (rng.normal(size=(20, 7)) * scale).astype(dtype)
        b = rng.uniform(0.1, 2, size=7).astype(dtype)
        if weights == "with zeros":
            b[[2, 5]] = 0
            a[:, 2] = np.inf
        if weights == "of both signs":
            b[[1, 4]] *= -1
        log, sign = ours.logsumexp(a, axis=1, b=b, return_sign=True)
        assert log.dtype == sign.dtype == dtype
        exact = [_exact(row, b) for row in a]
        size = np.array([scipy_special.logsumexp(row.astype("f8"), b=np.abs(b).astype("f8")) for row in a])
        lost = np.exp(size - [e for e, _ in exact])  # digits that cancel are no fault of the sum
        eps = np.finfo(dtype).eps
        bound = 4 * eps * (1 + np.abs(a[:, b != 0]).max(1)) * lost
        assert (np.abs(log - [e for e, _ in exact]) <= bound).all()
        assert (sign == [s for _, s in exact])[lost < 1 / eps / 100].all()


def _structured(rng, dtype):
    """Few distinct exponents and weights, and how many of each: ties, offsets, and sums that cancel."""
    k, n = rng.integers(2, 6), rng.choice([2, 3, 7, 64, 1000, 20_000])
    values = rng.choice([0, 1, 700, -1e5, 1e5]) + rng.normal(size=k) * rng.choice([0, 1e-6, 1, 30, 300])
    weights = np.exp(rng.uniform(-1, 1, k) * rng.choice([0, 1, 30])) * rng.choice([-1, 1], k)
    counts = np.diff(np.r_[0, np.sort(rng.integers(0, n + 1, k - 1)), n])
    if rng.random() < 0.5:
        weights[1], counts = -weights[0], np.full(k, n // k + 1)
    order = rng.permutation(np.repeat(np.arange(k), counts))
    return values.astype(dtype), weights.astype(dtype), counts, order


@pytest.mark.parametrize("axis", [0, 1])
def test_structured_weights(axis, dtype):
    """The bound of the docstring, in units of what the terms would add up to if none cancelled."""
    import mpmath

    rng, eps = inputs.rng(), np.finfo(dtype).eps
    for _ in range(300):
        values, weights, counts, order = _structured(rng, dtype)
        a, b = (v[order] for v in (values, weights))
        log, sign = ours.logsumexp(
            np.stack([a, a - 1], 1 - axis), axis, np.stack([b, b], 1 - axis), False, True
        )
        there, most = counts > 0, float(a.max())
        with mpmath.workdps(60):
            sizes = [
                c * abs(mpmath.mpf(w)) * mpmath.exp(mpmath.mpf(v) - most)
                for v, w, c in zip(
                    values[there].tolist(), weights[there].tolist(), counts[there].tolist(), strict=True
                )
            ]
            exact = mpmath.fsum(s * np.sign(w) for s, w in zip(sizes, weights[there].tolist(), strict=True))
            found = float(sign[0]) * mpmath.exp(mpmath.mpf(float(log[0])) - most)
            error = float(abs(found - exact) / mpmath.fsum(sizes))
            rounded = (
                eps / 2 * abs(log[0]) * float(abs(exact) / mpmath.fsum(sizes)) if exact and sign[0] else 0
            )
        bound = eps * (4 + np.log(len(a)) + np.abs(np.log(np.abs(b))).max())
        assert error - rounded <= bound


def _of_special(a, b):
    """``log |sum b exp(a)|`` and the sign, an entry of weight 0 left out, with infinities as numbers."""
    if np.isnan(a[b != 0]).any() or np.isnan(b).any() or (np.isinf(b) & (a == -np.inf)).any():
        return np.nan, np.nan
    infinite = {np.sign(w) for v, w in zip(a, b, strict=True) if w and (v == np.inf or np.isinf(w))}
    if infinite:
        return (np.inf, infinite.pop()) if len(infinite) == 1 else (np.nan, np.nan)
    log, sign = _exact(a, b)
    return log, sign if log > -np.inf else 0.0


def test_special_weights():
    """Each of 1764 pairs of special exponents and weights, where SciPy has NaN for some of weight 0."""
    infinities = [-np.inf, np.inf, np.nan]
    entries = np.array([(v, w) for v in (*infinities, -1, 0, 800) for w in (*infinities, -1, -0.0, 0, 1)])
    first, second = (i.ravel() for i in np.indices((len(entries), len(entries))))
    a, b = (np.stack([entries[first, k], entries[second, k]], 1) for k in (0, 1))
    expected = np.array([_of_special(*row) for row in zip(a, b, strict=True)]).T
    found = ours.logsumexp(a, 1, b, return_sign=True)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    np.testing.assert_allclose(ours.logsumexp(a, 1, b), np.where(expected[1] < 0, np.nan, expected[0]))


def test_a_difference_keeps_its_digits():
    """Of terms that are nearly equal, and of one that is far smaller."""
    small, b = np.array([1e-20, 1e-9, 0.5]), np.array([1.0, -1.0])
    found = ours.logsumexp(np.stack([small, 0 * small], 1), 1, b)
    np.testing.assert_allclose(found, np.log(np.expm1(small)), rtol=1e-15)
    np.testing.assert_allclose(ours.logsumexp(np.array([0.0, -40.0]), b=b), -np.exp(-40), rtol=1e-15)


def test_weights_of_another_dtype():
    """The result type is computed in: the logarithm of a float32 would have 7 digits."""
    a, b = inputs.rng().normal(size=9), np.array([3, -2, 0.5] * 3, np.float32)
    for weights in (b, b.astype(np.int8)):
        expected = ours.logsumexp(a, b=weights.astype(float), return_sign=True)
        np.testing.assert_array_equal(ours.logsumexp(a, b=weights, return_sign=True), expected)


def test_what_is_no_plain_array_goes_to_scipy():
    for x in ([1.0, 2.0], 3.0, np.array([1 + 1j, 2]), np.array([1, 2], np.longdouble)):
        for name in NAMES:
            mine, theirs = (getattr(module, name) for module in (ours, scipy_special))
            np.testing.assert_array_equal(mine(x), theirs(x))


def test_differences():
    """Decided: small integers do not wrap around, and a row that holds +inf is NaN."""
    assert ours.softmax(np.array([-100, 100], np.int8))[1] == 1.0
    assert np.isnan(ours.log_softmax(np.array([np.inf, 0.0]))).all()


def test_patched_scipy_does_not_recurse(monkeypatch):
    for name in NAMES:
        monkeypatch.setattr(scipy_special, name, getattr(ours, name))
    assert ours.softmax([0.0, 0.0])[0] == 0.5
