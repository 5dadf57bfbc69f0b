"""SciPy's `softmax`, `log_softmax` and `logsumexp`, to the letter, on the kernels of this library.

Real NumPy arrays go to the kernels; everything else (complex numbers, longdouble, masked arrays, other array
libraries, scalars and lists, what is empty) goes to SciPy as it came. Integers and bool are computed in
float64, where SciPy's small or unsigned integers may wrap around. With an infinite ``b`` the result is the
limit, where SciPy's may be NaN. Needs SciPy: ``pip install scipy``.
"""

import numpy as np
from scipy.special import log_softmax as scipys_log_softmax
from scipy.special import logsumexp as scipys_logsumexp
from scipy.special import softmax as scipys_softmax

import fastsoftmax as fs

__all__ = ("log_softmax", "logsumexp", "softmax")

_TYPES = frozenset("fdbBhHiIlLqQ?")  # of dtypes: float32, float64, integers, bool


def softmax(x, axis=None):
    """`scipy.special.softmax`: ``exp(x) / sum(exp(x))`` along ``axis``, by default over all of ``x``.

    Parameters
    ----------
    x : array_like
        Logits.
    axis : int or tuple of int, optional
        The axis or axes that sum to one.

    Returns
    -------
    ndarray
        Of the shape of ``x``.

    Raises
    ------
    numpy.exceptions.AxisError, ValueError, TypeError
        As `fastsoftmax.softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.scipy import softmax
    >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]]), axis=1)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return fs.softmax(x, axis) if _is_plain(x) else scipys_softmax(x, axis=axis)


def log_softmax(x, axis=None):
    """`scipy.special.log_softmax`: ``log(softmax(x))`` along ``axis``, by default over all of ``x``.

    A row that holds +inf is NaN, as its softmax is; SciPy's has -inf beside one NaN.

    Parameters
    ----------
    x, axis
        As for `softmax`.

    Returns
    -------
    ndarray
        Of the shape of ``x``.

    Raises
    ------
    numpy.exceptions.AxisError, ValueError, TypeError
        As `fastsoftmax.log_softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.scipy import log_softmax
    >>> log_softmax(np.array([40.0, 0.0]))
    array([-4.24835426e-18, -4.00000000e+01])
    """
    return fs.log_softmax(x, axis) if _is_plain(x) else scipys_log_softmax(x, axis=axis)


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    """`scipy.special.logsumexp`: ``log(sum(b * exp(a)))`` along ``axis``, by default over all of ``a``.

    Where terms cancel, the error of the sum is below ``eps * (4 + log(n) + max(abs(log(abs(b)))))`` times
    ``sum(abs(b) * exp(a))``, however large ``a`` is; the logarithm is rounded once more.

    Parameters
    ----------
    a : array_like
        Exponents.
    axis : int or tuple of int, optional
        What is summed over.
    b : array_like, optional
        Factors, broadcast with ``a``: negative ones too, and 0 leaves an entry out whatever it is.
    keepdims : bool, optional
        Keep the reduced axes with length one.
    return_sign : bool, optional
        Return the logarithm of the sum's size, and its sign.

    Returns
    -------
    res : ndarray or scalar
        The logarithm; NaN of a negative sum unless ``return_sign``.
    sgn : ndarray or scalar
        1, 0 or -1, with ``return_sign`` only.

    Raises
    ------
    numpy.exceptions.AxisError, ValueError, TypeError
        As `fastsoftmax.logsumexp`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax.scipy import logsumexp
    >>> print(logsumexp(np.array([1000.0, 1000.0]), b=np.array([1.0, -0.5])).round(9))
    999.306852819
    """
    if not _is_plain(a) or not (b is None or _is_plain(b)):
        return scipys_logsumexp(a, axis=axis, b=b, keepdims=keepdims, return_sign=return_sign)
    if b is None:
        log = fs.logsumexp(a, axis, keepdims=keepdims)
        return (log, _sign(log, 1)) if return_sign else log
    log, sign = _weighted(a, b, axis, keepdims)
    if return_sign:
        return log, sign
    return np.where(sign < 0, np.nan, log)[()]


def _is_plain(a):
    return type(a) is np.ndarray and a.dtype.char in _TYPES and a.size > 0 and a.ndim > 0


def _weighted(a, b, axis, keepdims):
    """The logarithm of ``|sum b exp(a)|`` and the sign: positive and negative terms by themselves."""
    dtype = np.result_type(a, b, np.float32 if a.dtype == np.float32 else np.float64)
    a, b = np.broadcast_arrays(a.astype(dtype, copy=False), b.astype(dtype, copy=False))
    if not (b < 0).any():
        log, sign = fs.logsumexp(a, axis, b=b, keepdims=True), 1
    else:
        with np.errstate(all="ignore"):
            most = np.where(b == 0, -np.inf, a).max(axis, keepdims=True)
            most = np.where(np.isfinite(most), most, 0)
            # Without the largest, which would round the sums' difference away.
            plus, minus = (fs.logsumexp(a - most, axis, b=np.maximum(w, 0), keepdims=True) for w in (b, -b))
            log, sign = most + _log_difference(plus, minus), np.sign(plus - minus)
    results = log, _sign(log, sign)
    return results if keepdims else tuple(np.squeeze(r, axis)[()] for r in results)


def _log_difference(plus, minus):
    """``log |exp(plus) - exp(minus)|``, of equal infinities -inf or NaN."""
    gap = np.where(plus == minus, 0, -np.abs(plus - minus))
    return np.maximum(plus, minus) + np.where(gap < -0.7, np.log1p(-np.exp(gap)), np.log(-np.expm1(gap)))


def _sign(log, sign):
    """Of a sum with this logarithm: none where it is 0, NaN where it is."""
    sign = np.where(np.isneginf(log), 0.0, np.where(np.isnan(log), np.nan, sign))
    return sign.astype(np.asarray(log).dtype)[()]
