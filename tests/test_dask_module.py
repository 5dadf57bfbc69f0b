"""Promise: `fastsoftmax.dask` has the ops' values and bounds for any chunks, lazily and in little memory."""

import pickle
import sys

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, processes, tolerances

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
from fastsoftmax import dask as ours  # noqa: E402

NAN, INF = np.nan, np.inf
CHUNKINGS = {
    "whole": (-1, -1),
    "rows": (2, -1),
    "columns": (-1, 3),
    "single entries": (1, 1),
    "uneven": ((1, 3, 1), (4, 1, 2, 4)),
}
X = inputs.rng().normal(size=(5, 11)) * 4


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="sync"):
        yield


def _assert_ulps(op, actual, x, bound):
    exact = oracle.exact_forward(op, x)
    assert not ((actual == 0) & (np.abs(exact.high) >= np.finfo(actual.dtype).smallest_subnormal)).any()
    assert exact.ulps(actual) <= bound


@pytest.mark.parametrize("chunks", CHUNKINGS)
@pytest.mark.parametrize("axis", [-1, 0, None, (1, 0)])
@pytest.mark.parametrize("op", oracle.FORWARD)
def test_values(op, axis, chunks, dtype):
    x = da.from_array(X.astype(dtype), CHUNKINGS[chunks])
    lazy, desired = getattr(ours, op)(x, axis), getattr(fs, op)(X.astype(dtype), axis)
    assert (lazy.dtype, lazy.shape, lazy._meta.dtype) == (dtype, np.shape(desired), dtype)
    assert op == "logsumexp" or lazy.chunks == x.chunks
    np.testing.assert_allclose(lazy.compute(), desired, rtol=8 * np.finfo(dtype).eps, strict=True)


@pytest.mark.parametrize("name", [n for n in inputs.FAMILIES if n not in ("sources_1000x5", "masked")])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_ulps(op, name, dtype):
    """The bounds of the ops themselves, with every entry in a chunk of its own, and by sevens."""
    x = inputs.FAMILIES[name](dtype)[:12]
    for length in (1, 7):
        y = getattr(ours, op)(da.from_array(x, (-1, length))).compute()
        _assert_ulps(op, y, x, tolerances.of(dtype).ulps[op])


@pytest.mark.parametrize("kind", ["one high", "equal"])
def test_long_rows(kind):
    x = np.full((1, 60_000), -12.25)
    if kind == "one high":
        x[0, 777] = 0.5
    lazy = da.from_array(x, (1, 1000))
    with dask.config.set(split_every=2):
        for op in ("softmax", "log_softmax"):
            y = getattr(ours, op)(lazy).compute()
            pick = [0, 776, 777, 59_999]
            _assert_ulps_of(op, y[:, pick], x, pick)
        lse = ours.logsumexp(lazy).compute()
    high = x.max()
    exact = np.longdouble(high) + np.log1p(np.exp(np.longdouble(-12.25) - high) * (x.size - 1))
    assert abs(lse[0] - exact) <= tolerances.LOGSUMEXP_EPS * 2.0**-52 * max(abs(high), abs(exact))


def _assert_ulps_of(op, actual, x, pick):
    """Of some entries of rows of two distinct values, in longdouble, which has 11 bits more."""
    long = x.astype(np.longdouble)
    m = long.max()
    rest = np.exp(long.min() - m) * (x.size - 1)
    exact = (
        (long[:, pick] - m) - np.log1p(rest)
        if op == "log_softmax"
        else np.exp(long[:, pick] - m) / (1 + rest)
    )
    bound = tolerances.of(x.dtype).ulps[op]
    assert (np.abs(actual - exact) <= bound * np.spacing(np.abs(exact).astype(np.float64))).all()


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("chunks", [(-1, -1), (1, 2), (2, 1)])
def test_special_values(op, chunks):
    rows = [case for case in inputs.SPECIAL_ROWS.values() if len(case.row) == 3]
    x = np.array([case.row for case in rows])
    y = getattr(ours, op)(da.from_array(x, chunks)).compute()
    np.testing.assert_allclose(y, [getattr(case, op) for case in rows], rtol=4e-16)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("given", ["f2", ">f4", "i1", "u8", "?", "bfloat16"])
def test_dtypes(op, given):
    if given == "bfloat16":
        given = pytest.importorskip("ml_dtypes").bfloat16
    x = (X > 0).astype(given) if given == "?" else np.abs(X).astype(given)
    desired = getattr(fs, op)(x)
    rtol = 2.0**-7 if desired.dtype.itemsize == 2 else 8 * np.finfo(desired.dtype).eps
    for chunks in ((-1, -1), (2, 3)):
        lazy = getattr(ours, op)(da.from_array(x, chunks))
        assert lazy.dtype == desired.dtype
        actual = lazy.compute()
        assert actual.dtype == desired.dtype
        np.testing.assert_allclose(actual.astype(float), desired.astype(float), rtol=rtol)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("chunks", [(-1, -1), (2, 3)])
@pytest.mark.parametrize("given", ["numpy", "dask", "a row"])
def test_where(op, chunks, given, dtype):
    mask = inputs.rng(1).random(X.shape) < 0.6
    mask[2] = False
    mask = mask[0] if given == "a row" else mask
    x = X.astype(dtype)
    where = da.from_array(mask, 2) if given == "dask" else mask
    actual = getattr(ours, op)(da.from_array(x, chunks), where=where).compute()
    desired = getattr(fs, op)(x, where=mask)
    np.testing.assert_allclose(actual, desired, rtol=8 * np.finfo(dtype).eps, strict=True)


@pytest.mark.parametrize("axis", [-1, (0, 2), None])
@pytest.mark.parametrize("chunks", [-1, 2])
def test_keepdims(axis, chunks):
    x = inputs.rng().normal(size=(3, 4, 5))
    actual = ours.logsumexp(da.from_array(x, chunks), axis, keepdims=True)
    desired = fs.logsumexp(x, axis, keepdims=True)
    assert actual.shape == desired.shape
    np.testing.assert_allclose(actual.compute(), desired, rtol=1e-15, strict=True)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), ()])
@pytest.mark.parametrize("op", oracle.FORWARD)
def test_no_entries_and_no_dimensions(op, shape):
    x = np.zeros(shape)
    np.testing.assert_array_equal(getattr(ours, op)(da.from_array(x)).compute(), getattr(fs, op)(x))


def test_chunks_of_unknown_length():
    x = da.from_array(X, (2, 4))[da.from_array(X[:, 0] > 0, 2)]
    for op in oracle.FORWARD:
        desired = getattr(fs, op)(X[X[:, 0] > 0])
        np.testing.assert_allclose(getattr(ours, op)(x).compute(), desired, rtol=1e-14)


# ---- cross-entropy -------------------------------------------------------------------------------

LABELS = np.array([10, 0, 3, 3, 7])
WEIGHT = inputs.rng(2).uniform(0.1, 3, size=11)
OPTIONS = (
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"weight": WEIGHT, "label_smoothing": 0.1},
    {"weight": WEIGHT, "ignore_index": 3, "label_smoothing": 0.3},
    {"ignore_index": 0, "reduction": "none"},
    {"weight": np.where(np.arange(11) == 3, 0.0, 1.0)},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunks", CHUNKINGS)
@pytest.mark.parametrize("given", ["numpy", "dask"])
def test_cross_entropy(options, chunks, given, dtype):
    x, eps = X.astype(dtype), np.finfo(dtype).eps
    labels = LABELS if given == "numpy" else da.from_array(LABELS, 3)
    lazy = da.from_array(x, CHUNKINGS[chunks])
    desired_loss, desired_dx = fs.cross_entropy_with_grad(x, LABELS, **options)
    loss, dx = ours.cross_entropy_with_grad(lazy, labels, **options)
    assert (loss.shape, loss.dtype) == (np.shape(desired_loss), dtype)
    assert (dx.shape, dx.dtype, dx.chunks) == (x.shape, dtype, lazy.chunks)
    loss, dx = dask.compute(loss, dx)
    np.testing.assert_allclose(loss, desired_loss, rtol=16 * eps, strict=True)
    np.testing.assert_allclose(dx, desired_dx, rtol=32 * eps, atol=eps / 8, strict=True)
    alone = ours.cross_entropy(lazy, labels, **options).compute()
    np.testing.assert_allclose(alone, desired_loss, rtol=16 * eps, strict=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"weight": WEIGHT}, {"weight": WEIGHT, "label_smoothing": 0.3}, {"reduction": "none"}],
    ids=str,
)
@pytest.mark.parametrize("chunks", CHUNKINGS)
@pytest.mark.parametrize("given", ["numpy", "dask"])
@pytest.mark.parametrize("kind", ["labels", "probabilities", "labels, weighted", "probabilities, weighted"])
def test_probabilities_and_weights_of_rows(kind, options, chunks, given, dtype):
    x, eps = X.astype(dtype), np.finfo(dtype).eps
    labels = inputs.rng(5).dirichlet(np.ones(x.shape[-1]), len(x)) if "prob" in kind else LABELS
    of_rows = {"sample_weight": np.arange(len(x)) / 2.0} if "weighted" in kind else {}
    desired_loss, desired_dx = fs.cross_entropy_with_grad(x, labels, **options, **of_rows)
    if given == "dask":
        labels = da.from_array(labels, 3)
        of_rows = {name: da.from_array(a, 2) for name, a in of_rows.items()}
    lazy = da.from_array(x, CHUNKINGS[chunks])
    loss, dx = ours.cross_entropy_with_grad(lazy, labels, **options, **of_rows)
    assert (loss.shape, loss.dtype) == (np.shape(desired_loss), dtype)
    assert (dx.shape, dx.dtype, dx.chunks) == (x.shape, dtype, lazy.chunks)
    loss, dx = dask.compute(loss, dx)
    np.testing.assert_allclose(loss, desired_loss, rtol=16 * eps, strict=True)
    np.testing.assert_allclose(dx, desired_dx, rtol=32 * eps, atol=eps, strict=True)
    alone = ours.cross_entropy(lazy, labels, **options, **of_rows).compute()
    np.testing.assert_allclose(alone, desired_loss, rtol=16 * eps, strict=True)


@pytest.mark.parametrize("chunks", [(-1, -1), (1, 1)])
def test_a_confident_row_of_probabilities_keeps_its_digits(chunks):
    x, t = (da.from_array(np.array([row]), chunks) for row in ([40.0, 0.0, 0.0], [1.0, 0.0, 0.0]))
    loss, dx = dask.compute(*ours.cross_entropy_with_grad(x, t))
    np.testing.assert_allclose(loss, np.log1p(2 * np.exp(-40)), rtol=1e-15)
    np.testing.assert_allclose(dx[0], np.exp(-40) * np.array([-2, 1, 1]), rtol=1e-15)


@pytest.mark.parametrize("chunks", [(-1, -1), (2, 2)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_a_mean_is_of_weights_of_any_scale(dtype, soft, chunks):
    x, info = inputs.width(3, np.dtype(dtype), rows=4), np.finfo(dtype)
    labels = inputs.rng(1).uniform(size=x.shape) if soft else x.argmin(axis=1)
    of_classes, of_rows = np.array([2, 4, 1], dtype), np.array([1, 3, 2, 4], dtype)
    for factor in (4 * info.smallest_subnormal, info.tiny, 1, info.max / 4):
        weights = {"weight": of_classes * (1 if soft else factor), "sample_weight": of_rows * factor}
        desired = fs.cross_entropy_with_grad(x, labels, **weights)
        actual = dask.compute(*ours.cross_entropy_with_grad(da.from_array(x, chunks), labels, **weights))
        for a, b in zip(actual, desired, strict=True):
            np.testing.assert_allclose(a, b, rtol=16 * info.eps, strict=True)
    for of_rows in ([1, -1, 0, 0], [0, 0, 0, 0]):
        desired = fs.cross_entropy_with_grad(x, labels, sample_weight=of_rows)
        lazy = ours.cross_entropy_with_grad(da.from_array(x, chunks), labels, sample_weight=of_rows)
        for a, b in zip(dask.compute(*lazy), desired, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("op", oracle.FORWARD)
def test_chunks_without_rows(op):
    """What a filter leaves of a chunk may be nothing."""
    x = da.from_array(X, 2)
    for chosen in (np.arange(len(X)) >= 2, np.zeros(len(X), bool)):
        lazy = getattr(ours, op)(x[da.from_array(chosen, 2)])
        np.testing.assert_allclose(lazy.compute(), getattr(fs, op)(X[chosen]), rtol=1e-14)
    loss, dx = ours.cross_entropy_with_grad(x[:0], LABELS[:0])
    assert np.isnan(loss.compute())
    assert dx.compute().shape == (0, X.shape[1])


@pytest.mark.parametrize("chunks", [(-1, -1), (2, 2)])
def test_weights_of_ignored_rows_may_be_anything(chunks):
    labels, of_rows = (
        np.where(np.arange(len(X)) == 1, -1, LABELS),
        np.where(np.arange(len(X)) == 1, np.nan, 2),
    )
    lazy = ours.cross_entropy_with_grad(
        da.from_array(X, chunks), labels, ignore_index=-1, sample_weight=of_rows
    )
    desired = fs.cross_entropy_with_grad(X, labels, ignore_index=-1)
    for actual, expected in zip(dask.compute(*lazy), desired, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=1e-17)


def test_losses_of_unknown_length():
    keep = da.from_array(np.arange(len(X)) > 1, 2)
    x, labels = da.from_array(X, 2)[keep], da.from_array(LABELS, 2)[keep]
    with pytest.raises(ValueError, match=r"x has shape \(nan, .*: .* call x\.compute_chunk_sizes\(\)"):
        ours.cross_entropy(x, labels)
    loss = ours.cross_entropy(x.compute_chunk_sizes(), labels.compute_chunk_sizes()).compute()
    np.testing.assert_allclose(loss, fs.cross_entropy(X[2:], LABELS[2:]), rtol=1e-15)


def test_wrong_probabilities_and_weights_of_rows():
    x = da.from_array(X, (2, 3))
    with pytest.raises(ValueError, match=r"labels has shape .* a probability for each entry of x"):
        ours.cross_entropy(x, da.from_array(X[1:], 2))
    with pytest.raises(ValueError, match="ignore_index is a class index"):
        ours.cross_entropy(x, da.from_array(X, 2), ignore_index=1)
    for of_rows in (np.ones(4), da.ones(4), 1.0):
        with pytest.raises(ValueError, match="sample_weight has shape"):
            ours.cross_entropy(x, LABELS, sample_weight=of_rows)
    with pytest.raises(TypeError, match="sample_weight has dtype complex128"):
        ours.cross_entropy(x, LABELS, sample_weight=da.ones(5, dtype=complex))


@pytest.mark.parametrize("axis", [0, (0, 2), None])
@pytest.mark.parametrize("chunks", [-1, 2])
def test_cross_entropy_along_axes(axis, chunks):
    x = inputs.rng().normal(size=(3, 4, 5))
    kept = np.shape(fs.logsumexp(x, axis))
    labels = inputs.rng().integers(0, x.size // max(1, np.prod(kept, dtype=int)), kept)
    lazy = ours.cross_entropy_with_grad(da.from_array(x, chunks), labels, axis)
    for actual, desired in zip(dask.compute(*lazy), fs.cross_entropy_with_grad(x, labels, axis), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("axis", [0, 1])
def test_chunks_of_several_blocks(axis):
    """Of long rows and of long columns, smoothed, on any number of threads."""
    x = inputs.rng().normal(size=(200_000, 2) if axis == 1 else (300, 700)) * 2
    x = x.T.copy() if axis == 1 else x
    labels = inputs.rng().integers(0, x.shape[axis], x.shape[1 - axis])
    lazy = da.from_array(x, (2, 150_000) if axis == 1 else (150, 700))
    results = []
    for threads in (1, 3):
        with fs.threads(threads):
            ops = [getattr(ours, op)(lazy, axis) for op in oracle.FORWARD]
            ops += ours.cross_entropy_with_grad(lazy, labels, axis, label_smoothing=0.2)
            results.append(dask.compute(*ops))
    checks.assert_same_bits(*results)
    desired = [getattr(fs, op)(x, axis) for op in oracle.FORWARD]
    desired += fs.cross_entropy_with_grad(x, labels, axis, label_smoothing=0.2)
    for a, b in zip(results[0], desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-18)


@pytest.mark.parametrize("chunks", [(-1, -1), (1, 1)])
def test_a_confident_row_keeps_its_digits(chunks):
    x = da.from_array(np.array([[40.0, 0.0, 0.0]]), chunks)
    loss, dx = dask.compute(*ours.cross_entropy_with_grad(x, [0]))
    np.testing.assert_allclose(loss, np.log1p(2 * np.exp(-40)), rtol=1e-15)
    np.testing.assert_allclose(dx[0], np.exp(-40) * np.array([-2, 1, 1]), rtol=1e-15)


@pytest.mark.parametrize("chunks", [(-1, -1), (2, 1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_special_rows(chunks, smoothing):
    """-inf at the label or in a class of weight 0, NaN, +inf, the ends of the range, what is ignored."""
    x = np.array([[0, -INF, 1], [1, NAN, 0], [INF, 0, 0], [-1e308, 1e308, 0], [-INF, 0, 1], [NAN, 0, 0]])
    labels = [1, 0, 1, 0, 2, -7]
    options = {
        "weight": [0.0, 1.0, 2.0],
        "ignore_index": -7,
        "label_smoothing": smoothing,
        "reduction": "none",
    }
    actual = dask.compute(*ours.cross_entropy_with_grad(da.from_array(x, chunks), labels, **options))
    desired = fs.cross_entropy_with_grad(x, labels, **options)
    for a, b in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-17)


def test_half_precision_is_rounded_once():
    x = X.astype(np.float16)
    for chunks in ((-1, -1), (2, 3)):
        loss, dx = dask.compute(*ours.cross_entropy_with_grad(da.from_array(x, chunks), LABELS))
        desired = fs.cross_entropy_with_grad(x, LABELS)
        assert (loss.dtype, dx.dtype) == (np.float16, np.float16)
        np.testing.assert_allclose(loss, desired[0], rtol=2.0**-10)
        np.testing.assert_allclose(dx, desired[1], rtol=2.0**-10, atol=2.0**-24)


def test_a_mean_of_nothing_is_nan():
    x = da.from_array(X, (2, 3))
    assert np.isnan(ours.cross_entropy(x, np.full(5, 2), ignore_index=2).compute())
    assert np.isnan(ours.cross_entropy(da.zeros((0, 3)), np.empty(0, int)).compute())


# ---- lazily, anywhere ----------------------------------------------------------------------------


def _never(block):
    raise AssertionError("computed")


@pytest.mark.parametrize("chunks", [(-1, -1), (2, 3)])
def test_nothing_is_computed_before_it_is_asked_for(chunks):
    x = da.from_array(X, chunks).map_blocks(_never, dtype=float, meta=np.empty((0, 0)))
    labels = da.from_array(LABELS).map_blocks(_never, dtype=int, meta=np.empty(0, int))
    lazy = [getattr(ours, op)(x, where=X > 0) for op in oracle.FORWARD]
    lazy += ours.cross_entropy_with_grad(x, labels, ignore_index=3)
    for a in lazy:
        with pytest.raises(AssertionError, match="computed"):
            a.compute()


def _all(chunks):
    x = da.from_array(X, chunks)
    lazy = [getattr(ours, op)(x) for op in oracle.FORWARD]
    return [*lazy, *ours.cross_entropy_with_grad(x, LABELS, weight=WEIGHT)]


@pytest.mark.parametrize("chunks", [(2, -1), (2, 3)])
def test_in_threads(chunks):
    """The same bits as in one."""
    with dask.config.set(scheduler="threads", num_workers=4):
        in_threads = dask.compute(*_all(chunks))
    checks.assert_same_bits(tuple(in_threads), tuple(dask.compute(*_all(chunks))))


def test_reread():
    """The same bits, of chunks that are made twice."""
    made = []

    def make(block_info=None):
        at = block_info[None]["array-location"]
        made.append(tuple(map(tuple, at)))
        return X[tuple(slice(*a) for a in at)]

    x = da.map_blocks(make, chunks=((2, 3), (4, 7)), dtype=float, meta=np.empty((0, 0)))
    for reread, times in ((False, 1), (True, 2)):
        lazy = [ours.softmax(x, reread=reread), ours.log_softmax(x, where=X < 3, reread=reread)]
        lazy += ours.cross_entropy_with_grad(x, LABELS, reread=reread)
        for a, expected in zip(lazy, _not_reread(), strict=True):
            made.clear()
            checks.assert_same_bits(a.compute(), expected)
            assert sorted(made) == sorted([*set(made)] * times)


def _not_reread():
    x = da.from_array(X, ((2, 3), (4, 7)))
    lazy = [ours.softmax(x), ours.log_softmax(x, where=X < 3), *ours.cross_entropy_with_grad(x, LABELS)]
    return dask.compute(*lazy)


def test_graphs_can_be_pickled():
    for a in _all((2, 3)):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(a)).compute(), a.compute())


ELSEWHERE = """
import warnings
warnings.simplefilter("ignore")
import dask
from tests.test_dask_module import _all

if __name__ == "__main__":
    lazy = _all((2, -1)) + _all((2, 3))
    here = dask.compute(*lazy, scheduler="sync")
{elsewhere}
    print(all((a == b).all() for a, b in zip(here, there, strict=True)))
"""
SCHEDULERS = {
    "processes": """
    there = dask.compute(*lazy, scheduler="processes", num_workers=2)
""",
    "distributed": """
    from dask.distributed import Client, LocalCluster
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        there = [future.result() for future in client.compute(lazy)]
""",
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_in_other_processes(scheduler, tmp_path):
    """With the bits that they have here; as a script, which the children import."""
    if scheduler == "distributed":
        pytest.importorskip("distributed")
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE.format(elsewhere=SCHEDULERS[scheduler]))
    result = processes.start([str(script)], timeout=300)
    assert result.stdout.split() == ["True"], result.stderr


MEMORY = """
import resource
import dask, dask.array as da, numpy as np
from fastsoftmax import dask as ours

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def made(chunks):
    x = da.random.default_rng(0).normal(size=(8192, 8192), chunks=chunks)
    return {call}

with dask.config.set(scheduler="threads", num_workers=2):
    made((512, 512))[0].compute()
    before = peak()
    print(float(made({chunks}).sum().compute()), peak() - before)
"""
ROWS_THAT_FIT = [(128, -1), (1024, 1024), (256, 4096)]
CALLS = [
    *(("logsumexp(x)", chunks) for chunks in [*ROWS_THAT_FIT, (-1, 128)]),
    *(("softmax(x).sum(axis=1)", chunks) for chunks in ROWS_THAT_FIT),
    *(("log_softmax(x).max(axis=1)", chunks) for chunks in ROWS_THAT_FIT),
    *((f"{op}(x, reread=True).sum(axis=1)", (-1, 128)) for op in ("softmax", "log_softmax")),
    ("cross_entropy_with_grad(x, np.zeros(8192, int), reread=True)[1].sum(axis=1)", (-1, 128)),
]


@pytest.mark.parametrize(("call", "chunks"), CALLS)
def test_peak_memory(call, chunks):
    """Of 512 MB, at 8 MB a chunk; where every chunk has entries of every row, they are not kept."""
    if sys.platform != "linux":
        pytest.skip("peaks are in other units")
    code = MEMORY.format(call=f"ours.{call}", chunks=chunks)
    total, peak = map(float, processes.python(code, FASTSOFTMAX_NUM_THREADS="1", timeout=300).split())
    assert not call.startswith("softmax") or abs(total - 8192) < 1e-9
    assert peak < 120e6


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", oracle.OPS)
def test_the_ops_themselves_refuse_dask_arrays(op, backend):
    x = da.from_array(X, 2)
    others = (LABELS,) if op.startswith("cross") else (X,) if op in oracle.TWO_ARRAYS else ()
    with pytest.raises(
        TypeError, match=r"dask Array, .* from fastsoftmax\.dask where that has it, or pass \w+\.compute\(\)"
    ):
        getattr(fs, op)(x, *others, backend=backend)
    with pytest.raises(TypeError, match=r"x is a dask Array"):
        fs.LogSumExp().update(x)
    with pytest.raises(TypeError, match=r"labels is a dask Array, .*pass labels\.compute\(\)"):
        fs.cross_entropy(X, da.from_array(LABELS))
    with pytest.raises(TypeError, match=r"where is a dask Array"):
        fs.softmax(X, where=da.from_array(X > 0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ours.softmax(X), TypeError, r"x must be a dask array; got ndarray: pass dask\.array\."),
        (lambda x: ours.softmax(x, 2), np.exceptions.AxisError, "axis 2"),
        (lambda x: ours.softmax(x, (0, 0)), ValueError, "twice"),
        (lambda x: ours.logsumexp(x, 1.0), TypeError, "axis must be"),
        (lambda x: ours.softmax(x.astype(complex)), TypeError, "x has dtype complex128"),
        (lambda x: ours.softmax(x.map_blocks(np.ma.array)), TypeError, "x is a masked array"),
        (lambda x: ours.logsumexp(x, keepdims="no"), TypeError, "keepdims must be"),
        (lambda x: ours.softmax(x, where=X), TypeError, "where has dtype float64; expected bool"),
        (
            lambda x: ours.softmax(x, where=X[:3] > 0),
            ValueError,
            r"where has shape \(3, 11\), which does not",
        ),
        (lambda x: ours.cross_entropy(x, X[0]), ValueError, "labels has shape .* a probability for each"),
        (lambda x: ours.cross_entropy(x, da.zeros(5)), TypeError, "labels has dtype float64"),
        (
            lambda x: ours.cross_entropy(x, LABELS[:3]),
            ValueError,
            r"labels has shape \(3,\); expected \(5,\)",
        ),
        (lambda x: ours.cross_entropy(x, [0, 0, 0, 11, 0]), IndexError, r"labels\[3\] is 11, out of range"),
        (lambda x: ours.cross_entropy(x, LABELS, weight=[1.0]), ValueError, r"weight has shape \(1,\)"),
        (lambda x: ours.cross_entropy(x, LABELS, reduction="all"), ValueError, "unknown reduction"),
        (lambda x: ours.cross_entropy(x, LABELS, label_smoothing=2), ValueError, "label_smoothing"),
    ],
)
def test_errors_come_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call(da.from_array(X, (2, 3)))


@pytest.mark.parametrize("chunks", [(-1, -1), (2, 3)])
def test_labels_out_of_range_are_found_when_they_are_computed(chunks):
    lazy = ours.cross_entropy(da.from_array(X, chunks), da.from_array(LABELS + 1, 5))
    with pytest.raises(IndexError, match=r"is 11, out of range for 11 classes"):
        lazy.compute()


def test_the_package_does_not_import_dask():
    code = "import sys, fastsoftmax; print('dask' in sys.modules)"
    assert processes.python(code).strip() == "False"
