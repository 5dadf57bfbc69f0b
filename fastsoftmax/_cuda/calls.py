"""One call on device arrays: checked, seen as canonical rows, launched, and the result handed back."""

import math
from contextlib import contextmanager

import numpy as np

from fastsoftmax import registry
from fastsoftmax._cuda.driver import get_driver
from fastsoftmax._cuda.interop import kind_of, on_device
from fastsoftmax._cuda.launcher import NO_LABEL, aligned, launch
from fastsoftmax._cuda.plan import ITEMSIZE
from fastsoftmax._cuda.recipes import cross_entropy_recipe
from fastsoftmax._options import check_loss

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class Call:
    """The arrays of a call, by their names in the kernels, as one kind and one float dtype."""

    def __init__(self, backend, **arrays):
        _require_cuda(backend)
        self.first = next(iter(arrays.values()))
        self.kind, self._place, self._owned = kind_of(self.first), None, []
        self.arrays = {name: self.own(a, name) for name, a in arrays.items()}
        self.dtype = _float_dtype({name: self.kind.dtype(a) for name, a in self.arrays.items()})
        self.shape = _common_shape(self.arrays)

    def own(self, a, name):
        """An argument as an array of the call's kind."""
        if not on_device(a):
            raise TypeError(
                f"{name} is a {type(a).__name__} in host memory; the other arrays are on a CUDA device"
            )
        if kind_of(a) is not self.kind:
            expected, got = type(self.first).__name__, type(a).__name__
            raise TypeError(f"{name} must be a {expected} on a CUDA device; got {got}")
        self._owned.append(owned := self.kind.own(a, name))
        place = self.kind.place(owned)
        if self._place is None:
            self._place = place
        if place != self._place:
            raise ValueError(f"{name} is on device {place}; the other arrays are on device {self._place}")
        return owned

    @contextmanager
    def on_its_device(self):
        """The call, while the device of its arrays is the current one: what is allocated lies there too."""
        kind, dtype = self.kind, self.dtype
        with kind.device(self._place):
            self.arrays = {
                name: a if kind.dtype(a) == dtype else kind.cast(a, dtype) for name, a in self.arrays.items()
            }
            try:
                yield self
            finally:
                if kind.views:
                    get_driver().keep(self._owned, kind.stream())

    def mask(self, where, fill=-math.inf):
        """Fill the entries of ``x`` that ``where`` leaves out, and return it."""
        where = self.own(where, "where")
        if self.kind.dtype(where) != "bool":
            raise TypeError(f"where has dtype {self.kind.dtype(where)}; expected bool")
        self.arrays = {"x": self.kind.masked(self.arrays["x"], where, fill)}
        if tuple(self.arrays["x"].shape) != self.shape:
            raise ValueError(
                f"where has shape {tuple(where.shape)}, which does not broadcast to x's {self.shape}"
            )
        return where

    def run(self, make_recipe, rows, buffer, **extra):
        """Launch what ``make_recipe(storage, canonical)`` says; ``extra`` are arrays and numbers."""
        if not math.prod(rows.canonical):
            return
        kind, driver = self.kind, get_driver()
        arrays = {name: self._canonical(a, rows) for name, a in self.arrays.items()}
        arrays["out"] = buffer
        values = {name: kind.address(a) for name, a in arrays.items() if a is not None}
        recipe = make_recipe(
            self.dtype,
            rows.canonical,
            vector=aligned(*values.values()),
            shared_memory=driver.shared_memory(),
        )
        held = {k: v for k, v in extra.items() if not isinstance(v, (int, float))}
        values |= {**extra, **{name: kind.address(a) for name, a in held.items()}}
        workspace = kind.empty((recipe.workspace,), "uint8") if recipe.workspace else None
        address = 0 if workspace is None else kind.address(workspace)
        launch(driver, recipe, {"out": 0, **values}, address, kind.stream())

    def _canonical(self, a, rows):
        if rows.order is None:
            return self.kind.packed(a)
        return self.kind.packed(self.kind.transposed(a.reshape(rows.shape), rows.order))

    def cross_entropy(self, rows, labels, weight, ignore_index, smoothing, reduction, gradient):
        """The loss; ``gradient`` is the result for dx, or None."""
        ignore_index, smoothing = check_loss(ignore_index, smoothing, reduction)
        kind, n = self.kind, rows.canonical[1]
        number = "float64" if self.dtype == "float64" else "float32"
        every = weight is None and ignore_index is None
        extra = {
            "labels": self._labels(labels, rows),
            "weight": 0 if weight is None else self._weight(weight, n, number),
            "smoothing": smoothing,
            "ignored": NO_LABEL if ignore_index is None or abs(ignore_index) >= -NO_LABEL else ignore_index,
            "factor": 1 / max(1, math.prod(rows.kept)) if every and reduction == "mean" else 1.0,
        }
        one_each = reduction == "none"
        loss = kind.full(
            rows.reduced if one_each else (1,),
            number if one_each else self.dtype,
            math.nan if reduction == "mean" else 0.0,
        )
        extra["loss" if one_each else "total"] = loss

        def recipe(storage, canonical, **given):
            flags = (smoothing > 0, weight is not None, gradient is not None, reduction, every)
            return cross_entropy_recipe(storage, canonical, *flags, **given)

        self.run(recipe, rows, gradient and gradient.buffer, **extra)
        loss = kind.cast(loss, self.dtype).reshape(rows.kept if one_each else ())
        return kind.back(loss, self.first)

    def _labels(self, labels, rows):
        labels = self.own(labels, "labels")
        if (dtype := self.kind.dtype(labels)) not in _INTEGERS:
            raise TypeError(
                f"labels has dtype {dtype}; expected an integer dtype: probabilities have no "
                "kernel on CUDA devices"
            )
        if tuple(labels.shape) != rows.kept:
            raise ValueError(f"labels has shape {tuple(labels.shape)}; expected {rows.kept}")
        return self.kind.packed(self.kind.cast(labels, "int64"))

    def _weight(self, weight, n, number):
        weight = self.own(weight, "weight")
        if tuple(weight.shape) != (n,):
            raise ValueError(f"weight has shape {tuple(weight.shape)}; expected ({n},), one for each class")
        return self.kind.packed(self.kind.cast(weight, number))


class Result:
    """The array that a caller gets, and the contiguous buffer that the kernels fill.

    ``beside`` are the arrays by name that are read beside those of the call, which may not be ``out``.
    """

    def __init__(self, call, shape, canonical, out=None, rows=None, **beside):
        self._call, self._out, self._rows = call, out, rows
        self._beside = [call.own(a, name) for name, a in beside.items() if a is not None]
        kind = call.kind
        moved = rows is not None and rows.order is not None
        self.array = kind.empty(shape, call.dtype) if out is None else _checked(call, out, shape)
        usable = not moved and kind.contiguous(self.array) and not self._clashes()
        self.buffer = self.array if usable else kind.empty(canonical, call.dtype)

    def _clashes(self):
        """Whether ``out`` overlaps an array that is read, without being one of the call's."""
        if self._out is None:
            return False
        inputs = self._call.arrays.values()
        return not all(self._is_out(a) or self._is_apart(a) for a in inputs) or not all(
            self._is_apart(a) for a in self._beside
        )

    def _is_out(self, a):
        kind = self._call.kind
        same = kind.address(a) == kind.address(self.array) and kind.nbytes(a) == kind.nbytes(self.array)
        return kind.contiguous(a) and same

    def _is_apart(self, a):
        kind = self._call.kind
        start, size = kind.address(self.array), kind.nbytes(self.array)
        here, length = kind.address(a), kind.nbytes(a)
        return kind.contiguous(a) and (here + length <= start or start + size <= here)

    def finish(self, mask=None, fill=0.0):
        """The caller's array, ``fill`` where ``mask`` is False: nothing is written once it is handed over."""
        kind = self._call.kind
        if self.buffer is not self.array:
            filled = self.buffer
            if self._rows is not None and self._rows.order is not None:
                order = self._rows.order
                filled = filled.reshape([self._rows.shape[a] for a in order])
                filled = kind.transposed(filled, tuple(int(a) for a in np.argsort(order)))
            kind.assign(self.array, filled.reshape(tuple(self.array.shape)))
        if mask is not None:
            kind.assign(self.array, kind.masked(self.array, mask, fill))
        return kind.back(self.array, self._call.first) if self._out is None else self._out


def _require_cuda(backend):
    name, source = registry.requested(backend)
    if name not in (None, "cuda"):
        raise TypeError(f"arrays on a CUDA device need backend 'cuda'; {source} asks for {name!r}")


def _float_dtype(dtypes):
    first = next(iter(dtypes.values()))
    if first in ITEMSIZE and all(dtype == first for dtype in dtypes.values()):
        return first
    for name, dtype in dtypes.items():
        if dtype not in (*ITEMSIZE, *_INTEGERS, "bool"):
            raise TypeError(f"{name} has dtype {dtype}; expected a float dtype, an integer dtype or bool")
    floats = {dtype if dtype in ITEMSIZE else "float64" for dtype in dtypes.values()}
    if len(floats) == 1:
        return floats.pop()
    wide = floats - {"float16", "bfloat16"}
    return max(wide, key=ITEMSIZE.get) if wide else "float32"


def _common_shape(arrays):
    (first, a), *others = arrays.items()
    for name, b in others:
        if a.shape != b.shape:
            raise ValueError(
                f"{first} and {name} must have the same shape; "
                f"got {first} {tuple(a.shape)} and {name} {tuple(b.shape)}"
            )
    return tuple(a.shape)


def _checked(call, out, shape):
    if not on_device(out):
        expected, got = type(call.first).__name__, type(out).__name__
        raise TypeError(f"out must be a {expected} on a CUDA device; got {got}")
    out = call.own(out, "out")
    if (dtype := call.kind.dtype(out)) != call.dtype:
        raise TypeError(f"out has dtype {dtype}; this result is {call.dtype}")
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"out has shape {tuple(out.shape)}; this result has shape {tuple(shape)}")
    return out
