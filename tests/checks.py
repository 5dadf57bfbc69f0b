"""The checks that the suite makes, as functions of a backend's name.

They are functions, not tests, so that test_the_tests.py can show that each one notices a wrong kernel.
Every array that a kernel writes is filled with NaN first.
"""

import math
import time
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np

import fastsoftmax as fs
from fastsoftmax import registry
from tests import inputs, oracle, tolerances


@lru_cache
def is_slow(backend):
    """Whether a backend takes more than 0.3 us an element, so that tests of size give it less to do."""
    x = inputs.width(4097, np.float64)
    fs.softmax(x, backend=backend)  # a first call may compile
    times = []
    for _ in range(3):
        start = time.perf_counter()
        fs.softmax(x, backend=backend)
        times.append(time.perf_counter() - start)
    return min(times) > 0.3e-6 * x.size


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def call(op, *args, backend, **kwargs):
    """A public op's results as a tuple, written into a poisoned ``out`` where the op takes one."""
    function = getattr(fs, op)
    if (
        op in (*oracle.TAKE_OUT, *registry.SEGMENTS)
        and "out" not in kwargs
        and kwargs.get("layout", "batched") in ("batched", "diagonal")
    ):
        result = np.asarray(as_tuple(function(*args, backend=backend, **kwargs))[-1])
        kwargs["out"] = poisoned(result.shape, result.dtype)
    return as_tuple(function(*args, backend=backend, **kwargs))


def poisoned(shape, dtype):
    """An array of NaN: what a kernel leaves unwritten shows."""
    return np.full(shape, np.nan, dtype)


def assert_close(actual, desired, dtype, scale=1.0):
    """Of this dtype and within its tolerances; ``scale`` is the size of the terms that were summed."""
    tolerance = tolerances.of(dtype)
    actual = np.asarray(actual)
    assert actual.dtype == dtype, f"dtype {actual.dtype}, expected {np.dtype(dtype)}"
    np.testing.assert_allclose(
        actual.astype(np.float64),
        np.asarray(desired, np.float64),
        rtol=tolerance.rtol,
        atol=tolerance.atol * scale,
        strict=True,
    )


def assert_same_bits(actual, desired):
    """Equal to the last bit, signs of zero and all."""
    for a, b in zip(as_tuple(actual), as_tuple(desired), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        bits = f"V{a.itemsize}"
        different = np.ascontiguousarray(a).reshape(-1).view(bits) != np.ascontiguousarray(b).reshape(
            -1
        ).view(bits)
        both_nan = np.isnan(a).ravel() & np.isnan(b).ravel()
        if (different & ~both_nan).any():
            at = int(np.argmax(different & ~both_nan))
            raise AssertionError(f"bits differ at {at}: {a.ravel()[at]!r} and {b.ravel()[at]!r}")


def check_autograd(op, x, backend, axis=-1):
    """A public op at logits ``x`` agrees with autograd, in float64 to 1e-12."""
    extra = oracle.extra_inputs(op, x, axis)
    if op in oracle.SOLVES:
        check_product_of_solution(x, *extra, backend, axis)
        return
    actual = call(op, *oracle.arguments(op, x, axis, extra), axis, backend=backend)
    desired = oracle.autograd_answer(op, x, axis, extra)
    for a, b in zip(actual, desired, strict=True):
        assert_close(a, b, x.dtype, scale=_scale(op, x, extra))


def check_product_of_solution(x, b, backend, axis=-1, ridge=0.0):
    """autograd's product of the Jacobian and the solution is what was given, to the size of the solution."""
    (y,) = oracle.arguments("softmax_jacobian", x, axis)
    (v,) = call("softmax_solve", y, b, axis, ridge=ridge, backend=backend)
    assert v.dtype == x.dtype
    (product,) = oracle.autograd_answer("softmax_jvp", x, axis, (v,))
    product = (product + ridge * v.astype(np.float64)).astype(x.dtype)
    assert_close(product, b, x.dtype, scale=np.max(np.abs(v.astype(np.float64)), initial=1.0))


def _scale(op, x, extra):
    """The size of what an op sums: probabilities are 1, logarithms of them as large as the logits' range."""
    if op in oracle.PRODUCTS:
        size = np.max(np.abs(extra[0].astype(np.float64)), initial=1.0)
        return size * np.sqrt(extra[0].shape[-1]) if op == "log_softmax_vjp" else size
    return 1.0


def check_ulps(op, x, backend):
    """softmax, log_softmax or logsumexp of (rows, n) is within its bound, and nothing is flushed to 0."""
    (actual,) = call(op, x, backend=backend)
    check_forward_bound(op, x, actual, oracle.exact_forward(op, x))


def check_forward_bound(op, x, actual, exact):
    """`check_ulps` for a result at hand."""
    if op == "logsumexp":
        assert_logsumexp_bound(x, actual, exact)
        return
    bound = tolerances.of(x.dtype).ulps[op]
    assert exact.ulps(actual) <= bound, f"{exact.ulps(actual):.3g} ULP, more than {bound}"
    assert_not_flushed(actual, exact)


def assert_logsumexp_bound(x, actual, exact):
    largest = np.maximum(np.abs(np.max(x, axis=-1)).astype(np.float64), np.abs(exact.high))
    largest = np.minimum(largest, np.finfo(x.dtype).max)
    spare = float(np.finfo(x.dtype).smallest_subnormal) * x.shape[-1]  # each term of a subnormal sum rounds
    bound = tolerances.LOGSUMEXP_EPS * np.finfo(x.dtype).eps * largest + spare
    off = np.abs((actual.astype(np.float64) - exact.high) - exact.low)
    assert (off <= bound).all(), f"{np.max(off / bound):.3g} times the bound"


def assert_not_flushed(actual, exact):
    smallest = np.finfo(actual.dtype).smallest_subnormal
    flushed = (actual == 0) & (np.abs(exact.high) >= smallest)
    assert not flushed.any(), f"{np.count_nonzero(flushed)} results are 0 that should not be"


def check_jacobian_ulps(x, backend):
    """The batched Jacobian from the backend's own softmax."""
    (y,) = call("softmax", x, backend=backend)
    assert_jacobian_ulps(x, y, backend)


def assert_jacobian_ulps(x, y, backend):
    (actual,) = call("softmax_jacobian", y, backend=backend)
    exact = oracle.exact_forward("softmax_jacobian", x)
    bound = tolerances.of(x.dtype).ulps["softmax_jacobian"]
    assert exact.ulps(actual) <= bound, f"{exact.ulps(actual):.3g} ULP, more than {bound}"


def check_diagonal_ulps(x, backend):
    """The diagonal from the output rounded once, within the bound of the blocks."""
    y = oracle.exact_forward("softmax", x).high.astype(x.dtype)
    (actual,) = call("softmax_jacobian", y, layout="diagonal", backend=backend)
    exact = oracle.exact_forward("softmax_jacobian_diagonal", x)
    bound = tolerances.of(x.dtype).ulps["softmax_jacobian"]
    assert exact.ulps(actual) <= bound, f"{exact.ulps(actual):.3g} ULP, more than {bound}"


def check_log_jacobian_ulps(x, backend):
    """The blocks of log_softmax and their diagonal, of the output as it was rounded."""
    (logy,) = oracle.arguments("log_softmax_jacobian", x)
    exact = oracle.exact_log_softmax_jacobian(logy)
    (blocks,) = call("log_softmax_jacobian", logy, backend=backend)
    (diagonal,) = call("log_softmax_jacobian", logy, layout="diagonal", backend=backend)
    of_diagonal = oracle.Exact(*(np.einsum("rii->ri", part) for part in exact))
    bound = tolerances.of(x.dtype).ulps["log_softmax_jacobian"]
    for actual, of in ((blocks, exact), (diagonal, of_diagonal)):
        assert of.ulps(actual) <= bound, f"{of.ulps(actual):.3g} ULP, more than {bound}"
        assert_not_flushed(actual, of)


def check_cross_entropy_ulps(x, labels, backend):
    """Each row's loss and gradient, from both ops."""
    exact_loss, exact_dx = oracle.exact_cross_entropy(x, labels)
    loss, dx = call("cross_entropy_with_grad", x, labels, backend=backend, reduction="none")
    (alone,) = call("cross_entropy", x, labels, backend=backend, reduction="none")
    bounds = tolerances.of(x.dtype).ulps
    for actual, exact in ((loss, exact_loss), (alone, exact_loss), (dx, exact_dx)):
        assert exact.ulps(actual) <= bounds["cross_entropy"], f"{exact.ulps(actual):.3g} ULP"
    assert_not_flushed(dx, exact_dx)


def check_soft_cross_entropy(x, t, backend, weight=None, sample_weight=None, label_smoothing=0.0):
    """Each row's loss and gradient with probabilities, from both ops."""
    options = {"weight": weight, "sample_weight": sample_weight, "label_smoothing": label_smoothing}
    exact = oracle.exact_soft_cross_entropy(x, t, weight, sample_weight, label_smoothing)
    loss, dx = call("cross_entropy_with_grad", x, t, backend=backend, reduction="none", **options)
    (alone,) = call("cross_entropy", x, t, backend=backend, reduction="none", **options)
    # Of a subnormal probability the weight rounds, and the gap to the maximum is times that.
    gap = np.ptp(x.astype(np.float64), axis=-1).max(initial=0.0)
    spare = 4 * float(np.finfo(x.dtype).smallest_subnormal) * x.shape[-1] * (1 + gap)
    of_loss = (exact[0], np.abs(exact[0].high))
    for actual, (of, size) in ((loss, of_loss), (alone, of_loss), (dx, exact[1:])):
        bound = tolerances.SOFT_EPS * np.finfo(x.dtype).eps * size + spare
        off = np.abs((actual.astype(np.float64) - of.high) - of.low)
        off = np.where(actual == of.high, 0.0, off)  # infinities
        assert (off <= bound).all(), f"{np.max(off / bound):.3g} times the bound"


def check_product_bound(op, x, v, backend):
    """A product with the Jacobian of softmax, from the output rounded once, against 850 digits."""
    exact_y = oracle.exact_forward("softmax", x).high
    (actual,) = call(op, exact_y.astype(x.dtype), v, backend=backend)
    exact = oracle.exact_softmax_product(x, v)
    size = exact_y * (np.abs(v) + (exact_y * np.abs(v)).sum(axis=-1, keepdims=True))
    spare = 2 * float(np.finfo(x.dtype).smallest_subnormal) * (1 + np.abs(v).max())  # of a subnormal y
    bound = tolerances.PRODUCT_EPS * np.finfo(x.dtype).eps * size + spare
    off = np.abs((actual.astype(np.float64) - exact.high) - exact.low)
    assert (off <= bound).all(), f"{np.max(off / bound):.3g} times the bound"


def check_cotangent(kind, highest, axis, dtype, backend):
    """A VJP of one of `inputs.COTANGENTS`, with one entry that much higher, between two ordinary rows."""
    x, g = (inputs.rng(seed).normal(size=(3, 300)) for seed in (5, 6))
    x[1, ::7] = -np.inf
    x[1, 200] += highest
    g[1] = inputs.COTANGENTS[kind](g[1], 0.9 * float(np.finfo(dtype).max))
    y, g = fs.softmax(x.astype(dtype), backend="python"), g.astype(dtype)
    (actual,) = call("softmax_vjp", *((y, g) if axis else (y.T.copy(), g.T.copy())), axis, backend=backend)
    assert_exact_product(y[1], g[1], actual[1] if axis else actual[:, 1])


def assert_exact_product(y, g, actual):
    """`softmax_vjp` of one row, in fractions; of what is subnormal the last place is not a bound's."""
    assert np.isfinite(actual).all()
    finfo, numbers = np.finfo(y.dtype), [[Fraction(a) for a in row.tolist()] for row in (y, g, actual)]
    eps, smallest = Fraction(float(finfo.eps)), Fraction(float(finfo.smallest_subnormal))
    dot = sum(a * b for a, b, _ in zip(*numbers, strict=True))
    size = sum(a * abs(b) for a, b, _ in zip(*numbers, strict=True))
    off = max(
        abs(dx - a * (b - dot)) / (tolerances.PRODUCT_EPS * eps * a * (abs(b) + size) + smallest)
        for a, b, dx in zip(*numbers, strict=True)
    )
    assert off <= 1, f"{float(min(off, 10**9)):.3g} times the bound"


def check_solutions(y, b, ridge, backend, axis=-1):
    """Those of (rows, n), or of their transposes along axis 0, against 850 digits."""
    args = (y, b) if axis else (np.ascontiguousarray(y.T), np.ascontiguousarray(b.T))
    (actual,) = call("softmax_solve", *args, axis, ridge=ridge, backend=backend)
    for y_row, b_row, v in zip(y, b, actual if axis else actual.T, strict=True):
        assert_solution(y_row, b_row, ridge, v)


def assert_solution(y, b, ridge, v):
    off, bound = solution_error(y, b, ridge, v)
    assert (off <= bound).all(), f"{np.max(off / bound):.3g} times the bound, ridge={ridge!r}"


def solution_error(y, b, ridge, v):
    """How far off each entry of one row is, and may be; equal ones are computed once."""
    info = np.finfo(v.dtype)
    pairs, at, counts = np.unique(np.stack([y, b]), axis=1, return_inverse=True, return_counts=True)
    (high, low), *units = oracle.exact_solution(*pairs, v.dtype.type(ridge), counts.tolist())
    high, low, size, reach, last = (a[at.ravel()] for a in (high, low, *units))
    off = np.abs((v.astype(np.float64) - high) - low)
    off = np.where(np.abs(high) < info.max, off, 0.0)  # beyond the range the row is not finite
    eps, smallest = float(info.eps), float(info.smallest_subnormal)
    return off, eps * (tolerances.SOLUTION_EPS * size + tolerances.SOLUTION_REACH * reach) + smallest * last


def check_constant_cotangent(y, constant, backend):
    """The rows of the Jacobian sum to 0: exactly, as neither y nor the constant has to be exact."""
    for op in ("softmax_vjp", "softmax_jvp"):
        (dx,) = call(op, y, np.full_like(y, constant), backend=backend)
        np.testing.assert_array_equal(dx, np.zeros_like(y))


def check_row_sums(x, backend):
    """Each row of softmax sums to 1, to 2 eps."""
    (y,) = call("softmax", x, backend=backend)
    off = np.array([abs(math.fsum(row) - 1) for row in y.astype(np.float64).tolist()])
    assert (off <= tolerances.ROW_SUM_EPS * np.finfo(x.dtype).eps).all()


def check_special_rows(op, dtype, backend):
    """The table of special values, each row alone and all as one batch among ordinary rows."""
    ordinary = inputs.rng().normal(size=(len(inputs.SPECIAL_ROWS), 3)).astype(dtype)
    special = np.array([case.row for case in inputs.SPECIAL_ROWS.values()], dtype)
    desired = [getattr(case, op) for case in inputs.SPECIAL_ROWS.values()]
    mixed = np.stack([ordinary, special], axis=1).reshape(-1, 3)
    (together,) = call(op, mixed, backend=backend)
    assert_close(together[1::2], desired, dtype)
    assert_exact_values(together[1::2], desired)
    (undisturbed,) = call(op, np.repeat(ordinary, 2, axis=0), backend=backend)
    assert_same_bits(together[::2], undisturbed[::2])
    for row, answer in zip(special, desired, strict=True):
        (alone,) = call(op, row, backend=backend)
        assert_close(alone, answer, dtype)


def assert_exact_values(actual, desired):
    """Where the answer is 0, 1 or infinite, it is exactly that."""
    desired = np.asarray(desired, np.float64)
    exact = np.isin(desired, (0.0, 1.0, np.inf, -np.inf))
    np.testing.assert_array_equal(np.asarray(actual, np.float64)[exact], desired[exact])


def check_dense_jacobian(x, backend):
    """The dense layout is the batched blocks on the diagonal and 0 everywhere off it."""
    (y,) = oracle.arguments("softmax_jacobian", x)
    (blocks,) = call("softmax_jacobian", y, backend=backend)
    dense = fs.softmax_jacobian(y, layout="dense", backend=backend)
    assert_dense(dense, blocks)
    out = poisoned(dense.shape, dense.dtype)
    assert fs.softmax_jacobian(y, layout="dense", out=out, backend=backend) is out
    assert_dense(out, blocks)


def assert_dense(dense, blocks):
    m, n, _ = blocks.shape
    assert dense.shape == (m, n, m, n)
    for p in range(m):
        np.testing.assert_array_equal(dense[p, :, p, :], blocks[p])
    assert np.count_nonzero(dense) == np.count_nonzero(blocks), "not 0 off the diagonal blocks"


def check_mean(x, backend):
    """A mean loss and its gradient are the rows' own over the number of rows."""
    labels = oracle.extra_inputs("cross_entropy", x)[0]
    rows, dx_rows = call("cross_entropy_with_grad", x, labels, backend=backend, reduction="none")
    loss, dx = call("cross_entropy_with_grad", x, labels, backend=backend)
    assert_close(loss, rows.astype(np.float64).mean(), x.dtype)
    assert_close(dx, dx_rows.astype(np.float64) / len(x), x.dtype)


def check_segments(op, arrays, ptr, backend):
    """An op of ragged rows, at as many arrays as it takes, has in each segment the bits of the op itself."""
    plain = registry.SEGMENTS[op]
    args = oracle.arguments(plain, arrays[0], extra=arrays[1:] if plain in oracle.PRODUCTS else ())
    (actual,) = call(op, *args, ptr, backend=backend)
    assert_same_bits(actual, of_each_segment(plain, args, ptr, backend))


def of_each_segment(op, arrays, ptr, backend):
    """An op of rows, segment by segment; an empty one has no entries, or one result."""
    rows = [getattr(fs, op)(*(a[i:j] for a in arrays), backend=backend) for i, j in pairwise(ptr)]
    return np.hstack([*rows, arrays[0][:0]])
