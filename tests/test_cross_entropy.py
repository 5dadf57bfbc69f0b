"""Promise: cross-entropy is PyTorch's: weights, ignored labels, smoothing and reductions."""

import math
from itertools import product

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

OPTIONS = [
    {"weight": weight, "ignore_index": ignored, "label_smoothing": smoothing, "reduction": reduction}
    for weight, ignored, smoothing, reduction in product(
        [None, "given"], [None, 2], [0.0, 0.1, 1.0], ["mean", "sum", "none"]
    )
]


def _ids(options):
    return "-".join(str(v) for v in options.values())


def _given(options, dtype, n):
    weight = options["weight"] and inputs.rng(9).uniform(0.1, 3, n).astype(dtype)
    return options | {"weight": weight}


def torch_formula(x, labels, *, weight, ignore_index, label_smoothing, reduction):
    """torch.nn.CrossEntropyLoss's documented formulas (PyTorch 2.x), one row at a time in longdouble.

    The gradient is theirs by hand: each row's loss is ``sum_c q_c * -log p_c``, so that
    ``d loss / d x = p * sum(q) - q``.
    """
    m, n = x.shape
    w = np.ones(n, np.longdouble) if weight is None else np.asarray(weight, np.longdouble)
    loss, dx = np.zeros(m, np.longdouble), np.zeros((m, n), np.longdouble)
    divisor = np.longdouble(0)
    for i, label in enumerate(labels):
        if label == ignore_index:
            continue
        q = label_smoothing / np.longdouble(n) * w
        q[label] += (1 - np.longdouble(label_smoothing)) * w[label]
        loss[i] = -(q * oracle.longdouble_forward("log_softmax", x[i])).sum()
        dx[i] = oracle.longdouble_forward("softmax", x[i]) * q.sum() - q
        divisor += w[label]
    if reduction == "none":
        return loss, dx
    return (loss.sum() / divisor, dx / divisor) if reduction == "mean" else (loss.sum(), dx)


@pytest.mark.parametrize("options", OPTIONS, ids=_ids)
@pytest.mark.parametrize("n", [2, 5, 40])
def test_formulas(options, n, backend, dtype):
    x = inputs.width(n, dtype, rows=21)
    labels = inputs.rng(1).integers(0, n, 21)
    options = _given(options, dtype, n)
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, **options)
    alone = fs.cross_entropy(x, labels, backend=backend, **options)
    expected_loss, expected_dx = torch_formula(x, labels, **options)
    checks.assert_close(loss, expected_loss, dtype)
    checks.assert_close(alone, expected_loss, dtype)
    checks.assert_close(dx, expected_dx, dtype, scale=3)


@pytest.mark.parametrize("options", OPTIONS, ids=_ids)
def test_torch_itself(options, backend):
    torch = pytest.importorskip("torch")
    x, labels = inputs.sources_100x5(np.float64), inputs.rng(1).integers(0, 5, 100)
    options = _given(options, np.float64, 5)
    theirs = {k: v for k, v in options.items() if v is not None}
    if "weight" in theirs:
        theirs["weight"] = torch.from_numpy(theirs["weight"])
    z = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.nn.functional.cross_entropy(z, torch.from_numpy(labels), **theirs)
    expected.sum().backward()
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, **options)
    checks.assert_close(loss, expected.detach().numpy(), np.float64, scale=10)
    checks.assert_close(dx, z.grad.numpy(), np.float64, scale=3)


@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s, a in inputs.SHAPES], ids=str)
def test_axes(shape, axis, backend, dtype):
    """The classes are along ``axis``, which labels lack."""
    x = inputs.rng().normal(size=shape).astype(dtype)
    (labels,) = oracle.extra_inputs("cross_entropy", x, axis)
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, axis, backend=backend, reduction="none")
    rows, labels_flat = _as_rows(x, axis), labels.reshape(-1)
    options = {"weight": None, "ignore_index": None, "label_smoothing": 0.0, "reduction": "none"}
    expected_loss, expected_dx = torch_formula(rows, labels_flat, **options)
    checks.assert_close(loss, expected_loss.reshape(labels.shape), dtype)
    checks.assert_close(_as_rows(dx, axis), expected_dx, dtype)


def _as_rows(x, axis):
    return oracle.rows_of(x, axis)[1]


def test_mean_is_of_the_rows(backend, dtype):
    checks.check_mean(inputs.sources_100x5(dtype), backend)


@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_with_grad"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_is_a_scalar_of_the_dtype(op, reduction, backend, dtype):
    loss = checks.as_tuple(
        getattr(fs, op)(np.zeros((3, 4), dtype), [0, 1, 2], reduction=reduction, backend=backend)
    )[0]
    assert np.ndim(loss) == 0
    checks.assert_close(loss, np.log(4) * (3 if reduction == "sum" else 1), dtype)


@pytest.mark.parametrize("name", inputs.FAMILIES)
def test_gradient_is_softmax_minus_onehot(name, backend, dtype):
    x = inputs.FAMILIES[name](dtype)
    (labels,) = oracle.extra_inputs("cross_entropy", x)
    _, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, reduction="sum")
    onehot = np.eye(x.shape[1])[labels]
    checks.assert_close(dx, oracle.longdouble_forward("softmax", x) - onehot, dtype)


@pytest.mark.parametrize("n", [3, 5, 100])
def test_a_row_with_nan_has_no_loss(n, backend, dtype):
    """Wherever its label is: at an entry that is infinitely far as well."""
    x = np.zeros((4, n), dtype)
    x[:, 0], x[:, -1] = -np.inf, np.nan
    for weight in (None, np.full(n, 0.25, dtype)):
        for row in (x, x[0][np.newaxis]):
            loss, dx = checks.call(
                "cross_entropy_with_grad",
                row,
                [0] * len(row),
                weight=weight,
                reduction="none",
                backend=backend,
            )
            assert np.isnan(loss).all()
            assert np.isnan(dx).all()


def test_gradient_in_place(backend, dtype):
    """``out=x`` overwrites the logits with the gradient."""
    x = inputs.sources_1000x5(dtype)
    (labels,) = oracle.extra_inputs("cross_entropy", x)
    loss, dx = fs.cross_entropy_with_grad(x, labels, backend=backend)
    again, same = fs.cross_entropy_with_grad(x, labels, out=x, backend=backend)
    assert same is x
    checks.assert_same_bits((again, same), (loss, dx))


def test_both_ops_give_the_same_loss(backend, dtype):
    """To the tolerance; the gradient's kernel may sum in another order."""
    x = inputs.far_apart(dtype)
    (labels,) = oracle.extra_inputs("cross_entropy", x)
    loss, _ = fs.cross_entropy_with_grad(x, labels, backend=backend)
    checks.assert_close(fs.cross_entropy(x, labels, backend=backend), loss, dtype)


def test_mean_of_many_rows_is_summed_in_float64(backend):
    x = np.zeros((50_000, 3), np.float32)
    x[:, 0] = 0.1
    labels = np.zeros(len(x), int)
    mean = fs.cross_entropy(x, labels, backend=backend)
    one = fs.cross_entropy(x[:1], labels[:1], backend=backend)
    assert abs(float(mean) - float(one)) <= np.spacing(one)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 1000, 4097])
def test_sum_of_losses(rows, backend, dtype):
    """To an ULP, also where they differ by a factor of 1e12."""
    rng = inputs.rng(rows)
    x = rng.normal(size=(rows, 2)).astype(dtype) * dtype.type(10) ** rng.integers(-6, 6, (rows, 1))
    labels = rng.integers(0, 2, rows)
    losses = fs.cross_entropy(x, labels, reduction="none", backend=backend)
    total = dtype.type(math.fsum(losses.tolist()))
    assert abs(fs.cross_entropy(x, labels, reduction="sum", backend=backend) - total) <= np.spacing(total)
    if backend == fs.explain("cross_entropy", x.shape, dtype).backend:
        assert fs.cross_entropy(x, labels) == fs.cross_entropy(x, labels, backend=backend)


def test_sum_of_infinite_losses(backend, dtype):
    x = np.array([[0, -np.inf], [0, 1], [0, 2]] * 10, dtype)
    assert fs.cross_entropy(x, [1] * 30, backend=backend) == np.inf
    x[0] = np.nan
    assert np.isnan(fs.cross_entropy(x, [1] * 30, backend=backend))


def test_sums_keep_what_float32_would_lose(backend):
    """Of losses and of weights: small ones beside one at which float32 counts in twos."""
    x = np.array([[0.0, -(2.0**24)]] + [[0.0, -1.0]] * 200, np.float32)
    rows = fs.cross_entropy(x, [1] * 201, reduction="none", backend=backend).astype(np.float64)
    assert fs.cross_entropy(x, [1] * 201, reduction="sum", backend=backend) == np.float32(rows.sum())
    weight, labels = np.array([2.0**24, 1.0], np.float32), [0] + [1] * 200
    rows = fs.cross_entropy(x, labels, weight=weight, reduction="none", backend=backend).astype(np.float64)
    mean, dx = fs.cross_entropy_with_grad(x, labels, weight=weight, backend=backend)
    assert abs(mean - rows.sum() / (2**24 + 200)) <= np.spacing(mean)
    _, dx_sum = fs.cross_entropy_with_grad(x, labels, weight=weight, reduction="sum", backend=backend)
    np.testing.assert_allclose(dx, dx_sum / np.float64(2**24 + 200), rtol=3e-7)


def test_loss_of_one_row_is_a_scalar(backend, dtype):
    for op in ("cross_entropy", "cross_entropy_with_grad"):
        loss = checks.as_tuple(getattr(fs, op)(np.zeros(4, dtype), 1, reduction="none", backend=backend))[0]
        assert type(loss) is dtype.type


@pytest.mark.parametrize("given", ["list", np.float64, np.float32, np.float16, np.int64, np.bool_], ids=str)
@pytest.mark.parametrize("floats", [np.float64, np.float32, np.float16])
def test_weight_takes_the_dtype_of_x(given, floats, backend):
    """Results are of the float dtype of ``x``, whatever the weight's; so is ``out``."""
    x = inputs.rng().normal(size=(4, 3)).astype(floats)
    values = [1.0, 0.0, 3.0] if given == np.bool_ else [1.0, 0.1, 3.0]
    weight = values if given == "list" else np.array(values).astype(given)
    same = np.asarray(weight).astype(np.float32 if floats == np.float16 else floats)
    options = {"backend": backend, "reduction": "none"}
    expected = checks.call("cross_entropy_with_grad", x, [0, 1, 2, 1], weight=same, **options)
    assert [a.dtype for a in expected] == [floats, floats]
    out = checks.poisoned(x.shape, floats)
    actual = fs.cross_entropy_with_grad(x, [0, 1, 2, 1], weight=weight, out=out, **options)
    assert actual[1] is out
    checks.assert_same_bits(actual, expected)
    alone = fs.cross_entropy(x, [0, 1, 2, 1], weight=weight, backend=backend)
    assert type(alone) is floats


def test_half_precision_keeps_the_digits_of_a_weight(backend):
    """It is multiplied in float32: 1.0009 is no float16."""
    x = np.array([[0.0, 8.0]], np.float16)
    options = {"reduction": "sum", "backend": backend}
    loss = fs.cross_entropy(x, [0], weight=[1.0009, 1.0], **options)
    wide = fs.cross_entropy(x.astype(np.float32), [0], weight=[1.0009, 1.0], **options)
    assert loss == wide.astype(np.float16)
    assert fs.cross_entropy(x, [0], weight=[1e5, 1.0], backend=backend) == np.float16(8)


def test_weight_beyond_float32_is_silent(backend):
    loss = fs.cross_entropy(np.zeros((1, 2), np.float32), [0], weight=[1e300, 1.0], backend=backend)
    assert np.isnan(loss)  # inf / inf


@pytest.mark.parametrize("bad", [["a", "b", "c"], [1j, 1, 1], [None, 1, 1]], ids=str)
def test_weight_of_another_dtype(bad, backend):
    with pytest.raises(TypeError, match=r"^weight has dtype .*; expected float64, .*convert"):
        fs.cross_entropy(np.zeros((2, 3)), [0, 1], weight=bad, backend=backend)


def test_zero_weight_leaves_a_class_out(backend, dtype):
    x = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.5]], dtype)
    weight = np.array([0.0, 2.0, 1.0], dtype)
    loss, dx = checks.call("cross_entropy_with_grad", x, [1, 0], backend=backend, weight=weight)
    checks.assert_close(loss, fs.cross_entropy(x[:1], [1], backend=backend), dtype)
    assert (dx[1] == 0).all()


LOG_SUM = math.log1p(math.e)  # of the logits 0 and 1, above the smaller one
THIRD = 0.1 / 3

# A row, its label, smoothing, weight and the loss: 0 takes out a class, and with it its infinity.
MASKED = {
    "smoothing over a masked logit": ([-np.inf, 0, 1], 1, 0.1, None, np.inf),
    "smoothing over a masked label": ([-np.inf, 0, 1], 0, 0.1, None, np.inf),
    "smoothing alone": ([-np.inf, 0, 1], 1, 1.0, None, np.inf),
    "no smoothing": ([-np.inf, 0, 1], 1, 0.0, None, LOG_SUM),
    "a masked logit of no weight": ([-np.inf, 0, 1], 1, 0.1, [0, 1, 1], 1.23615296460095),
    "a masked label of no weight": ([-np.inf, 0, 1], 0, 0.0, [0, 1, 1], 0.0),
    "a masked label of no weight, smoothing": ([-np.inf, 0, 1], 0, 0.1, [0, 1, 1], THIRD * (2 * LOG_SUM - 1)),
    "a masked label of no weight, smoothing alone": (
        [-np.inf, 0, 1],
        0,
        1.0,
        [0, 1, 1],
        (2 * LOG_SUM - 1) / 3,
    ),
    "no weight at all": ([-np.inf, 0, 1], 0, 0.1, [0, 0, 0], 0.0),
}


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("case", MASKED)
def test_masked_logits(case, axis, copies, backend, dtype):
    """No infinity meets a factor of 0, and the gradient is finite whatever the loss is."""
    row, label, smoothing, weight, expected = MASKED[case]
    weight = None if weight is None else np.array(weight, dtype)
    x, labels = np.array([row] * copies, dtype), [label] * copies
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": "none", "backend": backend}
    loss, dx = checks.call("cross_entropy_with_grad", x.T if axis == 0 else x, labels, axis, **options)
    (alone,) = checks.call("cross_entropy", x.T if axis == 0 else x, labels, axis, **options)
    checks.assert_close(loss, [expected] * copies, dtype)
    checks.assert_close(alone, [expected] * copies, dtype)
    factors = np.ones(3) if weight is None else weight.astype(np.float64)
    q = smoothing / 3 * factors
    q[label] += (1 - smoothing) * factors[label]
    y = oracle.longdouble_forward("softmax", x)
    checks.assert_close(dx.T if axis == 0 else dx, y * q.sum() - q, dtype)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("weight", [None, [1, 1, 1], [0, 1, 1], [0, 0, 0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_of_nan_stays_one(value, smoothing, weight, at, backend, dtype):
    """NaN and +inf, whatever their own weight and the label's; its neighbours do not notice."""
    x = inputs.rng().normal(size=(5, 3)).astype(dtype)
    labels = [0, 1, 2, 0, 1]
    weight = None if weight is None else np.array(weight, dtype)
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": "none", "backend": backend}
    expected = checks.call("cross_entropy_with_grad", x, labels, **options)
    x[1:4, at] = value
    for actual, before in zip(
        checks.call("cross_entropy_with_grad", x, labels, **options), expected, strict=True
    ):
        assert np.isnan(actual[1:4]).all()
        checks.assert_same_bits(actual[[0, 4]], before[[0, 4]])
    (alone,) = checks.call("cross_entropy", x, labels, **options)
    assert np.isnan(alone[1:4]).all()


# Logits in units of the end of the range, which a difference of two exceeds; the loss in the same unit.
FAR_APART = {
    "smoothing": ([1, -1, 0], 0, 0.1, None, 0.1),
    "smoothing and a small weight": ([1, -1, 0], 1, 0.1, [1, 0.25, 1], 0.25 * 1.8 + 0.1 / 3 * 1.5),
    "small weight": ([1, -1, 0], 1, 0.0, [1, 0.25, 1], 0.5),
    "small weight, the others far": ([1, -1, -1, -1], 2, 0.0, [1, 1, 0.125, 1], 0.25),
    "no weight": ([1, -1, 0], 1, 0.0, [1, 0, 1], 0.0),
}


@pytest.mark.parametrize("copies", [1, 50])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("case", FAR_APART)
def test_logits_at_the_ends_of_the_range(case, axis, copies, backend, dtype):
    """A finite loss is finite, though a difference of logits is not."""
    row, label, smoothing, weight, expected = FAR_APART[case]
    top = np.finfo(dtype).max * dtype.type(0.9)
    weight = None if weight is None else np.array(weight, dtype)
    x = np.ascontiguousarray(np.array([row] * copies, dtype) * top)
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": "none", "backend": backend}
    args = (np.ascontiguousarray(x.T) if axis == 0 else x, [label] * copies, axis)
    loss, dx = checks.call("cross_entropy_with_grad", *args, **options)
    (alone,) = checks.call("cross_entropy", *args, **options)
    checks.assert_close(loss / top, [expected] * copies, dtype)
    checks.assert_close(alone / top, [expected] * copies, dtype)
    assert np.isfinite(dx).all()


def test_far_apart_in_a_long_row(backend, dtype):
    """The same over many vectors and lanes, with a mask and weights of 0 among them."""
    n = 300
    top = np.finfo(dtype).max * dtype.type(0.9)
    x, weight = np.full((2, n), -top, dtype), np.full(n, 0.001, dtype)
    x[:, 7] = top
    x[:, 40:60], weight[40:60] = -np.inf, 0.0
    options = {"weight": weight, "label_smoothing": 0.5, "reduction": "none", "backend": backend}
    expected = 0.5 * 0.001 * 2 + 0.5 / n * (n - 21) * 0.001 * 2
    for axis, given in ((1, x), (0, np.ascontiguousarray(x.T))):
        loss, dx = checks.call("cross_entropy_with_grad", given, [3, 299], axis, **options)
        checks.assert_close(loss / top, [expected] * 2, dtype)
        assert np.isfinite(dx).all()


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1), (1, 3)])
def test_weight_of_another_shape(shape, backend):
    with pytest.raises(ValueError, match=r"weight has shape .*expected \(3,\)"):
        fs.cross_entropy(np.zeros((2, 3)), [0, 1], weight=np.ones(shape), backend=backend)


@pytest.mark.parametrize(
    "reduction", ["average", "", None, 0, ["mean"], np.array("mean"), np.array(["mean", "sum"])], ids=repr
)
def test_unknown_reduction(reduction, backend):
    for x in (np.zeros((2, 3)), np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"unknown reduction .*'mean', 'sum', 'none'"):
            fs.cross_entropy(x, [0, 1][: len(x)], reduction=reduction, backend=backend)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, np.nan, np.inf, np.float32(2), 2, 10**400, -(10**400)])
def test_smoothing_out_of_range(smoothing, backend):
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1; got"):
        fs.cross_entropy(np.zeros((2, 3)), [0, 1], label_smoothing=smoothing, backend=backend)


@pytest.mark.parametrize(
    "smoothing", ["0.1", None, True, [0.1], np.array([0.1]), np.array([0.1, 0.2]), 1j], ids=repr
)
@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_with_grad"])
def test_smoothing_of_another_type(smoothing, op, backend):
    with pytest.raises(TypeError, match="label_smoothing must be a number between 0 and 1; got"):
        getattr(fs, op)(np.zeros((2, 3)), [0, 1], label_smoothing=smoothing, backend=backend)


@pytest.mark.parametrize("smoothing", [1, np.float32(0.5), np.int64(1), np.array(0.5)], ids=repr)
def test_any_number_is_a_smoothing(smoothing, backend):
    x = inputs.rng().normal(size=(2, 3))
    expected = fs.cross_entropy(x, [0, 1], label_smoothing=float(smoothing), backend=backend)
    assert fs.cross_entropy(x, [0, 1], label_smoothing=smoothing, backend=backend) == expected


@pytest.mark.parametrize("out", [None, np.zeros((2, 3))], ids=["None", "array"])
def test_the_loss_alone_takes_no_out(out, backend):
    """In the words of Python, whichever way a call goes."""
    for options in ({}, {"backend": backend}, {"axis": 1}):
        with pytest.raises(TypeError, match=r"^cross_entropy\(\) got an unexpected keyword argument 'out'$"):
            fs.cross_entropy(np.zeros((2, 3)), np.array([0, 1]), out=out, **options)
