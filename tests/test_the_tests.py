"""Promise: the suite notices. Each planted mistake must fail the very checks that the backends pass."""

from itertools import pairwise

import numpy as np
import pytest
from autograd import jacobian

import fastsoftmax as fs
from fastsoftmax.backends import python as specification
from tests import accuracy, checks, inputs, mutation, oracle
from tests.mutants import MUTANTS


def by_rows(x, function):
    """``function`` of ``x`` with ``n`` last, put back."""
    return np.moveaxis(function(np.moveaxis(x.astype(np.float64), 1, -1)), -1, 1)


def _stable(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# Each mistake: the op, and a kernel that makes it.
PLANTED = {}


def plant(op):
    def enter(kernel):
        PLANTED[kernel.__name__] = (op, kernel)
        return kernel

    return enter


@plant("softmax")
def global_maximum(x, out):
    e = np.exp(x.astype(np.float64) - x.max())
    out[...] = e / e.sum(axis=1, keepdims=True)


@plant("softmax")
def no_maximum(x, out):
    e = np.exp(x.astype(np.float64))
    out[...] = e / e.sum(axis=1, keepdims=True)


@plant("softmax")
def one_part_shift(x, out):
    out[...] = by_rows(x, _stable)


@plant("softmax")
def subnormals_flushed(x, out):
    specification.softmax(x, out)
    out[np.abs(out) < np.finfo(out.dtype).tiny] = 0


@plant("softmax")
def last_row_unwritten(x, out):
    specification.softmax(x[:-1], out[:-1])


@plant("softmax")
def all_zeros(x, out):
    out[...] = 0


@plant("softmax")
def nan_spreads_to_other_rows(x, out):
    specification.softmax(x, out)
    if np.isnan(x).any():
        out[...] = np.nan


@plant("softmax")
def row_of_minus_infinity_is_zeros(x, out):
    specification.softmax(x, out)
    out[np.broadcast_to(np.isneginf(x).all(axis=1, keepdims=True), x.shape)] = 0


@plant("softmax")
def computed_in_float32(x, out):
    specification.softmax(x.astype(np.float32).astype(x.dtype), out)


@plant("log_softmax")
def log_of_softmax(x, out):
    out[...] = np.log(by_rows(x, _stable))


@plant("logsumexp")
def log_of_sum_of_exp(x, out):
    out[...] = np.log(np.exp(x.astype(np.float64)).sum(axis=1))


@plant("softmax_vjp")
def dot_term_dropped(y, g, out):
    np.multiply(y, g, out=out)


@plant("softmax_vjp")
def product_of_zeros(y, g, out):
    out[...] = 0


@plant("softmax_vjp")
def sum_in_place_of_the_dot(y, g, out):
    out[...] = y * (g - g.sum(axis=1, keepdims=True))


@plant("softmax_vjp")
def dot_of_the_whole_batch(y, g, out):
    out[...] = y * (g - (g * y).sum() / len(y))


@plant("softmax_vjp")
def not_centred(y, g, out):
    out[...] = y * (g - (g * y).sum(axis=1, keepdims=True))


@plant("softmax_vjp")
def differences_that_overflow(y, g, out):
    c = np.where(
        y.max(axis=1, keepdims=True) > 0.5, np.take_along_axis(g, y.argmax(axis=1, keepdims=True), 1), 0
    )
    h = g - c
    out[...] = y * (h - (h * y).sum(axis=1, keepdims=True))


@plant("softmax_vjp")
def an_eighth_of_all_for_one_that_is_large(y, g, out):
    scale = np.where(np.isfinite(8 * np.abs(g).max(axis=1, keepdims=True)), 1, 0.125)
    specification.softmax_vjp(y, g * scale, out)
    out /= scale


@plant("softmax_jacobian")
def transposed_sign(y, out):
    specification.softmax_jacobian(y, out)
    np.negative(out, out=out)


@plant("softmax_jacobian")
def one_minus_by_subtraction(y, out):
    rows = y[:, :, 0]
    out[...] = rows[:, :, None] * (np.eye(y.shape[1], dtype=y.dtype) - rows[:, None, :])


@plant("softmax_jacobian")
def diagonal_forgotten(y, out):
    rows = y[:, :, 0]
    out[...] = -rows[:, :, None] * rows[:, None, :]


@plant("softmax_jacobian")
def blocks_of_the_first_row(y, out):
    specification.softmax_jacobian(y, out)
    out[...] = out[:1]


@plant("softmax_jacobian_diagonal")
def gap_by_subtraction(y, out):
    out[...] = y * (1 - y)


@plant("log_softmax_jacobian")
def lines_for_columns(logy, out):
    specification.log_softmax_jacobian(logy, out)
    out[...] = out.swapaxes(1, 2).copy()


@plant("log_softmax_jacobian")
def one_minus_exp_by_subtraction(logy, out):
    out[...] = np.eye(logy.shape[1], dtype=logy.dtype) - np.exp(logy[:, None, :, 0])


@plant("cross_entropy_with_grad")
def scale_forgotten(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    specification.cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, 1.0, loss, out)


@plant("cross_entropy_with_grad")
def probability_minus_one(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    specification.cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out)
    y = _stable(x[:, :, 0].astype(np.float64))
    y[np.arange(len(y)), labels[:, 0]] -= 1
    out[:, :, 0] = y * scale


@plant("cross_entropy_with_grad")
def onehot_forgotten(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    specification.cross_entropy(x, labels, weight, sample_weight, smoothing, loss)
    specification.softmax(x, out)
    out *= scale


@plant("cross_entropy_with_grad")
def sample_weight_forgotten(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    specification.cross_entropy_with_grad(x, labels, weight, None, smoothing, scale, loss, out)


@plant("soft_cross_entropy_with_grad")
def total_for_probability(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    """The gradient of targets whose sum is 1, whatever theirs is."""
    specification.soft_cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out)
    out[:, :, 0] = scale * (_stable(x[:, :, 0]) - labels[:, :, 0])


@plant("soft_cross_entropy_with_grad")
def probability_minus_target(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    specification.soft_cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out)
    t = labels[:, :, 0]
    out[:, :, 0] = scale * (_stable(x[:, :, 0]) * t.sum(axis=1, keepdims=True) - t)


@plant("soft_cross_entropy_with_grad")
def log_of_a_softmax(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    specification.soft_cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out)
    loss[:, 0] = -(labels[:, :, 0] * np.log(_stable(x[:, :, 0]))).sum(axis=1)


@plant("segment_softmax")
def maximum_of_all_segments(x, ptr, out):
    e = np.exp(x[0, :, 0] - x.max())
    out[0, :, 0] = e / np.repeat([e[i:j].sum() for i, j in pairwise(ptr)], np.diff(ptr))


@plant("segment_softmax")
def segments_of_equal_length(x, ptr, out):
    specification.segment_softmax(x, np.linspace(0, x.size, len(ptr)).astype(int), out)


@plant("segment_softmax")
def last_segment_unwritten(x, ptr, out):
    specification.segment_softmax(x, ptr[:-1], out)


@plant("segment_logsumexp")
def reduceat_of_empty_segments(x, ptr, out):
    """For which it gives the entry there, one of the next segment."""
    row, starts, lengths = np.append(x, 0), ptr[:-1], np.diff(ptr)
    m = np.maximum.reduceat(row, starts)
    e = np.exp(row - np.append(np.repeat(m, lengths), 0))
    out[0] = m + np.log(np.add.reduceat(e, starts))


@plant("segment_logsumexp")
def empty_segments_are_zero(x, ptr, out):
    specification.segment_logsumexp(x, ptr, out)
    out[np.isneginf(out)] = 0


@plant("segment_logsumexp")
def empty_segments_are_skipped(x, ptr, out):
    specification.segment_logsumexp(x, ptr, out)
    full = out[0, np.diff(ptr) > 0]
    out[0, : full.size] = full


@plant("segment_softmax_vjp")
def dot_of_all_segments(y, g, ptr, out):
    specification.softmax_vjp(y, g, out)


@plant("softmax_solve")
def gap_of_solution_by_subtraction(y, b, ridge, out):
    y, b = y.astype(np.float64), b.astype(np.float64)
    w = y / (y + ridge)
    c = (w * b).sum(axis=1, keepdims=True) / (1 - (w * y).sum(axis=1, keepdims=True))
    out[...] = (b + c * y) / (y + ridge)


@plant("softmax_solve")
def sum_of_products_that_cancel(y, b, ridge, out):
    w = y / (y + ridge)
    c = (w * b).sum(axis=1, keepdims=True) / (ridge * w.sum(axis=1, keepdims=True))
    out[...] = (b + c * y) / (y + ridge)


@plant("softmax_solve")
def rank_one_forgotten(y, b, ridge, out):
    out[...] = b / (y + ridge)


@plant("softmax_solve")
def mean_left_in(y, b, ridge, out):
    specification.softmax_solve(y, b, ridge, out)
    if ridge == 0:
        out[...] = b / y


@plant("weighted_logsumexp")
def sizes_of_factors(x, b, out):
    specification.weighted_logsumexp(x, np.abs(b), out)


@plant("weighted_logsumexp")
def factors_of_zero_times_infinity(x, b, out):
    with np.errstate(all="ignore"):
        out[...] = np.log((b * np.exp(x)).sum(axis=1))


# ---- the checks, by op: each is what a test file runs on every backend ------------------------------

F8 = np.dtype(np.float64)
FAMILY = inputs.FAMILIES


def _likeliest(backend):
    x = FAMILY["saturated"](F8)
    checks.check_cross_entropy_ulps(x, x.argmax(axis=1), backend)


def _constant_cotangents(backend):
    (y,) = oracle.arguments("softmax_jacobian", FAMILY["sources_100x5"](F8))
    checks.check_constant_cotangent(y, 1 / 3, backend)


def _product_bound(backend):
    x = FAMILY["sources_100x5"](F8)[:6]
    checks.check_product_bound("softmax_vjp", x, inputs.rng(3).normal(size=x.shape), backend)


def _cotangent(kind):
    return lambda backend: checks.check_cotangent(kind, 30.0, -1, F8, backend)


def _jacobian_of_exact_softmax(backend):
    x = FAMILY["saturated"](F8)
    checks.assert_jacobian_ulps(x, oracle.exact_forward("softmax", x).high, backend)


def _unlike_samples(backend):
    x, sample_weight = FAMILY["sources_100x5"](F8), inputs.rng(4).uniform(size=100)
    options = {"sample_weight": sample_weight, "backend": backend, "reduction": "none"}
    labels = x.argmin(axis=1)
    expected = oracle.exact_cross_entropy(x, labels)[1].high * sample_weight[:, np.newaxis]
    checks.assert_close(fs.cross_entropy_with_grad(x, labels, **options)[1], expected, F8)


def _targets(x):
    return inputs.rng(5).uniform(size=x.shape)


def _certain(backend):
    x = FAMILY["saturated"](F8)
    checks.check_soft_cross_entropy(x, np.eye(x.shape[1])[x.argmax(axis=1)], backend)


def _uncertain(backend):
    x = FAMILY["sources_100x5"](F8)[:9]
    checks.check_soft_cross_entropy(x, _targets(x), backend)


def _of_segments(op, lengths):
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    x = inputs.rng(4).normal(size=(2, ptr[-1])) + np.repeat(
        np.resize([0, 1000, -1000], len(lengths)), lengths
    )
    return lambda backend: checks.check_segments(op, x, ptr, backend)


def _checks_of_segments(op):
    return {
        "of one length": _of_segments(op, [4] * 12),
        "of several": _of_segments(op, [3, 1, 9, 2, 17, 3]),
        "empty ones between": _of_segments(op, [3, 0, 2, 0, 0, 5]),
        "empty ones at the ends": _of_segments(op, [0, 3, 4, 0]),
    }


def _product_of_solution(backend, ridge):
    x = FAMILY["sources_100x5"](F8)
    checks.check_product_of_solution(x, oracle.extra_inputs("softmax_solve", x)[0], backend, ridge=ridge)


def _solutions(backend, ridge):
    y, b = oracle.arguments("softmax_solve", FAMILY["sources_100x5"](F8)[:20])
    checks.check_solutions(y, b, ridge, backend)


def _weighted(row, factors, expected):
    def check(backend):
        checks.assert_close(fs.logsumexp(row, b=factors, backend=backend), expected, F8)

    return check


CHECKS = {
    "weighted_logsumexp": {
        "a difference": _weighted([1.0, 0.0], [1.0, -0.5], np.log(np.e - 0.5)),
        "what takes no part": _weighted([np.inf, 0.0], [0.0, 2.0], np.log(2)),
    },
    "softmax": {
        "autograd, offset rows": lambda b: checks.check_autograd("softmax", FAMILY["offset_rows"](F8), b),
        "autograd, sources": lambda b: checks.check_autograd("softmax", FAMILY["sources_100x5"](F8), b),
        "ulps, far apart": lambda b: checks.check_ulps("softmax", FAMILY["far_apart"](F8), b),
        "ulps, subnormal": lambda b: checks.check_ulps("softmax", FAMILY["subnormal_results"](F8), b),
        "row sums": lambda b: checks.check_row_sums(FAMILY["one_dominant"](F8), b),
        "special rows": lambda b: checks.check_special_rows("softmax", F8, b),
    },
    "log_softmax": {
        "ulps, saturated": lambda b: checks.check_ulps("log_softmax", FAMILY["saturated"](F8), b),
        "special rows": lambda b: checks.check_special_rows("log_softmax", F8, b),
    },
    "logsumexp": {
        "ulps, offset rows": lambda b: checks.check_ulps("logsumexp", FAMILY["offset_rows"](F8), b),
        "special rows": lambda b: checks.check_special_rows("logsumexp", F8, b),
    },
    "softmax_vjp": {
        "autograd, sources": lambda b: checks.check_autograd("softmax_vjp", FAMILY["sources_100x5"](F8), b),
        "constant cotangents": _constant_cotangents,
        "bound": _product_bound,
        "differences overflow": _cotangent("differences overflow"),
        "subnormal beside huge": _cotangent("subnormal beside huge"),
    },
    "softmax_jacobian": {
        "autograd, sources": lambda b: checks.check_autograd(
            "softmax_jacobian", FAMILY["sources_100x5"](F8), b
        ),
        "ulps, saturated": _jacobian_of_exact_softmax,
    },
    "log_softmax_jacobian": {
        "autograd, sources": lambda b: checks.check_autograd(
            "log_softmax_jacobian", FAMILY["sources_100x5"](F8), b
        ),
        "ulps, saturated": lambda b: checks.check_log_jacobian_ulps(FAMILY["saturated"](F8), b),
    },
    "softmax_jacobian_diagonal": {
        "ulps, saturated": lambda b: checks.check_diagonal_ulps(FAMILY["saturated"](F8), b),
    },
    "softmax_solve": {
        "autograd, a ridge": lambda b: _product_of_solution(b, 0.25),
        "autograd, a small ridge": lambda b: _product_of_solution(b, 1e-9),
        "bound": lambda b: _solutions(b, 1e-9),
        "bound, no ridge": lambda b: _solutions(b, 0.0),
    },
    "cross_entropy_with_grad": {
        "mean": lambda b: checks.check_mean(FAMILY["sources_100x5"](F8), b),
        "autograd": lambda b: checks.check_autograd(
            "cross_entropy_with_grad", FAMILY["sources_100x5"](F8), b
        ),
        "ulps, likeliest label": _likeliest,
        "weights of rows": _unlike_samples,
    },
    "soft_cross_entropy_with_grad": {
        "saturated": _certain,
        "any targets": _uncertain,
    },
    **{op: _checks_of_segments(op) for op in ("segment_softmax", "segment_logsumexp", "segment_softmax_vjp")},
}
EMPTY_ONES = {"empty ones between", "empty ones at the ends"}

# Which checks of its op each mistake must fail; some can be seen by one alone.
NOTICED_BY = {
    "global_maximum": {"autograd, offset rows", "ulps, far apart"},
    "no_maximum": {"autograd, offset rows"},
    "one_part_shift": {"ulps, far apart"},
    "subnormals_flushed": {"ulps, subnormal"},
    "last_row_unwritten": set(CHECKS["softmax"]),
    "all_zeros": set(CHECKS["softmax"]),
    "nan_spreads_to_other_rows": {"special rows"},
    "row_of_minus_infinity_is_zeros": {"special rows"},
    "computed_in_float32": {"ulps, far apart", "autograd, offset rows"},
    "log_of_softmax": {"ulps, saturated"},
    "log_of_sum_of_exp": {"ulps, offset rows"},
    "dot_term_dropped": set(CHECKS["softmax_vjp"]),
    "product_of_zeros": {"autograd, sources", "bound"},
    "sum_in_place_of_the_dot": set(CHECKS["softmax_vjp"]),
    "dot_of_the_whole_batch": set(CHECKS["softmax_vjp"]),
    "not_centred": {"constant cotangents"},
    "differences_that_overflow": {"differences overflow"},
    "an_eighth_of_all_for_one_that_is_large": {"subnormal beside huge"},
    "transposed_sign": set(CHECKS["softmax_jacobian"]),
    "one_minus_by_subtraction": {"ulps, saturated"},
    "diagonal_forgotten": set(CHECKS["softmax_jacobian"]),
    "blocks_of_the_first_row": set(CHECKS["softmax_jacobian"]),
    "gap_by_subtraction": {"ulps, saturated"},
    "lines_for_columns": set(CHECKS["log_softmax_jacobian"]),
    "one_minus_exp_by_subtraction": {"ulps, saturated"},
    "gap_of_solution_by_subtraction": {"bound"},
    "sum_of_products_that_cancel": {"bound"},
    "rank_one_forgotten": set(CHECKS["softmax_solve"]),
    "mean_left_in": {"bound, no ridge"},
    "scale_forgotten": {"mean", "autograd"},
    "probability_minus_one": {"ulps, likeliest label"},
    "onehot_forgotten": {"autograd", "ulps, likeliest label"},
    "sizes_of_factors": {"a difference"},
    "factors_of_zero_times_infinity": {"what takes no part"},
    "sample_weight_forgotten": {"weights of rows"},
    "total_for_probability": {"any targets"},
    "probability_minus_target": {"saturated"},
    "log_of_a_softmax": {"saturated"},
    "maximum_of_all_segments": set(CHECKS["segment_softmax"]),
    "reduceat_of_empty_segments": EMPTY_ONES,
    "segments_of_equal_length": {"of several", *EMPTY_ONES},
    "last_segment_unwritten": {"of one length", "of several", "empty ones between"},
    "empty_segments_are_zero": EMPTY_ONES,
    "empty_segments_are_skipped": EMPTY_ONES,
    "dot_of_all_segments": set(CHECKS["segment_softmax_vjp"]),
}


@pytest.fixture
def planted():
    """Registers a mistake as a backend of its own, whose other kernels are the specification's."""

    def register(name):
        op, kernel = PLANTED[name]
        fs.register_backend("planted", vars(specification) | {op: kernel}, priority=-1)
        return op

    return register


@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes_are_noticed(name, planted):
    checks_of_op = CHECKS[planted(name)]
    with np.errstate(all="ignore"):
        failed = {title for title, check in checks_of_op.items() if _fails(check)}
    assert NOTICED_BY[name] <= failed


def _fails(check):
    try:
        check("planted")
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("op", CHECKS)
def test_the_same_checks_pass(op, backend):
    for check in CHECKS[op].values():
        check(backend)


@pytest.mark.parametrize("mistake", ["over every i", "not cleared"])
def test_dense_expanded_over_every_sample(mistake, monkeypatch, backend):
    """The sources' vectorised version copies each block over every i: zeros off the diagonal are required."""
    x = inputs.FAMILIES["sources_100x5"](np.float64)
    right = fs.softmax_jacobian

    def wrong(y, /, axis=-1, *, layout="batched", out=None, **kwargs):
        blocks = right(y, axis, **kwargs)
        if layout == "batched":
            return right(y, axis, out=out, **kwargs)
        m, n, _ = blocks.shape
        dense = np.zeros((m, n, m, n)) if out is None else out
        dense[...] = blocks[:, :, None, :] if mistake == "over every i" else dense
        np.einsum("pipj->pij", dense)[...] = blocks
        return dense

    checks.check_dense_jacobian(x, backend)
    monkeypatch.setattr(fs, "softmax_jacobian", wrong)
    with pytest.raises(AssertionError):
        checks.check_dense_jacobian(x, backend)


def test_dense_oracle_is_not_expanded():
    """autograd's own (m, n, m, n) is 0 off the diagonal blocks."""
    x = inputs.sources(7)
    dense = jacobian(oracle.softmax)(x)
    blocks = np.einsum("pipj->pij", dense)
    checks.assert_dense(dense, blocks)
    with pytest.raises(AssertionError):
        checks.assert_dense(np.broadcast_to(blocks[:, :, None, :], dense.shape), blocks)


def test_poison_shows():
    """`checks.call` writes into NaN, so that an unwritten entry cannot pass."""
    fs.register_backend("planted", {"softmax": lambda x, out: None}, priority=-1)
    (y,) = checks.call("softmax", np.zeros((2, 3)), backend="planted")
    assert np.isnan(y).all()


def test_bits_are_compared():
    with pytest.raises(AssertionError):
        checks.assert_same_bits(np.array([0.0]), np.array([-0.0]))
    with pytest.raises(AssertionError):
        checks.assert_same_bits(np.array([1.0]), np.array([1.0 + 2.0**-52]))
    with pytest.raises(AssertionError):
        checks.assert_same_bits(np.array([1.0]), np.array([1.0], np.float32))
    checks.assert_same_bits(np.array([np.nan, 1.0]), np.array([-np.nan, 1.0]))


def test_ulps_are_counted():
    exact = oracle.exact_forward("softmax", np.array([[0.0, 1.0, -700.0]]))
    assert exact.ulps(exact.high) <= 0.5
    assert 1.5 <= exact.ulps(exact.high + 2 * np.spacing(exact.high)) <= 2.5
    assert exact.ulps(np.full_like(exact.high, np.nan)) == np.inf
    with pytest.raises(AssertionError):
        checks.assert_not_flushed(np.zeros_like(exact.high), exact)


def test_tolerances_are_of_the_dtype():
    with pytest.raises(AssertionError):
        checks.assert_close(np.float64(1.0 + 1e-11), 1.0, np.float64)
    with pytest.raises(AssertionError):
        checks.assert_close(np.float32(1.0), 1.0, np.float64)
    with pytest.raises(AssertionError):
        checks.assert_close(np.zeros((2, 3)), np.zeros(3), np.float64)
    checks.assert_close(np.float64(1.0 + 1e-13), 1.0, np.float64)


def test_oracles_agree_with_each_other():
    """autograd, longdouble and mpmath, on rows where none of them cancels."""
    x = inputs.FAMILIES["offset_rows"](np.float64)
    for op in ("softmax", "log_softmax", "logsumexp"):
        exact = oracle.exact_forward(op, x).high
        np.testing.assert_allclose(oracle.longdouble_forward(op, x).astype(float), exact, rtol=1e-15)
        np.testing.assert_allclose(oracle.autograd_answer(op, x)[0], exact, rtol=1e-12)
    v = inputs.rng().normal(size=x.shape)
    product = oracle.exact_softmax_product(x, v).high
    for op in ("softmax_vjp", "softmax_jvp"):
        np.testing.assert_allclose(
            oracle.autograd_answer(op, x, extra=(v,))[0], product, rtol=1e-10, atol=1e-15
        )


def test_mape():
    assert oracle.mape([1.0, 2.0], [1.0, 2.0]) == 0
    assert oracle.mape([1.1, 0.0], [1.0, 0.0]) == pytest.approx(5)
    assert oracle.mape([1.0, 1e-300], [1.0, 0.0]) == np.inf
    assert np.isnan(oracle.mape([np.nan], [1.0]))


def test_mutants_are_of_these_sources():
    """`make mutants` takes an hour, and is run seldom: the sources may have changed."""
    mutation.check_table(MUTANTS)


@pytest.mark.skipif(not accuracy.WIDE_LONGDOUBLE, reason="longdouble is float64: mpmath is the reference")
def test_the_reference_of_accuracy():
    """`make accuracy` measures by longdouble, of which mpmath says how far it is off."""
    assert accuracy.reference_error() < 0.01
