"""Promise: the bounds hold for structured rows too: for each that a search of fixed length finds."""

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax.backends import python as specification
from tests import adversary, checks, oracle, structured
from tests.structured import MEASURES, ORDERS, Pattern, Row

SINGLE = np.dtype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_bounds(seed, backend, dtype):
    longest, evaluations = (1500, 100) if checks.is_slow(backend) else (10**5, 400)
    champions = adversary.worst(backend, dtype, longest, evaluations, seed)
    failures = []
    for measure, found in champions.items():
        if not found.ratio <= 1:
            least = adversary.reduced(found, measure, dtype, backend)
            line = least.row.expression(measure, dtype, backend)
            failures.append(f"{MEASURES[measure].title}: {least.ratio:.3g} times the bound: {line}")
    assert not failures, "\n".join(failures)
    assert set(champions) == set(MEASURES)


# ---- the adversary itself ----------------------------------------------------------------------

SHORT = Row(6, Pattern((2.0, -1.5, 0.3), (1, 2), ("permuted", 3)), Pattern((1e3, -1.0), (0.5,)), label=1)


def _one_entry_each(row, dtype):
    """The row's logits, vector, label and what each class answers for each of its entries."""
    classes = structured.Classes(row, dtype)
    truth = classes.truth
    return classes, classes.row(truth.x)[None], classes.row(truth.v)[None], [classes.label_at]


@pytest.mark.parametrize("op", oracle.FORWARD)
def test_exact_forward(op, dtype):
    classes, x, _, _ = _one_entry_each(SHORT, dtype)
    expected, actual = oracle.exact_forward(op, x), getattr(classes.truth, op)
    actual = actual.high if op in oracle.ONE_A_ROW else classes.row(actual.high)[None]
    np.testing.assert_array_equal(actual, expected.high)


def test_exact_derivatives(dtype):
    classes, x, v, label = _one_entry_each(SHORT, dtype)
    truth = classes.truth
    loss, dx = oracle.exact_cross_entropy(x, label)
    np.testing.assert_array_equal(truth.cross_entropy.high, loss.high)
    np.testing.assert_array_equal(classes.row(truth.cross_entropy_with_grad.high)[None], dx.high)
    jacobian = oracle.exact_forward("softmax_jacobian", x).high[0]
    np.testing.assert_array_equal(classes.row(truth.softmax_jacobian.high), np.diag(jacobian))
    exact, size = truth.products
    np.testing.assert_array_equal(classes.row(exact.high)[None], oracle.exact_softmax_product(x, v).high)
    y = oracle.exact_forward("softmax", x).high
    np.testing.assert_allclose(classes.row(size)[None], y * (abs(v) + (y * abs(v)).sum()), rtol=1e-15)


def test_exact_products_of_log_softmax(dtype):
    classes, _, v, _ = _one_entry_each(SHORT, dtype)
    log_y = classes.truth.log_softmax.high.astype(dtype)
    y, total = np.exp(classes.row(log_y).astype(np.float64)), v.sum()
    vjp, size = classes.truth.log_softmax_vjp(log_y.astype(np.float64))
    np.testing.assert_allclose(classes.row(vjp.high), v[0] - y * total, rtol=1e-13)
    np.testing.assert_allclose(classes.row(size), abs(v[0]) + y * abs(v).sum(), rtol=1e-13)
    jvp, size = classes.truth.log_softmax_jvp(log_y.astype(np.float64))
    np.testing.assert_allclose(classes.row(jvp.high), v[0] - (y * v[0]).sum(), rtol=1e-13)
    np.testing.assert_allclose(classes.row(size), abs(v[0]) + (y * abs(v[0])).sum(), rtol=1e-13)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("copies", "axis"), [(1, -1), (3, -1), (3, 0)])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_line_is_the_call(order, copies, axis, measure, dtype):
    """What is printed gives the bits that were measured."""
    pattern = Pattern((1.5, -0.1, 3.0), (4, 0.25), (order, 4))
    row = Row(37, pattern, pattern._replace(values=(0.0, 1.0, -2.0)), label=1, copies=copies, axis=axis)
    seen = []
    fs.register_backend("spy", {op: _spy(op, seen) for op in _KERNELS})
    structured.ratios(row, dtype, "spy")
    *assignments, call = row.expression(measure, dtype, "spy").split("; ")
    names = {"np": np, "fs": fs}
    exec("\n".join(assignments), names)
    seen, measured = [], seen
    fs.register_backend("spy", {op: _spy(op, seen) for op in _KERNELS})
    eval(call, names)
    assert len(seen) == 1
    same = (
        all(np.array_equal(a, b) for a, b in zip(seen[0][1:], other[1:], strict=True))
        for other in measured
        if other[0] == seen[0][0]
    )
    assert measure == "softmax_jacobian" or any(same)  # a Jacobian is taken of the backend's own softmax


_KERNELS = ("softmax", "log_softmax", "logsumexp", "softmax_vjp", "log_softmax_vjp", "log_softmax_jvp")
_KERNELS += ("softmax_jacobian", "softmax_solve", "cross_entropy", "cross_entropy_with_grad")


def _spy(op, seen):
    kernel = getattr(specification, op)
    inputs = {"softmax_vjp": 2, "log_softmax_vjp": 2, "log_softmax_jvp": 2, "softmax_solve": 3}
    inputs = inputs.get(op, 2 if "cross" in op else 1)

    def spy(*arrays):
        seen.append((op, *(np.array(a) for a in arrays[:inputs])))
        kernel(*arrays)

    return spy


def _summed_one_by_one(x, out):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    out[...] = e / np.add.accumulate(e, axis=1)[:, -1:]


@pytest.fixture
def planted():
    """A backend whose softmax adds up in one accumulator: right to 3 ULP for short rows."""
    kernels = {op: getattr(specification, op) for op in _KERNELS}
    fs.register_backend("planted", kernels | {"softmax": _summed_one_by_one})
    return "planted"


def test_a_planted_mistake_is_found_and_reduced(planted):
    found = adversary.worst(planted, SINGLE, 1000, 60)["softmax"]
    assert found.ratio > 1
    least = adversary.reduced(found, "softmax", SINGLE, planted)
    assert least.ratio >= adversary.KEPT * found.ratio
    assert least.ratio == structured.ratios(least.row, SINGLE, planted)["softmax"]
    assert len(least.row.vector.values) == 1
    assert len(least.row.logits.values) <= 2


def test_the_same_search_finds_the_same(planted):
    first, second = (adversary.worst(planted, SINGLE, 100, 50) for _ in range(2))
    assert first == second


def test_a_result_of_nan_or_zero_is_no_small_error(planted):
    row = Row(10, Pattern((1.0, 0.0), (1,)))
    for wrong in (np.nan, 0.0):
        fs.register_backend("planted", {"softmax": lambda x, out, a=wrong: out.fill(a)})
        assert structured.ratios(row, SINGLE, planted, ["softmax"]) == {"softmax": np.inf}
