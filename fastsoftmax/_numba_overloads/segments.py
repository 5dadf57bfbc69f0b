"""The ops of ragged rows."""

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from fastsoftmax import api
from fastsoftmax._numba_overloads.arguments import (
    check,
    check_apart,
    check_out,
    error,
    pair,
    refuse,
    shares_memory,
    writable,
)
from fastsoftmax._numba_overloads.symbols import call_segments
from fastsoftmax.registry import OPS, SEGMENTS


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
    check(0, **arrays)
    first = next(iter(arrays.values()))
    if first.ndim != 1:
        raise error(f"takes segments in a line: an array of one dimension, not of {first.ndim}")
    if not isinstance(ptr, types.Array) or ptr.ndim != 1 or not isinstance(ptr.dtype, types.Integer):
        raise error(f"takes an integer array of one dimension that says where segments begin: ptr is {ptr}")
    check_out(out, first.dtype, 1)
    refuse(backend=backend, num_threads=num_threads)


def _ragged(op):
    code = OPS.index(SEGMENTS[op])

    def function(x, ptr, out=None, backend=None, num_threads=None):
        _check_segments(ptr, out, backend, num_threads, x=x)

        def run(x, ptr, out=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(x)
            places = _places(ptr, a.size)
            check_apart(a, out)
            result = writable(out, a.shape, a.dtype)
            call_segments(code, a, None, result, None, places)
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
        if shares_memory(a, out):
            raise ValueError("out overlaps an input: give it memory of its own")
        result = writable(out, (places.size - 1,), a.dtype)
        call_segments(code, a, None, None, result, places)
        return result

    return run


@overload(api.segment_softmax_vjp)
def _segment_softmax_vjp(y, g, ptr, out=None, backend=None, num_threads=None):
    _check_segments(ptr, out, backend, num_threads, y=y, g=g)
    code = OPS.index("softmax_vjp")

    def run(y, g, ptr, out=None, backend=None, num_threads=None):
        a, b = pair(y, g, out)
        places = _places(ptr, a.size)
        result = writable(out, a.shape, a.dtype)
        call_segments(code, a, b, result, None, places)
        return result

    return run
