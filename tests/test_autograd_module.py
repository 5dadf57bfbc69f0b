"""Promise: the primitives of `fastsoftmax.autograd` have the textbook formulas' derivatives of any order."""

import inspect
import pickle
from functools import partial
from itertools import pairwise

import autograd.numpy as anp
import mpmath
import numpy as np
import pytest
from autograd import elementwise_grad, grad, hessian, jacobian, make_jvp
from autograd.differential_operators import make_hvp
from autograd.test_util import check_grads

import fastsoftmax as fs
from fastsoftmax import autograd as ours
from tests import inputs, oracle

X = inputs.rng().normal(size=(3, 5)) * 2
G = inputs.rng(1).normal(size=(3, 5))
LABELS = np.array([4, 0, 2])
AXES = (-1, 0, 1)
UNARY = {"softmax": oracle.softmax, "log_softmax": oracle.log_softmax, "logsumexp": oracle.logsumexp}
PRODUCTS = {
    "softmax_vjp": lambda y, g, axis: y * (g - anp.sum(g * y, axis=axis, keepdims=True)),
    "softmax_jvp": lambda y, g, axis: y * (g - anp.sum(g * y, axis=axis, keepdims=True)),
    "log_softmax_vjp": lambda y, g, axis: g - anp.exp(y) * anp.sum(g, axis=axis, keepdims=True),
    "log_softmax_jvp": lambda y, g, axis: g - anp.sum(anp.exp(y) * g, axis=axis, keepdims=True),
}


def _assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13, strict=True)


def _squares(function, *others):
    """A loss that is not linear in the results, so that second derivatives reach all of them."""
    return lambda x: anp.sum(anp.sin(function(x, *others)))


def _along_g(loss):
    """Its derivative in one direction, as a function again."""
    gradient = grad(loss)
    return lambda x: anp.sum(gradient(x) * G)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("axis", AXES)
def test_ops(name, axis):
    mine, composed = getattr(ours, name), UNARY[name]
    _assert_close(mine(X, axis), composed(X, axis))
    losses = [_squares(f, axis) for f in (mine, composed)]
    _assert_close(*(grad(loss)(X) for loss in losses))
    _assert_close(*(hessian(loss)(X) for loss in losses))
    _assert_close(*(make_jvp(lambda x, f=f: f(x, axis))(X)(G)[1] for f in (mine, composed)))
    _assert_close(*(make_hvp(loss)(X)[0](G) for loss in losses))
    _assert_close(*(grad(_along_g(_along_g(loss)))(X) for loss in losses))
    check_grads(mine, modes=["fwd", "rev"], order=2)(X, axis=axis)


FACTORS = {
    "of each entry": inputs.rng(2).uniform(0.1, 2, (3, 5)),
    "of each column": inputs.rng(2).uniform(0.1, 2, 5),
    "of each row": inputs.rng(2).uniform(0.1, 2, (3, 1)),
    "one": np.array(0.5),
    "some negative": np.where(np.arange(15).reshape(3, 5) == X.argmin(), -0.5, 1.0),
    "some 0": np.where(np.arange(15).reshape(3, 5) % 4, 1.0, 0.0),
}


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("axis", [*AXES, (0, 1)])
def test_weighted_logsumexp(factors, axis):
    b = FACTORS[factors]

    def of(function):
        return lambda x, b: anp.sum(anp.sin(function(x, b)))

    losses = [
        of(lambda x, b: ours.logsumexp(x, axis, b=b)),
        of(lambda x, b: anp.log(anp.sum(b * anp.exp(x), axis=axis))),
    ]
    _assert_close(*(loss(X, b) for loss in losses))
    for argument, direction in enumerate((G, inputs.rng(3).normal(size=b.shape))):
        _assert_close(*(grad(loss, argument)(X, b) for loss in losses))
        _assert_close(*(hessian(loss, argument)(X, b) for loss in losses))
        products = [make_jvp(loss, argument)(X, b)(direction)[1] for loss in losses]
        _assert_close(*map(np.asarray, products))
    mixed = [lambda x, f=loss: anp.sum(anp.sin(grad(f, 1)(x, b))) for loss in losses]
    _assert_close(*(grad(f)(X) for f in mixed))
    check_grads(lambda x, b: ours.logsumexp(x, axis, b=b), modes=["fwd", "rev"], order=2)(X, b)


def test_factors_of_what_is_large_or_left_out():
    x, b = np.array([1e6, 1e6 + 3, np.inf]), np.array([2.0, 1.0, 0.0])
    share = 1 / (1 + np.exp(3) / 2)
    _assert_close(grad(lambda x: ours.logsumexp(x, b=b.tolist()))(x), np.array([share, 1 - share, 0]))
    _assert_close(grad(lambda b: ours.logsumexp(x, b=b))(b), np.array([share / 2, 1 - share, 0]))
    nothing = np.full(2, -np.inf)
    assert np.isnan(grad(lambda x: ours.logsumexp(x, b=np.ones(2)))(nothing)).all()  # as without b
    with pytest.raises(ValueError, match="does not broadcast"):
        grad(lambda x: ours.logsumexp(x, b=np.ones(2)))(x)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("argument", [0, 1])
def test_products(name, axis, argument):
    first = fs.log_softmax(X, axis) if name.startswith("log") else fs.softmax(X, axis)
    arguments = [first, G]

    def of(function):
        def loss(a):
            given = [a if i == argument else other for i, other in enumerate(arguments)]
            return anp.sum(anp.sin(function(*given, axis)))

        return loss

    losses = [of(getattr(ours, name)), of(PRODUCTS[name])]
    at = arguments[argument]
    _assert_close(*(grad(loss)(at) for loss in losses))
    _assert_close(*(hessian(loss)(at) for loss in losses))
    if argument == 1 or name.startswith("log"):  # by differences, the sum of y would not stay 1
        check_grads(losses[0], modes=["fwd", "rev"], order=2)(at)


LENGTHS = (3, 0, 1, 5, 5, 0)
PTR = np.concatenate([[0], np.cumsum(LENGTHS)])
OF_SEGMENTS = {
    "segment_softmax": oracle.softmax,
    "segment_log_softmax": oracle.log_softmax,
    "segment_logsumexp": lambda x: anp.reshape(oracle.logsumexp(x), (1,)),
}


def _each_segment(function, *arrays):
    """The textbook formula, segment by segment; of empty ones nothing."""
    return anp.concatenate([function(*(a[i:j] for a in arrays)) for i, j in pairwise(PTR.tolist()) if i < j])


@pytest.mark.parametrize("name", OF_SEGMENTS)
def test_segments(name):
    x, g = X.ravel()[: PTR[-1]], G.ravel()[: PTR[-1]]
    full = np.array(LENGTHS) > 0 if name == "segment_logsumexp" else slice(None)
    mine, composed = getattr(ours, name), OF_SEGMENTS[name]
    losses = [_squares(lambda x: mine(x, PTR)[full]), _squares(lambda x: _each_segment(composed, x))]
    _assert_close(*(loss(x) for loss in losses))
    _assert_close(*(grad(loss)(x) for loss in losses))
    _assert_close(*(hessian(loss)(x) for loss in losses))
    _assert_close(*(make_jvp(loss)(x)(g)[1] for loss in losses))
    _assert_close(*(grad(lambda x, f=loss: anp.sum(grad(f)(x) * g) ** 2)(x) for loss in losses))
    check_grads(losses[0], modes=["fwd", "rev"], order=2)(x)


@pytest.mark.parametrize("argument", [0, 1])
def test_products_of_segments(argument):
    y, g = fs.segment_softmax(X.ravel()[: PTR[-1]], PTR), G.ravel()[: PTR[-1]]

    def of(function):
        return lambda a: anp.sum(anp.sin(function(*((a, g) if argument == 0 else (y, a)))))

    losses = [
        of(lambda y, g: ours.segment_softmax_vjp(y, g, PTR)),
        of(lambda y, g: _each_segment(lambda y, g: y * (g - anp.sum(g * y)), y, g)),
    ]
    at = (y, g)[argument]
    _assert_close(*(grad(loss)(at) for loss in losses))
    _assert_close(*(hessian(loss)(at) for loss in losses))
    _assert_close(*(make_jvp(loss)(at)(X.ravel()[: PTR[-1]])[1] for loss in losses))


@pytest.mark.parametrize("integer", ["u8", "u4", "i4", "u1"])
@pytest.mark.parametrize("name", ["segment_softmax", "segment_log_softmax", "segment_logsumexp"])
def test_ptr_of_any_integers(name, integer):
    def loss(x, ptr):
        return anp.sum(getattr(ours, name)(x, ptr) ** 2)

    ptr = np.array([0, 2, 6])
    np.testing.assert_array_equal(*(grad(loss)(X.ravel()[:6], p) for p in (ptr.astype(integer), ptr)))


def test_a_saturated_segment_keeps_its_digits():
    x, ptr = np.array([5.0, 40.0, 0.0, 0.0]), [0, 1, 4]
    (_, first, *_) = elementwise_grad(lambda x: ours.segment_softmax(x, ptr)[1])(x)
    assert abs(first - 2 * np.exp(-40)) < 1e-15 * 2 * np.exp(-40) * 100


def _solved_by_lapack(y, b, axis, ridge):
    rows = zip(anp.moveaxis(y, axis, -1), anp.moveaxis(b, axis, -1), strict=True)
    v = [anp.linalg.solve(anp.diag(s + ridge) - anp.outer(s, s) / anp.sum(s), a) for s, a in rows]
    return anp.moveaxis(anp.array(v), -1, axis)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("argument", [0, 1])
@pytest.mark.parametrize("ridge", [0.05, 0.7])
def test_solutions(ridge, argument, axis):
    arguments = [fs.softmax(X, axis), G]

    def of(function):
        def loss(a):
            given = [a if i == argument else other for i, other in enumerate(arguments)]
            return anp.sum(anp.sin(function(*given, axis, ridge=ridge)))

        return loss

    losses = [of(ours.softmax_solve), of(_solved_by_lapack)]
    at = arguments[argument]
    for derivative in (grad, hessian):
        actual, expected = (derivative(loss)(at) for loss in losses)
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    forward = make_jvp(losses[0])(at)(G)[1]  # of its LAPACK autograd has none
    np.testing.assert_allclose(forward, np.sum(grad(losses[1])(at) * G), rtol=1e-10)
    check_grads(losses[0], modes=["fwd", "rev"], order=2)(at)


def test_solutions_without_a_ridge():
    with pytest.raises(ValueError, match="derivatives with a ridge only; got ridge=0"):
        grad(lambda b: anp.sum(ours.softmax_solve(fs.softmax(X), b, ridge=0.0)))(G)


WEIGHT = np.array([1.0, 0.5, 2.0, 0.1, 3.0])
OPTIONS = (
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"weight": WEIGHT, "label_smoothing": 0.1},
    {"ignore_index": 4},
    {"ignore_index": 0, "weight": WEIGHT, "label_smoothing": 0.3, "reduction": "none"},
)


def _composed_loss(x, labels, axis, weight=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    logy = oracle.log_softmax(x, axis)
    n = x.shape[axis]
    weight = np.ones(n) if weight is None else weight
    target = (1 - label_smoothing) * np.eye(n)[labels] + label_smoothing / n
    takes_part = labels != ignore_index
    target = target * weight * takes_part[..., None]
    losses = -anp.sum(anp.moveaxis(logy, axis, -1) * target, axis=-1)
    if reduction == "none":
        return losses
    total = np.sum(weight[labels] * takes_part) if reduction == "mean" else 1
    return anp.sum(losses) / total


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("axis", [-1, 0])
def test_cross_entropy(options, axis):
    x = X if axis == -1 else X.T.copy()
    losses = [
        _squares(lambda x, f=f: f(x, LABELS, axis, **options)) for f in (ours.cross_entropy, _composed_loss)
    ]
    _assert_close(*(loss(x) for loss in losses))
    _assert_close(*(grad(loss)(x) for loss in losses))
    _assert_close(*(hessian(loss)(x) for loss in losses))
    _assert_close(*(make_jvp(loss)(x)(np.ones_like(x))[1] for loss in losses))
    check_grads(losses[0], modes=["fwd", "rev"], order=2)(x)


SOFT_OPTIONS = (
    {},
    {"reduction": "sum", "weight": WEIGHT},
    {"sample_weight": np.array([1.0, 0.0, 2.5]), "reduction": "none"},
    {"sample_weight": np.array([1.0, 0.5, 2.5]), "weight": WEIGHT, "label_smoothing": 0.2},
)


def _composed_soft_loss(x, t, axis, weight=None, sample_weight=None, label_smoothing=0.0, reduction="mean"):
    logy, t = (anp.moveaxis(a, axis, -1) for a in (oracle.log_softmax(x, axis), t))
    n = logy.shape[-1]
    target = ((1 - label_smoothing) * t + label_smoothing / n) * (np.ones(n) if weight is None else weight)
    of_rows = np.ones(len(logy)) if sample_weight is None else sample_weight
    losses = -anp.sum(logy * target, axis=-1) * of_rows
    if reduction == "none":
        return losses
    return anp.sum(losses) / (of_rows.sum() if reduction == "mean" else 1)


@pytest.mark.parametrize("options", SOFT_OPTIONS, ids=str)
@pytest.mark.parametrize("axis", [-1, 0])
def test_cross_entropy_with_probabilities(options, axis):
    """In the logits, in the probabilities, and in one after the other, three times."""
    x, t = X, inputs.rng(2).uniform(size=X.shape)
    x, t = (x, t) if axis == -1 else (x.T.copy(), t.T.copy())
    functions = [partial(f, axis=axis, **options) for f in (ours.cross_entropy, _composed_soft_loss)]
    losses = [lambda x, t, f=f: anp.sum(anp.sin(f(x, t))) for f in functions]
    _assert_close(*(loss(x, t) for loss in losses))
    for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
        _assert_close(*(grad(loss, first)(x, t) for loss in losses))
        _assert_close(*(jacobian(grad(loss, first), second)(x, t) for loss in losses))
    curvatures = [lambda t, f=f: anp.sum(hessian(lambda x: anp.sum(f(x, t)))(x) ** 2) for f in functions]
    _assert_close(*(grad(curvature)(t) for curvature in curvatures))
    check_grads(functions[0], modes=["fwd", "rev"], order=2)(x, t)


@pytest.mark.parametrize("ignore_index", [None, 2])
def test_cross_entropy_with_weights_of_rows(ignore_index):
    of_rows = np.array([1.0, 0.5, 2.5])
    options = {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": ignore_index}

    def weighted(x):
        losses = _composed_loss(x, LABELS, -1, **options, reduction="none") * of_rows
        return anp.sum(losses) / np.sum((WEIGHT[LABELS] * of_rows)[ignore_index != LABELS])

    def mine(x):
        return ours.cross_entropy(x, LABELS, sample_weight=of_rows, **options)

    _assert_close(mine(X), weighted(X))
    _assert_close(hessian(mine)(X), hessian(weighted)(X))


@pytest.mark.parametrize("factor", [1e-310, 1e300])
def test_a_mean_is_of_weights_of_any_scale(factor):
    def loss(x, factor):
        return ours.cross_entropy(
            x, LABELS, weight=WEIGHT * factor, sample_weight=[factor, 3 * factor, factor]
        )

    _assert_close(grad(loss)(X, factor), grad(loss)(X, 1.0))


@pytest.mark.parametrize("soft", [False, True])
def test_rows_that_take_no_part(soft):
    """Whatever is in them, all derivatives in them are 0."""
    x, t = X.copy(), inputs.rng(2).uniform(size=X.shape)
    options = {"sample_weight": [1.0, 0.0, 2.0]} if soft else {"ignore_index": -1}
    labels = t if soft else np.array([LABELS[0], -1, LABELS[2]])

    def loss(x, labels):
        return ours.cross_entropy(x, labels, **options)

    expected = hessian(loss)(x, labels)
    x[1] = np.nan
    np.testing.assert_array_equal(hessian(loss)(x, labels), expected)
    assert (expected[1] == 0).all()
    if soft:
        assert (grad(loss, 1)(x, t)[1] == 0).all()
        mixed = [jacobian(grad(loss, a), b)(x, t) for a, b in ((0, 1), (1, 0))]
        assert all((derivative[1] == 0).all() for derivative in mixed)


def test_jacobian_is_that_of_the_kernel():
    row = X[0]
    np.testing.assert_array_equal(jacobian(ours.softmax)(row), fs.softmax_jacobian(fs.softmax(row)))


def test_a_saturated_row_keeps_its_digits():
    """Where 1 - y cancels to 0."""
    x = np.array([40.0, 0.0, 0.0])
    (first, *_) = elementwise_grad(lambda x: ours.softmax(x)[0])(x)
    assert abs(first - 2 * np.exp(-40)) < 1e-15 * 2 * np.exp(-40) * 100
    loss = grad(lambda x: ours.cross_entropy(x[None], np.array([0])))(x)
    np.testing.assert_allclose(loss[0], -2 * np.exp(-40), rtol=1e-13)


STRUCTURED = {
    "ties": lambda n: np.zeros(n),
    "few values": lambda n: inputs.rng(n).choice([0.0, 1.0, -3.0], n),
    "offset": lambda n: 1e6 + inputs.rng(n).choice([0.0, 2.0], n),
    "saturated": lambda n: np.r_[40.0, inputs.rng(n).choice([0.0, -1.0], n - 1)],
    "saturated to the end": lambda n: np.r_[np.zeros(n - 1), 700.0],
    "masked": lambda n: np.r_[1.0, inputs.rng(n).choice([-np.inf, -1.0, 2.0], n - 1)],
    "a ramp": lambda n: np.round(np.linspace(-20, 20, n)),
}


def _exact_derivatives(x, w, v):
    """Of ``sum(w * op(x))`` and along ``v``, each with the size of what its entries are sums of, from mpmath.

    Entries with the same logit, weight and direction are a class; there are few.
    """
    triples, where, counts = np.unique(np.stack([x, w, v]), axis=1, return_inverse=True, return_counts=True)

    def total(terms):
        return mpmath.fsum(int(c) * t for c, t in zip(counts, terms, strict=True))

    with mpmath.workdps(400):
        x, w, v = (np.array([mpmath.mpf(a) for a in line]) for line in triples.tolist())
        e = np.array([mpmath.exp(a - max(x)) for a in x])
        y = e / total(e)
        dy, sum_w, sizes_w = y * (v - total(v * y)), total(w), total(abs(w))
        spread = y * (1 - y)  # a derivative of y is a sum of differences, which are that small in all
        exact = {
            ("softmax", "gradient"): (y * (w - total(w * y)), spread),
            ("softmax", "product"): (dy, spread),
            ("softmax", "Hessian product"): (dy * (w - total(w * y)) - y * total(w * dy), spread),
            ("log_softmax", "gradient"): (w - y * sum_w, abs(w) + y * sizes_w),
            ("log_softmax", "product"): (v - total(v * y), 1 + 0 * y),
            ("log_softmax", "Hessian product"): (-sum_w * dy, sizes_w * y),
            ("logsumexp", "gradient"): (y, y),
            ("logsumexp", "product"): (total(v * y) + 0 * y, 1 + 0 * y),
            ("logsumexp", "Hessian product"): (dy, spread),
            ("cross_entropy", "gradient"): (y - w, abs(y - w)),
            ("cross_entropy", "Hessian product"): (dy, spread),
        }
        return {key: [part.astype(float)[where.ravel()] for part in pair] for key, pair in exact.items()}


@pytest.mark.parametrize("n", [2, 7, 64, 1000, 100_000])
@pytest.mark.parametrize("kind", STRUCTURED)
def test_structured_rows(kind, n):
    """To 1e-14 of the terms of the textbook formulas, where these would have lost all digits too."""
    x, rng = STRUCTURED[kind](n), inputs.rng(1)
    w, v = rng.choice([1.0, -1.0, 0.25], n), rng.choice([1.0, -1.0, 0.5], n)
    label, there = int(x.argmax()), x > -np.inf
    w[~there] = 0
    losses = {
        "softmax": (lambda x: anp.sum(w * ours.softmax(x)), w),
        "log_softmax": (lambda x: anp.sum(w[there] * ours.log_softmax(x)[there]), w),
        "logsumexp": (ours.logsumexp, w),
        "cross_entropy": (lambda x: ours.cross_entropy(x, label), (np.arange(n) == label).astype(float)),
    }
    for op, (loss, weights) in losses.items():
        exact = _exact_derivatives(x, weights, v)
        found = {"gradient": grad(loss)(x), "Hessian product": make_hvp(loss)(x)[0](v)}
        if op != "cross_entropy":
            found["product"] = make_jvp(getattr(ours, op))(x)(v)[1]
        for derivative, actual in found.items():
            right, size = exact[op, derivative]
            assert (np.abs(actual - right) <= 1e-14 * size + 1e-307).all(), (op, derivative)


@pytest.mark.parametrize("name", ours.__all__)
def test_named_as_functions(name):
    """autograd's wrapper alone would have its own module and signature, and could not be pickled."""
    op = getattr(ours, name)
    assert pickle.loads(pickle.dumps(op)) is op
    assert op.__module__ == "fastsoftmax.autograd"
    first, *_ = inspect.signature(op).parameters.values()
    assert first.kind is first.POSITIONAL_ONLY  # by name autograd would see no argument


def test_the_package_does_not_import_autograd():
    from tests import processes

    code = "import sys, fastsoftmax; print('autograd' in sys.modules, 'scipy' in sys.modules)"
    assert processes.python(code).split() == ["False", "False"]
