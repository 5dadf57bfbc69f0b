"""Promise: labels are checked before anything is computed, and the error names the first bad one."""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs

BOTH = ("cross_entropy", "cross_entropy_with_grad")
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("integer", INTEGERS)
def test_integer_dtypes(op, integer, backend):
    x = inputs.sources_100x5(np.float64)
    labels = inputs.rng().integers(0, 5, 100)
    expected = checks.call(op, x, labels, backend=backend)
    checks.assert_same_bits(checks.call(op, x, labels.astype(integer), backend=backend), expected)


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("name", [n for n in inputs.LAYOUTS if n != "subclass"])
def test_layouts(op, name, backend):
    x = inputs.rng().normal(size=(4, 6, 3))
    labels = inputs.rng(1).integers(0, 3, (4, 6))
    expected = checks.call(op, x, labels, backend=backend)
    checks.assert_same_bits(checks.call(op, x, inputs.LAYOUTS[name](labels), backend=backend), expected)


def test_lists_and_scalars(backend):
    assert fs.cross_entropy([[0.0, 0.0]], [1], backend=backend) == pytest.approx(np.log(2), rel=1e-15)
    assert fs.cross_entropy([0.0, 0.0], 1, backend=backend) == pytest.approx(np.log(2), rel=1e-15)


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize(
    "labels",
    [[0.0, 1.0], [True, False], ["a", "b"], [None, 1], np.array([0, 1], "m8[s]"), [1 + 0j, 0]],
    ids=["float", "bool", "str", "object", "timedelta", "complex"],
)
def test_other_dtypes(op, labels, backend):
    labels = np.asarray(labels)
    out = checks.poisoned((2, 3), np.float64)
    kwargs = {"out": out} if op.endswith("grad") else {}
    with pytest.raises(TypeError, match=f"labels has dtype {labels.dtype}"[:24]):
        getattr(fs, op)(np.zeros((2, 3)), labels, backend=backend, **kwargs)
    assert np.isnan(out).all()


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize("shape", [(), (3,), (1,), (2, 1), (2, 3), (0,)])
def test_other_shapes(op, shape, backend):
    with pytest.raises(ValueError, match=r"labels has shape .*expected \(2,\)"):
        getattr(fs, op)(np.zeros((2, 3)), np.zeros(shape, int), backend=backend)


@pytest.mark.parametrize("op", BOTH)
@pytest.mark.parametrize(
    ("labels", "position", "value"),
    [
        ([0, 1, 3, 9], r"\[2\]", "3"),
        ([0, -1, 3, 0], r"\[1\]", "-1"),
        ([0, 2, -1, 0], r"\[2\]", "-1"),
        (np.array([2, 1, 255, 0], np.uint8), r"\[2\]", "255"),
        (np.array([2, 1, 0, 2**64 - 1], np.uint64), r"\[3\]", str(2**64 - 1)),
        (np.array([0, np.iinfo(np.int64).min, 0, 0]), r"\[1\]", str(-(2**63))),
    ],
    ids=["too large", "both", "negative", "uint8", "uint64", "lowest"],
)
def test_out_of_range(op, labels, position, value, backend):
    """Before anything is computed: ``out`` is untouched."""
    out = checks.poisoned((4, 3), np.float64)
    kwargs = {"out": out} if op.endswith("grad") else {}
    with pytest.raises(IndexError, match=f"{position}.* {value},"):
        getattr(fs, op)(np.zeros((4, 3)), labels, backend=backend, **kwargs)
    assert np.isnan(out).all()


def test_out_of_range_names_a_position_of_the_labels(backend):
    labels = np.zeros((2, 3), int)
    labels[1, 2] = 7
    with pytest.raises(IndexError, match=r"\[1, 2\] is 7.*5 classes"):
        fs.cross_entropy(np.zeros((2, 5, 3)), labels, 1, backend=backend)


@pytest.mark.parametrize("ignore_index", [-100, -1, 2, 300])
def test_ignore_index(ignore_index, backend):
    """Off unless given; then rows with that label, in range or not, take no part."""
    x = inputs.sources_100x5(np.float64)
    labels = inputs.rng().integers(0, 5, 100)
    taking_part = labels != ignore_index
    taking_part[::7] = False
    labels[::7] = ignore_index
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, ignore_index=ignore_index)
    kept, dx_kept = checks.call(
        "cross_entropy_with_grad", x[taking_part], labels[taking_part], backend=backend
    )
    checks.assert_close(loss, kept, np.float64)
    checks.assert_close(dx[taking_part], dx_kept, np.float64)
    assert (dx[~taking_part] == 0).all()
    rows = fs.cross_entropy(x, labels, backend=backend, ignore_index=ignore_index, reduction="none")
    assert (rows[~taking_part] == 0).all()


@pytest.mark.parametrize(
    "ignore_index", [[0, 2], (0,), np.array([0, 2]), np.array([0]), 0.0, "0", True, np.True_, 1j], ids=repr
)
@pytest.mark.parametrize("op", BOTH)
def test_ignore_index_of_another_type(op, ignore_index, backend):
    """A list would be compared with the labels place by place."""
    with pytest.raises(TypeError, match=r"^ignore_index must be an int or None; got"):
        getattr(fs, op)(np.zeros((2, 3)), [0, 1], ignore_index=ignore_index, backend=backend)


@pytest.mark.parametrize("ignore_index", [np.int8(1), np.uint64(1), np.array(1), 10**30, -(10**30)], ids=repr)
@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int64, np.uint64])
def test_any_integer_is_an_ignore_index(ignore_index, integer, backend):
    x = inputs.rng().normal(size=(3, 3))
    labels = np.array([0, 1, 2], integer)
    expected = fs.cross_entropy(x, labels, reduction="none", backend=backend)
    expected[labels == int(ignore_index)] = 0
    actual = fs.cross_entropy(x, labels, ignore_index=ignore_index, reduction="none", backend=backend)
    checks.assert_same_bits(actual, expected)


def test_no_ignore_index_by_default(backend):
    with pytest.raises(IndexError, match="-100"):
        fs.cross_entropy(np.zeros((2, 3)), [0, -100], backend=backend)


def test_ignored_row_of_nan_takes_no_part(backend, dtype):
    x = np.array([[np.nan, 1.0], [0.0, 0.0]], dtype)
    loss, dx = checks.call("cross_entropy_with_grad", x, [-1, 0], backend=backend, ignore_index=-1)
    checks.assert_close(loss, np.log(2), dtype)
    checks.assert_close(dx, [[0, 0], [-0.5, 0.5]], dtype)


@pytest.mark.parametrize(("reduction", "expected"), [("mean", np.nan), ("sum", 0.0)])
def test_all_ignored(reduction, expected, backend, dtype):
    """The mean of nothing is NaN, as in PyTorch; the sum is 0."""
    x = np.ones((3, 4), dtype)
    kwargs = {"ignore_index": 1, "reduction": reduction, "backend": backend}
    loss, dx = checks.call("cross_entropy_with_grad", x, [1, 1, 1], **kwargs)
    np.testing.assert_array_equal(loss, dtype.type(expected), strict=True)
    np.testing.assert_array_equal(fs.cross_entropy(x, [1, 1, 1], **kwargs), dtype.type(expected), strict=True)
    assert (dx == 0).all()


@pytest.mark.parametrize(("reduction", "expected"), [("mean", np.nan), ("sum", 0.0), ("none", [])])
def test_empty_batch(reduction, expected, backend, dtype):
    x, labels = np.empty((0, 4), dtype), np.empty(0, int)
    loss, dx = checks.call("cross_entropy_with_grad", x, labels, backend=backend, reduction=reduction)
    np.testing.assert_array_equal(loss, np.array(expected, dtype), strict=True)
    assert dx.shape == (0, 4)
    alone = fs.cross_entropy(x, labels, backend=backend, reduction=reduction)
    np.testing.assert_array_equal(alone, loss, strict=True)


@pytest.mark.parametrize("op", BOTH)
def test_no_classes(op, backend):
    """Rows without classes have no valid label."""
    with pytest.raises(IndexError, match="0 classes"):
        getattr(fs, op)(np.empty((2, 0)), [0, 0], backend=backend)
