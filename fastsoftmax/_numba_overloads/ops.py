"""The ops of rows of one length."""

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from fastsoftmax import api
from fastsoftmax._numba_overloads.arguments import (
    canonical,
    check,
    check_apart,
    check_out,
    error,
    is_default,
    pair,
    refuse,
    shares_memory,
    with_one,
    without,
    writable,
    written,
)
from fastsoftmax._numba_overloads.symbols import call
from fastsoftmax._solvable import ULPS
from fastsoftmax.registry import JACOBIANS, OPS


def _forward(op):
    code = OPS.index(op)

    def function(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
        check(axis, x=x)
        check_out(out, x.dtype, x.ndim)
        refuse(where=where, backend=backend, num_threads=num_threads)

        def run(x, axis=-1, out=None, where=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(x)
            check_apart(a, out)
            result = writable(out, a.shape, a.dtype)
            outer, n, inner, _ = canonical(a.shape, axis)
            call(code, a, None, result, None, None, None, None, None, outer, n, inner, 0.0, 1.0)
            return result

        return run

    overload(getattr(api, op))(function)


def _product(op, kernel):
    code = OPS.index(kernel)

    def function(y, g, axis=-1, out=None, backend=None, num_threads=None):
        check(axis, y=y, g=g)
        check_out(out, y.dtype, y.ndim)
        refuse(backend=backend, num_threads=num_threads)

        def run(y, g, axis=-1, out=None, backend=None, num_threads=None):
            a, b = pair(y, g, out)
            result = writable(out, a.shape, a.dtype)
            outer, n, inner, _ = canonical(a.shape, axis)
            call(code, a, b, result, None, None, None, None, None, outer, n, inner, 0.0, 1.0)
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
    check(axis, y=y, b=b)
    check_out(out, y.dtype, y.ndim)
    refuse(backend=backend, num_threads=num_threads)
    code = OPS.index("softmax_solve")
    if not isinstance(ridge, (float, types.Float, types.Integer, types.Omitted)):
        raise error(f"takes a number of 0 or more: ridge is {ridge}")

    def run(y, b, axis=-1, ridge=0.0, out=None, backend=None, num_threads=None):
        a, c = pair(y, b, out)
        result = writable(out, a.shape, a.dtype)
        outer, n, inner, _ = canonical(a.shape, axis)
        added = _check_ridge(ridge, a.dtype)
        if added == 0:
            _check_solvable(a, c, outer, n, inner)
        call(
            code,
            a,
            c,
            result,
            None,
            None,
            None,
            None,
            None,
            outer,
            n,
            inner,
            0.0,
            added,
        )
        return result

    return run


@register_jitable
def _factors(b, x, out):
    if b.shape != x.shape:
        raise ValueError("b must have the shape of x")
    if shares_memory(b, out):
        raise ValueError("out overlaps b: give it memory of its own")
    return np.ascontiguousarray(b)


@overload(api.logsumexp, prefer_literal=True)
def _logsumexp(x, axis=-1, b=None, keepdims=False, out=None, where=None, backend=None, num_threads=None):
    check(axis, x=x)
    refuse(where=where, backend=backend, num_threads=num_threads)
    if not is_default(b):
        check(axis, x=x, b=b)
    if not isinstance(written(keepdims), bool):
        raise error("takes keepdims=True or False, written so")
    reduced = with_one if written(keepdims) else without
    ndim = x.ndim if written(keepdims) else x.ndim - 1
    check_out(out, x.dtype, ndim)
    finished = register_jitable((lambda a: a) if ndim or not is_default(out) else (lambda a: a[()]))
    code = OPS.index("logsumexp" if is_default(b) else "weighted_logsumexp")
    factors = register_jitable(lambda *_: None) if is_default(b) else _factors

    def run(x, axis=-1, b=None, keepdims=False, out=None, where=None, backend=None, num_threads=None):
        a = np.ascontiguousarray(x)
        outer, n, inner, k = canonical(a.shape, axis)
        check_apart(a, out)
        c = factors(b, a, out)
        result = writable(out, reduced(a.shape, k), a.dtype)
        call(code, a, c, None, result, None, None, None, None, outer, n, inner, 0.0, 1.0)
        return finished(result)

    return run


def _jacobian(op):
    code, code_of_diagonal = OPS.index(op), OPS.index(f"{op}_diagonal")

    def function(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
        is_diagonal = written(layout) == "diagonal"
        check(axis, y=y)
        check_out(out, y.dtype, y.ndim if is_diagonal else y.ndim + 1)
        refuse(backend=backend, num_threads=num_threads)
        if not is_diagonal and written(layout) != "batched":
            raise error('has the layouts "batched" and "diagonal": leave layout= out')

        def diagonal(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(y)
            check_apart(a, out)
            result = writable(out, a.shape, a.dtype)
            outer, n, inner, _ = canonical(a.shape, axis)
            call(code_of_diagonal, a, None, result, None, None, None, None, None, outer, n, inner, 0.0, 1.0)
            return result

        def blocks(y, axis=-1, layout="batched", out=None, backend=None, num_threads=None):
            a = np.ascontiguousarray(y)
            outer, n, inner, k = canonical(a.shape, axis)
            check_apart(a, out)
            result = writable(out, without(a.shape, k) + (n, n), a.dtype)  # noqa: RUF005  (Numba knows no *)
            rows = a.reshape((outer, n, inner))
            if inner > 1:
                rows = np.ascontiguousarray(rows.transpose((0, 2, 1)))
            call(code, rows, None, result, None, None, None, None, None, outer * inner, n, 1, 0.0, 1.0)
            return result

        return diagonal if is_diagonal else blocks

    overload(getattr(api, op), prefer_literal=True)(function)


for _op in JACOBIANS:
    _jacobian(_op)
