"""What ops are given: its types, when Numba compiles a call, and its values, when that runs."""

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import register_jitable

from fastsoftmax._numba_overloads.symbols import address


def error(what):
    return TypingError(f"fastsoftmax within @njit {what}")


def refuse(**options):
    for name, kind in options.items():
        if not is_default(kind):
            raise error(f"has no {name}=: leave it out, or call it from Python")


def is_default(kind):
    return kind is None or isinstance(kind, (types.NoneType, types.Omitted))


def written(kind):
    """The value of an option that is left out or stands in the source."""
    return getattr(kind, "literal_value", getattr(kind, "value", kind))


def check(axis, **arrays):
    """Of one float dtype, with a dimension."""
    first = next(iter(arrays.values()))
    for name, kind in arrays.items():
        if not isinstance(kind, types.Array):
            raise error(f"takes arrays: {name} is {kind}")
        if kind.dtype not in (types.float64, types.float32):
            raise error(
                f"takes float64 and float32: {name} is of {kind.dtype}; pass {name}.astype(np.float64)"
            )
        if kind.ndim == 0:
            raise error(f"takes arrays of one dimension or more: {name} has none")
        if (kind.dtype, kind.ndim) != (first.dtype, first.ndim):
            raise error(f"takes arrays of one dtype and shape: {name} is {kind}")
    if not isinstance(axis, (int, types.Integer, types.Omitted)):
        raise error(f"goes along one axis, an int; got {axis}")


def check_out(out, dtype, ndim):
    fits = isinstance(out, types.Array) and (out.dtype, out.ndim, out.layout) == (dtype, ndim, "C")
    if not is_default(out) and not (fits and out.mutable):
        raise error(f"writes into a C-contiguous array of {dtype} and {ndim} dimensions: out is {out}")


@register_jitable
def canonical(shape, axis):
    """``(outer, n, inner)`` and the axis counted from 0."""
    ndim = len(shape)
    if axis < -ndim or axis >= ndim:
        raise ValueError("axis is out of range for the array")
    k = axis + ndim if axis < 0 else axis
    outer = inner = 1
    for i in range(ndim):
        if i < k:
            outer *= shape[i]
        elif i > k:
            inner *= shape[i]
    return outer, shape[k], inner, k


@register_jitable
def with_one(shape, k):
    return tuple_setitem(shape, k, 1)


@register_jitable
def without(shape, k):
    """All but ``shape[k]``."""
    if len(shape) == 1:
        return ()
    rest = shape[1:]
    for i in range(k):
        rest = tuple_setitem(rest, i, shape[i])
    return rest


@register_jitable
def shares_memory(a, out):
    if out is None:
        return False
    return -a.nbytes < address(a) - address(out) < out.nbytes


@register_jitable
def _overlaps(a, out):
    """Otherwise than entry by entry, which kernels read before they write."""
    if out is None:
        return False
    return shares_memory(a, out) and (address(a) != address(out) or a.size != out.size)


@register_jitable
def check_apart(a, out):
    """A copy would do as well, and cost each call 30 ns: Numba counts references to what may be either."""
    if _overlaps(a, out):
        raise ValueError("out overlaps an input, entry by other entries: give it memory of its own")


@register_jitable
def writable(out, shape, dtype):
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape:
        raise ValueError("out has another shape than the result")
    return out


@register_jitable
def pair(first, second, out):
    """Both as kernels take them, of one shape and apart from ``out`` but for entry by entry."""
    a, b = np.ascontiguousarray(first), np.ascontiguousarray(second)
    if a.shape != b.shape:
        raise ValueError("the arrays must have the same shape")
    check_apart(a, out)
    check_apart(b, out)
    return a, b
