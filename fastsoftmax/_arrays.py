"""Validation and layout: what a caller passes in, as the canonical arrays that kernels see.

Every kernel works on C-contiguous native arrays of one dtype in the canonical form
``(outer, n, inner)``, where ``n`` counts the entries along ``axis``. Everything a caller may pass
beyond that (other layouts, dtypes, axes, an awkward ``out``) is dealt with here, once, and every
error about an array is raised here, before anything is computed or written.
"""

import math
from functools import lru_cache

import numpy as np

from fastsoftmax._asarray import asarray, how_to_convert
from fastsoftmax._options import as_int

_NATIVE = (np.dtype(np.float64), np.dtype(np.float32))
# By the names of their types: ml_dtypes need not be installed, and `dtype.name` imports, which fails at the
# end of the interpreter.
_HALVES = ("float16", "bfloat16")
_INTEGER_KINDS = "iub"  # become float64 before any subtraction


def as_floats(**arrays):
    """Several arguments as native ndarrays of one float dtype."""
    converted = [as_float(value, name) for name, value in arrays.items()]
    dtype = np.result_type(*converted)
    return [a if a.dtype == dtype else a.astype(dtype) for a in converted]


def as_float(value, name):
    """An argument as a native ndarray of a float dtype, or ``TypeError`` naming the offender."""
    a = asarray(value, name)
    if a.dtype in _NATIVE:
        return a
    if a.dtype.kind in _INTEGER_KINDS:
        return a.astype(np.float64)
    if a.dtype.type.__name__ in (*_HALVES, "float32", "float64"):
        return a.astype(a.dtype.newbyteorder("="), copy=False)
    raise TypeError(
        f"{name} has dtype {a.dtype}; expected float64, float32, float16, bfloat16, an integer dtype or "
        f"bool: {how_to_convert(a, name)}"
    )


def is_half(dtype):
    """Whether kernels see float32 in place of ``dtype``."""
    return dtype.itemsize == 2 and dtype.type.__name__ in _HALVES


def computed_in(dtype):
    """The dtype in which kernels compute with ``dtype``."""
    return np.dtype(np.float32) if is_half(dtype) else dtype


def same_shape(first, a, second, b):
    """Require two arrays of one shape."""
    if a.shape != b.shape:
        raise ValueError(
            f"{first} and {second} must have the same shape; got {first} {a.shape} and {second} {b.shape}"
        )


def axes_of(axis, ndim):
    """``axis`` (an int, a tuple of ints, or None for all) as a sorted tuple of non-negative ints."""
    ndim = max(ndim, 1)  # a 0-d array is one row of one entry
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(_each_axis(axis if isinstance(axis, tuple) else (axis,), ndim)))


def _each_axis(axes, ndim):
    seen = set()
    for given in axes:
        i = as_int(given, "axis", "an int, a tuple of ints or None")
        if not -ndim <= i < ndim:
            raise np.exceptions.AxisError(i, ndim)
        if i % ndim in seen:
            raise ValueError(f"axis names dimension {i % ndim} twice: {axes!r}")
        seen.add(i % ndim)
        yield i % ndim


def rows_of(shape, axis, *, last=False):
    """The `Rows` of a shape along ``axis``; those of a plain axis are remembered, being the common ones."""
    if axis is None or type(axis) is int:
        return _remembered_rows(shape, axis, last)
    return Rows(shape, axis, last)


@lru_cache(maxsize=1024)
def _remembered_rows(shape, axis, last):
    return Rows(shape, axis, last)


class Rows:
    """How an array of one shape is seen as ``(outer, n, inner)`` along ``axis``.

    Adjacent axes of a C-contiguous array need no copy, wherever they stand. Other combinations,
    and all but the last with ``last=True`` (``inner`` is then 1), are transposed by ``order``.
    """

    __slots__ = ("axes", "canonical", "kept", "order", "shape")

    def __init__(self, shape, axis, last=False):
        self.shape = shape
        given, shape = range(len(shape)), shape or (1,)  # without dimensions: seen as one of one
        self.axes = axes = axes_of(axis, len(shape))
        kept = [a for a in given if a not in axes]
        self.kept = tuple(shape[a] for a in kept)
        n = math.prod(shape[a] for a in axes)
        start = axes[0] if axes else len(shape)
        stop = start + len(axes)
        adjacent = axes == tuple(range(start, stop))
        if adjacent and (not last or stop == len(shape)):
            self.order = None
            self.canonical = (math.prod(shape[:start]), n, math.prod(shape[stop:]))
        else:
            self.order = (*kept, *axes)
            self.canonical = (math.prod(self.kept), n, 1)

    @property
    def reduced(self):
        """The canonical shape of one value a row."""
        outer, _, inner = self.canonical
        return (outer, inner)

    def keepdims(self):
        """The caller's shape with the length along ``axis`` made 1."""
        return tuple(1 if i in self.axes else s for i, s in enumerate(self.shape))

    def view(self, a):
        """``a`` as an aligned C-contiguous array in canonical form: a view where that is possible."""
        a = self.loose_view(a)
        return a if a.flags.c_contiguous and a.flags.aligned else a.copy(order="C")

    def loose_view(self, a):
        """The same but for the contiguity: entries may be broadcast."""
        return (a if self.order is None else a.transpose(self.order)).reshape(self.canonical)

    def result(self, shape, dtype, *, out=None, inputs=(), beside=()):
        """A `Result` of the rows' own shape."""
        restore = None if self.order is None else self._restore
        return Result(shape, dtype, self.canonical, out=out, inputs=inputs, beside=beside, restore=restore)

    def _restore(self, rows):
        moved = rows.reshape([self.shape[a] for a in self.order])
        return moved.transpose(np.argsort(self.order))


class Result:
    """An op's result: the array the caller gets, and the canonical buffer that the kernel fills.

    They are the same memory unless ``out`` has other strides, or overlaps an array that is read; then the
    buffer is copied into ``out`` at the end, so the answer is right anyway. One of ``inputs`` may be ``out``
    itself, as kernels read them entry by entry along with what they write; what is read ``beside`` may not.
    ``restore`` maps a filled buffer to the caller's axis order; by default a reshape does.
    """

    __slots__ = ("_array", "_in_place", "_out", "_restore", "buffer")

    def __init__(self, shape, dtype, canonical, *, out=None, inputs=(), beside=(), restore=None):
        if out is not None:
            check_out(out, shape, dtype)
        self._out, self._restore = out, restore
        # Without its subclass: a matrix stays one however it is reshaped.
        self._array = np.empty(shape, dtype) if out is None else np.asarray(out)
        self._in_place = restore is None and (out is None or _usable_in_place(self._array, inputs, beside))
        self.buffer = self._array.reshape(canonical) if self._in_place else np.empty(canonical, dtype)

    def finish(self):
        """The caller's array, filled; where NumPy would return a scalar, a scalar."""
        if not self._in_place:
            restored = self._restore(self.buffer) if self._restore else self.buffer
            self._array[...] = restored.reshape(self._array.shape)
        return self._array[()] if self._out is None else self._out


def check_out(out, shape, dtype):
    """Raise unless ``out`` is an ndarray of exactly this shape and dtype that can be written."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray; got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError("out is a masked array, whose mask would be ignored: pass out.data")
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"out has dtype {out.dtype.str}; this result is {np.dtype(dtype).str}")
    if out.shape != tuple(shape):
        raise ValueError(f"out has shape {out.shape}; this result has shape {tuple(shape)}")
    if not out.flags.writeable:
        raise ValueError("out is read-only: pass an array with out.flags.writeable set")
    if _overlaps_itself(out):
        raise ValueError(f"out overlaps itself (strides {out.strides}): pass an array of its own memory")


def _overlaps_itself(a):
    """Whether two elements of a strided array may share memory (exact for the strides views make)."""
    span = a.itemsize
    for stride, length in sorted((abs(st), n) for st, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < span:
            return a.size > 0
        span = stride * (length - 1) + span
    return False


def _usable_in_place(out, inputs, beside):
    """Whether kernels may write straight into ``out`` while they read the other arrays."""
    if not out.flags.carray or any(np.may_share_memory(out, a) for a in beside):
        return False
    return all(_same_memory(out, a) or not np.may_share_memory(out, a) for a in inputs)


def _same_memory(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.strides == b.strides and _address(a) == _address(b)


def _address(a):
    return a.__array_interface__["data"][0]  # `a.ctypes` imports, which fails at the end of the interpreter


def as_mask(where, shape):
    """``where`` broadcast to ``shape``, bool only."""
    where = asarray(where, "where")
    if where.dtype != np.bool_:
        raise TypeError(f"where has dtype {where.dtype}; expected bool")
    try:
        return np.broadcast_to(where, shape)
    except ValueError:
        raise ValueError(f"where has shape {where.shape}, which does not broadcast to x's {shape}") from None


def as_factors(b, x):
    """``b`` broadcast to ``x``, in the dtype in which kernels compute with that."""
    b = as_float(b, "b")
    with np.errstate(all="ignore"):  # what is beyond float32 becomes infinite
        b = b.astype(computed_in(x.dtype), copy=False)
    try:
        return np.broadcast_to(b, x.shape)
    except ValueError:
        raise ValueError(f"b has shape {b.shape}, which does not broadcast to x's {x.shape}") from None


def as_ptr(ptr, n):
    """Where ragged rows of ``n`` entries begin and the last one ends, checked, as contiguous intp."""
    ptr = asarray(ptr, "ptr")
    if ptr.ndim != 1 or not ptr.size:
        raise ValueError(
            f"ptr has shape {ptr.shape}; expected (segments + 1,): where each begins, and the last ends"
        )
    if ptr.dtype.kind not in "iu":
        raise TypeError(
            f"ptr has dtype {ptr.dtype}; expected an integer dtype: {how_to_convert(ptr, 'ptr', 'np.int64')}"
        )
    if ptr[0] != 0:
        raise ValueError(f"ptr[0] is {ptr[0]}; expected 0, where the first segment begins")
    if (falls := ptr[1:] < ptr[:-1]).any():
        k = int(np.argmax(falls))
        raise ValueError(f"ptr[{k + 1}] is {ptr[k + 1]}; expected {ptr[k]} or more, as ptr[{k}] is")
    if ptr[-1] != n:
        raise ValueError(f"ptr[{ptr.size - 1}] is {ptr[-1]}; expected {n}, the number of entries")
    return np.require(ptr, np.intp, "CA")
