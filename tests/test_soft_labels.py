"""Promise: probabilities are labels too, as in PyTorch, and rows have weights, as in scikit-learn."""

from itertools import product

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, tolerances
from tests.test_plain_calls import _assert_same

BOTH = ("cross_entropy", "cross_entropy_with_grad")
FINITE = [name for name in inputs.FAMILIES if name not in ("masked", "sources_1000x5", "largest_numbers")]

TARGETS = {
    "any": lambda x: inputs.rng(1).uniform(size=x.shape),
    "one-hot at the largest": lambda x: np.eye(x.shape[1])[x.argmax(axis=1)],
    "one-hot at the smallest": lambda x: np.eye(x.shape[1])[x.argmin(axis=1)],
    "nearly one-hot": lambda x: 0.999 * np.eye(x.shape[1])[x.argmax(axis=1)] + 0.001 / x.shape[1],
    "the softmax": lambda x: oracle.longdouble_forward("softmax", x).astype(np.float64),
    "two": lambda x: np.where(np.arange(x.shape[1]) < 2, 0.5, 0.0) + np.zeros(x.shape),
    "nothing": lambda x: np.zeros(x.shape),
}


def _options(names, n, rows, dtype):
    rng = inputs.rng(2)
    every = {
        "weight": rng.uniform(0.1, 3, n).astype(dtype),
        "sample_weight": rng.uniform(0.1, 3, rows).astype(dtype),
        "label_smoothing": 0.1,
    }
    return {name: every[name] for name in names}


OPTIONS = [
    (),
    ("weight",),
    ("sample_weight",),
    ("label_smoothing",),
    ("weight", "sample_weight", "label_smoothing"),
]


@pytest.mark.parametrize("options", OPTIONS, ids="-".join)
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", [*FINITE, 1, 2, 8, 17, 65, 1000], ids=str)
def test_bounds(name, kind, options, backend, dtype):
    x = inputs.width(name, dtype, rows=3) if isinstance(name, int) else inputs.FAMILIES[name](dtype)[:5]
    t = TARGETS[kind](x).astype(dtype)
    checks.check_soft_cross_entropy(x, t, backend, **_options(options, x.shape[1], len(x), dtype))


@pytest.mark.parametrize("name", FINITE)
def test_one_hot_rows_are_labels(name, backend, dtype):
    """To the bound of labels, in units in the last place: 1 - y does not cancel."""
    x = inputs.FAMILIES[name](dtype)[:20]
    for labels in (x.argmax(axis=1), x.argmin(axis=1)):
        onehot = np.eye(x.shape[1], dtype=dtype)[labels]
        exact_loss, exact_dx = oracle.exact_cross_entropy(x, labels)
        loss, dx = checks.call("cross_entropy_with_grad", x, onehot, backend=backend, reduction="none")
        assert exact_loss.ulps(loss) <= 4
        assert exact_dx.ulps(dx) <= 4


# High entries over equal ones, roundings that go one way, few values: sums of a long row.
LONG = {
    "equal": lambda n: (np.zeros(n), np.full(n, 1 / n)),
    "one high": lambda n: (np.where(np.arange(n) == n // 3, 30.0, 0.0), np.full(n, 0.1)),
    "one high and certain": lambda n: (np.where(np.arange(n) == 1, 40.0, 0.0), np.eye(1, n, 1)[0]),
    "steps": lambda n: (np.arange(n) % 7 * 0.1, np.arange(n) % 3 / 3),
    "thirds": lambda n: (np.full(n, 1 / 3), np.full(n, 1 / 3)),
    "few values": lambda n: tuple(
        np.where(np.arange(n) % 1000 == 0, *of) for of in ((5.3, -2.1), (0.7, 1e-5))
    ),
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("n", [4097, 70_000, 1_000_000])
def test_long_rows(kind, n, backend, dtype):
    if checks.is_slow(backend) and n > 5000:
        n = 20_001
    x, t = (a.astype(dtype)[np.newaxis] for a in LONG[kind](n))
    wide = [a.astype(np.longdouble) for a in (x, t)]
    y, logy = (oracle.longdouble_forward(op, wide[0]) for op in ("softmax", "log_softmax"))
    total = wide[1].sum()
    loss, dx = fs.cross_entropy_with_grad(x, t, reduction="sum", backend=backend)
    eps = np.finfo(dtype).eps
    assert abs(loss - -(wide[1] * logy).sum()) <= tolerances.SOFT_EPS * eps * float(loss)
    k = int(x[0].argmax())
    expected, size = y[0] * total - wide[1][0], y[0] * total + wide[1][0]
    if y[0, k] > 2 / 3:
        others, one_minus = total - wide[1][0, k], np.delete(y[0], k).sum()
        expected[k], size[k] = others - total * one_minus, others + total * one_minus
    assert (np.abs(dx[0] - expected) <= tolerances.SOFT_EPS * eps * size.astype(np.float64)).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS, ids="-".join)
def test_torch_itself(options, reduction, backend):
    """Which has no weights of rows: they multiply its losses, and a mean is by their sum."""
    torch = pytest.importorskip("torch")
    x = inputs.sources_100x5(np.float64)
    t = inputs.rng(1).dirichlet(np.ones(5), 100)
    given = _options(options, 5, 100, np.float64)
    of_rows = torch.from_numpy(given.get("sample_weight", np.ones(100)))
    theirs = {k: v for k, v in given.items() if k != "sample_weight"}
    if "weight" in theirs:
        theirs["weight"] = torch.from_numpy(theirs["weight"])
    z = torch.from_numpy(x.copy()).requires_grad_()
    rows = torch.nn.functional.cross_entropy(z, torch.from_numpy(t), reduction="none", **theirs) * of_rows
    expected = rows if reduction == "none" else rows.sum()
    if reduction == "mean":
        expected = expected / of_rows.sum()
    expected.sum().backward()
    loss, dx = checks.call("cross_entropy_with_grad", x, t, backend=backend, reduction=reduction, **given)
    checks.assert_close(loss, expected.detach().numpy(), np.float64, scale=10)
    checks.assert_close(dx, z.grad.numpy(), np.float64, scale=3)


# ---- weights of rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_sample_weight(weighted, smoothing, soft, backend, dtype):
    x = inputs.width(7, dtype, rows=40)
    labels = inputs.rng(1).uniform(size=x.shape).astype(dtype) if soft else x.argmin(axis=1)
    of_rows = inputs.rng(3).uniform(0.5, 2, 40).astype(dtype)
    options = {"backend": backend, "label_smoothing": smoothing}
    options["weight"] = inputs.rng(4).uniform(0.5, 2, 7).astype(dtype) if weighted else None
    plain, plain_dx = checks.call("cross_entropy_with_grad", x, labels, reduction="none", **options)
    rows = plain.astype(np.float64) * of_rows
    gradients = plain_dx.astype(np.float64) * of_rows[:, np.newaxis]
    of_classes = options["weight"][labels].astype(np.float64) if weighted and not soft else np.ones(40)
    divisor = (of_classes * of_rows).sum()
    for reduction, expected, by in (
        ("none", rows, 1),
        ("sum", rows.sum(), 1),
        ("mean", rows.sum() / divisor, divisor),
    ):
        given = options | {"sample_weight": of_rows, "reduction": reduction}
        loss, dx = checks.call("cross_entropy_with_grad", x, labels, **given)
        checks.assert_close(loss, expected, dtype, scale=10)
        checks.assert_close(dx, gradients / by, dtype, scale=5)
        checks.assert_close(fs.cross_entropy(x, labels, **given), expected, dtype, scale=10)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 0.0])
def test_rows_of_weight_zero_take_no_part(garbage, soft, backend, dtype):
    """Whatever is in them: padding."""
    x = inputs.width(5, dtype, rows=30)
    labels = inputs.rng(1).uniform(size=x.shape).astype(dtype) if soft else x.argmin(axis=1)
    of_rows = np.where(np.arange(30) % 3 == 1, 0, 2).astype(dtype)
    padded = np.where(of_rows[:, np.newaxis] == 0, dtype.type(garbage), x)
    taking_part = of_rows != 0
    options = {"backend": backend, "label_smoothing": 0.1}
    loss, dx = checks.call("cross_entropy_with_grad", padded, labels, sample_weight=of_rows, **options)
    of_those = [a[taking_part] for a in (x, labels, of_rows)]
    expected, expected_dx = fs.cross_entropy_with_grad(*of_those[:2], sample_weight=of_those[2], **options)
    checks.assert_close(loss, expected, dtype)
    checks.assert_close(dx[taking_part], expected_dx, dtype)
    assert (dx[~taking_part] == 0).all()
    nothing = fs.cross_entropy_with_grad(padded, labels, sample_weight=np.zeros(30, dtype), backend=backend)
    assert np.isnan(nothing[0])
    assert (nothing[1] == 0).all()


def test_weights_of_ignored_rows_do_not_count(backend, dtype):
    x, labels = inputs.width(5, dtype, rows=6), np.array([0, 1, 2, -100, 4, -100])
    of_rows = np.array([1, 2, 3, 50, 4, 60], dtype)
    loss, dx = checks.call(
        "cross_entropy_with_grad", x, labels, ignore_index=-100, sample_weight=of_rows, backend=backend
    )
    kept = labels >= 0
    expected, expected_dx = fs.cross_entropy_with_grad(
        x[kept], labels[kept], sample_weight=of_rows[kept], backend=backend
    )
    checks.assert_close(loss, expected, dtype)
    checks.assert_close(dx[kept], expected_dx, dtype)
    assert (dx[~kept] == 0).all()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("of_rows", ["smallest", "tiny", "one", "largest"])
@pytest.mark.parametrize("of_classes", ["smallest", "tiny", "one", "largest"])
def test_a_mean_is_of_weights_of_any_scale(of_classes, of_rows, soft, backend, dtype):
    """A factor of all weights is none of their mean: neither their sum nor its inverse need be finite."""
    info = np.finfo(dtype)
    factors = {
        "smallest": 4 * info.smallest_subnormal,
        "tiny": info.tiny / 32,
        "one": 1,
        "largest": 2.0 ** (info.maxexp - 3),
    }
    x = inputs.width(3, dtype, rows=4)
    labels = inputs.rng(1).uniform(size=x.shape).astype(dtype) if soft else x.argmin(axis=1)
    weights = {"sample_weight": np.array([1, 3, 2, 4], dtype)}
    factor = {"sample_weight": factors[of_rows]}
    if not soft:  # of probabilities classes' weights count in full
        weights["weight"], factor["weight"] = np.array([2, 4, 1], dtype), factors[of_classes]
    expected = fs.cross_entropy_with_grad(x, labels, label_smoothing=0.25, backend=backend, **weights)
    scaled = {name: w * dtype.type(factor[name]) for name, w in weights.items()}
    for given in (scaled, {name: w.tolist() for name, w in scaled.items()}):
        actual = checks.call(
            "cross_entropy_with_grad", x, labels, label_smoothing=0.25, backend=backend, **given
        )
        checks.assert_same_bits(actual, expected)
        checks.assert_close(
            fs.cross_entropy(x, labels, label_smoothing=0.25, backend=backend, **given), expected[0], dtype
        )


@pytest.mark.parametrize("weights", ["weight", "sample_weight"])
def test_a_mean_by_weights_that_cancel_is_nan(weights, backend, dtype):
    x, given = inputs.width(3, dtype, rows=3), {weights: np.array([1, -1, 0], dtype)}
    labels = np.arange(3)
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, **given)
    assert np.isnan(loss)
    assert np.isnan(fs.cross_entropy(x, labels, backend=backend, **given))
    assert np.isnan(dx[:2]).all()
    assert weights == "weight" or (dx[2] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("n", "axis"), [(4, 1), (5, 1), (9, 0), (100, 1), (700, 1), (700, 0)])
def test_gradients_of_rows_of_little_weight_keep_their_digits(n, axis, soft, smoothing, backend, dtype):
    """Beside rows that weigh more; powers of two round nothing while results are normal numbers."""
    x, eps, tiny = inputs.width(n, dtype, rows=18), np.finfo(dtype).eps, np.finfo(dtype).tiny
    onehot = np.eye(n, dtype=dtype)[x.argmin(axis=1)]
    t = inputs.rng(1).uniform(size=x.shape).astype(dtype) if soft else onehot
    of_rows = (2.0 ** -np.linspace(0, np.finfo(dtype).maxexp - 4, 18).round())[:, np.newaxis]
    given = [a if axis else a.T.copy() for a in (x, t if soft else x.argmin(axis=1))]
    options = {"label_smoothing": smoothing, "reduction": "sum", "backend": backend}
    whole = fs.cross_entropy_with_grad(*given, axis, **options)[1]
    dx = checks.call(
        "cross_entropy_with_grad", *given, axis, sample_weight=of_rows.ravel().astype(dtype), **options
    )[1]
    whole, dx = (a.astype(np.float64) if axis else a.astype(np.float64).T for a in (whole, dx))
    u = (1 - smoothing) * t.astype(np.float64) + smoothing / n
    size = of_rows * (fs.softmax(x.astype(np.float64)) * u.sum(axis=1, keepdims=True) + u)
    normal, spare = np.abs(whole) * of_rows >= tiny, 4 * float(np.finfo(dtype).smallest_subnormal)
    error = np.abs(dx - whole * of_rows)
    assert (error <= np.where(normal, 4 * eps * size + spare, tiny)).all()
    assert normal[-1].any()


def test_weights_of_no_classes(backend):
    options = {"weight": [], "ignore_index": -1, "backend": backend}
    loss, dx = fs.cross_entropy_with_grad(np.empty((2, 0)), [-1, -1], **options)
    assert np.isnan(loss)
    assert dx.shape == (2, 0)


@pytest.mark.parametrize("given", [np.nan, np.inf, 1e-300])
def test_weights_of_ignored_rows_may_be_anything(given, backend):
    x, labels = inputs.width(5, np.float64, rows=4), np.array([0, -100, 4, -100])
    for of_rows in (np.array([1e-310, given, 3e-310, given]), np.array([1, given, 3, given])):
        options = {"ignore_index": -100, "backend": backend}
        expected = fs.cross_entropy_with_grad(x[::2], labels[::2], sample_weight=of_rows[::2], **options)
        for weights in (of_rows, of_rows.tolist()):
            loss, dx = checks.call("cross_entropy_with_grad", x, labels, sample_weight=weights, **options)
            checks.assert_close(loss, expected[0], np.float64)
            checks.assert_close(dx[::2], expected[1], np.float64)
            assert (dx[1::2] == 0).all()


def test_small_weights_of_far_logits(backend, dtype):
    """A finite loss is finite, though that of the row without its weight is not."""
    top = np.finfo(dtype).max * dtype.type(0.9)
    x = np.array([[top, -top, 0]] * 20, dtype)
    options = {"sample_weight": np.full(20, 0.25, dtype), "reduction": "none", "backend": backend}
    for labels in (np.ones(20, int), np.array([[0, 1, 0]] * 20, dtype)):
        loss, dx = checks.call("cross_entropy_with_grad", x, labels, **options)
        checks.assert_close(loss / top, [0.5] * 20, dtype)
        assert np.isfinite(dx).all()


def test_no_warning_where_weights_underflow(backend, dtype):
    weight = np.full(3, 4 * np.finfo(dtype).smallest_subnormal, dtype)
    with np.errstate(all="raise"):
        fs.cross_entropy_with_grad(
            np.zeros((2, 3), dtype), [0, 1], weight=weight, label_smoothing=0.3, backend=backend
        )


# ---- arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("layout", inputs.LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 10), -1), ((3, 10, 4), 1), ((2, 3, 20), (0, 2)), ((9, 300), -1)]
)
def test_layouts(op, layout, shape, axis, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    t = inputs.rng(1).uniform(size=shape).astype(dtype)
    of_rows = inputs.rng(2).uniform(size=fs.logsumexp(x, axis).shape).astype(dtype)
    options = {"backend": backend, "reduction": "none"}
    plain = x, t, of_rows
    expected = checks.call(op, x, t, axis, sample_weight=of_rows, **options)
    for which in ((0,), (1,), (2,), (0, 1, 2)):
        x, t, of_rows = (inputs.LAYOUTS[layout](a) if k in which else a for k, a in enumerate(plain))
        checks.assert_same_bits(checks.call(op, x, t, axis, sample_weight=of_rows, **options), expected)


@pytest.mark.parametrize(("shape", "axis"), inputs.SHAPES, ids=str)
def test_axes(shape, axis, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    t = inputs.rng(1).uniform(size=shape).astype(dtype)
    loss, dx = checks.call("cross_entropy_with_grad", x, t, axis, backend=backend, reduction="none")
    kept, rows, _ = oracle.rows_of(x, axis)
    t_rows = oracle.rows_of(t, axis)[1]
    expected, expected_dx, _ = oracle.exact_soft_cross_entropy(rows, t_rows)
    checks.assert_close(loss, expected.high.reshape(kept), dtype)
    checks.assert_close(oracle.rows_of(dx, axis)[1], expected_dx.high, dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_halves_beside_probabilities_of_columns(dtype, backend):
    """Which are cut in blocks of columns."""
    columns = 40 if checks.is_slow(backend) else 4000
    x = inputs.rng().normal(size=(2, 70, columns)).astype("f2")
    t = np.ascontiguousarray(inputs.rng(1).dirichlet(np.ones(70), (2, columns)).swapaxes(1, 2)).astype(dtype)
    options = {"reduction": "none", "backend": backend}
    loss, dx = checks.call("cross_entropy_with_grad", x, t, 1, **options)
    wide, wide_dx = fs.cross_entropy_with_grad(x.astype("f4"), t, 1, **options)
    checks.assert_same_bits((loss, dx), (wide.astype("f2"), wide_dx.astype("f2")))
    checks.assert_same_bits(fs.cross_entropy(x, t, 1, **options), loss)


def test_without_dimensions(backend):
    """One entry of one row, as for labels."""
    loss, dx = fs.cross_entropy_with_grad(2.0, 0.25, backend=backend)
    assert (loss, dx, dx.shape) == (0, 0, ())
    with pytest.raises(ValueError, match=r"labels has shape \(1,\); expected \(\), a probability for each"):
        fs.cross_entropy(2.0, [0.25], backend=backend)


@pytest.mark.parametrize(
    ("x_dtype", "t_dtype"), list(product(["f2", "f4", "f8", "i4"], ["f2", "f4", "f8"])), ids="-".join
)
def test_dtypes(x_dtype, t_dtype, backend):
    """Probabilities are converted to what is computed with, and results have the dtype of x."""
    x = (inputs.rng().normal(size=(40, 6)) * 3).astype(x_dtype)
    t = inputs.rng(1).dirichlet(np.ones(6), 40).astype(t_dtype)
    result = np.dtype("f8" if x_dtype == "i4" else x_dtype)
    computed = np.float32 if x_dtype == "f2" else result
    expected = fs.cross_entropy_with_grad(
        x.astype(computed), t.astype(computed), reduction="none", backend=backend
    )
    actual = checks.call("cross_entropy_with_grad", x, t, reduction="none", backend=backend)
    checks.assert_same_bits(actual, tuple(a.astype(result) for a in expected))


@pytest.mark.parametrize("place", ["x", "labels", "sample_weight"])
@pytest.mark.parametrize(("shape", "axis"), [((40, 3), -1), ((3, 40), 0), ((7, 300), -1)])
def test_out_among_the_inputs(place, shape, axis, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    t = inputs.rng(1).uniform(size=shape).astype(dtype)
    of_rows = inputs.rng(2).uniform(size=x.size // shape[axis]).astype(dtype)
    expected = fs.cross_entropy_with_grad(x, t, axis, sample_weight=of_rows, backend=backend)
    out = checks.poisoned(shape, dtype)
    if place == "sample_weight":
        given = out.reshape(-1)[: of_rows.size]
        given[...] = of_rows
        of_rows = given
    else:
        out = x if place == "x" else t
    loss, dx = fs.cross_entropy_with_grad(x, t, axis, sample_weight=of_rows, out=out, backend=backend)
    assert dx is out
    checks.assert_same_bits((loss, dx), expected)


@pytest.mark.parametrize("shape", [(5000, 7), (40, 1000), (3, 2, 4000)], ids=str)
@pytest.mark.parametrize("axis", [0, -1])
def test_threads_and_neighbours(shape, axis, backend, dtype):
    if checks.is_slow(backend):
        shape = tuple(n // 9 + 1 for n in shape)
    x = inputs.rng().normal(size=shape).astype(dtype)
    t = inputs.rng(1).uniform(size=shape).astype(dtype)
    options = {"axis": axis, "reduction": "none", "backend": backend}
    one, three = (checks.call("cross_entropy_with_grad", x, t, num_threads=n, **options) for n in (1, 3))
    checks.assert_same_bits(one, three)
    if axis == -1:
        some = fs.cross_entropy_with_grad(x[1:], t[1:], **options)
        checks.assert_same_bits(tuple(a[1:] for a in one), some)


@pytest.mark.parametrize("op", BOTH)
def test_the_short_way_is_the_long_one(op, dtype):
    for shape, axis in (((40, 10), -1), ((3, 10, 4), 1), ((10,), 0), ((500, 10), -1)):
        x = inputs.rng().normal(size=shape).astype(dtype)
        t = inputs.rng(1).uniform(size=shape)
        labels = oracle.extra_inputs(op, x, axis)[0]
        of_rows = inputs.rng(2).uniform(size=np.shape(labels)) * (
            inputs.rng(3).uniform(size=np.shape(labels)) < 0.8
        )
        weight = inputs.rng(4).uniform(size=10).astype(dtype)
        for given, smoothing, by_class, by_row, reduction in product(
            (t.astype(dtype), t, t.astype(np.float16), labels),
            (0.0, 0.1),
            (None, weight),
            (None, of_rows, np.asarray(of_rows, dtype)),
            ("mean", "none"),
        ):
            options = {"weight": by_class, "sample_weight": by_row, "label_smoothing": smoothing}
            _assert_same(op, x, given, axis, reduction=reduction, **options)


# ---- special values ----------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("axis", [0, 1])
def test_masked_logits(axis, copies, backend, dtype):
    """No infinity meets a probability of 0, and the gradient is finite whatever the loss is."""
    x = np.array([[-np.inf, 0, 1]] * copies, dtype)
    for t, expected in (([0, 0.5, 0.5], np.log1p(np.e) - 0.5), ([0.5, 0.5, 0], np.inf), ([0, 0, 0], 0.0)):
        t = np.array([t] * copies, dtype)
        args = (x.T.copy(), t.T.copy()) if axis == 0 else (x, t)
        loss, dx = checks.call("cross_entropy_with_grad", *args, axis, reduction="none", backend=backend)
        checks.assert_close(loss, [expected] * copies, dtype)
        y = oracle.longdouble_forward("softmax", x)
        checks.assert_close(dx.T if axis == 0 else dx, y * t.sum(axis=1, keepdims=True) - t, dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "labels"])
def test_a_row_of_nan_stays_one(where, value, backend, dtype):
    x, t = inputs.width(3, dtype, rows=40), inputs.rng(1).uniform(size=(40, 3)).astype(dtype)
    options = {"reduction": "none", "backend": backend}
    before = checks.call("cross_entropy_with_grad", x, t, **options)
    (x if where == "x" else t)[5, 1] = value
    after = checks.call("cross_entropy_with_grad", x, t, **options)
    if where == "x":
        assert np.isnan(after[0][5])
        assert np.isnan(after[1][5]).all()
    else:
        assert not np.isfinite(after[0][5])
    others = np.arange(40) != 5
    checks.assert_same_bits(*(tuple(a[others] for a in results) for results in (after, before)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_rows(reduction, backend, dtype):
    x = np.empty((0, 4), dtype)
    loss, dx = checks.call("cross_entropy_with_grad", x, x.copy(), reduction=reduction, backend=backend)
    assert dx.shape == (0, 4)
    np.testing.assert_array_equal(loss, {"mean": np.nan, "sum": 0.0, "none": np.empty(0)}[reduction])


def test_no_classes(backend, dtype):
    """Their losses are sums of nothing."""
    for labels, options in ((np.empty((9, 0)), {}), (np.full(9, -1), {"ignore_index": -1})):
        x = np.empty((9, 0), dtype)
        loss, dx = checks.call(
            "cross_entropy_with_grad", x, labels, reduction="none", backend=backend, **options
        )
        assert dx.shape == (9, 0)
        np.testing.assert_array_equal(loss, np.zeros(9))


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("shape", [(3, 1), (1, 5), (5,), (3, 5, 1), (5, 3), ()])
def test_probabilities_of_another_shape(op, shape, backend):
    with pytest.raises(
        ValueError, match=r"^labels has shape .*; expected \(3, 5\), a probability for each entry"
    ):
        getattr(fs, op)(np.zeros((3, 5)), np.zeros(shape), backend=backend)


@pytest.mark.parametrize("op", BOTH)
def test_rows_of_probabilities_cannot_be_ignored(op, backend):
    with pytest.raises(ValueError, match=r"^ignore_index is a class index, .* sample_weight of 0"):
        getattr(fs, op)(np.zeros((3, 5)), np.zeros((3, 5)), ignore_index=1, backend=backend)


@pytest.mark.parametrize("op", BOTH)
def test_one_hot_rows_of_integers(op, backend):
    with pytest.raises(
        ValueError, match=r"expected \(3,\), the shape of x \(3, 5\) without axis, or one-hot rows as"
    ):
        getattr(fs, op)(np.zeros((3, 5)), np.eye(3, 5, dtype=int), backend=backend)
    with pytest.raises(TypeError, match=r"labels has dtype bool; .* or one-hot rows as floats"):
        getattr(fs, op)(np.zeros((3, 5)), np.eye(3, 5, dtype=bool), backend=backend)


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("shape", [(), (2,), (5,), (3, 1), (3, 5)])
@pytest.mark.parametrize("soft", [False, True])
def test_sample_weight_of_another_shape(op, shape, soft, backend):
    labels = np.zeros((3, 5)) if soft else np.zeros(3, int)
    out = checks.poisoned((3, 5), np.float64)
    kwargs = {"out": out} if op.endswith("grad") else {}
    with pytest.raises(ValueError, match=r"^sample_weight has shape .*; expected \(3,\), the shape of x"):
        getattr(fs, op)(np.zeros((3, 5)), labels, sample_weight=np.ones(shape), backend=backend, **kwargs)
    assert np.isnan(out).all()


@pytest.mark.parametrize("bad", [["a", "b", "c"], [1j, 1, 1], [None, 1, 1]], ids=str)
def test_sample_weight_of_another_dtype(bad, backend):
    with pytest.raises(TypeError, match=r"^sample_weight has dtype .*; expected float64"):
        fs.cross_entropy(np.zeros((3, 5)), [0, 1, 2], sample_weight=bad, backend=backend)
