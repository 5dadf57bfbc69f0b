"""The ops as primitives of autograd, with derivatives of every order.

Each derivative is a closed form of the same family, and so are its own; docs/derivation.md has the formulas.
Needs autograd: ``pip install autograd``.
"""

from functools import update_wrapper

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive

import fastsoftmax as fs

__all__ = (
    "cross_entropy",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "softmax",
    "softmax_jvp",
    "softmax_solve",
    "softmax_vjp",
)


def _primitive(function):
    """One with the name, module and signature of the function, for `help()`, pickle and type checkers."""
    return update_wrapper(primitive(function), function)


@_primitive
def softmax(x, /, axis=-1):
    """`fastsoftmax.softmax`, differentiable: ``dy_i = y_i * (dx_i - sum_j y_j dx_j)``.

    Parameters
    ----------
    x, axis
        As for `fastsoftmax.softmax`.

    Returns
    -------
    ndarray
        Of the shape of ``x``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import softmax
    >>> grad(lambda x: softmax(x)[0])(np.array([0.0, 0.0]))
    array([ 0.25, -0.25])
    """
    return fs.softmax(x, axis)


@_primitive
def log_softmax(x, /, axis=-1):
    """`fastsoftmax.log_softmax`, differentiable: ``d(log y)_i = dx_i - sum_j y_j dx_j``.

    Parameters
    ----------
    x, axis
        As for `fastsoftmax.log_softmax`.

    Returns
    -------
    ndarray
        Of the shape of ``x``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import log_softmax
    >>> grad(lambda x: log_softmax(x)[0])(np.array([0.0, 0.0]))
    array([ 0.5, -0.5])
    """
    return fs.log_softmax(x, axis)


@_primitive
def logsumexp(x, /, axis=-1, keepdims=False):
    """`fastsoftmax.logsumexp`, differentiable: ``sum_j softmax(x)_j dx_j``.

    Parameters
    ----------
    x, axis, keepdims
        As for `fastsoftmax.logsumexp`.

    Returns
    -------
    ndarray or scalar
        ``x`` without ``axis``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import logsumexp
    >>> grad(logsumexp)(np.array([0.0, 0.0]))
    array([0.5, 0.5])
    """
    return fs.logsumexp(x, axis, keepdims=keepdims)


@_primitive
def softmax_vjp(y, g, /, axis=-1):
    """`fastsoftmax.softmax_vjp`, differentiable in both arguments.

    Parameters
    ----------
    y, g, axis
        As for `fastsoftmax.softmax_vjp`.

    Returns
    -------
    ndarray
        Of the shape of ``y``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import softmax_vjp
    >>> y, g = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    >>> grad(lambda g: softmax_vjp(y, g)[0])(g)
    array([ 0.25, -0.25])
    """
    return fs.softmax_vjp(y, g, axis)


softmax_jvp = softmax_vjp
"""The Jacobian of softmax is symmetric."""


@_primitive
def softmax_solve(y, b, /, axis=-1, *, ridge):
    """`fastsoftmax.softmax_solve` with a ridge, differentiable in both arrays.

    Parameters
    ----------
    y, b, axis
        As for `fastsoftmax.softmax_solve`.
    ridge : float
        Above 0: without one, a change of ``b`` has a solution in some directions only.

    Returns
    -------
    ndarray
        Of the shape of ``y``.

    Raises
    ------
    ValueError
        ``ridge`` is 0, and as for `fastsoftmax.softmax_solve`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import softmax_solve
    >>> y, b = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    >>> grad(lambda b: softmax_solve(y, b, ridge=0.5)[0])(b)
    array([1.5, 0.5])
    """
    if ridge == 0:
        raise ValueError("softmax_solve has derivatives with a ridge only; got ridge=0: pass ridge > 0")
    return fs.softmax_solve(y, b, axis, ridge=ridge)


@_primitive
def log_softmax_vjp(logy, g, /, axis=-1):
    """`fastsoftmax.log_softmax_vjp`, differentiable in both arguments.

    Parameters
    ----------
    logy, g, axis
        As for `fastsoftmax.log_softmax_vjp`.

    Returns
    -------
    ndarray
        Of the shape of ``logy``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import log_softmax_vjp
    >>> logy, g = np.log(np.array([0.5, 0.5])), np.array([1.0, 0.0])
    >>> grad(lambda g: log_softmax_vjp(logy, g)[0])(g)
    array([ 0.5, -0.5])
    """
    return fs.log_softmax_vjp(logy, g, axis)


@_primitive
def log_softmax_jvp(logy, t, /, axis=-1):
    """`fastsoftmax.log_softmax_jvp`, differentiable in both arguments.

    Parameters
    ----------
    logy, t, axis
        As for `fastsoftmax.log_softmax_jvp`.

    Returns
    -------
    ndarray
        Of the shape of ``logy``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import log_softmax_jvp
    >>> logy, t = np.log(np.array([0.5, 0.5])), np.array([1.0, 0.0])
    >>> grad(lambda t: log_softmax_jvp(logy, t)[0])(t)
    array([ 0.5, -0.5])
    """
    return fs.log_softmax_jvp(logy, t, axis)


@_primitive
def cross_entropy(x, labels, /, axis=-1, **options):
    """`fastsoftmax.cross_entropy`, differentiable in ``x``: ``dx = (softmax(x) - onehot(label)) / m``.

    Parameters
    ----------
    x, labels, axis
        As for `fastsoftmax.cross_entropy`.
    **options
        ``weight``, ``ignore_index``, ``label_smoothing`` and ``reduction``, as there.

    Returns
    -------
    scalar or ndarray
        The loss.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import cross_entropy
    >>> grad(cross_entropy)(np.array([[0.0, 0.0]]), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    return fs.cross_entropy(x, labels, axis, **options)


@_primitive
def _gradient(x, labels, /, axis=-1, **options):
    """That of `cross_entropy`, with "none" that of each row's own loss."""
    return fs.cross_entropy_with_grad(x, labels, axis, **options)[1]


def _total(a, axis):
    return anp.sum(a, axis=axis, keepdims=True)


def _dot(a, b, axis):
    return _total(a * b, axis)


def _centred(a, y, axis):
    return a - _dot(a, y, axis) / _total(y, axis)


def _without_its_sum(a, y, axis):
    return a - y * (_total(a, axis) / _total(y, axis))


def _along(g, x, axis):
    """One value a row, or one in all, as an array that broadcasts to ``x``."""
    return g if np.ndim(g) in (0, np.ndim(x)) else anp.reshape(g, _kept(np.shape(x), axis))


def _kept(shape, axis):
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = {a % len(shape) for a in axes}
    return tuple(1 if i in axes else s for i, s in enumerate(shape))


defvjp(softmax, lambda y, x, axis=-1: lambda g: softmax_vjp(y, g, axis))
defjvp(softmax, lambda t, y, x, axis=-1: softmax_vjp(y, t, axis))

defvjp(log_softmax, lambda logy, x, axis=-1: lambda g: log_softmax_vjp(logy, g, axis))
defjvp(log_softmax, lambda t, logy, x, axis=-1: log_softmax_jvp(logy, t, axis))

defvjp(
    logsumexp,
    lambda _, x, axis=-1, keepdims=False: lambda g: _along(g, x, axis) * softmax(x, axis),
)
defjvp(
    logsumexp,
    lambda t, _, x, axis=-1, keepdims=False: anp.sum(t * softmax(x, axis), axis=axis, keepdims=keepdims),
)

# S(y, g) = y (g - sum g y) is linear in g, with a symmetric matrix; in y its derivative along h is
# h (g - sum g y) - y sum g h. (The kernel has S where the sum of y is 1, as it is of any softmax.)
defvjp(
    softmax_vjp,
    lambda _, y, g, axis=-1: lambda h: h * (g - _dot(g, y, axis)) - g * _dot(h, y, axis),
    lambda _, y, g, axis=-1: lambda h: softmax_vjp(y, h, axis),
)
defjvp(
    softmax_vjp,
    lambda h, _, y, g, axis=-1: h * (g - _dot(g, y, axis)) - y * _dot(g, h, axis),
    lambda h, _, y, g, axis=-1: softmax_vjp(y, h, axis),
)

# v = M^-1 b with M = diag(y) - y y^T / sum y + ridge is linear in b, with a symmetric matrix. In y it is
# -M^-1 dM v, where dM v along h is h w - y (sum h w) / sum y, and w is v without its mean, which y weighs.
defvjp(
    softmax_solve,
    lambda v, y, b, axis=-1, *, ridge: (
        lambda h: -_centred(softmax_solve(y, h, axis, ridge=ridge), y, axis) * _centred(v, y, axis)
    ),
    lambda _, y, b, axis=-1, *, ridge: lambda h: softmax_solve(y, h, axis, ridge=ridge),
)
defjvp(
    softmax_solve,
    lambda h, v, y, b, axis=-1, *, ridge: (
        -softmax_solve(y, _without_its_sum(h * _centred(v, y, axis), y, axis), axis, ridge=ridge)
    ),
    lambda h, _, y, b, axis=-1, *, ridge: softmax_solve(y, h, axis, ridge=ridge),
)

# V(l, g) = g - e^l sum g and T(l, t) = t - sum e^l t are each other's transposes in their second arguments.
# The derivative of V in l is -e^l sum g, formed as such: V - g has no digits where e^l is small.
defvjp(
    log_softmax_vjp,
    lambda _, logy, g, axis=-1: lambda h: -anp.exp(logy) * h * _total(g, axis),
    lambda _, logy, g, axis=-1: lambda h: log_softmax_jvp(logy, h, axis),
)
defjvp(
    log_softmax_vjp,
    lambda h, _, logy, g, axis=-1: -anp.exp(logy) * h * _total(g, axis),
    lambda h, _, logy, g, axis=-1: log_softmax_vjp(logy, h, axis),
)
defvjp(
    log_softmax_jvp,
    lambda _, logy, t, axis=-1: lambda h: -anp.exp(logy) * t * _total(h, axis),
    lambda _, logy, t, axis=-1: lambda h: log_softmax_vjp(logy, h, axis),
)
defjvp(
    log_softmax_jvp,
    lambda h, _, logy, t, axis=-1: anp.zeros_like(t) - _dot(anp.exp(logy) * h, t, axis),
    lambda h, _, logy, t, axis=-1: log_softmax_jvp(logy, h, axis),
)


def _loss_vjp(_, x, labels, axis=-1, **options):
    return lambda g: _along(g, x, axis) * _gradient(x, labels, axis, **options)


def _loss_jvp(t, _, x, labels, axis=-1, **options):
    products = t * _gradient(x, labels, axis, **options)
    return anp.sum(products, axis=axis if options.get("reduction") == "none" else None)


def _hessian_product(h, x, labels, axis, options):
    """Of each row ``S(softmax(x), h)``, times what its loss weighs."""
    return _weights(x, labels, axis, **options) * softmax_vjp(softmax(x, axis), h, axis)


def _weights(x, labels, axis, weight=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    """What each row's softmax is multiplied by in the gradient."""
    labels = np.asarray(labels)
    n = np.size(x) // max(labels.size, 1)
    weight = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    takes_part = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    of_label = np.where(takes_part, weight[np.where(takes_part, labels, 0)], 0.0)
    rows = np.where(takes_part, (1 - label_smoothing) * of_label + label_smoothing / n * weight.sum(), 0.0)
    if reduction == "mean":
        rows = rows / (of_label.sum() or 1.0)
    return rows.reshape(_kept(np.shape(x), axis))


defvjp(cross_entropy, _loss_vjp, argnums=(0,))
defjvp(cross_entropy, _loss_jvp, argnums=(0,))
defvjp(
    _gradient,
    lambda _, x, labels, axis=-1, **options: lambda h: _hessian_product(h, x, labels, axis, options),
    argnums=(0,),
)
defjvp(
    _gradient,
    lambda h, _, x, labels, axis=-1, **options: _hessian_product(h, x, labels, axis, options),
    argnums=(0,),
)

__test__ = {name: globals()[name] for name in __all__}  # for doctest, to which they are autograd's functions
