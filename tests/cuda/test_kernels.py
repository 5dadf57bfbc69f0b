"""Every kernel in every regime, interpreted: tails, special rows, storage, both orders of the warps.

Outputs and memory are poisoned with NaN before each run, so that an entry nobody wrote fails.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax._cuda import recipes
from fastsoftmax._cuda.launcher import launch, run_on_host
from fastsoftmax._cuda.plan import Plan
from fastsoftmax._cuda.recipes import cross_entropy_recipe, jacobian_recipe, rows_recipe
from tests import checks, inputs
from tests.cuda import exact
from tests.cuda.fake_driver import FakeDriver

STORAGES = ("float32", "float64", "float16", "bfloat16")
FORWARD = ("softmax", "log_softmax", "logsumexp")
PRODUCTS = {"softmax_vjp": ("y", "g"), "log_softmax_vjp": ("logy", "g"), "log_softmax_jvp": ("logy", "t")}

# Rows that end within a vector, a team's first or second round, or a segment.
TAILS = {
    "8 lanes": (1, 2, 3, 8, 33, 64),
    "16 lanes": (5, 48),
    "warp": (12, 31, 264),
    "block": (1, 66, 264),
    "shared": (7, 264),
    "split": (65, 260, 520),
    "columns": (1, 4, 7),
    "columns split": (9, 30),
}
CASES = [(regime, n) for regime, tails in TAILS.items() for n in tails]
INNER = 6  # a tile and a half


def shape_of(regime, n):
    if regime.startswith("columns"):
        return (2, n, INNER)
    return (2 if regime == "split" else 3, n, 1)


def logits(shape, storage, seed=0):
    """Rows around 0, 200 and -200, as they are stored."""
    rng = inputs.rng(seed)
    offsets = np.resize([0.0, 200.0, -200.0], shape[0])[:, None, None]
    return exact.to_stored(rng.normal(size=shape) * 8 + offsets, storage)


def poisoned(shape, storage):
    return exact.to_stored(np.full(shape, np.nan), storage)


def run_rows(driver, op, storage, arrays, shape):
    out = poisoned((shape[0], shape[2]) if op == "logsumexp" else shape, storage)
    run_on_host(driver, partial(rows_recipe, op, storage, shape), arrays, {"out": out})
    return exact.from_stored(out, storage)


def forward_of(op, x, storage):
    """The stored output of a forward op, for the products that take it."""
    return exact.to_stored(exact.forward(op, exact.from_stored(x, storage), storage)[0], storage)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("regime", "n"), CASES)
def test_forward(regime, n, storage, use_regime, driver):
    use_regime(regime)
    x = logits(shape_of(regime, n), storage)
    for op in FORWARD:
        actual = run_rows(driver, op, storage, {"x": x}, x.shape)
        exact.assert_within(actual, *exact.forward(op, exact.from_stored(x, storage), storage))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("regime", "n"), CASES)
def test_products(regime, n, storage, use_regime, driver):
    use_regime(regime)
    x = logits(shape_of(regime, n), storage)
    vector = exact.to_stored(inputs.rng(1).normal(size=x.shape) + 3, storage)
    for op, (first, second) in PRODUCTS.items():
        y = forward_of("softmax" if first == "y" else "log_softmax", x, storage)
        actual = run_rows(driver, op, storage, {first: y, second: vector}, x.shape)
        given = (exact.from_stored(a, storage) for a in (y, vector))
        exact.assert_within(actual, *exact.product(op, *given, storage))


@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("highest", [0.0, 40.0])
@pytest.mark.parametrize("kind", inputs.COTANGENTS)
@pytest.mark.parametrize("regime", ["16 lanes", "block", "shared", "split", "columns", "columns split"])
def test_cotangents(regime, kind, highest, storage, use_regime, driver):
    """Of one sign, huge, subnormal: the right product where it is finite, as a fraction."""
    use_regime(regime)
    x, g = (inputs.rng(seed).normal(size=130) for seed in (5, 6))
    x[::7] = -np.inf
    x[100] += highest
    g = inputs.COTANGENTS[kind](g, 0.9 * float(np.finfo(storage).max)).astype(storage)
    shape = (1, 65, 2) if regime.startswith("columns") else (1, 130, 1)
    y = np.empty(shape, storage)
    for column in range(shape[2]):
        of_column = forward_of("softmax", x.reshape(-1, shape[2])[None, :, [column]].astype(storage), storage)
        y[:, :, [column]] = of_column
    given = {"y": y, "g": g.reshape(shape)}
    actual = run_rows(driver, "softmax_vjp", storage, given, shape).astype(storage)
    for column in range(shape[2]):
        checks.assert_exact_product(*(a[0, :, column] for a in (*given.values(), actual)))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(("weighted", "smoothing"), [(False, 0.0), (True, 0.0), (True, 0.25), (False, 0.25)])
@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize(
    ("regime", "n"), [("8 lanes", 5), ("warp", 36), ("shared", 70), ("split", 260), ("columns split", 15)]
)
def test_cross_entropy(regime, n, storage, weighted, smoothing, gradient, use_regime, driver):
    use_regime(regime)
    x = logits(shape_of(regime, n), storage)
    check_cross_entropy(driver, x, storage, weighted, smoothing, gradient)


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
@pytest.mark.parametrize(("regime", "n"), [("8 lanes", 40), ("block", 69), ("shared", 72), ("split", 520)])
def test_cross_entropy_of_halves(regime, n, storage, use_regime, driver):
    use_regime(regime)
    check_cross_entropy(driver, logits(shape_of(regime, n), storage), storage, False, 0.0, True)


def check_cross_entropy(driver, x, storage, weighted, smoothing, gradient):
    number = "float64" if storage == "float64" else "float32"
    outer, n, inner = x.shape
    labels = inputs.rng(2).integers(0, n, (outer, inner))
    labels[0] = -1
    labels[-1] = exact.from_stored(x, storage)[-1].argmax(axis=0)
    weight = inputs.rng(3).uniform(0.5, 2, n).astype(number) if weighted else None
    loss, out = np.full(labels.shape, np.nan, number), poisoned(x.shape, storage)
    run_on_host(
        driver,
        partial(cross_entropy_recipe, storage, x.shape, smoothing > 0, weighted, gradient),
        {"x": x, "labels": labels} | ({"weight": weight} if weighted else {}),
        {"loss": loss} | ({"out": out} if gradient else {}),
        {"smoothing": smoothing, "ignored": -1, "factor": 0.25}
        | ({} if weighted else {"weight": 0})
        | ({} if gradient else {"out": 0}),
    )
    given = exact.from_stored(x, storage), labels, weight, smoothing, 0.25
    desired_loss, desired_dx = exact.cross_entropy(*given, storage)
    exact.assert_within(loss.astype(np.longdouble), *desired_loss)
    if gradient:
        exact.assert_within(exact.from_stored(out, storage), *desired_dx)


# Row, label, smoothing, weight and loss, as in tests/test_cross_entropy.py; TOP is the largest float32.
TOP = float(np.finfo(np.float32).max)
EDGES = {
    "smoothing over a masked logit": ([-np.inf, 0, 1], 1, 0.1, [1, 1, 1], np.inf),
    "a masked logit of no weight": ([-np.inf, 0, 1], 1, 0.1, [0, 1, 1], 1.23615296460095),
    "a masked label of no weight": ([-np.inf, 0, 1], 0, 0.0, [0, 1, 1], 0.0),
    "ends of the range": ([TOP, -TOP, 0], 1, 0.125, [1, 0.25, 1], TOP * (0.4375 + 0.125)),
    "NaN elsewhere": ([np.nan, 0, 1], 1, 0.1, [0, 1, 1], np.nan),
}


@pytest.mark.parametrize("case", EDGES)
@pytest.mark.parametrize(
    ("regime", "place"), [("8 lanes", 0), ("block", 0), ("columns split", 10), ("split", 62)]
)
def test_edges_of_cross_entropy(regime, place, case, use_regime, driver):
    """At the start of a row, or across a segment's border after entries that take no part."""
    use_regime(regime)
    row, label, smoothing, weight, expected = EDGES[case]
    n = place + 3
    smoothing *= n / 3 if smoothing == 0.1 else 1  # as large a share for each class
    columns = regime.startswith("columns")
    x = np.full((1, n, 2 if columns else 1), -np.inf, np.float32)
    x[:, place:] = np.array(row)[:, None]
    weight = np.array([0.0] * place + weight, np.float32)
    labels, loss = np.full((1, x.shape[2]), place + label), np.full((1, x.shape[2]), np.nan, np.float32)
    out = np.full_like(x, np.nan)
    run_on_host(
        driver,
        partial(cross_entropy_recipe, "float32", x.shape, smoothing > 0, True, True),
        {"x": x, "labels": labels, "weight": weight},
        {"loss": loss, "out": out},
        {"smoothing": smoothing, "ignored": -1, "factor": 1.0},
    )
    if smoothing and case.startswith("a masked"):
        expected += (0.1 - smoothing) * np.log1p(np.e)
    if case == "ends of the range":
        expected = TOP * (0.875 * 0.25 * 2 + 0.125 / n * (0.25 * 2 + 1))
    np.testing.assert_allclose(loss, np.full_like(loss, expected), rtol=1e-6)
    assert np.isnan(out).all() if np.isnan(expected) else np.isfinite(out).all()


@pytest.mark.parametrize(("storage", "value"), [("float32", -3.481), ("float64", -0.644)])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("tile", [0, 2])
def test_sums_whose_roundings_have_one_sign(tile, split, storage, value, monkeypatch, driver):
    """The partial sums of 128 threads, added one by one, come to 16 ULP with these logits."""
    plan = Plan(storage, 128, 1, 8 if split else 16, tile=tile, split=split, vector=False)
    monkeypatch.setattr(recipes, "plan", lambda *args, **options: plan)
    x = exact.to_stored(np.full((1, 2048, tile or 1), value), storage)
    x[:, 1000] = 0.0
    for op in FORWARD:
        recipe = partial(rows_recipe.__wrapped__, op, storage, x.shape)
        out = poisoned((1, x.shape[2]) if op == "logsumexp" else x.shape, storage)
        run_on_host(driver, recipe, {"x": x}, {"out": out})
        desired = exact.forward(op, exact.from_stored(x, storage), storage)
        exact.assert_within(exact.from_stored(out, storage), *desired)


@pytest.mark.parametrize(("storage", "n"), [("float32", 5000), ("float32", 8192), ("float64", 3000)])
def test_long_columns(storage, n, driver):
    """By the real rule, 256 threads a column: their sums, added one after the other, came to 8.9 ULP."""
    x = exact.to_stored(inputs.rng(5).normal(size=(1, n, 2)), storage)
    actual = run_rows(driver, "softmax", storage, {"x": x}, x.shape)
    exact.assert_within(actual, *exact.forward("softmax", exact.from_stored(x, storage), storage))
    check_cross_entropy(driver, x, storage, False, 0.0, True)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_jacobian(n, storage, driver):
    check_jacobian(driver, n, storage)


@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    ("regime", "n"), [("8 lanes", 33), ("warp", 31), ("block", 66), ("shared", 66), ("split", 65)]
)
def test_jacobian_in_every_regime(regime, n, storage, use_regime, driver):
    """Rows with a dominant entry among them, whose diagonal is a sum over the others."""
    use_regime(regime)
    check_jacobian(driver, n, storage)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13, 33])
def test_log_jacobian(n, storage, driver):
    logy = forward_of("log_softmax", logits((2 if n > 20 else 5, n, 1), storage), storage)
    out = poisoned((*logy.shape[:2], n), storage)
    recipe = partial(jacobian_recipe, "log_softmax_jacobian", storage, logy.shape)
    run_on_host(driver, recipe, {"logy": logy}, {"out": out})
    actual = exact.from_stored(out, storage)
    exact.assert_within(actual, *exact.log_jacobian(exact.from_stored(logy, storage), storage))


def check_jacobian(driver, n, storage):
    y = forward_of("softmax", logits((2 if n > 20 else 5, n, 1), storage), storage)
    out = poisoned((*y.shape[:2], n), storage)
    recipe = partial(jacobian_recipe, "softmax_jacobian", storage, y.shape)
    run_on_host(driver, recipe, {"y": y}, {"out": out})
    actual = exact.from_stored(out, storage)
    exact.assert_within(actual, *exact.jacobian(exact.from_stored(y, storage), storage))


@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    ("regime", "place"), [("8 lanes", 0), ("block", 0), ("columns split", 0), ("split", 62)]
)
def test_special_rows(regime, place, storage, use_regime, driver):
    """Each row of the agreed list, at the start of a row or, after some -inf, across a segment's border."""
    use_regime(regime)
    cases = list(inputs.SPECIAL_ROWS.values())
    x = np.array([[-np.inf] * place + case.row for case in cases])[:, :, None]
    if regime.startswith("columns"):
        x = np.ascontiguousarray(x[:, :, 0].T[None])
    for op in FORWARD:
        wanted = [getattr(case, op) for case in cases]
        stored = exact.to_stored(x, storage)
        actual = run_rows(driver, op, storage, {"x": stored}, x.shape)
        actual = actual[0].T if regime.startswith("columns") else actual[..., 0]
        if op != "logsumexp":
            actual = actual[:, place:]
        np.testing.assert_allclose(
            actual.astype(float), np.array(wanted, float), rtol=2 * exact.EPS[storage], atol=0
        )


@pytest.mark.parametrize("regime", TAILS)
def test_same_bits_in_any_order_place_and_alignment(regime, use_regime, monkeypatch):
    """Warps and blocks reversed, more rows beside, memory off by one entry: no bit changes."""
    use_regime(regime)
    n = TAILS[regime][-1]
    x = logits(shape_of(regime, n), "float32")
    alone = np.ascontiguousarray(x[1:2])
    for op in FORWARD:
        results = [
            run_rows(FakeDriver(reverse=reverse), op, "float32", {"x": x}, x.shape)
            for reverse in (False, True)
        ]
        results.append(run_rows(_Unaligned(), op, "float32", {"x": x}, x.shape))
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])
        by_itself = run_rows(FakeDriver(), op, "float32", {"x": alone}, alone.shape)
        np.testing.assert_array_equal(by_itself, results[0][1:2])


class _Unaligned(FakeDriver):
    def allocate(self, nbytes, stream=0):
        return super().allocate(nbytes, stream, offset=4)


@pytest.mark.parametrize("regime", TAILS)
def test_in_place(regime, use_regime, driver):
    """``out`` may be the input itself: each entry is read before any of its row is written."""
    use_regime(regime)
    n = TAILS[regime][-1]
    x = logits(shape_of(regime, n), "float32")
    labels = inputs.rng(4).integers(0, n, (x.shape[0], x.shape[2]))
    apart = _in_place_or_not(driver, x, labels, in_place=False)
    np.testing.assert_array_equal(_in_place_or_not(driver, x, labels, in_place=True), apart)


def _in_place_or_not(driver, x, labels, in_place):
    recipe = cross_entropy_recipe("float32", x.shape, False, False, True)
    places = {"x": driver.allocate(x.nbytes), "labels": driver.allocate(labels.nbytes)}
    driver.upload(places["x"], x, 0)
    driver.upload(places["labels"], labels, 0)
    places["out"] = places["x"] if in_place else driver.allocate(x.nbytes)
    values = {**places, "loss": driver.allocate(labels.size * 4), "weight": 0}
    workspace = driver.allocate(recipe.workspace)
    launch(driver, recipe, {**values, "smoothing": 0.0, "ignored": -1, "factor": 1.0}, workspace, 0)
    out = np.empty_like(x)
    driver.download(out, places["out"], 0)
    return out


@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("regime", ["warp", "split"])
def test_constant_cotangent_gives_zero(regime, storage, use_regime, driver):
    use_regime(regime)
    y = forward_of("softmax", logits((2, 80, 1), storage), storage)
    g = np.full_like(y, 1e7 / 3)
    actual = run_rows(driver, "softmax_vjp", storage, {"y": y, "g": g}, y.shape)
    np.testing.assert_array_equal(actual, 0)


@pytest.mark.parametrize("storage", ["float32", "float64"])
def test_subnormal_results_are_kept(storage, use_regime, driver):
    """Nothing is flushed: not by exp, not by the product with 1 / S."""
    use_regime("warp")
    x = inputs.subnormal_results(storage)[:, :, None]
    actual = run_rows(driver, "softmax", storage, {"x": x}, x.shape)
    exact.assert_within(actual, *exact.forward("softmax", x.astype(np.longdouble), storage))


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_over_rows(mean, weighted, use_regime, driver):
    """The loss over all rows, and the gradient's scale, from labels on the device; one is out of range."""
    use_regime("8 lanes")
    x = logits((20, 6, 1), "float32")
    labels = np.resize(np.arange(6), (20, 1))
    labels[3] = 77
    weight = np.linspace(1, 2, 6, dtype=np.float32)
    total, out = np.full(1, np.nan, np.float32), poisoned(x.shape, "float32")
    reduction = "mean" if mean else "sum"
    run_on_host(
        driver,
        partial(cross_entropy_recipe, "float32", x.shape, False, weighted, True, reduction),
        {"x": x, "labels": labels} | ({"weight": weight} if weighted else {}),
        {"total": total, "out": out},
        {"smoothing": 0.0, "ignored": 77, "factor": 1.0} | ({} if weighted else {"weight": 0}),
    )
    known = np.where(labels == 77, -1, labels)
    (loss, _), (dx, allowed) = exact.cross_entropy(
        x.astype(np.longdouble), known, weight if weighted else None, 0.0, 1.0, "float32"
    )
    divisor = (weight[known[known >= 0]].sum() if weighted else 19) if mean else 1
    np.testing.assert_allclose(float(total[0]), float(loss.sum() / divisor), rtol=1e-6)
    exact.assert_within(out.astype(np.longdouble), dx / divisor, allowed / divisor * 1.3)


def test_the_bounds_are_those_of_the_docs():
    text = " ".join((Path(__file__).parents[2] / "docs" / "numerics.md").read_text("utf-8").split())
    wide, narrow = exact.ULPS["float32"], exact.ULPS["bfloat16"]
    assert f"{wide} ULP for softmax, log_softmax, loss and gradient ({narrow} in 16-bit storage" in text
    bounds = f"{exact.JACOBIAN_ULPS} ULP for the Jacobian, {exact.PRODUCT_EPS} eps for products"
    assert f"2 eps for logsumexp, {bounds}" in text


def test_a_label_out_of_range_makes_its_row_nan(use_regime, driver):
    use_regime("8 lanes")
    x, labels = logits((3, 5, 1), "float32"), np.array([[1], [5], [-3]])
    loss, out = np.zeros((3, 1), np.float32), np.zeros_like(x)
    run_on_host(
        driver,
        partial(cross_entropy_recipe, "float32", x.shape, False, False, True),
        {"x": x, "labels": labels},
        {"loss": loss, "out": out},
        {"smoothing": 0.0, "ignored": -1, "factor": 1.0, "weight": 0},
    )
    np.testing.assert_array_equal(np.isnan(loss[:, 0]), [False, True, True])
    np.testing.assert_array_equal(np.isnan(out[:, :, 0]).all(axis=1), [False, True, True])
