"""Promise: the primitives of `fastsoftmax.autograd` have the textbook formulas' derivatives of any order."""

import inspect
import pickle

import autograd.numpy as anp
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
