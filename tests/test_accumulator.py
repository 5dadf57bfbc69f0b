"""Promise: `LogSumExp` is exact for any split of the data, in any order of updates and merges."""

import copy
import pickle
from functools import reduce

import mpmath
import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, processes, tolerances

NAN, INF = np.nan, np.inf
EPS = 2.0**-52
N = 600

# Rows that add the roundings up, or that a pair (max, sum), a single float or a moving reference loses.
ROWS = {
    "equal": np.zeros(N),
    "equal, with a logarithm near 0": np.full(N, -np.log(N)),
    "one high over many equal": np.r_[0.0, np.full(N - 1, -20.0)],
    "one high after many equal": np.r_[np.full(N - 1, -9.5), 0.0],
    "one high below 0": np.r_[np.full(N - 1, -8.8), -0.3],
    "a maximum that cancels half of the logarithm": np.r_[-0.455, np.full(N - 1, -6.455)],
    "saturated": np.r_[np.full(N - 1, -500.0), 0.0],
    "subnormal rest": np.r_[0.0, np.full(N - 1, -720.0)],
    "rising by little": np.arange(N) * 1e-6 - 3,
    "rising by 1": np.r_[np.full(N - 21, -20.0), np.arange(-20.0, 1.0)],
    "rising through 0": np.linspace(-1.0, 0.25, N),
    "falling": -np.arange(N) * 0.01,
    "through every reference": np.linspace(-1500.0, 1500.0, N),
    "normal": inputs.rng().normal(size=N),
    "far apart": inputs.rng().normal(size=N) * 300,
    "around 1000": inputs.rng().normal(size=N) + 1000,
    "around -1e6": inputs.rng().normal(size=N) - 1e6,
    "near the ends of the range": np.r_[-1e308, np.full(3, 1.7e308), 0.0, -1e-308],
}


def one_by_one(parts):
    """Into one accumulator."""
    accumulator = fs.LogSumExp()
    for part in parts:
        accumulator.update(part)
    return accumulator


def chain(parts):
    """Each takes in all before it."""
    return reduce(lambda before, last: last.merge(before), (fs.LogSumExp().update(part) for part in parts))


def tree(parts):
    level = [fs.LogSumExp().update(part) for part in parts]
    while len(level) > 1:
        level = [reduce(fs.LogSumExp.merge, level[i : i + 2]) for i in range(0, len(level), 2)]
    return level[0]


def _error(actual, x, multiple=1):
    """In eps * max(|max|, |exact|), which every distinct number of ``x`` is taken for once."""
    with mpmath.workdps(60):
        values, counts = np.unique(x, return_counts=True)
        top = mpmath.mpf(float(values[-1]))
        counts = [int(c) * multiple for c in counts]
        counts[-1] -= 1
        rest = mpmath.fsum(c * mpmath.exp(float(v) - top) for v, c in zip(values, counts, strict=True))
        exact = top + mpmath.log1p(rest)
        unit = max(abs(top), abs(exact))
        spare = len(x) * 2.0**-1074  # each term may be subnormal
        return float(max(abs(float(actual) - exact) - spare, 0) / (EPS * unit))


@pytest.mark.parametrize("way", [one_by_one, chain, tree])
@pytest.mark.parametrize("length", [1, 7, 250])
@pytest.mark.parametrize("row", ROWS)
def test_any_split(row, length, way):
    x = ROWS[row]
    parts = [x[i : i + length] for i in range(0, len(x), length)]
    assert _error(way(parts).value, x) <= tolerances.LOGSUMEXP_EPS
    shuffled = inputs.rng(1).permutation(len(parts))
    assert _error(way([parts[i] for i in shuffled]).value, x) <= tolerances.LOGSUMEXP_EPS


@pytest.mark.parametrize("way", [one_by_one, chain])
@pytest.mark.parametrize("kind", ["equal", "rising"])
def test_many_single_entries(kind, way):
    """A single float would have lost two digits by then, and so would a sum relative to the maximum."""
    x = np.full(20_000, -12.3) if kind == "equal" else np.arange(20_000) * 1e-5 - 9.0
    x = np.r_[x, 0.0]
    assert _error(way(list(x)).value, x) <= tolerances.LOGSUMEXP_EPS


def test_as_many_as_2_to_the_60():
    """Each accumulator merged with itself."""
    accumulator = fs.LogSumExp().update([-40.0, -41.0, -41.5])
    for _ in range(60):
        accumulator.merge(accumulator)
    assert _error(accumulator.value, np.array([-40.0, -41.0, -41.5]), 2**60) <= tolerances.LOGSUMEXP_EPS
    accumulator.update(3.0)
    exact = mpmath.log(2**60 * mpmath.fsum(map(mpmath.exp, (-40, -41, -41.5))) + mpmath.exp(3))
    assert abs(accumulator.value - exact) <= EPS * exact


def test_a_long_part():
    """Of several blocks, in rows and in columns."""
    x = inputs.rng().normal(size=(2, 200_001)) * 3
    x[1, 150_000] = 40.0
    for axis, a in ((1, x), (0, x.T.copy()), (0, x.T)):
        value = fs.LogSumExp(axis).update(a[:77] if axis == 0 else a[:, :77])
        value = value.update(a[77:] if axis == 0 else a[:, 77:]).value
        assert max(map(_error, value, x)) <= tolerances.LOGSUMEXP_EPS


# ---- shapes, dtypes, special values --------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), inputs.SHAPES, ids=str)
def test_axes(shape, axis):
    special = pytest.importorskip("scipy.special")
    x = inputs.rng().normal(size=shape) * 5
    accumulator = fs.LogSumExp(axis)
    along = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for part in np.array_split(x, 2, axis=next(iter(along))):
        accumulator.update(part)
    desired = np.asarray(special.logsumexp(x, axis=axis))
    np.testing.assert_allclose(np.asarray(accumulator.value), desired, rtol=1e-13, strict=True)


@pytest.mark.parametrize("given", ["f8", "f4", "f2", ">f8", ">f4", "i1", "u8", "?", "bfloat16"])
def test_dtypes(given):
    """All in float64, to its bound."""
    if given == "bfloat16":
        given = pytest.importorskip("ml_dtypes").bfloat16
    x = (inputs.rng().normal(size=(400, 3)) * 3 + 4).astype(given)
    value = fs.LogSumExp(0).update(x[::2]).update(x[1::2]).value
    assert value.dtype == np.float64
    assert max(map(_error, value, x.astype(np.float64).T)) <= tolerances.LOGSUMEXP_EPS


def test_parts_of_several_dtypes_and_lengths():
    accumulator = fs.LogSumExp().update(np.float32(0.1)).update([1, 2]).update(np.array([True])).update(-3.0)
    assert (
        _error(accumulator.value, np.array([np.float32(0.1), 1, 2, 1, -3.0], np.float64))
        <= tolerances.LOGSUMEXP_EPS
    )


@pytest.mark.parametrize("case", inputs.SPECIAL_ROWS)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_special_values(case, place):
    """The table of `logsumexp`, and rows beside it do not notice."""
    case = inputs.SPECIAL_ROWS[case]
    x = np.array([[1.0, 2.0, 3.0], case.row, [-800.0, 1.0, 0.5]])
    with np.errstate(all="raise"):
        for a, b in ((x[:, :place], x[:, place:]), (x[:, place:], x[:, :place])):
            value = fs.LogSumExp().update(a).update(b).value
            merged = fs.LogSumExp().update(a).merge(fs.LogSumExp().update(b)).value
            np.testing.assert_array_equal(merged, value)
            np.testing.assert_allclose(value[1], case.logsumexp, rtol=1e-15)
            x[1] = 0.0
            checks.assert_same_bits(value[::2], fs.LogSumExp().update(a).update(b).value[::2])
            x[1] = case.row


@pytest.mark.parametrize("end", [INF, -INF, np.finfo(np.float64).max, -np.finfo(np.float64).max, 5e-324])
@pytest.mark.parametrize("other", [INF, -INF, 0.0, -1e308, 1e308, 600.0, -600.0])
def test_ends_of_the_range(end, other):
    for order in ((end, other), (other, end)):
        value = reduce(fs.LogSumExp.update, order, fs.LogSumExp()).value
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(value, np.logaddexp(*order), rtol=4e-16)


def test_no_entries():
    assert fs.LogSumExp().value == -INF
    accumulator = fs.LogSumExp().update(np.empty((3, 0)))
    np.testing.assert_array_equal(accumulator.value, np.full(3, -INF), strict=True)
    accumulator.update(np.ones((3, 2))).update(np.empty((3, 0))).merge(fs.LogSumExp())
    np.testing.assert_allclose(accumulator.value, fs.logsumexp(np.ones((3, 2))), rtol=3e-16)
    checks.assert_same_bits(fs.LogSumExp(0).merge(accumulator).value, accumulator.value)
    assert fs.LogSumExp().update(np.empty((0, 5))).value.shape == (0,)


def test_zero_dimensional():
    assert fs.LogSumExp().update(2.5).value == 2.5
    value = fs.LogSumExp(None).update([[1.0], [1.0]]).update(1.0).value
    np.testing.assert_allclose(value, 1 + np.log(3), rtol=3e-16)


# ---- as an object --------------------------------------------------------------------------------


def test_pickled_and_copied():
    accumulator = fs.LogSumExp((0, 1)).update(inputs.rng().normal(size=(4, 3, 2)))
    for same in (
        copy.copy(accumulator),
        copy.deepcopy(accumulator),
        *(pickle.loads(pickle.dumps(accumulator, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)),
    ):
        assert same.axis == (0, 1)
        before = accumulator.value
        checks.assert_same_bits(
            same.update(np.ones((1, 1, 2))).value,
            copy.copy(accumulator).merge(fs.LogSumExp((0, 1)).update(np.ones((1, 1, 2)))).value,
        )
        checks.assert_same_bits(accumulator.value, before)


def test_the_state_is_what_its_documentation_says():
    x = inputs.rng().normal(size=(5, 40)) * 200
    row_max, rest, low = fs.LogSumExp().update(x[:, :13]).update(x[:, 13:]).state
    np.testing.assert_array_equal(row_max, x.max(axis=1))
    others = np.sort(x, axis=1)[:, :-1].astype(np.longdouble)
    at = 512 * np.floor(row_max / 512)
    desired = np.exp(others - at[:, None]).sum(axis=1)
    np.testing.assert_allclose(np.longdouble(rest) + low, desired, rtol=4e-16)


def test_merging_leaves_the_other_as_it_is():
    a, b = fs.LogSumExp().update([1.0, 2.0]), fs.LogSumExp().update([3.0])
    before = b.value
    assert a.merge(b) is a
    a.update([5.0])
    assert b.value == before


def test_any_number_of_threads():
    x = inputs.rng().normal(size=(300, 2000))
    for a, axis in ((x, 1), (x, 0), (x.T, 1)):
        with fs.threads(1):
            expected = fs.LogSumExp(axis).update(a).value
        with fs.threads(3):
            checks.assert_same_bits(fs.LogSumExp(axis).update(a).value, expected)


def test_imports_no_backend():
    code = "import sys, fastsoftmax as fs; fs.LogSumExp; print('fastsoftmax.backends.numpy' in sys.modules)"
    assert processes.python(code).strip() == "False"


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            np.ones((2, 4)),
            ValueError,
            r"x has shape \(2, 4\), \(2,\) without axis -1; .* of shape \(3,\): take",
        ),
        (np.ones(3), ValueError, r"x has shape \(3,\), \(\) without axis -1"),
        (np.ones((3, 2), complex), TypeError, r"x has dtype complex128; expected .* np\.real\(x\)"),
        (np.array([["a"]] * 3), TypeError, r"x has dtype <U1"),
        (np.ma.array(np.ones((3, 2)), mask=True), TypeError, "x is a masked array"),
    ],
)
def test_wrong_parts(given, error, message):
    """Of which nothing is taken in."""
    accumulator = fs.LogSumExp().update(np.ones((3, 2)))
    before = accumulator.state
    with pytest.raises(error, match=message):
        accumulator.update(given)
    assert accumulator.state is before


def test_wrong_others():
    accumulator = fs.LogSumExp().update(np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"other must be a LogSumExp; got float: update\(\) takes arrays"):
        accumulator.merge(1.0)
    with pytest.raises(ValueError, match=r"other holds values of shape \(2,\); .* of shape \(3,\): take"):
        accumulator.merge(fs.LogSumExp().update(np.ones((2, 2))))


@pytest.mark.parametrize(
    ("axis", "error"), [(1.0, TypeError), ("0", TypeError), (True, TypeError), ((0, 0), ValueError)]
)
def test_wrong_axes(axis, error):
    with pytest.raises(error, match="axis"):
        fs.LogSumExp(axis)


def test_axis_out_of_range():
    with pytest.raises(np.exceptions.AxisError):
        fs.LogSumExp(2).update(np.ones((3, 2)))
