"""Promise: the vector exp, log1p and quotient of every build are as exact as docs/numerics.md needs them.

Here around every breakpoint and at some arguments in between: `make exhaustive` takes every float32.
"""

import ctypes
import re
import shutil
from itertools import chain, pairwise

import mpmath
import numpy as np
import pytest

from fastsoftmax import _isa, backend_status
from tests.accuracy import WIDE_LONGDOUBLE
from tests.exhaustive import arguments, errors
from tests.exhaustive.candidates import SOURCES, Compiled, Limits, Numba, build, flags

BUILDS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "baseline", "numba")
FEW = arguments.STEPS[np.isin(abs(arguments.STEPS), [0, 1, 2, 3, 30, 1000, 2**16])]


@pytest.fixture(autouse=True)
def _reference(request):
    if not WIDE_LONGDOUBLE and np.float64 in getattr(request.node, "callspec", request).params.values():
        pytest.skip("longdouble is no wider than float64, and has no reference for it")


def _built(level, directory, sources=SOURCES):
    if level not in _isa.levels():
        pytest.skip(f"this CPU is held to {', '.join(_isa.levels())}")
    try:
        return build(level, directory, sources)
    except OSError as error:
        pytest.skip(f"no C++ compiler: {error}")


def _compiled(level, directory, dtype, sources=SOURCES):
    return Compiled(_built(level, directory, sources), dtype)


def _library(level, directory, sources=SOURCES):
    return ctypes.CDLL(str(_built(level, directory, sources)))


def _planted(directory, *changes):
    """A copy of the sources with changes: a file, what is changed in it, and into what."""
    sources = shutil.copytree(SOURCES, directory / "src_cy", ignore=shutil.ignore_patterns("*.c"))
    for file, old, new in changes:
        text, count = re.subn(old, new, (sources / file).read_text("utf-8"))
        assert count
        (sources / file).write_text(text, "utf-8")
    return sources


def _numba(dtype):
    if (status := backend_status()["numba"]) != "available":
        pytest.skip(f"backend numba: {status}")
    return Numba(dtype)


def _blocks(dtype, limits):
    """By family."""
    return {
        "exp": chain(arguments.exp_breakpoints(dtype, limits, FEW), arguments.exp_random(dtype, limits, 1)),
        "log1p": chain(arguments.log1p_breakpoints(dtype, FEW), arguments.log1p_random(dtype, 1)),
        "quotient": arguments.quotient_random(dtype, 1, False),
        "subnormal quotient": arguments.quotient_random(dtype, 1, True),
    }


def _beyond_bounds(candidate, dtype):
    worst = {}
    for family, blocks in _blocks(dtype, candidate.limits).items():
        errors.merge(worst, errors.of_blocks(family, blocks, [candidate])[1])
    return list(errors.beyond_bounds(worst))


@pytest.mark.parametrize("name", BUILDS)
def test_bounds(name, dtype, tmp_path):
    candidate = _numba(dtype) if name == "numba" else _compiled(name, tmp_path, dtype)
    assert not _beyond_bounds(candidate, dtype)


def _error_of_a_long_sum(library, dtype):
    """In u: one high logit over equal ones, whose exponentials are added with roundings of one sign."""
    suffix, real = f"_f{8 * dtype.itemsize}", ctypes.c_float if dtype == np.float32 else ctypes.c_double
    sum_of = getattr(library, f"sum_of_exps{suffix}")
    sum_of.argtypes, sum_of.restype = (ctypes.c_ssize_t, real, ctypes.c_void_p), ctypes.c_double
    x = np.full(10**6, 0.3, dtype)
    x[0] = 16.0
    high, low = (sum_of(1, 16.0, x[at:].ctypes.data) for at in (0, 1))
    exact = mpmath.mpf(high) + (len(x) - 1) * mpmath.mpf(low)
    return float(abs(sum_of(len(x), 16.0, x.ctypes.data) / exact - 1) / (np.finfo(dtype).eps / 2))


@pytest.mark.parametrize("level", BUILDS[:-1])
def test_sums_of_long_rows(level, dtype, tmp_path):
    """To the rounding of the double that the test gets."""
    assert _error_of_a_long_sum(_library(level, tmp_path), dtype) <= (2 if dtype == np.float64 else 0.01)


def test_a_sum_that_saturates_is_noticed(tmp_path):
    """float32 sums as pairs of floats from a start above any term, never handed over: what they were once."""
    changes = [
        ("sums.hpp", "struct Sum<float>", "struct Sum<int>"),
        ("sums.hpp", "CHUNK = 65536", "CHUNK = 1 << 30"),
        ("real.hpp", "float above = 0;", "float above = 0x1p65f;"),
    ]
    library = _library(_isa.levels()[0], tmp_path, _planted(tmp_path, *changes))
    assert _error_of_a_long_sum(library, np.dtype(np.float32)) > 1


MISTAKES = {
    "a coefficient": ("real.hpp", r"1\.6666\d+e-1f", "1.66667e-1f"),
    "ln(2)": ("real.hpp", r"ln2_low = 1\.4286\d+e-6f", "ln2_low = 1.4287e-6f"),
    "no second part of ln(2)": ("real.hpp", r"x\[i\] \* C::ln2_low", "0 * x[i]"),
    "no second part of the maximum's": ("real.hpp", r"k\[i\] \* C::ln2_low", "0 * k[i]"),
    "no second part of log1p's argument": ("real.hpp", r"\+ s\[i\]\.lo\) \* share", ") * share"),
    "no second part of the inverse": ("real.hpp", r"q \* fma\(-q, a\.lo, residual\)", "0 * residual"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_noticed(mistake, tmp_path):
    sources = _planted(tmp_path, MISTAKES[mistake])
    dtype = np.dtype(np.float32)
    assert _beyond_bounds(_compiled(_isa.levels()[0], tmp_path, dtype, sources), dtype)


# ---- what is compared with, and where ----------------------------------------------------------


LIMITS = Limits(100.0, 50.0, 64)


def _exact_values(dtype):
    """Reference and the same from mpmath."""
    s, lo = dtype.type(1.2345), dtype.type(1e-9)
    ln2 = mpmath.log(2)
    for x, maximum in ((-60.25, 15 * arguments.LN2), (1e-3, 0.0), (99.0, 99.0)):
        x, maximum = np.array([x], dtype), dtype.type(maximum)
        power = LIMITS.bias - mpmath.nint(mpmath.mpf(float(maximum)) / ln2)
        yield errors.exact_exp(LIMITS, x, maximum)[0], mpmath.exp(mpmath.mpf(float(x[0]))) * 2**power
    exact_s = mpmath.mpf(float(s)) + mpmath.mpf(float(lo))
    yield errors.exact_log1p(LIMITS, np.array([s]), np.array([lo]))[0], mpmath.log1p(exact_s)
    yield errors.exact_quotient(LIMITS, np.array([s]), np.array([s]), np.array([lo]))[0], float(s) / exact_s


def test_references(dtype):
    with mpmath.workdps(40):
        for ours, exact in _exact_values(dtype):
            high = mpmath.mpf(float(ours))
            low = mpmath.mpf(float(ours - ours.dtype.type(float(ours))))
            assert abs((high + low) / exact - 1) < np.finfo(dtype).eps / 1000


def test_errors_are_in_u_and_in_ulp(dtype):
    eps = float(np.finfo(dtype).eps)
    off = errors.Off(np.array([1.5, 1.5, 1.5], errors._wide(dtype)), dtype)
    result = off(np.array([1.5, 1.5 + eps, 1.5], dtype), np.array([0, 0, -eps / 4], dtype))
    np.testing.assert_allclose(result["ULP"], [0, 1, 0.25])
    np.testing.assert_allclose(result["u above"], np.array([0, 2, -0.5]) / 1.5)
    np.testing.assert_allclose(result["u below"], np.array([0, -2, 0.5]) / 1.5)


def test_nan_is_the_largest_error(dtype):
    worst = errors._largest(np.array([0.1, np.nan, 5.0]), (np.array([1.0, 2.0, 3.0]),))
    assert worst == (float("inf"), (2.0,))


def test_every_float32_is_tried():
    tiny = np.finfo(np.float32).smallest_subnormal
    (few,) = (arguments.floats(part) for part in arguments.ordinals(-2 * tiny, 2 * tiny))
    few = np.concatenate(list(few))
    assert few.tolist() == [-2 * tiny, -tiny, 0, 0, tiny, 2 * tiny]
    assert np.signbit(few).tolist() == [True, True, True, False, False, False]
    parts = list(arguments.ordinals(-384.0, 256.0))
    assert sum(map(len, parts)) == 0x43C00000 + 1 + 0x43800000 + 1
    assert all(a.stop == b.start for a, b in pairwise(parts))


def test_flags_are_those_of_the_extension():
    assert {"-O3", "-ffp-contract=off", "-Wno-psabi"} <= set(flags())
