"""Promise: the worked cases of the libraries that users come from give the answers that they give there.

Each case is written from the definition that its source tests; the source stands beside it.
"""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks

E1 = np.e


# ---- SciPy 1.17, scipy/special/tests/test_logsumexp.py ------------------------------------------


def test_scipy_logsumexp_of_a_range(backend):
    """test_logsumexp: against log(sum(exp)) of 0..199, where that still works."""
    a = np.arange(200, dtype=np.float64)
    np.testing.assert_allclose(fs.logsumexp(a, backend=backend), np.log(np.sum(np.exp(a))), rtol=1e-15)


@pytest.mark.parametrize("b", [1000.0, 10000.0])
def test_scipy_logsumexp_of_large_numbers(b, backend):
    """test_logsumexp: two of 1000 give 1000 + log 2; ten thousand of 10000 give 10000 + log 10000."""
    n = 2 if b == 1000 else 10_000
    expected = b + np.log(n)
    np.testing.assert_allclose(fs.logsumexp(np.full(n, b), backend=backend), expected, rtol=1e-15)


def test_scipy_logsumexp_of_logs(backend):
    """test_logsumexp: of log(x), with a row of small and one of ordinary x, axes and keepdims."""
    x = np.array([[1e-40] * 100_000, np.linspace(1, 1000, 100_000)])[:, ::20].T
    logx = np.log(x)
    for axis in (0, 1):
        expected = np.log(x.sum(axis=axis))  # 0 for the sum of 1e-40 and 1, whose logarithm is 1e-40
        actual = fs.logsumexp(logx, axis, backend=backend)
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-16)
        kept = fs.logsumexp(logx, axis, keepdims=True, backend=backend)
        np.testing.assert_array_equal(kept, np.expand_dims(actual, axis))


def test_scipy_logsumexp_of_infinities(backend):
    """test_logsumexp_infs: one or two infinities, either sign, and -inf among ordinary numbers."""
    inf = np.inf
    cases = [
        ([inf, -inf], inf),
        ([-inf, -inf], -inf),
        ([inf, inf], inf),
        ([0.0, -inf], 0.0),
        ([inf, 0.0], inf),
    ]
    for row, expected in cases:
        assert fs.logsumexp(row, backend=backend) == expected


def test_scipy_softmax_fixtures(backend):
    """test_softmax_fixtures: [1000, 0, 0, 0], [1, 1], [0, 1], and 0..3 to ten digits."""
    np.testing.assert_allclose(fs.softmax([1000, 0, 0, 0], backend=backend), [1, 0, 0, 0], rtol=1e-13)
    np.testing.assert_allclose(fs.softmax([1, 1], backend=backend), [0.5, 0.5], rtol=1e-13)
    np.testing.assert_allclose(fs.softmax([0, 1], backend=backend), [1 / (1 + E1), E1 / (1 + E1)], rtol=1e-13)
    x = np.arange(4)
    expected = [0.03205860328008499, 0.08714431874203256, 0.23688281808991013, 0.6439142598879722]
    np.testing.assert_allclose(fs.softmax(x, backend=backend), expected, rtol=1e-13)
    np.testing.assert_allclose(fs.softmax(x + 100, backend=backend), expected, rtol=1e-13)
    np.testing.assert_allclose(
        fs.softmax(x.reshape(2, 2), None, backend=backend).ravel(), expected, rtol=1e-13
    )


def test_scipy_softmax_axes(backend):
    """test_softmax_multi_axes and test_softmax_int_array: columns of equal differences."""
    third = [1 / (1 + E1), E1 / (1 + E1)]
    np.testing.assert_allclose(fs.softmax([[1000, 0], [1000, 0]], 0, backend=backend), np.full((2, 2), 0.5))
    np.testing.assert_allclose(fs.softmax([[1000, 0], [1000, 0]], 1, backend=backend), [[1, 0], [1, 0]])
    np.testing.assert_allclose(fs.softmax([[0, 1], [2, 3]], 1, backend=backend), [third, third], rtol=1e-13)
    x = np.array([[-25, 0, 25, 50], [-325, 0, 25, 50.0], [1, 2, 3, 4]])
    three = np.stack([x, x + 5, x - 300])
    flat = fs.softmax(three.reshape(3, -1), backend=backend).reshape(three.shape)
    np.testing.assert_allclose(fs.softmax(three, (1, 2), backend=backend), flat, rtol=1e-13)
    np.testing.assert_allclose(fs.softmax(three, (-1, -2), backend=backend), flat, rtol=1e-13)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([1000, 1], [0, -999]),
        ([-1000, 1], [-1001, 0]),
        ([1000, -1000], [0, -2000]),
        ([0, 1000, 2000], [-2000, -1000, 0]),
    ],
)
def test_scipy_log_softmax_far_apart(x, expected, backend):
    """scipy/special/tests/test_log_softmax.py, test_log_softmax_basic."""
    np.testing.assert_allclose(fs.log_softmax(np.array(x, float), backend=backend), expected, rtol=1e-13)


def test_scipy_log_softmax_of_a_range(backend):
    """test_log_softmax_basic: the values of 0..3, from mpmath at 200 digits; unmoved by an offset."""
    expected = [-3.4401896985611953, -2.4401896985611953, -1.4401896985611953, -0.44018969856119533]
    for offset in (0, 100, -1000):
        actual = fs.log_softmax(np.arange(4.0) + offset, backend=backend)
        np.testing.assert_allclose(actual, expected, rtol=1e-13)


# ---- PyTorch 2.13, test/test_nn.py and aten's softmax tests ---------------------------------------


def test_torch_softmax_of_equal_logits(backend, dtype):
    """test_softmax_forward_64bit_indexing, at a size that fits: ones give 1 / n."""
    y = fs.softmax(np.ones((2, 4096), dtype), backend=backend)
    np.testing.assert_array_equal(y, np.full_like(y, 1 / 4096))


def test_torch_masked_row(backend):
    """Rows masked out whole are NaN (`torch.softmax` of all -inf); a NaN stays in its row."""
    x = np.array([[-np.inf, -np.inf], [0.0, 0.0], [np.nan, 0.0]])
    y = fs.softmax(x, backend=backend)
    np.testing.assert_array_equal(y, [[np.nan] * 2, [0.5, 0.5], [np.nan] * 2])


def test_torch_log_softmax_of_large_logits(backend, dtype):
    """test_log_softmax_cpu: a large common offset leaves exact differences."""
    x = np.array([[1e4, 1e4 - 1, 1e4 - 2]], dtype)
    expected = -np.log1p(np.exp(-1.0) + np.exp(-2.0)) - np.array([[0.0, 1.0, 2.0]])
    checks.assert_close(fs.log_softmax(x, backend=backend), expected, dtype)


def test_torch_cross_entropy_loss_label_smoothing(backend):
    """test_cross_entropy_label_smoothing_consistent: smoothing is a mix with the uniform target."""
    x, labels = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), [1, 0]
    logy = fs.log_softmax(x, backend=backend)
    q = 0.9 * np.eye(3)[labels] + 0.1 / 3
    loss = fs.cross_entropy(x, labels, label_smoothing=0.1, backend=backend)
    np.testing.assert_allclose(loss, -(q * logy).sum(axis=1).mean(), rtol=1e-14)


def test_torch_weighted_mean_divides_by_the_weights(backend):
    """torch.nn.CrossEntropyLoss: sum(w_y l) / sum(w_y), ignored rows in neither."""
    x, labels, weight = np.zeros((3, 2)), [0, 1, 1], np.array([1.0, 3.0])
    np.testing.assert_allclose(
        fs.cross_entropy(x, labels, weight=weight, backend=backend), np.log(2), rtol=1e-15
    )
    total = fs.cross_entropy(x, labels, weight=weight, reduction="sum", ignore_index=0, backend=backend)
    np.testing.assert_allclose(total, 6 * np.log(2), rtol=1e-15)


# ---- JAX 0.10, tests/nn_test.py -------------------------------------------------------------------


def test_jax_softmax_where(backend):
    """testSoftmaxWhereMask: masked entries take no part and get 0, wherever they stand."""
    x = np.array([5.5, 1.3, -4.2, 0.9])
    where = np.array([True, False, True, True])
    y = fs.softmax(x, where=where, backend=backend)
    np.testing.assert_allclose(y[where], fs.softmax(x[where], backend=backend), rtol=1e-15)
    assert y[1] == 0
    np.testing.assert_allclose(y.sum(), 1, rtol=1e-15)


def test_jax_softmax_gradient_of_a_masked_row_is_finite(backend):
    """testSoftmaxGradResiduals, testSoftmaxWhereGrad: the backward pass needs the output alone."""
    x = np.array([5.5, 1.3, -4.2, 0.9])
    y = fs.softmax(x, where=np.array([True, False, True, True]), backend=backend)
    dx = fs.softmax_vjp(y, np.array([1.0, np.float64(7.0), 2.0, 3.0]), backend=backend)
    assert np.isfinite(dx).all()
    assert dx[1] == 0


def test_jax_logsumexp_gradient_is_softmax(backend):
    """tests/lax_numpy_test.py, testLogSumExp: the loss's gradient, softmax - onehot, plus onehot."""
    x = np.array([[-1000.0, 0.0, 3.0]])
    _, dx = fs.cross_entropy_with_grad(x, [1], backend=backend)
    np.testing.assert_allclose(dx + np.eye(3)[[1]], fs.softmax(x, backend=backend), rtol=1e-15)


# ---- ONNX 1.17, Softmax-13, LogSoftmax-13, SoftmaxCrossEntropyLoss-13 -------------------------------


def test_onnx_softmax_example(backend):
    """softmax_example: [-1, 0, 1]."""
    y = fs.softmax(np.array([[-1, 0, 1]], np.float32), backend=backend)
    expected = np.array([[0.09003058, 0.24472848, 0.66524094]], np.float32)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_onnx_softmax_large_number(backend):
    """softmax_large_number: [0, 1, 2, 3] and the same plus 10000, in float32."""
    x = np.array([[0, 1, 2, 3], [10000, 10001, 10002, 10003]], np.float32)
    expected = [[0.032058604, 0.08714432, 0.23688284, 0.6439143]] * 2
    np.testing.assert_allclose(fs.softmax(x, backend=backend), np.array(expected, np.float32), rtol=1e-6)


def test_onnx_log_softmax_examples(backend):
    """logsoftmax_example_1, and the large numbers of softmax's."""
    y = fs.log_softmax(np.array([[-1, 0, 1]], np.float32), backend=backend)
    np.testing.assert_allclose(y, np.array([[-2.4076061, -1.407606, -0.407606]], np.float32), rtol=1e-6)
    x = np.array([[0, 1, 2, 3], [10000, 10001, 10002, 10003]], np.float32)
    expected = [[-3.4401896, -2.4401896, -1.4401896, -0.44018966]] * 2
    np.testing.assert_allclose(fs.log_softmax(x, backend=backend), np.array(expected, np.float32), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_onnx_softmax_axis(axis, backend):
    """softmax_axis_0 to _2, softmax_negative_axis: abs(randn(3, 4, 5)) against the node's definition."""
    x = np.abs(np.random.default_rng(0).normal(size=(3, 4, 5))).astype(np.float32)
    e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    expected = e / e.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(fs.softmax(x, axis, backend=backend), expected, rtol=1e-6)
    np.testing.assert_allclose(fs.log_softmax(x, axis, backend=backend), np.log(expected), rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 0, -5])
def test_onnx_softmax_cross_entropy(reduction, weighted, ignored, backend):
    """sce_mean, sce_sum, sce_none, with weights, 3-D inputs (N, C, D) and ii = 0 and -5."""
    rng = np.random.default_rng(0)
    x, labels = rng.random((3, 5, 2)).astype(np.float32), rng.integers(0, 5, (3, 2))
    if ignored is not None:
        labels[0, 0] = ignored
    weight = np.array([0.9, 0.7, 0.8, 0.9, 0.9], np.float32) if weighted else None
    loss = fs.cross_entropy(
        x, labels, 1, weight=weight, ignore_index=ignored, reduction=reduction, backend=backend
    )
    np.testing.assert_allclose(loss, _onnx_sce(x, labels, weight, ignored, reduction), rtol=1e-6)


def _onnx_sce(x, labels, weight, ignored, reduction):
    """The node's definition: l = -w[c] * log p[c], 0 where ignored; mean over the weights."""
    e = np.exp(x.astype(np.float64))
    logp = np.log(e / e.sum(axis=1, keepdims=True))
    w = np.ones(5) if weight is None else weight.astype(np.float64)
    loss, taken = np.zeros((3, 2)), np.zeros((3, 2))
    for i, d in np.ndindex(3, 2):
        if labels[i, d] != ignored:
            taken[i, d] = w[labels[i, d]]
            loss[i, d] = -taken[i, d] * logp[i, labels[i, d], d]
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / taken.sum()}[reduction]
