"""The ops as primitives of autograd, with derivatives of every order.

Each derivative is a closed form of the same family, and so are its own; docs/derivation.md has the formulas.
Needs autograd: ``pip install autograd``.
"""

from functools import update_wrapper

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, notrace_primitive, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval, isbox

import fastsoftmax as fs
from fastsoftmax._arrays import rows_of
from fastsoftmax._targets import is_soft, row_weights, targets_of

__all__ = (
    "cross_entropy",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax",
    "segment_softmax_vjp",
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


def logsumexp(x, /, axis=-1, keepdims=False, *, b=None):
    """`fastsoftmax.logsumexp`, differentiable: ``sum_j softmax(x)_j dx_j``.

    With factors ``b``, in these too: ``sum_j exp(x_j - result) * (b_j dx_j + db_j)``.

    Parameters
    ----------
    x, axis, keepdims, b
        As for `fastsoftmax.logsumexp`. Infinite or NaN entries that ``b = 0`` leaves out have derivatives
        of 0.

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
    return _logsumexp(x, b if b is None or isbox(b) else np.asarray(b), axis, keepdims)


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

    Where ``labels`` are probabilities, in these too: of each the gradient is ``-log_softmax(x) / m``.

    Parameters
    ----------
    x, labels, axis
        As for `fastsoftmax.cross_entropy`.
    **options
        ``weight``, ``sample_weight``, ``ignore_index``, ``label_smoothing`` and ``reduction``, as there.

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
def segment_softmax(x, ptr, /):
    """`fastsoftmax.segment_softmax`, differentiable in ``x``: ``dy_i = y_i * (dx_i - sum_j y_j dx_j)``.

    Parameters
    ----------
    x, ptr
        As for `fastsoftmax.segment_softmax`; ``j`` goes over the segment of ``i``.

    Returns
    -------
    ndarray
        Of the shape of ``x``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import segment_softmax
    >>> grad(lambda x: segment_softmax(x, [0, 2, 3])[0])(np.array([0.0, 0.0, 1.0]))
    array([ 0.25, -0.25,  0.  ])
    """
    return fs.segment_softmax(x, ptr)


@_primitive
def segment_log_softmax(x, ptr, /):
    """`fastsoftmax.segment_log_softmax`, differentiable in ``x``: ``d(log y)_i = dx_i - sum_j y_j dx_j``.

    Parameters
    ----------
    x, ptr
        As for `segment_softmax`.

    Returns
    -------
    ndarray
        Of the shape of ``x``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import segment_log_softmax
    >>> grad(lambda x: segment_log_softmax(x, [0, 2, 3])[0])(np.array([0.0, 0.0, 1.0]))
    array([ 0.5, -0.5,  0. ])
    """
    return fs.segment_log_softmax(x, ptr)


@_primitive
def segment_logsumexp(x, ptr, /):
    """`fastsoftmax.segment_logsumexp`, differentiable in ``x``: ``sum_j y_j dx_j`` for each segment.

    Parameters
    ----------
    x, ptr
        As for `segment_softmax`.

    Returns
    -------
    ndarray
        One value a segment.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import segment_logsumexp
    >>> grad(lambda x: segment_logsumexp(x, [0, 2, 3])[0])(np.array([0.0, 0.0, 1.0]))
    array([0.5, 0.5, 0. ])
    """
    return fs.segment_logsumexp(x, ptr)


@_primitive
def segment_softmax_vjp(y, g, ptr, /):
    """`fastsoftmax.segment_softmax_vjp`, differentiable in ``y`` and ``g``.

    Parameters
    ----------
    y, g, ptr
        As for `fastsoftmax.segment_softmax_vjp`.

    Returns
    -------
    ndarray
        Of the shape of ``y``.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from fastsoftmax.autograd import segment_softmax_vjp
    >>> y, g = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.0, 1.0])
    >>> grad(lambda g: segment_softmax_vjp(y, g, [0, 2, 3])[0])(g)
    array([ 0.25, -0.25,  0.  ])
    """
    return fs.segment_softmax_vjp(y, g, ptr)


@primitive
def _logsumexp(x, b, axis, keepdims):
    return fs.logsumexp(x, axis, b=b, keepdims=keepdims)


@primitive
def _sums(a, ptr):
    """Of each segment; 0 of an empty one, where `np.add.reduceat` gives the entry after it."""
    ptr = np.asarray(ptr, np.intp)
    sums, full = np.zeros(len(ptr) - 1, a.dtype), ptr[1:] > ptr[:-1]
    sums[full] = np.add.reduceat(a, ptr[:-1][full])
    return sums


@primitive
def _spread(values, ptr):
    """One a segment, at each of its entries."""
    return np.repeat(values, np.diff(np.asarray(ptr, np.intp)))


def _totals(a, ptr):
    return _spread(_sums(a, ptr), ptr)


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
    return g if np.ndim(g) in (0, np.ndim(x)) else anp.reshape(g, rows_of(np.shape(x), axis).keepdims())


def _per_factor(x, b, axis):
    """``exp(x - logsumexp)``, relative to the largest ``x``: of large ones the difference has no digits."""
    x = anp.where((b == 0) & ~(x < np.inf), -np.inf, x)
    with np.errstate(all="ignore"):
        x = x - _largest(x, b, axis)
        return anp.exp(x - _logsumexp(x, b, axis, True))


@notrace_primitive
def _largest(x, b, axis):
    most = np.where(b == 0, -np.inf, x).max(axis, keepdims=True)
    return np.where(np.isfinite(most), most, 0)


def _shares(x, b, axis):
    return softmax(x, axis) if b is None else b * _per_factor(x, b, axis)


defvjp(softmax, lambda y, x, axis=-1: lambda g: softmax_vjp(y, g, axis))
defjvp(softmax, lambda t, y, x, axis=-1: softmax_vjp(y, t, axis))

defvjp(log_softmax, lambda logy, x, axis=-1: lambda g: log_softmax_vjp(logy, g, axis))
defjvp(log_softmax, lambda t, logy, x, axis=-1: log_softmax_jvp(logy, t, axis))

defvjp(
    _logsumexp,
    lambda _, x, b, axis, keepdims: lambda g: _along(g, x, axis) * _shares(x, b, axis),
    lambda _, x, b, axis, keepdims: unbroadcast_f(b, lambda g: _along(g, x, axis) * _per_factor(x, b, axis)),
    argnums=(0, 1),
)
defjvp(
    _logsumexp,
    lambda t, _, x, b, axis, keepdims: anp.sum(t * _shares(x, b, axis), axis=axis, keepdims=keepdims),
    lambda t, _, x, b, axis, keepdims: anp.sum(t * _per_factor(x, b, axis), axis=axis, keepdims=keepdims),
    argnums=(0, 1),
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
    return _of_losses(t * _gradient(x, labels, axis, **options), axis, options)


def _of_losses(products, axis, options):
    return anp.sum(products, axis=axis if options.get("reduction") == "none" else None)


def _hessian_product(h, x, labels, axis, options):
    """Of each row ``S(softmax(x), h)``, times what its loss weighs."""
    weights = _Weights(x, labels, axis, **options)
    return weights.of_rows() * softmax_vjp(softmax(weights.logits(x), axis), h, axis)


class _Weights:
    """What a loss weighs: it is ``sum_j u_j * -log y_j``, and its gradient ``y_j * sum u - u_j``."""

    def __init__(
        self,
        x,
        labels,
        axis,
        weight=None,
        sample_weight=None,
        ignore_index=None,
        label_smoothing=0.0,
        reduction="mean",
    ):
        given = labels
        while isbox(given):
            given = getval(given)
        rows = rows_of(np.shape(x), axis)
        self._kept = rows.keepdims()
        options = weight, sample_weight, ignore_index, label_smoothing
        targets = targets_of(rows, np.dtype(np.float64), np.asarray(given), *options)
        scale = 1.0
        if reduction == "mean":
            targets, _, scale = targets.mean()
        self._labels, self._targets, self._axis = labels, targets, axis
        shape = [length if kept == 1 else 1 for length, kept in zip(rows.shape, self._kept, strict=True)]
        self._of_classes = np.ones(shape) if weight is None else targets.weight.reshape(shape)
        of_samples = row_weights(targets.labels, None, targets.sample_weight)
        self._of_samples = of_samples.reshape(self._kept) * scale

    def logits(self, x):
        """Those of rows that take no part are not looked at."""
        return anp.where(self._of_samples == 0, 0.0, x)

    def of_probabilities(self):
        """``u_j`` of a probability of 1, but for the smoothing."""
        return (1 - self._targets.smoothing) * self._of_classes * self._of_samples

    def of_rows(self):
        """``sum u``, by which the softmax of a row is multiplied in the gradient."""
        labels, weight, _, smoothing = self._targets
        spread = smoothing * self._of_classes.mean() * self._of_samples
        if is_soft(labels):
            return _total(self._labels * self.of_probabilities(), self._axis) + spread
        of_labels = row_weights(labels, weight, None).reshape(self._kept)
        return (1 - smoothing) * of_labels * self._of_samples + spread


def _per_probability(x, labels, axis, options):
    """The derivative of the losses by their probabilities."""
    weights = _Weights(x, labels, axis, **options)
    return -weights.of_probabilities() * log_softmax(weights.logits(x), axis)


def _loss_vjp_of_labels(_, x, labels, axis=-1, **options):
    return lambda g: _along(g, x, axis) * _per_probability(x, labels, axis, options)


def _loss_jvp_of_labels(t, _, x, labels, axis=-1, **options):
    return _of_losses(t * _per_probability(x, labels, axis, options), axis, options)


def _gradient_vjp_of_labels(_, x, labels, axis=-1, **options):
    weights = _Weights(x, labels, axis, **options)
    u = weights.of_probabilities()
    return lambda h: u * (_dot(h, softmax(weights.logits(x), axis), axis) - h)


def _gradient_jvp_of_labels(h, _, x, labels, axis=-1, **options):
    weights = _Weights(x, labels, axis, **options)
    h = h * weights.of_probabilities()
    return softmax(weights.logits(x), axis) * _total(h, axis) - h


defvjp(cross_entropy, _loss_vjp, _loss_vjp_of_labels, argnums=(0, 1))
defjvp(cross_entropy, _loss_jvp, _loss_jvp_of_labels, argnums=(0, 1))
defvjp(
    _gradient,
    lambda _, x, labels, axis=-1, **options: lambda h: _hessian_product(h, x, labels, axis, options),
    _gradient_vjp_of_labels,
    argnums=(0, 1),
)
defjvp(
    _gradient,
    lambda h, _, x, labels, axis=-1, **options: _hessian_product(h, x, labels, axis, options),
    _gradient_jvp_of_labels,
    argnums=(0, 1),
)

# Those of ragged rows are the same with other sums, which are linear, and each other's transposes.
defvjp(_sums, lambda _, a, ptr: lambda g: _spread(g, ptr), argnums=(0,))
defjvp(_sums, lambda t, _, a, ptr: _sums(t, ptr), argnums=(0,))
defvjp(_spread, lambda _, values, ptr: lambda g: _sums(g, ptr), argnums=(0,))
defjvp(_spread, lambda t, _, values, ptr: _spread(t, ptr), argnums=(0,))

defvjp(segment_softmax, lambda y, x, ptr: lambda g: segment_softmax_vjp(y, g, ptr), argnums=(0,))
defjvp(segment_softmax, lambda t, y, x, ptr: segment_softmax_vjp(y, t, ptr), argnums=(0,))

defvjp(
    segment_log_softmax,
    lambda logy, x, ptr: lambda g: g - anp.exp(logy) * _totals(g, ptr),
    argnums=(0,),
)
defjvp(
    segment_log_softmax,
    lambda t, logy, x, ptr: t - _totals(anp.exp(logy) * t, ptr),
    argnums=(0,),
)

defvjp(
    segment_logsumexp,
    lambda _, x, ptr: lambda g: _spread(g, ptr) * segment_softmax(x, ptr),
    argnums=(0,),
)
defjvp(
    segment_logsumexp,
    lambda t, _, x, ptr: _sums(t * segment_softmax(x, ptr), ptr),
    argnums=(0,),
)

defvjp(
    segment_softmax_vjp,
    lambda _, y, g, ptr: lambda h: h * (g - _totals(g * y, ptr)) - g * _totals(h * y, ptr),
    lambda _, y, g, ptr: lambda h: segment_softmax_vjp(y, h, ptr),
    argnums=(0, 1),
)
defjvp(
    segment_softmax_vjp,
    lambda h, _, y, g, ptr: h * (g - _totals(g * y, ptr)) - y * _totals(g * h, ptr),
    lambda h, _, y, g, ptr: segment_softmax_vjp(y, h, ptr),
    argnums=(0, 1),
)

__test__ = {name: globals()[name] for name in __all__}  # for doctest, to which they are autograd's functions
