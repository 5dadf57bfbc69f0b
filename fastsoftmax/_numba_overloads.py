"""The ops inside of ``@njit``: what Numba compiles calls a kernel by the name of a symbol.

In the machine code that Numba keeps on disk stands that name, not an address; whoever loads it imports this
module, which gives the symbol its address in this process. Numba imports it by an entry point
(`fastsoftmax._numba_entry`), so that ``import fastsoftmax`` need not import Numba.
"""

from ctypes import CFUNCTYPE, c_char, c_double, c_int, c_ssize_t, c_void_p, cast
from math import fsum

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_jitable
from numba.np.unsafe.ndarray import to_fixed_tuple

# Not the package itself: Numba keeps what stands here, which at the interpreter's end would keep that.
from fastsoftmax import _isa, api, registry
from fastsoftmax.registry import OPS  # in the order of the numbers in src_cy/call.h

# What has another meaning gets another number: machine code of before may be on disk.
RUN, SUM = "fastsoftmax_run_1", "fastsoftmax_sum_1"


# ---- symbols -----------------------------------------------------------------------------------


def _array(address, dtype, *shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((c_char * size).from_address(address), dtype).reshape(shape)


@CFUNCTYPE(None, c_int, c_int, *[c_void_p] * 5, *[c_ssize_t] * 3, c_double)
def _run(op, single, a, b, out, results, labels, outer, n, inner, scale):
    """Where there are no compiled kernels: those of the fastest backend, by way of Python."""
    dtype = np.float32 if single else np.float64
    if 0 in (outer, n, inner):
        if results and not n:
            _array(results, dtype, outer, inner)[...] = -np.inf
        return
    args = [_array(p, dtype, outer, n, inner) for p in (a, b) if p]
    if labels:
        args += [_array(labels, np.intp, outer, inner), None, 0.0]
    if labels and out:
        args.append(scale)
    if results:
        args.append(_array(results, dtype, outer, inner))
    if out:
        args.append(_array(out, dtype, outer, n, n if OPS[op] == "softmax_jacobian" else inner))
    name = "cross_entropy_with_grad" if labels and out else OPS[op]
    with np.errstate(all="ignore"):
        registry.kernel(name)(*args)


@CFUNCTYPE(c_double, c_int, c_void_p, c_ssize_t)
def _sum(single, values, n):
    terms = _array(values, np.float32 if single else np.float64, n)
    return fsum(terms) if np.isfinite(terms).all() else float(terms.sum())


def _bind():
    try:
        kernels, _ = _isa.load()
        run, total = kernels.c_entries()
    except (ImportError, ValueError):
        run, total = (cast(function, c_void_p).value for function in (_run, _sum))
    llvmlite.binding.add_symbol(RUN, run)
    llvmlite.binding.add_symbol(SUM, total)


_bind()


def _pointer(context, builder, kind, value):
    pointer = ir.IntType(8).as_pointer()
    if isinstance(kind, types.NoneType):
        return ir.Constant(pointer, None)
    return builder.bitcast(context.make_array(kind)(context, builder, value).data, pointer)


def _is_single(array):
    return ir.Constant(ir.IntType(32), int(array.dtype == types.float32))


@intrinsic(prefer_literal=True)
def _call(_, op, a, b, out, results, labels, outer, n, inner, scale):
    """Run a kernel. It is given the arrays, not their addresses: so temporaries live until it is over."""

    def codegen(context, builder, signature, args):
        pointer, word, size = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
        parameters = [word, word, *[pointer] * 5, *[size] * 3, ir.DoubleType()]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), parameters), RUN
        )
        pointers = [
            _pointer(context, builder, *pair) for pair in zip(signature.args[1:6], args[1:6], strict=True)
        ]
        builder.call(function, [word(op.literal_value), _is_single(a), *pointers, *args[6:]])
        return context.get_dummy_value()

    sizes = [types.intp] * 3
    return types.void(op, a, b, out, results, labels, *sizes, types.float64), codegen


@intrinsic
def _sum_of(_, losses):
    """In float64, added exactly."""

    def codegen(context, builder, signature, args):
        parameters = [ir.IntType(8).as_pointer(), ir.IntType(64)]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.DoubleType(), [ir.IntType(32), *parameters]), SUM
        )
        array = context.make_array(losses)(context, builder, args[0])
        pointer = _pointer(context, builder, losses, args[0])
        return builder.call(function, [_is_single(losses), pointer, array.nitems])

    return types.float64(losses), codegen


# ---- arguments ---------------------------------------------------------------------------------


def _error(what):
    return TypingError(f"fastsoftmax within @njit {what}")


def _refuse(**options):
    for name, kind in options.items():
        if not _is_default(kind):
            raise _error(f"has no {name}=: leave it out, or call it from Python")


def _is_default(kind):
    return kind is None or isinstance(kind, (types.NoneType, types.Omitted))


def _check(**arrays):
    """Of one float dtype, with a dimension."""
    first = next(iter(arrays.values()))
    for name, kind in arrays.items():
        if not isinstance(kind, types.Array):
            raise _error(f"takes arrays: {name} is {kind}")
        if kind.dtype not in (types.float64, types.float32):
            raise _error(
                f"takes float64 and float32: {name} is of {kind.dtype}; pass {name}.astype(np.float64)"
            )
        if kind.ndim == 0:
            raise _error(f"takes arrays of one dimension or more: {name} has none")
        if (kind.dtype, kind.ndim) != (first.dtype, first.ndim):
            raise _error(f"takes arrays of one dtype and shape: {name} is {kind}")


def _check_axis(axis):
    if not isinstance(axis, (int, types.Integer)) and not isinstance(getattr(axis, "value", None), int):
        raise _error(f"goes along one axis, an int; got {axis}")


def _check_out(out, like):
    if _is_default(out):
        return False
    fits = isinstance(out, types.Array) and (out.dtype, out.ndim) == (like.dtype, like.ndim)
    if not (fits and out.layout == "C" and out.mutable):
        raise _error(f"writes into a C-contiguous array of {like.dtype}: out is {out}")
    return True


def _as_contiguous(kind):
    """What makes an array of this type contiguous: nothing, for one that is."""
    if kind.layout == "C":
        return register_jitable(lambda a: a)
    return register_jitable(lambda a: np.ascontiguousarray(a))


@register_jitable
def _canonical(shape, axis):
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


# ---- ops ---------------------------------------------------------------------------------------


def _forward(op):
    code = OPS.index(op)

    def function(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
        _check(x=x)
        _check_axis(axis)
        _refuse(where=where, backend=backend, num_threads=num_threads)
        has_out, contiguous = _check_out(out, x), _as_contiguous(x)

        def run(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
            a = contiguous(x)
            outer, n, inner, _ = _canonical(a.shape, axis)
            result = np.empty(a.shape, a.dtype)
            _call(code, a, None, result, None, None, outer, n, inner, 1.0)
            return result

        def run_into(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
            a = contiguous(x)
            if out.shape != a.shape:
                raise ValueError("out has another shape than the result")
            outer, n, inner, _ = _canonical(a.shape, axis)
            _call(code, a, None, out, None, None, outer, n, inner, 1.0)
            return out

        return run_into if has_out else run

    overload(getattr(api, op))(function)


def _product(op, kernel):
    code = OPS.index(kernel)

    def function(y, g, axis=-1, out=None, backend=None, num_threads=None):
        _check(y=y, g=g)
        _check_axis(axis)
        _refuse(backend=backend, num_threads=num_threads)
        has_out = _check_out(out, y)
        first, second = _as_contiguous(y), _as_contiguous(g)

        def run(y, g, axis=-1, out=None, backend=None, num_threads=None):
            a, b = first(y), second(g)
            if a.shape != b.shape:
                raise ValueError("the arrays must have the same shape")
            outer, n, inner, _ = _canonical(a.shape, axis)
            result = np.empty(a.shape, a.dtype)
            _call(code, a, b, result, None, None, outer, n, inner, 1.0)
            return result

        def run_into(y, g, axis=-1, out=None, backend=None, num_threads=None):
            a, b = first(y), second(g)
            if a.shape != b.shape or out.shape != a.shape:
                raise ValueError("the arrays must have the same shape")
            outer, n, inner, _ = _canonical(a.shape, axis)
            _call(code, a, b, out, None, None, outer, n, inner, 1.0)
            return out

        return run_into if has_out else run

    overload(getattr(api, op))(function)


for _op in ("softmax", "log_softmax"):
    _forward(_op)
for _op in ("softmax_vjp", "log_softmax_vjp", "log_softmax_jvp"):
    _product(_op, _op)
_product("softmax_jvp", "softmax_vjp")


@overload(api.logsumexp)
def _logsumexp(x, axis=-1, keepdims=False, out=None, where=None, backend=None, num_threads=None):
    _check(x=x)
    _check_axis(axis)
    _refuse(out=out, where=where, backend=backend, num_threads=num_threads)
    if getattr(keepdims, "value", keepdims) is not False:
        raise _error("has no keepdims=: leave it out, and reshape the result")
    code, contiguous, kept = OPS.index("logsumexp"), _as_contiguous(x), x.ndim - 1

    def run_row(x, axis=-1, keepdims=False, out=None, where=None, backend=None, num_threads=None):
        a = contiguous(x)
        _canonical(a.shape, axis)
        result = np.empty(1, a.dtype)
        _call(code, a, None, None, result, None, 1, a.size, 1, 1.0)
        return result[0]

    def run(x, axis=-1, keepdims=False, out=None, where=None, backend=None, num_threads=None):
        a = contiguous(x)
        outer, n, inner, k = _canonical(a.shape, axis)
        shape = np.empty(kept, np.intp)
        for i in range(kept):
            shape[i] = a.shape[i + (i >= k)]
        result = np.empty(to_fixed_tuple(shape, kept), a.dtype)
        _call(code, a, None, None, result, None, outer, n, inner, 1.0)
        return result

    return run if kept else run_row


@overload(api.softmax_jacobian)
def _softmax_jacobian(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
    _check(y=y)
    _check_axis(axis)
    _refuse(out=out, backend=backend, num_threads=num_threads)
    if getattr(layout, "value", layout) != "batched":
        raise _error('has the layout "batched": leave layout= out')
    code, contiguous, kept, ndim = OPS.index("softmax_jacobian"), _as_contiguous(y), y.ndim - 1, y.ndim + 1

    def run(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
        a = contiguous(y)
        outer, n, inner, k = _canonical(a.shape, axis)
        shape = np.empty(ndim, np.intp)
        for i in range(kept):
            shape[i] = a.shape[i + (i >= k)]
        shape[kept] = shape[kept + 1] = n
        rows = a
        if inner > 1:
            rows = np.empty(a.shape, a.dtype)
            source, to = a.reshape(-1), rows.reshape(-1)
            for i in range(outer):
                for j in range(n):
                    for r in range(inner):
                        to[(i * inner + r) * n + j] = source[(i * n + j) * inner + r]
        result = np.empty(to_fixed_tuple(shape, ndim), a.dtype)
        _call(code, rows, None, result, None, None, outer * inner, n, 1, 1.0)
        return result

    return run


# ---- losses ------------------------------------------------------------------------------------


@register_jitable
def _checked(labels, shape, k, n, ignored, ignores):
    """As the kernels take them, ignored ones -1, and how many take part."""
    for i in range(labels.ndim):
        if labels.shape[i] != shape[i + (i >= k)]:
            raise ValueError("labels must have the shape of x without axis")
    result = np.empty(labels.shape, np.intp)
    flat, taking_part = result.reshape(-1), result.size
    for i, label in enumerate(labels.flat):
        if ignores and label == ignored:
            flat[i] = -1
            taking_part -= 1
        elif label < 0 or label >= n:
            raise IndexError("a label is out of range for the number of classes")
        else:
            flat[i] = label
    return result, taking_part


@register_jitable
def _mean(losses, count):
    mean = np.empty(1, losses.dtype)
    mean[0] = _sum_of(losses) / count if count else np.nan
    return mean[0]


@register_jitable
def _total(losses, count):
    total = np.empty(1, losses.dtype)
    total[0] = _sum_of(losses)
    return total[0]


_REDUCTIONS = {"mean": _mean, "sum": _total, "none": register_jitable(lambda losses, count: losses)}


def _checked_loss(x, labels, axis, ignore_index, label_smoothing, reduction, **others):
    """What an implementation needs: contiguity, the reduction, whether it is a mean, the label to ignore."""
    _check(x=x)
    _check_axis(axis)
    _refuse(**others)
    if getattr(label_smoothing, "value", label_smoothing) != 0.0:
        raise _error("has no label_smoothing=: leave it out")
    if not isinstance(labels, types.Array) or not isinstance(labels.dtype, types.Integer):
        raise _error(f"takes integer arrays of labels: labels is {labels}")
    if labels.ndim != x.ndim - 1 or labels.ndim == 0:
        raise _error("takes labels with one dimension less than x, and at least one")
    name = getattr(reduction, "literal_value", getattr(reduction, "value", reduction))
    if name not in _REDUCTIONS:
        raise _error('takes reduction="mean", "sum" or "none", written so')
    ignores = not _is_default(ignore_index)
    ignored = register_jitable(lambda label: label) if ignores else register_jitable(lambda label: 0)
    return _as_contiguous(x), _REDUCTIONS[name], name == "mean", ignored, ignores


@overload(api.cross_entropy, prefer_literal=True)
def _cross_entropy(
    x,
    labels,
    axis=-1,
    weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    backend=None,
    num_threads=None,
):
    others = {"weight": weight, "backend": backend, "num_threads": num_threads}
    contiguous, reduced, _, ignored, ignores = _checked_loss(
        x, labels, axis, ignore_index, label_smoothing, reduction, **others
    )
    code = OPS.index("cross_entropy")

    def run(
        x,
        labels,
        axis=-1,
        weight=None,
        ignore_index=None,
        label_smoothing=0.0,
        reduction="mean",
        backend=None,
        num_threads=None,
    ):
        a = contiguous(x)
        outer, n, inner, k = _canonical(a.shape, axis)
        targets, count = _checked(labels, a.shape, k, n, ignored(ignore_index), ignores)
        losses = np.empty(labels.shape, a.dtype)
        _call(code, a, None, None, losses, targets, outer, n, inner, 1.0)
        return reduced(losses, count)

    return run


@overload(api.cross_entropy_with_grad, prefer_literal=True)
def _cross_entropy_with_grad(
    x,
    labels,
    axis=-1,
    weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    out=None,
    backend=None,
    num_threads=None,
):
    others = {"weight": weight, "out": out, "backend": backend, "num_threads": num_threads}
    contiguous, reduced, is_mean, ignored, ignores = _checked_loss(
        x, labels, axis, ignore_index, label_smoothing, reduction, **others
    )
    code = OPS.index("cross_entropy")

    def run(
        x,
        labels,
        axis=-1,
        weight=None,
        ignore_index=None,
        label_smoothing=0.0,
        reduction="mean",
        out=None,
        backend=None,
        num_threads=None,
    ):
        a = contiguous(x)
        outer, n, inner, k = _canonical(a.shape, axis)
        targets, count = _checked(labels, a.shape, k, n, ignored(ignore_index), ignores)
        losses, dx = np.empty(labels.shape, a.dtype), np.empty(a.shape, a.dtype)
        _call(code, a, None, dx, losses, targets, outer, n, inner, 1 / count if is_mean and count else 1.0)
        return reduced(losses, count), dx

    return run
