"""The public operations on arrays that are on a GPU: same kind out, on the caller's stream.

Nothing here waits for the GPU, so calls can be captured in a CUDA graph once a first one has compiled
the kernels. What cannot be known without waiting does not raise: a label out of range makes its row's
loss and gradient NaN. Signatures and meaning are those of `fastsoftmax.api`.
"""

import math
from functools import partial

from fastsoftmax._arrays import rows_of
from fastsoftmax._cuda.calls import Call, Result
from fastsoftmax._cuda.recipes import jacobian_recipe, rows_recipe
from fastsoftmax._layouts import LAYOUTS
from fastsoftmax._options import as_bool, check_choice
from fastsoftmax.registry import BackendUnavailable


def softmax(x, /, axis=-1, *, out=None, where=None, backend=None, num_threads=None):
    return _forward("softmax", 0.0, x, axis, out, where, backend)


def log_softmax(x, /, axis=-1, *, out=None, where=None, backend=None, num_threads=None):
    return _forward("log_softmax", -math.inf, x, axis, out, where, backend)


def logsumexp(x, /, axis=-1, *, b=None, keepdims=False, out=None, where=None, backend=None, num_threads=None):
    _refuse(b, "b", "have x on the CPU")
    with Call(backend, x=x).on_its_device() as call:
        if where is not None:
            call.mask(where)
        rows = rows_of(call.shape, axis)
        shape = rows.keepdims()[: len(call.shape)] if as_bool(keepdims, "keepdims") else rows.kept
        result = Result(call, shape, rows.reduced, out)
        if rows.canonical[1] == 0:
            empty = call.kind.full(tuple(result.buffer.shape), call.dtype, -math.inf)
            call.kind.assign(result.buffer, empty)
        call.run(partial(rows_recipe, "logsumexp"), rows, result.buffer)
        return result.finish()


def softmax_vjp(y, g, /, axis=-1, *, out=None, backend=None, num_threads=None):
    return _product("softmax_vjp", axis, out, backend, y=y, g=g)


def softmax_jvp(y, t, /, axis=-1, *, out=None, backend=None, num_threads=None):
    return _product("softmax_vjp", axis, out, backend, y=y, g=t)


def log_softmax_vjp(logy, g, /, axis=-1, *, out=None, backend=None, num_threads=None):
    return _product("log_softmax_vjp", axis, out, backend, logy=logy, g=g)


def log_softmax_jvp(logy, t, /, axis=-1, *, out=None, backend=None, num_threads=None):
    return _product("log_softmax_jvp", axis, out, backend, logy=logy, t=t)


def softmax_jacobian(y, /, axis=-1, *, layout="batched", out=None, backend=None, num_threads=None):
    return _jacobian("softmax_jacobian", axis, layout, out, backend, y=y)


def log_softmax_jacobian(logy, /, axis=-1, *, layout="batched", out=None, backend=None, num_threads=None):
    return _jacobian("log_softmax_jacobian", axis, layout, out, backend, logy=logy)


def cross_entropy(
    x,
    labels,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    backend=None,
    num_threads=None,
):
    _refuse(sample_weight, "sample_weight", _WEIGH)
    with Call(backend, x=x).on_its_device() as call:
        rows = rows_of(call.shape, axis)
        return call.cross_entropy(rows, labels, weight, ignore_index, label_smoothing, reduction, None)


def cross_entropy_with_grad(
    x,
    labels,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    out=None,
    backend=None,
    num_threads=None,
):
    _refuse(sample_weight, "sample_weight", _WEIGH)
    with Call(backend, x=x).on_its_device() as call:
        rows = rows_of(call.shape, axis)
        dx = Result(call, call.shape, rows.canonical, out, rows, labels=labels, weight=weight)
        loss = call.cross_entropy(rows, labels, weight, ignore_index, label_smoothing, reduction, dx)
        return loss, dx.finish()


_WEIGH = "weigh the losses of reduction='none', or have x on the CPU"


def _refuse(value, name, instead):
    if value is not None:
        raise BackendUnavailable(f"backend 'cuda' has no kernel for {name}=: {instead}")


def _forward(op, fill, x, axis, out, where, backend):
    with Call(backend, x=x).on_its_device() as call:
        mask = None if where is None else call.mask(where)
        if mask is not None and out is not None:  # a copy, as `out` may hold it
            mask = call.kind.masked(call.kind.full(call.shape, "bool", True), mask, False)
        rows = rows_of(call.shape, axis)
        result = Result(call, call.shape, rows.canonical, out, rows)
        call.run(partial(rows_recipe, op), rows, result.buffer)
        return result.finish(mask, fill)


def _jacobian(op, axis, layout, out, backend, **output):
    check_choice(layout, "layout", LAYOUTS)
    if layout != "batched":
        raise ValueError(f"layout={layout!r} is for NumPy arrays; on a CUDA device there is 'batched'")
    with Call(backend, **output).on_its_device() as call:
        rows = rows_of(call.shape, axis, last=True)
        outer, n, _ = rows.canonical
        result = Result(call, (*rows.kept, n, n), (outer, n, n), out)
        call.run(partial(jacobian_recipe, op), rows, result.buffer)
        return result.finish()


def _product(op, axis, out, backend, **arrays):
    with Call(backend, **arrays).on_its_device() as call:
        rows = rows_of(call.shape, axis)
        result = Result(call, call.shape, rows.canonical, out, rows)
        call.run(partial(rows_recipe, op), rows, result.buffer)
        return result.finish()
