"""Promise: five layouts of one Jacobian, each with the memory it says it takes."""

import copy
import pickle
import sys
import tracemalloc

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _layouts
from tests import checks, inputs, oracle

SHAPES = [
    ((5,), -1),
    ((4, 5), -1),
    ((4, 5), 0),
    ((2, 3, 4), 1),
    ((2, 3, 4), (0, 2)),
    ((2, 3), None),
    ((1, 1), 0),
]


def _y(shape=(4, 5), axis=-1, dtype=np.float64, scale=1):
    (y,) = oracle.arguments("softmax_jacobian", (inputs.rng().normal(size=shape) * scale).astype(dtype), axis)
    return y


def _whole(blocks):
    """The (m * n, m * n) matrix with the blocks on its diagonal."""
    n = blocks.shape[-1]
    blocks = blocks.reshape(-1, n, n)
    whole = np.zeros((len(blocks), n, len(blocks), n), blocks.dtype)
    for p, block in enumerate(blocks):
        whole[p, :, p] = block
    return whole.reshape(len(blocks) * n, len(blocks) * n)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_every_layout_holds_the_batched_blocks(shape, axis, backend, dtype):
    pytest.importorskip("scipy")
    y = _y(shape, axis, dtype)
    (blocks,) = checks.call("softmax_jacobian", y, axis, backend=backend)
    whole = _whole(blocks)
    dense = fs.softmax_jacobian(y, axis, layout="dense", backend=backend)
    assert dense.shape == blocks.shape[:-1] * 2
    np.testing.assert_array_equal(dense.reshape(whole.shape), whole)
    sparse = fs.softmax_jacobian(y, axis, layout="sparse", backend=backend)
    np.testing.assert_array_equal(sparse.toarray(), whole, strict=True)
    operator = fs.softmax_jacobian(y, axis, layout="operator", backend=backend)
    assert (operator.shape, operator.dtype) == (whole.shape, dtype)
    checks.assert_close(operator @ np.eye(len(whole), dtype=dtype), whole, dtype)


WIDE = [((3, 1000), -1), ((1000, 3), 0), ((5, 40, 70), 1), ((70, 64), -1), ((300, 17), 1)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES + WIDE, ids=str)
def test_diagonal_is_that_of_the_blocks(shape, axis, backend, dtype):
    """Of rows that one entry dominates too; sums of few and of many entries are rounded differently."""
    y = _y(shape, axis, dtype, scale=9)
    _, rows, n = oracle.rows_of(fs.softmax_jacobian(y, axis, layout="diagonal", backend=backend), axis)
    assert rows.dtype == dtype
    blocks = fs.softmax_jacobian(y, axis, backend=backend).reshape(-1, n, n)
    np.testing.assert_allclose(rows, np.einsum("pii->pi", blocks), rtol=4 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("layout", ["C", "F", "strided", "y"])
def test_diagonal_out(layout, backend, dtype):
    y = _y(dtype=dtype, scale=9)
    expected = fs.softmax_jacobian(y, layout="diagonal", backend=backend)
    outs = {"C": np.empty_like(y), "F": np.empty_like(y, order="F"), "y": y}
    out = outs.get(layout, checks.poisoned((4, 10), dtype)[:, ::2])
    assert fs.softmax_jacobian(y, layout="diagonal", out=out, backend=backend) is out
    checks.assert_same_bits(out, expected)


def test_diagonal_at_special_rows(backend, dtype):
    """A row of NaN, one of all in one entry, one without digits to lose, one entry, none."""
    nan, one, even = [np.nan] * 4, [0.0, 1.0, 0.0, 0.0], [0.25] * 4
    y = np.array([even, nan, one, even], dtype)
    desired = np.array([[0.1875] * 4, nan, [0.0] * 4, [0.1875] * 4], dtype)
    actual = fs.softmax_jacobian(y, layout="diagonal", backend=backend)
    np.testing.assert_array_equal(actual, desired, strict=True)
    along = fs.softmax_jacobian(np.ascontiguousarray(y.T), 0, layout="diagonal", backend=backend)
    np.testing.assert_array_equal(along, desired.T, strict=True)
    assert fs.softmax_jacobian(1.0, layout="diagonal", backend=backend) == 0.0
    empty = np.empty((3, 0), dtype)
    assert fs.softmax_jacobian(empty, layout="diagonal", backend=backend).shape == (3, 0)


def test_diagonal_of_halves(backend):
    half = np.float16
    y = fs.softmax((inputs.rng().normal(size=(5, 12)) * 5).astype(half), backend=backend)
    actual = fs.softmax_jacobian(y, layout="diagonal", backend=backend)
    wide = fs.softmax_jacobian(y.astype(np.float32), layout="diagonal", backend=backend)
    checks.assert_same_bits(actual, wide.astype(half))


def test_diagonal_on_several_threads(backend, dtype):
    y = _y((3000, 70) if not checks.is_slow(backend) else (30, 70), dtype=dtype, scale=9)
    expected = fs.softmax_jacobian(y, layout="diagonal", backend=backend, num_threads=1)
    checks.assert_same_bits(
        fs.softmax_jacobian(y, layout="diagonal", backend=backend, num_threads=3), expected
    )


@pytest.mark.parametrize(("shape", "axis"), SHAPES + WIDE[:2], ids=str)
def test_every_layout_of_log_softmax(shape, axis, backend, dtype):
    """Its blocks are no symmetric ones: lines, not columns, are what is the same but for the diagonal."""
    pytest.importorskip("scipy")
    (logy,) = oracle.arguments("log_softmax_jacobian", inputs.rng().normal(size=shape).astype(dtype), axis)
    (blocks,) = checks.call("log_softmax_jacobian", logy, axis, backend=backend)
    _, rows, n = oracle.rows_of(logy, axis)
    desired = np.eye(n) - np.exp(rows.astype(np.float64))[:, None, :]
    checks.assert_close(blocks.reshape(-1, n, n), desired, dtype)
    diagonal = fs.log_softmax_jacobian(logy, axis, layout="diagonal", backend=backend)
    assert diagonal.shape == logy.shape
    eps = np.finfo(dtype).eps
    _, of_rows, _ = oracle.rows_of(diagonal, axis)
    np.testing.assert_allclose(of_rows, np.einsum("pii->pi", blocks.reshape(-1, n, n)), rtol=4 * eps)
    if blocks.size > 1000:
        return
    whole = _whole(blocks)
    dense = fs.log_softmax_jacobian(logy, axis, layout="dense", backend=backend)
    np.testing.assert_array_equal(dense.reshape(whole.shape), whole)
    sparse = fs.log_softmax_jacobian(logy, axis, layout="sparse", backend=backend)
    np.testing.assert_array_equal(sparse.toarray(), whole, strict=True)
    operator = fs.log_softmax_jacobian(logy, axis, layout="operator", backend=backend)
    one = np.eye(len(whole), dtype=dtype)
    checks.assert_close(operator @ one, whole, dtype)
    checks.assert_close(pickle.loads(pickle.dumps(operator)).T @ one, whole.T, dtype)


def test_log_softmax_at_special_rows(backend, dtype):
    """A row of NaN, an entry that is certain, masked ones; one entry, none; into ``out`` of any strides."""
    nan, inf = np.nan, np.inf
    logy = np.array([[nan] * 3, [0.0, -inf, -inf]], dtype)
    certain = [[0.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    blocks = fs.log_softmax_jacobian(logy, backend=backend)
    np.testing.assert_array_equal(blocks, np.array([np.full((3, 3), nan), certain], dtype), strict=True)
    out = checks.poisoned((2, 6), dtype)[:, ::2]
    assert fs.log_softmax_jacobian(logy, layout="diagonal", out=out, backend=backend) is out
    np.testing.assert_array_equal(out, np.array([[nan] * 3, [0.0, 1.0, 1.0]], dtype))
    assert fs.log_softmax_jacobian(0.0, layout="diagonal", backend=backend) == 0.0
    assert fs.log_softmax_jacobian(np.empty((3, 0), dtype), backend=backend).shape == (3, 0, 0)
    with pytest.raises(ValueError, match="unknown layout"):
        fs.log_softmax_jacobian(logy, layout="blocks", backend=backend)


def test_dense_axes_repeat_the_samples(backend):
    """(..., n, ..., n): what `autograd.jacobian` gives, for more than one batch axis."""
    y = _y((2, 3, 4))
    dense = fs.softmax_jacobian(y, layout="dense", backend=backend)
    blocks = fs.softmax_jacobian(y, backend=backend)
    assert dense.shape == (2, 3, 4, 2, 3, 4)
    np.testing.assert_array_equal(dense[1, 2, :, 1, 2, :], blocks[1, 2])
    assert not dense[1, 2, :, 0, 2, :].any()
    assert not dense[1, 2, :, 1, 0, :].any()


def test_dense_result_is_an_ordinary_array(backend, dtype):
    dense = fs.softmax_jacobian(_y(dtype=dtype), layout="dense", backend=backend)
    assert type(dense) is np.ndarray
    assert dense.flags.writeable
    assert dense.flags.c_contiguous
    assert dense.flags.aligned
    dense += 1.0
    assert fs.softmax_jacobian(_y(dtype=dtype), layout="dense", backend=backend).max() < 1


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_dense_out(order, backend):
    y = _y()
    expected = fs.softmax_jacobian(y, layout="dense", backend=backend)
    out = checks.poisoned((4, 5, 4, 5), np.float64)
    if order == "F":
        out = np.asfortranarray(out)
    if order == "strided":
        out = checks.poisoned((4, 5, 8, 5), np.float64)[:, :, ::2]
    assert fs.softmax_jacobian(y, layout="dense", out=out, backend=backend) is out
    checks.assert_same_bits(out, expected)


def test_sparse_shares_the_blocks_memory(backend):
    sparse = pytest.importorskip("scipy.sparse")
    y = _y((300, 40))
    fs.softmax_jacobian(y, layout="sparse", backend=backend)
    tracemalloc.start()
    try:
        jacobian = fs.softmax_jacobian(y, layout="sparse", backend=backend, num_threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks_bytes = 300 * 40 * 40 * 8
    assert isinstance(jacobian, sparse.bsr_array)
    assert jacobian.shape == (12000, 12000)
    assert jacobian.blocksize == (40, 40)
    assert jacobian.data.nbytes == blocks_bytes
    assert peak < 1.5 * blocks_bytes, "the blocks were copied"


def test_operator_multiplies_like_the_matrix(backend, dtype):
    pytest.importorskip("scipy")
    y = _y((30, 7), dtype=dtype)
    operator = fs.softmax_jacobian(y, layout="operator", backend=backend)
    v = inputs.rng(1).normal(size=y.shape).astype(dtype)
    expected = fs.softmax_vjp(y, v, backend=backend).ravel()
    checks.assert_same_bits(operator @ v.ravel(), expected)
    checks.assert_same_bits(operator.T @ v.ravel(), expected)
    checks.assert_same_bits(operator.H @ v.ravel(), expected)
    checks.assert_close(operator.rmatvec(v.ravel()), expected, dtype)
    many = inputs.rng(2).normal(size=(y.size, 3)).astype(dtype)
    dense = fs.softmax_jacobian(y, layout="sparse", backend=backend).toarray()
    checks.assert_close(operator @ many, dense.astype(np.float64) @ many, dtype, scale=4)


def test_operator_is_picklable(backend, dtype):
    """For workers of a pool, or a copy of what holds it: the same products, on the same backend."""
    pytest.importorskip("scipy")
    y = _y((6, 7), dtype=dtype)
    operator = fs.softmax_jacobian(y, layout="operator", backend=backend, num_threads=1)
    v = inputs.rng(1).normal(size=y.size).astype(dtype)
    for again in (pickle.loads(pickle.dumps(operator)), copy.deepcopy(operator), copy.copy(operator)):
        assert (again.shape, again.dtype) == (operator.shape, operator.dtype)
        checks.assert_same_bits(again @ v, operator @ v)
        checks.assert_same_bits(again.T @ v, operator @ v)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0), (0,)], ids=str)
@pytest.mark.parametrize("layout", ["batched", "dense", "sparse", "operator"])
def test_no_entries(layout, shape, backend, dtype):
    pytest.importorskip("scipy")
    jacobian = fs.softmax_jacobian(np.empty(shape, dtype), layout=layout, backend=backend)
    *batch, n = shape
    shapes = {"batched": (*batch, n, n), "dense": (*batch, n, *batch, n)}
    assert jacobian.shape == shapes.get(layout, (0, 0))
    assert jacobian.dtype == dtype
    if layout not in shapes:
        assert (jacobian @ np.empty(0, dtype)).shape == (0,)


def test_operator_takes_little_memory(backend):
    """O(m n), where the batched blocks would take 400 MB."""
    pytest.importorskip("scipy")
    y = np.full((50, 1000), 1e-3)
    # SciPy is imported, and kernels are compiled, before memory is watched.
    fs.softmax_jacobian(y[:1], layout="operator", backend=backend) @ np.ones(1000)
    tracemalloc.start()
    try:
        operator = fs.softmax_jacobian(y, layout="operator", backend=backend)
        product = operator @ np.ones(y.size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not product.any()
    assert peak < 12 * y.nbytes


def test_damped_system_by_conjugate_gradients(backend):
    """(J + I) u = b, what a Gauss-Newton step solves: without one block formed."""
    linalg = pytest.importorskip("scipy.sparse.linalg")
    y = _y((20, 6))
    b = inputs.rng(3).normal(size=y.size)
    operator = fs.softmax_jacobian(y, layout="operator", backend=backend)
    damped = operator + linalg.aslinearoperator(np.eye(y.size))
    u, failed = linalg.cg(damped, b, rtol=1e-13)
    assert not failed
    blocks = fs.softmax_jacobian(y, backend=backend)
    expected = np.linalg.solve(_whole(blocks) + np.eye(y.size), b)
    np.testing.assert_allclose(u, expected, rtol=1e-10)


def test_memory_error_before_allocating(backend):
    """Names the bytes, and what to use instead."""
    y = np.full((200_000, 10), 0.1)
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=r"32,000,000,000,000 bytes.*batched.*vjp") as raised:
            fs.softmax_jacobian(y, layout="dense", backend=backend)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "(200000, 10, 200000, 10)" in str(raised.value)
    assert peak < 2**20


def test_memory_of_an_unknown_size(monkeypatch):
    """Where the machine does not say what it has, nothing is refused but what no address reaches."""

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(_layouts.os, "sysconf", unknown)
    assert fs.softmax_jacobian(_y(), layout="dense").shape == (4, 5, 4, 5)
    with pytest.raises(MemoryError, match="dense Jacobian"):
        _layouts._check_fits((2**31, 2**31, 2), np.dtype(np.float32))


def test_sparse_has_no_half_precision():
    pytest.importorskip("scipy")
    with pytest.raises(TypeError, match="no float16 in SciPy: pass y as float32 or float64"):
        fs.softmax_jacobian(_y().astype(np.float16), layout="sparse")


@pytest.mark.parametrize(
    "layout", ["blocks", "", "BATCHED", None, 0, ["dense"], np.array("dense"), np.array(["a", "b"])], ids=repr
)
def test_unknown_layout(layout, backend):
    with pytest.raises(
        ValueError, match=r"unknown layout .*'batched', 'dense', 'sparse', 'operator', 'diagonal'"
    ):
        fs.softmax_jacobian(_y(), layout=layout, backend=backend)


@pytest.mark.parametrize("layout", ["sparse", "operator"])
def test_out_goes_with_arrays_only(layout, backend):
    with pytest.raises(ValueError, match=f"out cannot be used with layout='{layout}'"):
        fs.softmax_jacobian(_y(), layout=layout, out=np.empty((4, 5, 5)), backend=backend)


@pytest.mark.parametrize("layout", ["sparse", "operator"])
def test_scipy_is_optional(layout, backend, monkeypatch):
    for module in ("scipy", "scipy.sparse", "scipy.sparse.linalg"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pip install scipy"):
        fs.softmax_jacobian(_y(), layout=layout, backend=backend)
    assert fs.softmax_jacobian(_y(), layout="dense", backend=backend).shape == (4, 5, 4, 5)
