"""Right answers in NumPy's longdouble, for tests and for a GPU's machine, which has no more than NumPy."""

import numpy as np


def longdouble_forward(op, x, axis=-1):
    """softmax, log_softmax or logsumexp, special values as agreed, in longdouble."""
    x = np.asarray(x, np.longdouble)
    with np.errstate(all="ignore"):
        m = x.max(axis=axis, keepdims=True, initial=-np.inf)
        m = np.where(np.isfinite(m), m, np.nan)
        if op == "logsumexp":
            return _longdouble_logsumexp(x, m, axis)
        e = np.exp(x - m)
        if op == "softmax":
            return e / e.sum(axis=axis, keepdims=True)
        return (x - m) - np.log1p(_rest(x, m, e, axis))


def _rest(x, m, e, axis):
    """The sum of all but one maximum."""
    largest = x == m
    others = np.where(largest, 0, e).sum(axis=axis, keepdims=True)
    return others + np.maximum(largest.sum(axis=axis, keepdims=True) - 1, 0)


def _longdouble_logsumexp(x, m, axis):
    finite = m + np.log1p(_rest(x, m, np.exp(x - m), axis))
    beyond = x.max(axis=axis, keepdims=True, initial=-np.inf)  # NaN or an infinity
    return np.where(np.isfinite(m), finite, beyond).squeeze(axis)
