"""Promise: within ``@njit`` an op has the bits that it has in Python: cached, in parallel, on any kernels."""

import importlib.metadata

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, processes

numba = pytest.importorskip("numba")
from numba.core.errors import TypingError  # noqa: E402

import fastsoftmax._numba_overloads  # noqa: E402  (an installation has an entry point)

SHAPES = [((7,), -1), ((4, 6), 1), ((33, 5), -1), ((4, 6), 0), ((3, 70, 4), 1), ((2, 3, 200), -1)]


@numba.njit
def softmax(x, axis):
    return fs.softmax(x, axis)


@numba.njit
def log_softmax(x, axis):
    return fs.log_softmax(x, axis=axis)


@numba.njit
def logsumexp(x, axis):
    return fs.logsumexp(x, axis)


@numba.njit
def softmax_vjp(y, g, axis):
    return fs.softmax_vjp(y, g, axis)


@numba.njit
def softmax_jvp(y, g, axis):
    return fs.softmax_jvp(y, g, axis)


@numba.njit
def log_softmax_vjp(y, g, axis):
    return fs.log_softmax_vjp(y, g, axis)


@numba.njit
def log_softmax_jvp(y, g, axis):
    return fs.log_softmax_jvp(y, g, axis)


@numba.njit
def softmax_solve(y, b, axis):
    return fs.softmax_solve(y, b, axis)


@numba.njit
def softmax_jacobian(y, axis):
    return fs.softmax_jacobian(y, axis)


@numba.njit
def log_softmax_jacobian(logy, axis):
    return fs.log_softmax_jacobian(logy, axis)


@numba.njit
def cross_entropy(x, labels, axis):
    return fs.cross_entropy(x, labels, axis)


@numba.njit
def cross_entropy_with_grad(x, labels, axis):
    return fs.cross_entropy_with_grad(x, labels, axis)


def _assert_same(actual, expected, dtype):
    """Numba makes Python's float of a scalar of any dtype."""
    actual = [dtype.type(a) if isinstance(a, float) else a for a in checks.as_tuple(actual)]
    checks.assert_same_bits(tuple(actual), checks.as_tuple(expected))


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_bits(op, shape, axis, dtype):
    if op.startswith("cross_entropy") and len(shape) == 1:
        pytest.skip("a single row of logits has no array of labels")
    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)
    expected, inside = getattr(fs, op)(*args, axis), globals()[op]
    _assert_same(inside(*args, axis), expected, dtype)
    spread = [np.repeat(a, 2, -1)[..., ::2] for a in args]
    for a in spread:
        a.setflags(write=False)
    _assert_same(inside(*spread, axis), expected, dtype)


@pytest.mark.parametrize("op", oracle.FORWARD)
def test_special_rows(op, dtype):
    x = np.array([case.row for case in inputs.SPECIAL_ROWS.values()], dtype)
    checks.assert_same_bits(globals()[op](x, -1), getattr(fs, op)(x))


def test_empty_rows():
    assert (logsumexp(np.empty((3, 0)), 1) == -np.inf).all()
    assert softmax(np.empty((0, 3)), 1).shape == (0, 3)
    assert np.isnan(cross_entropy(np.empty((0, 3)), np.empty(0, np.int64), 1))
    assert cross_entropy(np.empty((3, 0)), np.empty((3, 0)), 1) == 0


@numba.njit
def _into(x, y, out):
    fs.softmax(x, out=out)
    fs.softmax_vjp(out, y, out=out)
    return fs.softmax(x, out=x)


def test_out(dtype):
    x, y = (inputs.rng(i).normal(size=(5, 12)).astype(dtype) for i in (0, 1))
    expected = fs.softmax(x)
    out = checks.poisoned(x.shape, dtype)
    _into(x, y, out)
    checks.assert_same_bits((x, out), (expected, fs.softmax_vjp(expected, y)))
    with pytest.raises(ValueError, match="out has another shape"):
        _into(x, y, np.empty((4, 12), dtype))


@numba.njit
def _over(x, y, labels, out):
    fs.softmax_vjp(x, y, out=out)
    return fs.cross_entropy_with_grad(x, labels, weight=x[0], out=x)


def test_out_that_overlaps(dtype):
    """Entry by entry, or it is refused; weights are read before."""
    memory, labels = inputs.rng().uniform(size=(9, 12)).astype(dtype), inputs.rng(1).integers(0, 12, 3)
    for first, second, to in ((0, 3, 0), (3, 0, 0), (0, 0, 0), (0, 3, 6)):
        given = memory.copy()
        x, y, out = (given[start : start + 3] for start in (first, second, to))
        expected = fs.softmax_vjp(x, y)
        at = expected if first == to else x.copy()
        loss, dx = fs.cross_entropy_with_grad(at, labels, weight=at[0].copy())
        found, there = _over(x, y, labels, out)
        _assert_same(found, loss, dtype)
        checks.assert_same_bits((there, x), (dx, dx))
        if first != to:
            checks.assert_same_bits(out, expected)
    for first, second, to in ((0, 3, 1), (1, 5, 0), (5, 0, 1), (5, 1, 0)):
        with pytest.raises(ValueError, match="out overlaps an input"):
            _over(*(memory[start : start + 3] for start in (first, second)), labels, memory[to : to + 3])
    y, jacobian = fs.softmax(memory[0]), np.zeros((12, 12), dtype)
    checks.assert_same_bits(_jacobian_into(y, jacobian), fs.softmax_jacobian(y))
    with pytest.raises(ValueError, match="out overlaps an input"):
        _jacobian_into(jacobian[0], jacobian)


@numba.njit
def _loss_into(x, labels, out):
    return fs.cross_entropy_with_grad(x, labels, out=out)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_out_over_probabilities(dtype):
    memory, x = inputs.rng().uniform(size=(9, 12)).astype(dtype), inputs.width(12, np.dtype(dtype), rows=4)
    for start in (0, 1, 3):
        with pytest.raises(ValueError, match="out overlaps labels"):
            _loss_into(x, memory[:4], memory[start : start + 4])
    expected = fs.cross_entropy_with_grad(x, memory[:4])
    _assert_same(_loss_into(x, memory[:4], memory[4:8]), expected, x.dtype)


@numba.njit
def _jacobian_into(y, out):
    return fs.softmax_jacobian(y, out=out)


@numba.njit
def _diagonal(y, out):
    return fs.softmax_jacobian(y, 0, layout="diagonal"), fs.softmax_jacobian(y, layout="diagonal", out=out)


def test_diagonal(dtype):
    y = fs.softmax((inputs.rng().normal(size=(4, 6, 5)) * 9).astype(dtype))
    expected = fs.softmax_jacobian(y, 0, layout="diagonal"), fs.softmax_jacobian(y, layout="diagonal")
    checks.assert_same_bits(_diagonal(y, checks.poisoned(y.shape, dtype)), expected)
    checks.assert_same_bits(_log_diagonal(-y), fs.log_softmax_jacobian(-y, 0, layout="diagonal"))


@numba.njit
def _log_diagonal(logy):
    return fs.log_softmax_jacobian(logy, 0, layout="diagonal")


@numba.njit
def _solved(y, b, ridge, out):
    return fs.softmax_solve(y, b, 1, ridge=ridge), fs.softmax_solve(y, b, 1, ridge=ridge, out=out)


@pytest.mark.parametrize("ridge", [0, 0.0, 1e-9, 0.25])
def test_solutions(ridge, dtype):
    y, b = oracle.arguments("softmax_solve", (inputs.rng().normal(size=(4, 6, 5)) * 3).astype(dtype), 1)
    expected = (fs.softmax_solve(y, b, 1, ridge=ridge),) * 2
    checks.assert_same_bits(_solved(y, b, ridge, checks.poisoned(y.shape, dtype)), expected)
    y[0, 1, 2], b[3, 2, 1], y[1, 0, 0], b[1, 0, 0] = np.nan, np.inf, 0, 0
    expected = (fs.softmax_solve(y, b, 1, ridge=0.25),) * 2
    checks.assert_same_bits(_solved(y, b, 0.25, checks.poisoned(y.shape, dtype)), expected)


def test_what_has_no_solution(dtype):
    y, b = np.array([[0.5, 0.5, 0]] * 2, dtype), np.array([[1, -1, 0]] * 2, dtype)
    out = checks.poisoned(y.shape, dtype)
    for place, ridge, message in (
        ((1, 1), 0.0, "a row of b does not sum to 0"),
        ((1, 2), 0.0, "b is not 0 at an entry where y is 0"),
        ((1, 2), -1.0, "ridge must be 0 or more, and finite"),
        ((1, 2), np.inf, "ridge must be 0 or more, and finite"),
    ):
        wrong = b.copy()
        wrong[place] = 3
        with pytest.raises(ValueError, match=message):
            _solved(y, wrong, ridge, out)
    assert np.isnan(out).all()


@numba.njit
def _kept(x, out):
    return fs.logsumexp(x, 1, keepdims=True), fs.logsumexp(x, 0, keepdims=False), fs.logsumexp(x, out=out)


def test_keepdims(dtype):
    x, out = inputs.rng().normal(size=(4, 6, 5)).astype(dtype), checks.poisoned((4, 6), dtype)
    expected = fs.logsumexp(x, 1, keepdims=True), fs.logsumexp(x, 0), fs.logsumexp(x)
    checks.assert_same_bits((*_kept(x, out), out), (*expected, expected[-1]))


@numba.njit
def _with_factors(x, b, out):
    return fs.logsumexp(x, 0, b=b, keepdims=True), fs.logsumexp(x, 1, b=b), fs.logsumexp(x, b=b, out=out)


def test_factors(dtype):
    x, b = inputs.rng().normal(size=(2, 4, 70)).astype(dtype)
    x[0, 0], b[0, :2], b[1, :2] = np.nan, 0, (np.inf, -1)
    expected = fs.logsumexp(x, 0, b=b, keepdims=True), fs.logsumexp(x, 1, b=b), fs.logsumexp(x, b=b)
    for a, c in ((x, b), (np.asfortranarray(x), b), (x, np.repeat(b, 2, axis=1)[:, ::2])):
        out = checks.poisoned(4, dtype)
        checks.assert_same_bits((*_with_factors(a, c, out), out), (*expected, expected[-1]))
    empty = np.empty((3, 0), dtype)
    assert (_with_factors(empty, empty, np.empty(3, dtype))[1] == -np.inf).all()
    with pytest.raises(ValueError, match="b must have the shape of x"):
        _with_factors(x, b[:2], out)
    with pytest.raises(ValueError, match="out overlaps b"):
        _with_factors(x, b, b.reshape(-1)[:4])


@numba.njit
def _segments(x, y, g, ptr, out, results):
    return (
        fs.segment_softmax(x, ptr),
        fs.segment_log_softmax(x, ptr, out=out),
        fs.segment_logsumexp(x, ptr),
        fs.segment_logsumexp(x, ptr, out=results),
        fs.segment_softmax_vjp(y, g, ptr),
    )


def test_segments(dtype):
    for lengths in ([3, 0, 17, 1, 200, 3, 3, 0], [5], [0, 0, 0], []):
        ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        x, g = (inputs.rng().normal(size=(2, ptr[-1])) * 3).astype(dtype)
        y = fs.segment_softmax(x, ptr)
        lse = fs.segment_logsumexp(x, ptr)
        expected = (y, fs.segment_log_softmax(x, ptr), lse, lse, fs.segment_softmax_vjp(y, g, ptr))
        for places in (ptr, ptr.astype(np.uint32), np.repeat(ptr, 2)[::2]):
            out, results = checks.poisoned(x.shape, dtype), checks.poisoned(lse.shape, dtype)
            checks.assert_same_bits(_segments(x, y, g, places, out, results), expected)
            checks.assert_same_bits((out, results), (expected[1], lse))


@numba.njit
def _segments_in_place(x, ptr):
    return fs.segment_softmax(x, ptr, out=x)


@numba.njit
def _segments_over_entries(x, ptr):
    return fs.segment_logsumexp(x, ptr, out=x[: len(ptr) - 1])


@numba.njit
def _product_over_its_cotangent(y, g, ptr):
    return fs.segment_softmax_vjp(y, g[: len(y)], ptr, out=g[1 : len(y) + 1])


def test_segments_out(dtype):
    x, ptr = inputs.rng().normal(size=5).astype(dtype), np.array([0, 2, 5])
    expected = fs.segment_softmax(x, ptr)
    for entries, places in ((x, ptr), (x[:2], np.array([0, 0, 2]))):
        with pytest.raises(ValueError, match="out overlaps an input"):
            _segments_over_entries(entries, places)
    with pytest.raises(ValueError, match="out overlaps an input"):
        _product_over_its_cotangent(x, x.repeat(2), ptr)
    checks.assert_same_bits(_segments_in_place(x, ptr), expected)
    for wrong in ([1, 5], [0, 4], [0, 6], [0, 3, 2, 5], [-1, 5], np.empty(0, int)):
        with pytest.raises(ValueError, match="ptr must"):
            _segments_in_place(x, np.array(wrong))


@numba.njit
def _options(x, labels):
    return (
        fs.cross_entropy(x, labels, ignore_index=1),
        fs.cross_entropy(x, labels, reduction="sum"),
        fs.cross_entropy(x, labels, reduction="none"),
        fs.cross_entropy_with_grad(x, labels, ignore_index=-7, reduction="none"),
    )


def test_losses(dtype):
    x = inputs.rng().normal(size=(40, 10)).astype(dtype)
    for kind in (np.int64, np.int8, np.uint16):
        labels = inputs.rng().integers(0, 10, 40).astype(kind)
        options = {"ignore_index": 1}, {"reduction": "sum"}, {"reduction": "none"}
        expected = [fs.cross_entropy(x, labels, **given) for given in options]
        expected.append(fs.cross_entropy_with_grad(x, labels, ignore_index=-7, reduction="none"))
        for actual, right in zip(_options(x, labels), expected, strict=True):
            _assert_same(actual, right, dtype)
    for wrong in (np.full(40, 10), np.full(40, -1), np.full(40, 2**64 - 1, np.uint64)):
        with pytest.raises(IndexError, match="out of range"):
            cross_entropy(x, wrong, -1)
    with pytest.raises(ValueError, match="labels must have the shape"):
        cross_entropy(x, np.zeros(39, np.int64), -1)


@numba.njit
def _weighted(x, labels, weight, smoothing, out):
    return (
        fs.cross_entropy(x, labels, weight=weight, ignore_index=3),
        fs.cross_entropy(x, labels, label_smoothing=smoothing, reduction="none"),
        fs.cross_entropy_with_grad(x, labels, weight=weight, label_smoothing=smoothing, ignore_index=3),
        fs.cross_entropy_with_grad(x, labels, weight=weight, reduction="sum", out=out),
    )


@pytest.mark.parametrize("n", [10, 300])
def test_weights_and_smoothing(n, dtype):
    x, labels = inputs.rng().normal(size=(40, n)).astype(dtype), inputs.rng().integers(0, n, 40)
    weight, out = inputs.rng(2).uniform(0.1, 2, n), np.empty_like(x)
    weight[1] = 0
    for w, smoothing in ((weight, 0.0), (weight.astype(dtype), 0.1), (np.zeros(n, dtype), 1.0)):
        expected = (
            fs.cross_entropy(x, labels, weight=w, ignore_index=3),
            fs.cross_entropy(x, labels, label_smoothing=smoothing, reduction="none"),
            fs.cross_entropy_with_grad(x, labels, weight=w, label_smoothing=smoothing, ignore_index=3),
            fs.cross_entropy_with_grad(x, labels, weight=w, reduction="sum"),
        )
        for actual, right in zip(_weighted(x, labels, w, smoothing, out), expected, strict=True):
            _assert_same(actual, right, dtype)
        checks.assert_same_bits(out, expected[-1][1])
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1"):
        _weighted(x, labels, weight, np.nan, out)
    with pytest.raises(ValueError, match="weight must have one entry for each class"):
        _weighted(x, labels, weight[1:].copy(), 0.0, out)


@numba.njit
def _of_rows(x, labels, weight, sample_weight, smoothing):
    return (
        fs.cross_entropy(x, labels, sample_weight=sample_weight),
        fs.cross_entropy(x, labels, reduction="none"),
        fs.cross_entropy_with_grad(x, labels, weight=weight, sample_weight=sample_weight),
        fs.cross_entropy_with_grad(x, labels, sample_weight=sample_weight, label_smoothing=smoothing),
    )


@pytest.mark.parametrize("n", [10, 300])
def test_probabilities_and_weights_of_rows(n, dtype):
    x, t = inputs.rng().normal(size=(40, n)).astype(dtype), inputs.rng(1).uniform(size=(40, n)).astype(dtype)
    weight, of_rows = (inputs.rng(2).uniform(0.1, 2, size).astype(dtype) for size in (n, 40))
    of_rows[3] = 0
    for labels in (t, t.argmax(axis=1)):
        expected = (
            fs.cross_entropy(x, labels, sample_weight=of_rows),
            fs.cross_entropy(x, labels, reduction="none"),
            fs.cross_entropy_with_grad(x, labels, weight=weight, sample_weight=of_rows),
            fs.cross_entropy_with_grad(x, labels, sample_weight=of_rows, label_smoothing=0.1),
        )
        actual = _of_rows(x, labels, weight, of_rows, 0.1)
        for a, right in zip(actual, expected, strict=True):
            _assert_same(a, right, dtype)
        with pytest.raises(ValueError, match="sample_weight must have the shape of x without axis"):
            _of_rows(x, labels, weight, of_rows[1:].copy(), 0.1)
    with pytest.raises(ValueError, match="labels that are probabilities must have the shape of x"):
        _of_rows(x, t[1:].copy(), weight, of_rows, 0.1)


@numba.njit
def _ignoring(x, labels, samples):
    return fs.cross_entropy_with_grad(x, labels, ignore_index=-100, sample_weight=samples)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_a_mean_is_of_weights_of_any_scale(dtype):
    """As from Python, in bits."""
    x, info = inputs.width(3, np.dtype(dtype), rows=4), np.finfo(dtype)
    of_classes, of_rows = np.array([2, 4, 1], dtype), np.array([1, 3, 2, 4], dtype)
    for factor in (4 * info.smallest_subnormal, info.tiny, 1, 2.0 ** (info.maxexp - 3), 0):
        for labels in (x.argmin(axis=1), inputs.width(3, np.dtype(dtype), rows=4)):
            is_hard = labels.ndim == 1
            weight = of_classes * (x.dtype.type(factor) if is_hard else 1)
            samples = of_rows * x.dtype.type(factor)
            expected = fs.cross_entropy_with_grad(x, labels, weight=weight, sample_weight=samples)
            _assert_same(_of_rows(x, labels, weight, samples, 0.1)[2], expected, x.dtype)
    ignored = np.array([0, -100, 1, 2])
    samples = np.array([1, np.nan, 2, 3], dtype)
    expected = fs.cross_entropy_with_grad(x, ignored, ignore_index=-100, sample_weight=samples)
    _assert_same(_ignoring(x, ignored, samples), expected, x.dtype)
    cancel = np.array([1, -1, 0, 0], dtype)
    expected = fs.cross_entropy_with_grad(x, [0, 1, 2, 0], weight=of_classes * 0 + 1, sample_weight=cancel)
    actual = _of_rows(x, np.array([0, 1, 2, 0]), of_classes * 0 + 1, cancel, 0.1)[2]
    _assert_same(actual, expected, x.dtype)


def test_without_compiled_kernels():
    """The bits of the backend that calls from Python have then."""
    code = """
import numpy as np
from tests import test_numba_overloads as inside
for dtype in map(np.dtype, ("f8", "f4")):
    inside.test_losses(dtype)
    inside.test_keepdims(dtype)
    inside.test_weights_and_smoothing(10, dtype)
    inside.test_probabilities_and_weights_of_rows(10, dtype)
    inside.test_out_that_overlaps(dtype)
    inside.test_segments(dtype)
inside.test_callers_of_every_kind()
print(inside.fs.available_backends()[0])
"""
    assert processes.python(code, timeout=600, FASTSOFTMAX_MAX_CPU_ISA="none").strip() == "numba"


@numba.njit
def _temporaries(times):
    total = 0.0
    for _ in range(times):
        total += fs.softmax(np.arange(10.0))[3]
    return total / times


@numba.njit(parallel=True)
def _in_parallel(x):
    result = np.empty(len(x))
    for i in numba.prange(len(x)):
        result[i] = fs.logsumexp(x[i] * 2.0)
    return result


@numba.njit(fastmath=True)
def _fast(x):
    return fs.softmax(x)


def test_callers_of_every_kind():
    assert abs(_temporaries(10_000) - fs.softmax(np.arange(10.0))[3]) < 1e-15
    x = inputs.rng().normal(size=(1000, 30))
    checks.assert_same_bits(_in_parallel(x), fs.logsumexp(x * 2))
    checks.assert_same_bits(_fast(np.array([1.0, -np.inf])), np.array([1.0, 0.0]))
    assert np.isnan(_fast(np.array([np.nan, 1.0]))).all()


WRONG = {
    "has no backend=": lambda x: fs.softmax(x, backend="numpy"),
    "has no where=": lambda x: fs.softmax(x, where=x > 0),
    "pass x.astype": lambda x: fs.softmax(x > 0),
    "takes arrays: x is": lambda x: fs.softmax(1.0),
    "goes along one axis": lambda x: fs.softmax(x, (0, 1)),
    "an int; got": lambda x: fs.softmax(x, True),
    "takes arrays of one dtype": lambda x: fs.softmax_vjp(x, x[0]),
    "takes arrays of one dtype and shape: b is": lambda x: fs.logsumexp(x, b=x[0]),
    "has no out=": lambda x: fs.cross_entropy(x, np.array([0, 1]), out=x),
    "pass weight.astype": lambda x: fs.cross_entropy(x, np.array([0, 1]), weight=np.array([1, 2, 3])),
    "takes probabilities of the dtype and dimensions": lambda x: fs.cross_entropy(x, x[0]),
    "takes ignore_index with integer labels": lambda x: fs.cross_entropy(x, x, ignore_index=1),
    "takes one weight for each row": lambda x: fs.cross_entropy(x, x, sample_weight=x),
    "takes a number between": lambda x: fs.cross_entropy(x, np.array([0, 1]), label_smoothing="much"),
    "takes a number of 0 or more": lambda x: fs.softmax_solve(x, x, ridge="much"),
    "takes keepdims=True or False, written so": lambda x: fs.logsumexp(x, keepdims=x[0, 0] > 0),
    "writes into a C-contiguous array": lambda x: fs.softmax(x, out=x.T),
    "takes segments in a line": lambda x: fs.segment_softmax(x, np.array([0, 2])),
    "says where segments begin": lambda x: fs.segment_logsumexp(x[0], np.array([0.0, 3.0])),
    "has no num_threads=": lambda x: fs.segment_softmax(x[0], np.array([0, 3]), num_threads=2),
    'the layouts "batched" and "diagonal"': lambda x: fs.softmax_jacobian(x, layout="dense"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_not_known_says_what_to_do(message):
    with pytest.raises(TypingError, match=f"fastsoftmax within @njit .*{message}|{message}"):
        numba.njit(WRONG[message])(np.ones((2, 3)))


def test_an_axis_out_of_range():
    with pytest.raises(ValueError, match="axis is out of range"):
        softmax(np.ones((2, 3)), 2)


CACHED = """
import sys
import numpy as np, numba
try:
    import fastsoftmax as fs
    import fastsoftmax._numba_overloads  # where the entry point is not installed
except ImportError:
    fs = None

@numba.njit(cache=True)
def f(x, labels, weight):
    return fs.softmax(x), fs.cross_entropy(x, labels, weight=weight)

x, labels, weight = np.random.default_rng(0).normal(size=(3, 5)), np.array([0, 4, 2]), np.arange(5.0)
y, loss = f(x, labels, weight)
right = np.allclose(y, fs.softmax(x)), np.allclose(loss, fs.cross_entropy(x, labels, weight=weight))
print(sum(f.stats.cache_hits.values()), *map(bool, right))
"""


SILENT = "import warnings\nwarnings.simplefilter('ignore')\n"  # of an entry point whose package is gone


def test_cached(tmp_path):
    """Machine code of one process serves others, whatever kernels they have; without the package it fails."""
    script = tmp_path / "user.py"
    script.write_text(CACHED)

    def run(prelude="", **environment):
        code = f"{prelude}\nimport runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')"
        return processes.start(["-c", code], NUMBA_CACHE_DIR=str(tmp_path / "cache"), **environment)

    assert run().stdout.split() == ["0", "True", "True"]
    assert run().stdout.split() == ["1", "True", "True"]
    assert run(FASTSOFTMAX_MAX_CPU_ISA="x86-64-v2").stdout.split() == ["1", "True", "True"]
    assert run(processes.HIDE_EXTENSIONS).stdout.split() == ["1", "True", "True"]
    uninstalled = run(SILENT + processes.HIDE.format(names=["fastsoftmax"]))
    assert uninstalled.returncode == 1
    assert "ModuleNotFoundError: " in uninstalled.stderr.splitlines()[-1]
    assert "fastsoftmax" in uninstalled.stderr.splitlines()[-1]


def test_no_import_of_numba():
    code = "import sys, fastsoftmax; print('numba' in sys.modules)"
    assert processes.python(code).strip() == "False"


def test_the_entry_point():
    """Numba finds the ops by itself, and programs that do without them see no failure."""
    found = importlib.metadata.entry_points(group="numba_extensions")
    if not [e for e in found if e.value == "fastsoftmax._numba_entry:init"]:
        pytest.skip("this package is imported from a folder, not installed with its entry point")
    code = "import numba, numpy as np\n{first}import fastsoftmax as fs\n"
    code += "print(numba.njit(lambda x: fs.softmax(x))(np.zeros(2)))"
    for first in ("", "numba.njit(lambda: 1)()\n"):
        assert processes.python(code.format(first=first)).strip() == "[0.5 0.5]"
    broken = "import sys\nsys.modules['fastsoftmax._numba_overloads'] = None\n"
    assert processes.python(broken + "import numba\nprint(numba.njit(lambda: 1)())").strip() == "1"
