"""The ops inside of ``@njit``: what Numba compiles calls a kernel by the name of a symbol.

In the machine code that Numba keeps on disk stands that name, not an address; whoever loads it imports this
module, which gives the symbol its address in this process. Numba imports it by an entry point
(`fastsoftmax._numba_entry`), so that ``import fastsoftmax`` need not import Numba.
"""

import math
from ctypes import CFUNCTYPE, c_char, c_double, c_int, c_ssize_t, c_void_p, cast

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import intrinsic, overload, register_jitable

# Not the package itself: Numba keeps what stands here, which at the interpreter's end would keep that.
from fastsoftmax import _front, _isa, api, registry
from fastsoftmax._options import REDUCTIONS
from fastsoftmax._solvable import ULPS
from fastsoftmax.registry import JACOBIANS, OPS, SEGMENTS  # in the order of the numbers in src_cy/call.h

LOSSES = "cross_entropy", "soft_cross_entropy"

# What has another meaning gets another number, since machine code of before may be on disk. A number that was
# released stays bound to what it meant: LLVM ends the process where a symbol has no address.
RUN, RUN_SEGMENTS, SUM = "fastsoftmax_run_3", "fastsoftmax_run_segments_1", "fastsoftmax_sum_1"
SOLVE = OPS.index("softmax_solve")


# ---- symbols -----------------------------------------------------------------------------------


def _array(address, dtype, *shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((c_char * size).from_address(address), dtype).reshape(shape)


@CFUNCTYPE(None, c_int, c_int, *[c_void_p] * 8, *[c_ssize_t] * 3, c_double, c_double)
def _run(op, single, a, b, out, results, labels, weight, samples, _, outer, n, inner, smoothing, scale):
    """Where there are no compiled kernels: those of the fastest backend, by way of Python."""
    dtype = np.float32 if single else np.float64
    if 0 in (outer, n, inner):
        if results and not n:
            _array(results, dtype, outer, inner)[...] = 0 if OPS[op] in LOSSES else -np.inf
        return
    args = [_array(p, dtype, outer, n, inner) for p in (a, b) if p]
    if op == SOLVE:
        args.append(scale)
    if labels:
        args.append(_array(labels, np.intp, outer, inner))
    if is_loss := OPS[op] in LOSSES:
        args.append(_array(weight, dtype, n) if weight else None)
        args += [_array(samples, dtype, outer, inner) if samples else None, smoothing]
    if is_loss and out:
        args.append(scale)
    if results:
        args.append(_array(results, dtype, outer, inner))
    if out:
        args.append(_array(out, dtype, outer, n, n if OPS[op] in JACOBIANS else inner))
    name = f"{OPS[op]}_with_grad" if is_loss and out else OPS[op]
    with np.errstate(all="ignore"):
        registry.kernel(name)(*args)


@CFUNCTYPE(None, c_int, c_int, *[c_void_p] * 5, c_ssize_t)
def _run_segments(op, single, a, b, out, results, ptr, segments):
    dtype, ptr = np.float32 if single else np.float64, _array(ptr, np.intp, segments + 1)
    n = int(ptr[-1])
    args = [*(_array(p, dtype, 1, n, 1) for p in (a, b) if p), ptr]
    args.append(_array(results, dtype, 1, segments) if results else _array(out, dtype, 1, n, 1))
    with np.errstate(all="ignore"):
        registry.kernel(f"segment_{OPS[op]}")(*args)


@CFUNCTYPE(c_double, c_int, c_void_p, c_ssize_t)
def _sum(single, values, n):
    with np.errstate(all="ignore"):
        return _front.exact_sum(_array(values, np.float32 if single else np.float64, n))


def _bind():
    try:
        kernels, _ = _isa.load()
        entries = kernels.c_entries()
    except (ImportError, ValueError):
        entries = (cast(function, c_void_p).value for function in (_run, _run_segments, _sum))
    for name, entry in zip((RUN, RUN_SEGMENTS, SUM), entries, strict=True):
        llvmlite.binding.add_symbol(name, entry)


_bind()


def _pointer(context, builder, kind, value):
    pointer = ir.IntType(8).as_pointer()
    if isinstance(kind, types.NoneType):
        return ir.Constant(pointer, None)
    return builder.bitcast(context.make_array(kind)(context, builder, value).data, pointer)


def _is_single(array):
    return ir.Constant(ir.IntType(32), int(array.dtype == types.float32))


@intrinsic(prefer_literal=True)
def _call(_, op, a, b, out, results, labels, weight, samples, everywhere, outer, n, inner, smoothing, scale):
    """Run a kernel. It is given the arrays, not their addresses: so temporaries live until it is over."""

    def codegen(context, builder, signature, args):
        pointer, word, size = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
        parameters = [word, word, *[pointer] * 8, *[size] * 3, *[ir.DoubleType()] * 2]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), parameters), RUN
        )
        pointers = [
            _pointer(context, builder, *pair) for pair in zip(signature.args[1:9], args[1:9], strict=True)
        ]
        builder.call(function, [word(op.literal_value), _is_single(a), *pointers, *args[9:]])
        return context.get_dummy_value()

    arrays = a, b, out, results, labels, weight, samples, everywhere
    return types.void(op, *arrays, *[types.intp] * 3, types.float64, types.float64), codegen


@intrinsic(prefer_literal=True)
def _call_segments(_, op, a, b, out, results, ptr):
    """The same of ragged rows."""

    def codegen(context, builder, signature, args):
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        parameters = [word, word, *[pointer] * 5, ir.IntType(64)]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), parameters), RUN_SEGMENTS
        )
        pointers = [
            _pointer(context, builder, *pair) for pair in zip(signature.args[1:], args[1:], strict=True)
        ]
        places = context.make_array(ptr)(context, builder, args[-1]).nitems
        segments = builder.sub(places, ir.Constant(ir.IntType(64), 1))
        builder.call(function, [word(op.literal_value), _is_single(a), *pointers, segments])
        return context.get_dummy_value()

    return types.void(op, a, b, out, results, ptr), codegen


@intrinsic
def _address(_, array):
    """Without a reference, which `array.ctypes` would hold."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(_pointer(context, builder, array, args[0]), ir.IntType(64))

    return types.intp(array), codegen


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


# ---- arguments: types, when Numba compiles a call ------------------------------------------------


def _error(what):
    return TypingError(f"fastsoftmax within @njit {what}")


def _refuse(**options):
    for name, kind in options.items():
        if not _is_default(kind):
            raise _error(f"has no {name}=: leave it out, or call it from Python")


def _is_default(kind):
    return kind is None or isinstance(kind, (types.NoneType, types.Omitted))


def _written(kind):
    """The value of an option that is left out or stands in the source."""
    return getattr(kind, "literal_value", getattr(kind, "value", kind))


def _check(axis, **arrays):
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
    if not isinstance(axis, (int, types.Integer, types.Omitted)):
        raise _error(f"goes along one axis, an int; got {axis}")


def _check_out(out, dtype, ndim):
    fits = isinstance(out, types.Array) and (out.dtype, out.ndim, out.layout) == (dtype, ndim, "C")
    if not _is_default(out) and not (fits and out.mutable):
        raise _error(f"writes into a C-contiguous array of {dtype} and {ndim} dimensions: out is {out}")


# ---- arguments: values, when it runs ------------------------------------------------------------


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


@register_jitable
def _with_one(shape, k):
    return tuple_setitem(shape, k, 1)


@register_jitable
def _without(shape, k):
    """All but ``shape[k]``."""
    if len(shape) == 1:
        return ()
    rest = shape[1:]
    for i in range(k):
        rest = tuple_setitem(rest, i, shape[i])
    return rest


@register_jitable
def _shares_memory(a, out):
    if out is None:
        return False
    return -a.nbytes < _address(a) - _address(out) < out.nbytes


@register_jitable
def _overlaps(a, out):
    """Otherwise than entry by entry, which kernels read before they write."""
    if out is None:
        return False
    return _shares_memory(a, out) and (_address(a) != _address(out) or a.size != out.size)


@register_jitable
def _check_apart(a, out):
    """A copy would do as well, and cost each call 30 ns: Numba counts references to what may be either."""
    if _overlaps(a, out):
        raise ValueError("out overlaps an input, entry by other entries: give it memory of its own")


@register_jitable
def _writable(out, shape, dtype):
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape:
        raise ValueError("out has another shape than the result")
    return out


# ---- ops ---------------------------------------------------------------------------------------


def _forward(op):
    code = OPS.index(op)

    def function(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
        _check(axis, x=x)
        _check_out(out, x.dtype, x.ndim)
        _refuse(where=where, backend=backend, num_threads=num_threads)

        def run(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(x)
            _check_apart(a, out)
            result = _writable(out, a.shape, a.dtype)
            outer, n, inner, _ = _canonical(a.shape, axis)
            _call(code, a, None, result, None, None, None, None, None, outer, n, inner, 0.0, 1.0)
            return result

        return run

    overload(getattr(api, op))(function)


@register_jitable
def _pair(first, second, out):
    """Both as kernels take them, of one shape and apart from ``out`` but for entry by entry."""
    a, b = np.ascontiguousarray(first), np.ascontiguousarray(second)
    if a.shape != b.shape:
        raise ValueError("the arrays must have the same shape")
    _check_apart(a, out)
    _check_apart(b, out)
    return a, b


def _product(op, kernel):
    code = OPS.index(kernel)

    def function(y, g, axis=-1, out=None, backend=None, num_threads=None):
        _check(axis, y=y, g=g)
        _check_out(out, y.dtype, y.ndim)
        _refuse(backend=backend, num_threads=num_threads)

        def run(y, g, axis=-1, out=None, backend=None, num_threads=None):
            a, b = _pair(y, g, out)
            result = _writable(out, a.shape, a.dtype)
            outer, n, inner, _ = _canonical(a.shape, axis)
            _call(code, a, b, result, None, None, None, None, None, outer, n, inner, 0.0, 1.0)
            return result

        return run

    overload(getattr(api, op))(function)


for _op in ("softmax", "log_softmax"):
    _forward(_op)
for _op in ("softmax_vjp", "log_softmax_vjp", "log_softmax_jvp"):
    _product(_op, _op)
_product("softmax_jvp", "softmax_vjp")


@register_jitable
def _check_ridge(ridge, dtype):
    """As a number, of what is computed with."""
    rounded = float(dtype.type(ridge))
    if not 0 <= rounded < np.inf:
        raise ValueError("ridge must be 0 or more, and finite")
    return rounded


@register_jitable
def _check_solvable(y, b, outer, n, inner):
    """As `fastsoftmax._solvable` has it, row by row."""
    one = np.ones(1, b.dtype)
    eps, smallest = np.float64(np.spacing(one)[0]), np.float64(np.spacing(one - one)[0])
    y_rows, b_rows = y.reshape((outer, n, inner)), b.reshape((outer, n, inner))
    for o in range(outer):
        for i in range(inner):
            total, size, others, is_stray = _looked_at(y_rows, b_rows, o, i, 1.0)
            unit = 1.0
            if size == np.inf:
                unit = 2.0**-64
                total, size, others, is_stray = _looked_at(y_rows, b_rows, o, i, unit)
            if others == 0 and is_stray:
                raise ValueError("b is not 0 at an entry where y is 0, and ridge=0: it must be 0 there")
            if others == 0 and abs(total) > ULPS * (eps * size + n * smallest * unit):
                raise ValueError("a row of b does not sum to 0, and ridge=0: it must, to 16 ULP an entry")


@register_jitable
def _looked_at(y_rows, b_rows, o, i, unit):
    """A row of b: its sum and size, times ``unit``; 0 if all is finite; whether y is 0 where it is not."""
    total = lost = size = others = 0.0
    is_stray = False
    for j in range(b_rows.shape[1]):
        u, v = y_rows[o, j, i], np.float64(b_rows[o, j, i])
        others += (u - u) + (v - v)
        is_stray |= u == 0 and v != 0
        v *= unit
        s = total + v
        part = s - total
        lost += (total - (s - part)) + (v - part)
        total = s
        size += abs(v)
    return total + lost, size, others, is_stray


@overload(api.softmax_solve)
def _solve(y, b, axis=-1, ridge=0.0, out=None, backend=None, num_threads=None):
    _check(axis, y=y, b=b)
    _check_out(out, y.dtype, y.ndim)
    _refuse(backend=backend, num_threads=num_threads)
    if not isinstance(ridge, (float, types.Float, types.Integer, types.Omitted)):
        raise _error(f"takes a number of 0 or more: ridge is {ridge}")

    def run(y, b, axis=-1, ridge=0.0, out=None, backend=None, num_threads=None):
        a, c = _pair(y, b, out)
        result = _writable(out, a.shape, a.dtype)
        outer, n, inner, _ = _canonical(a.shape, axis)
        added = _check_ridge(ridge, a.dtype)
        if added == 0:
            _check_solvable(a, c, outer, n, inner)
        _call(SOLVE, a, c, result, None, None, None, None, None, outer, n, inner, 0.0, added)
        return result

    return run


@overload(api.logsumexp, prefer_literal=True)
def _logsumexp(x, axis=-1, b=None, keepdims=False, out=None, where=None, backend=None, num_threads=None):
    _check(axis, x=x)
    _refuse(b=b, where=where, backend=backend, num_threads=num_threads)
    if not isinstance(_written(keepdims), bool):
        raise _error("takes keepdims=True or False, written so")
    reduced = _with_one if _written(keepdims) else _without
    ndim = x.ndim if _written(keepdims) else x.ndim - 1
    _check_out(out, x.dtype, ndim)
    finished = register_jitable((lambda a: a) if ndim or not _is_default(out) else (lambda a: a[()]))
    code = OPS.index("logsumexp")

    def run(x, axis=-1, b=None, keepdims=False, out=None, where=None, backend=None, num_threads=None):
        a = np.ascontiguousarray(x)
        outer, n, inner, k = _canonical(a.shape, axis)
        _check_apart(a, out)
        result = _writable(out, reduced(a.shape, k), a.dtype)
        _call(code, a, None, None, result, None, None, None, None, outer, n, inner, 0.0, 1.0)
        return finished(result)

    return run


def _jacobian(op):
    code, code_of_diagonal = OPS.index(op), OPS.index(f"{op}_diagonal")

    def function(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
        is_diagonal = _written(layout) == "diagonal"
        _check(axis, y=y)
        _check_out(out, y.dtype, y.ndim if is_diagonal else y.ndim + 1)
        _refuse(backend=backend, num_threads=num_threads)
        if not is_diagonal and _written(layout) != "batched":
            raise _error('has the layouts "batched" and "diagonal": leave layout= out')

        def diagonal(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(y)
            _check_apart(a, out)
            result = _writable(out, a.shape, a.dtype)
            outer, n, inner, _ = _canonical(a.shape, axis)
            _call(code_of_diagonal, a, None, result, None, None, None, None, None, outer, n, inner, 0.0, 1.0)
            return result

        def blocks(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(y)
            outer, n, inner, k = _canonical(a.shape, axis)
            _check_apart(a, out)
            result = _writable(out, _without(a.shape, k) + (n, n), a.dtype)  # noqa: RUF005  (Numba knows no *)
            rows = a.reshape((outer, n, inner))
            if inner > 1:
                rows = np.ascontiguousarray(rows.transpose((0, 2, 1)))
            _call(code, rows, None, result, None, None, None, None, None, outer * inner, n, 1, 0.0, 1.0)
            return result

        return diagonal if is_diagonal else blocks

    overload(getattr(api, op), prefer_literal=True)(function)


for _op in JACOBIANS:
    _jacobian(_op)


# ---- ragged rows -------------------------------------------------------------------------------


@register_jitable
def _places(ptr, n):
    """A copy, as results may be written over what was given."""
    places = ptr.astype(np.intp)
    if places.size == 0 or places[0] != 0 or places[-1] != n:
        raise ValueError("ptr must begin with 0 and end with the number of entries")
    for k in range(1, places.size):
        if places[k] < places[k - 1]:
            raise ValueError("ptr must not fall")
    return places


def _check_segments(ptr, out, backend, num_threads, **arrays):
    _check(0, **arrays)
    first = next(iter(arrays.values()))
    if first.ndim != 1:
        raise _error(f"takes segments in a line: an array of one dimension, not of {first.ndim}")
    if not isinstance(ptr, types.Array) or ptr.ndim != 1 or not isinstance(ptr.dtype, types.Integer):
        raise _error(f"takes an integer array of one dimension that says where segments begin: ptr is {ptr}")
    _check_out(out, first.dtype, 1)
    _refuse(backend=backend, num_threads=num_threads)


def _ragged(op):
    code = OPS.index(SEGMENTS[op])

    def function(x, ptr, out=None, backend=None, num_threads=None):
        _check_segments(ptr, out, backend, num_threads, x=x)

        def run(x, ptr, out=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(x)
            places = _places(ptr, a.size)
            _check_apart(a, out)
            result = _writable(out, a.shape, a.dtype)
            _call_segments(code, a, None, result, None, places)
            return result

        return run

    overload(getattr(api, op))(function)


for _op in ("segment_softmax", "segment_log_softmax"):
    _ragged(_op)


@overload(api.segment_logsumexp)
def _segment_logsumexp(x, ptr, out=None, backend=None, num_threads=None):
    _check_segments(ptr, out, backend, num_threads, x=x)
    code = OPS.index("logsumexp")

    def run(x, ptr, out=None, backend=None, num_threads=None):
        a = np.ascontiguousarray(x)
        places = _places(ptr, a.size)
        if _shares_memory(a, out):
            raise ValueError("out overlaps an input: give it memory of its own")
        result = _writable(out, (places.size - 1,), a.dtype)
        _call_segments(code, a, None, None, result, places)
        return result

    return run


@overload(api.segment_softmax_vjp)
def _segment_softmax_vjp(y, g, ptr, out=None, backend=None, num_threads=None):
    _check_segments(ptr, out, backend, num_threads, y=y, g=g)
    code = OPS.index("softmax_vjp")

    def run(y, g, ptr, out=None, backend=None, num_threads=None):
        a, b = _pair(y, g, out)
        places = _places(ptr, a.size)
        result = _writable(out, a.shape, a.dtype)
        _call_segments(code, a, b, result, None, places)
        return result

    return run


# ---- losses ------------------------------------------------------------------------------------


@register_jitable
def _is_ignored(label, ignore_index):
    if ignore_index is None:
        return False
    return label == ignore_index


@register_jitable
def _targets(labels, ignore_index, shape, k, _):
    """The labels as kernels take them, ignored ones -1."""
    for i in range(labels.ndim):
        if labels.shape[i] != shape[i + (i >= k)]:
            raise ValueError("labels must have the shape of x without axis")
    targets = np.empty(labels.shape, np.intp)
    flat = targets.reshape(-1)
    for i, label in enumerate(labels.flat):
        if _is_ignored(label, ignore_index):
            flat[i] = -1
        elif label < 0 or label >= shape[k]:
            raise IndexError("a label is out of range for the number of classes")
        else:
            flat[i] = label
    return targets


@register_jitable
def _weights(weight, n, dtype):
    """A copy, as the gradient may be written over what was given."""
    if weight.size != n:
        raise ValueError("weight must have one entry for each class")
    return weight.astype(dtype)


@register_jitable
def _sample_weights(sample_weight, shape, dtype):
    if sample_weight.shape != shape:
        raise ValueError("sample_weight must have the shape of x without axis")
    return sample_weight.astype(dtype)


@register_jitable
def _probabilities(labels, _, shape, k, out):
    if _shares_memory(labels, out):  # where exps are kept while these are read
        raise ValueError("out overlaps labels: give it memory of its own")
    if labels.shape != shape:
        raise ValueError("labels that are probabilities must have the shape of x")
    return np.ascontiguousarray(labels)


@register_jitable
def _smoothing(label_smoothing, weight, n, dtype):
    """As a number, and what it adds to the weight of each class."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError("label_smoothing must be between 0 and 1")
    everywhere = np.full(n, label_smoothing / max(n, 1), dtype)
    if weight is not None:
        everywhere *= weight
    return float(label_smoothing), everywhere


@register_jitable
def _mean_of_labels(targets, weight, samples, losses):
    """What a mean divides by, and the factor of its gradient, as in _targets.py; brings weights near one."""
    if samples is not None:
        for i, label in enumerate(targets.flat):
            if label < 0:
                samples.flat[i] = 0
    if weight is not None:
        _bring_near_one(weight, _of_labels(targets, weight))
    return _mean_of(_of_labels(targets, weight), samples)


@register_jitable
def _mean_of_probabilities(_, weight, samples, losses):
    """The same where classes' weights do not count."""
    return _mean_of(np.ones(losses.size), samples)


@register_jitable
def _mean_of(taken, samples):
    if samples is not None:
        _bring_near_one(samples, samples)
        for i, sample in enumerate(samples.flat):
            taken[i] = taken[i] * sample if sample != 0 else 0.0
    total = _sum_of(taken)
    if total != 0:
        return total, 1 / total
    return np.nan, np.nan if taken.any() else 1.0


@register_jitable
def _of_labels(targets, weight):
    taken = np.ones(targets.size)
    for i, label in enumerate(targets.flat):
        if label < 0:
            taken[i] = 0
        elif weight is not None:
            taken[i] = weight[label]
    return taken


@register_jitable
def _bring_near_one(weights, of_rows):
    largest = 0.0
    for weight in of_rows.flat:
        if not abs(weight) <= largest:  # NaN stays
            largest = abs(weight)
    if np.isfinite(largest) and largest != 0 and not 2.0**-30 <= largest <= 2.0**30:
        exponent = -math.frexp(largest)[1]
        flat = weights.reshape(-1)
        for i in range(flat.size):
            flat[i] = math.ldexp(flat[i], exponent)


@register_jitable
def _none(*_):
    return None


@register_jitable
def _quotient(losses, total):
    return losses.dtype.type(np.divide(_sum_of(losses), total))


def _check_loss(x, labels, weight, sample_weight, ignore_index, label_smoothing, reduction):
    """Whether the labels are probabilities."""
    soft = isinstance(labels, types.Array) and isinstance(labels.dtype, types.Float)
    if not soft and (not isinstance(labels, types.Array) or not isinstance(labels.dtype, types.Integer)):
        raise _error(f"takes arrays of integer labels, or of probabilities: labels is {labels}")
    if soft and (labels.dtype != x.dtype or labels.ndim != x.ndim):
        raise _error(f"takes probabilities of the dtype and dimensions of x, {x}: labels is {labels}")
    if not soft and (labels.ndim != x.ndim - 1 or labels.ndim == 0):
        raise _error("takes labels with one dimension less than x, and at least one")
    if soft and not _is_default(ignore_index):
        raise _error("takes ignore_index with integer labels: rows of sample_weight 0 are left out")
    for name, value, ndim in (("weight", weight, 1), ("sample_weight", sample_weight, x.ndim - 1)):
        if not _is_default(value):
            _check(0, **{name: value})
            if value.ndim != ndim:
                raise _error(
                    f"takes one weight for each {'class' if name == 'weight' else 'row'}: {name} is {value}"
                )
    if not _is_default(label_smoothing) and not isinstance(label_smoothing, (types.Float, types.Integer)):
        raise _error(f"takes a number between 0 and 1: label_smoothing is {label_smoothing}")
    if _written(reduction) not in REDUCTIONS:
        raise _error('takes reduction="mean", "sum" or "none", written so')
    return soft


def _loss(op):
    """All is said by name but for the first three: so one signature serves both."""
    has_gradient = op == "cross_entropy_with_grad"
    gradient = _writable if has_gradient else _none
    finished = register_jitable((lambda loss, dx: (loss, dx)) if has_gradient else (lambda loss, dx: loss))

    def function(
        x,
        labels,
        axis=-1,
        weight=None,
        sample_weight=None,
        ignore_index=None,
        label_smoothing=None,
        reduction="mean",
        out=None,
        backend=None,
        num_threads=None,
    ):
        _check(axis, x=x)
        soft = _check_loss(x, labels, weight, sample_weight, ignore_index, label_smoothing, reduction)
        _refuse(backend=backend, num_threads=num_threads, **({} if has_gradient else {"out": out}))
        _check_out(out, x.dtype, x.ndim)
        code = OPS.index("soft_cross_entropy" if soft else "cross_entropy")
        targets_of = _probabilities if soft else _targets
        by_kind = register_jitable((lambda t: (t, None)) if soft else (lambda t: (None, t)))
        weights = _none if _is_default(weight) else _weights
        sample_weights = _none if _is_default(sample_weight) else _sample_weights
        smoothing = register_jitable(lambda *_: (0.0, None)) if _is_default(label_smoothing) else _smoothing
        mean = register_jitable(lambda *_: (1.0, 1.0))
        if _written(reduction) == "mean":
            mean = _mean_of_probabilities if soft else _mean_of_labels
        reduced = register_jitable(lambda losses, _: losses) if _written(reduction) == "none" else _quotient

        def run(
            x,
            labels,
            axis=-1,
            weight=None,
            sample_weight=None,
            ignore_index=None,
            label_smoothing=None,
            reduction="mean",
            out=None,
            backend=None,
            num_threads=None,
        ):
            a = np.ascontiguousarray(x)
            _check_apart(a, out)
            outer, n, inner, k = _canonical(a.shape, axis)
            losses = np.empty(_without(a.shape, k), a.dtype)
            targets, w = targets_of(labels, ignore_index, a.shape, k, out), weights(weight, n, a.dtype)
            samples = sample_weights(sample_weight, losses.shape, a.dtype)
            total, scale = mean(targets, w, samples, losses)
            share, everywhere = smoothing(label_smoothing, w, n, a.dtype)
            dx = gradient(out, a.shape, a.dtype)
            b, of_rows = by_kind(targets)
            _call(code, a, b, dx, losses, of_rows, w, samples, everywhere, outer, n, inner, share, scale)
            return finished(reduced(losses, total), dx)

        return run

    overload(getattr(api, op), prefer_literal=True)(function)


for _op in ("cross_entropy", "cross_entropy_with_grad"):
    _loss(_op)
