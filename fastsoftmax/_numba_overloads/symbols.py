"""The functions that machine code of Numba calls, by name.

In the machine code that Numba keeps on disk stands the name of a symbol, not an address; whoever loads it
imports this module, which gives the symbol its address in this process.
"""

from ctypes import CFUNCTYPE, c_char, c_double, c_int, c_ssize_t, c_void_p, cast

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Not the package itself: Numba keeps what stands here, which at the interpreter's end would keep that.
from fastsoftmax import _front, _isa, registry
from fastsoftmax.registry import JACOBIANS, OPS  # in the order of the numbers in src_cy/call.h

LOSSES = "cross_entropy", "soft_cross_entropy"

# What has another meaning gets another number, since machine code of before may be on disk. A number that was
# released stays bound to what it meant: LLVM ends the process where a symbol has no address.
RUN, RUN_SEGMENTS, SUM = "fastsoftmax_run_3", "fastsoftmax_run_segments_1", "fastsoftmax_sum_1"


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
    if OPS[op] == "softmax_solve":
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
def call(_, op, a, b, out, results, labels, weight, samples, everywhere, outer, n, inner, smoothing, scale):
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
def call_segments(_, op, a, b, out, results, ptr):
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
def address(_, array):
    """Without a reference, which `array.ctypes` would hold."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(_pointer(context, builder, array, args[0]), ir.IntType(64))

    return types.intp(array), codegen


@intrinsic
def sum_of(_, losses):
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
