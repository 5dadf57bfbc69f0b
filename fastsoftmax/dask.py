"""The ops on dask arrays, lazily and a chunk at a time, chunked in any way: along the softmax axis as well.

With one chunk along it each chunk is a call of the op. With several, each chunk gives the state of a
`fastsoftmax.LogSumExp`, three numbers a row, which a tree merges; of that and each chunk again its part of
the result is made. Backends and threads are what is set in the process of a chunk. docs/scale.md has what it
costs. Needs dask: ``pip install "fastsoftmax[dask]"``.
"""

import math
from functools import reduce
from operator import itemgetter
from typing import NamedTuple

import dask.array as da
import numpy as np
from dask.graph_manipulation import clone

import fastsoftmax as fs
from fastsoftmax import _options, _threads
from fastsoftmax._arrays import as_float, as_labels, as_weight, axes_of, computed_in, rows_of
from fastsoftmax._front import floating_point_mode
from fastsoftmax.accumulator import exact_sums, parts, rest_of, shifted_exp, sized, total_of
from fastsoftmax.backends import numpy as vectors

__all__ = ("cross_entropy", "cross_entropy_with_grad", "log_softmax", "logsumexp", "softmax")


def softmax(x, /, axis=-1, *, where=None, reread=False):
    """`fastsoftmax.softmax` of a dask array: ``y_i = exp(x_i - max x) / sum_j exp(x_j - max x)``.

    Parameters
    ----------
    x : dask.array.Array
        Logits, of any dtype that `fastsoftmax.softmax` takes.
    axis : int, tuple of int or None
        The axis or axes that sum to one; None for all together.
    where : array_like or dask.array.Array of bool, optional
        Broadcastable to ``x``: entries that are False take no part and get 0.
    reread : bool
        Make the chunks of ``x`` a second time, in place of keeping those of a row until its sum is known: for
        rows that do not fit in memory, of data that are the same each time.

    Returns
    -------
    dask.array.Array
        Of the shape and chunks of ``x``, and its float dtype.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `fastsoftmax.softmax`, at once; and ``x`` is no dask array.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastsoftmax.dask import softmax
    >>> softmax(da.zeros((2, 4), chunks=(1, 2))).compute()
    array([[0.25, 0.25, 0.25, 0.25],
           [0.25, 0.25, 0.25, 0.25]])
    """
    return _forward("softmax", 0.0, x, axis, where, reread)


def log_softmax(x, /, axis=-1, *, where=None, reread=False):
    """`fastsoftmax.log_softmax` of a dask array: ``(x_i - max x) - log1p(sum of exp of the others)``.

    Parameters
    ----------
    x, axis, where, reread
        As for `softmax`, with -inf where ``where`` is False.

    Returns
    -------
    dask.array.Array
        Of the shape and chunks of ``x``, and its float dtype.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `softmax`.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastsoftmax.dask import log_softmax
    >>> log_softmax(da.from_array([40.0, 0.0], chunks=1)).compute()
    array([-4.24835426e-18, -4.00000000e+01])
    """
    return _forward("log_softmax", -np.inf, x, axis, where, reread)


def logsumexp(x, /, axis=-1, *, keepdims=False, where=None):
    """`fastsoftmax.logsumexp` of a dask array: ``max x + log1p(sum of exp of the others)``.

    Parameters
    ----------
    x, axis
        As for `softmax`.
    keepdims : bool
        Keep the reduced axes with length one.
    where : array_like or dask.array.Array of bool, optional
        Broadcastable to ``x``: entries that are False are ignored.

    Returns
    -------
    dask.array.Array
        ``x`` without ``axis``.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `softmax`.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastsoftmax.dask import logsumexp
    >>> logsumexp(da.zeros((2, 4), chunks=(1, 2)), axis=None).compute().round(3)
    np.float64(2.079)
    """
    x, axes, dtype = _checked(x, axis)
    keepdims = _options.as_bool(keepdims, "keepdims")
    if where is not None:
        x = da.where(_mask(where, x), x, -np.inf)
    meta = np.empty((0,) * x.ndim, dtype)
    if _is_whole(x, axes):
        chunks = _reduced_chunks(x, axes)
        kept = x.map_blocks(fs.logsumexp, axes, keepdims=True, chunks=chunks, dtype=dtype, meta=meta)
    else:
        kept = _states(x, axes).map_blocks(_value, dtype, drop_axis=0, dtype=dtype, meta=meta)
    return kept if keepdims else kept.squeeze(axes)


def cross_entropy(
    x,
    labels,
    /,
    axis=-1,
    *,
    weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    reread=False,
):
    """`fastsoftmax.cross_entropy` of a dask array: ``-log softmax(x)[label]``.

    Parameters
    ----------
    x, axis, reread
        As for `softmax`.
    labels : array_like or dask.array.Array of int
        The class of each row, of the shape of ``x`` without ``axis``.
    weight, ignore_index, label_smoothing, reduction
        As for `fastsoftmax.cross_entropy`.

    Returns
    -------
    dask.array.Array
        The loss: of no dimensions, or with ``reduction="none"`` of the shape of ``labels``.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `fastsoftmax.cross_entropy`, at once.
    IndexError
        A label that is out of range; of a dask array when it is computed, with its place in the chunk.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastsoftmax.dask import cross_entropy
    >>> cross_entropy(da.from_array([[40.0, 0.0]], chunks=1), [0]).compute()
    np.float64(4.248354255291589e-18)
    """
    return _loss(x, labels, axis, weight, ignore_index, label_smoothing, reduction, reread, False)[0]


def cross_entropy_with_grad(
    x,
    labels,
    /,
    axis=-1,
    *,
    weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    reread=False,
):
    """`fastsoftmax.cross_entropy_with_grad` of a dask array: ``dx = (softmax(x) - onehot(label)) / m``.

    Computed together, the two read ``x`` as often as one of them.

    Parameters
    ----------
    x, labels, axis, weight, ignore_index, label_smoothing, reduction, reread
        As for `cross_entropy`.

    Returns
    -------
    loss : dask.array.Array
        As from `cross_entropy`.
    dx : dask.array.Array
        Of the shape and chunks of ``x``, and its float dtype.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As for `cross_entropy`.

    Examples
    --------
    >>> import dask, dask.array as da
    >>> from fastsoftmax.dask import cross_entropy_with_grad
    >>> loss, dx = dask.compute(*cross_entropy_with_grad(da.zeros((1, 2), chunks=1), [1]))
    >>> print(loss.round(6), dx)
    0.693147 [[ 0.5 -0.5]]
    """
    return _loss(x, labels, axis, weight, ignore_index, label_smoothing, reduction, reread, True)


# ---- what is asked for ---------------------------------------------------------------------------


def _checked(x, axis):
    """``x``, its axes and the result's dtype; dask's empty sample of a chunk has what the ops look at."""
    if not isinstance(x, da.Array):
        raise TypeError(
            f"x must be a dask array; got {type(x).__name__}: pass dask.array.from_array(x), or call the op "
            "of fastsoftmax itself"
        )
    return x, axes_of(axis, x.ndim)[: x.ndim], fs.softmax(x._meta, axis).dtype


def _mask(where, x):
    where = da.asarray(where)
    if where.dtype != np.bool_:
        raise TypeError(f"where has dtype {where.dtype}; expected bool")
    try:
        return da.broadcast_to(where, x.shape)
    except ValueError:
        raise ValueError(
            f"where has shape {where.shape}, which does not broadcast to x's {x.shape}"
        ) from None


def _again(x, reread):
    """``x`` for the second pass."""
    return clone(x) if _options.as_bool(reread, "reread") else x


def _is_whole(x, axes):
    return all(x.numblocks[k] == 1 for k in axes)


def _reduced_chunks(x, axes):
    """One value a row and chunk."""
    return tuple((1,) * len(c) if k in axes else c for k, c in enumerate(x.chunks))


def _forward(op, fill, x, axis, where, reread):
    x, axes, dtype = _checked(x, axis)
    again = _again(x, reread)
    if where is not None:
        mask = _mask(where, x)
        x, again = (da.where(mask, a, -np.inf) for a in (x, again))
    meta = np.empty((0,) * x.ndim, dtype)
    if _is_whole(x, axes):
        y = x.map_blocks(getattr(fs, op), axes, dtype=dtype, meta=meta)
    else:
        y = _with_states(_OF_STATES[op], again, axes, _states(x, axes), dtype=dtype, meta=meta)
    return y if where is None else da.where(mask, y, np.asarray(fill, dtype))


# ---- states --------------------------------------------------------------------------------------


def _states(x, axes):
    """A LogSumExp's state for each row: its three arrays as a first axis, those of ``axes`` of length one."""
    names = tuple(range(x.ndim))
    of_chunks = da.blockwise(
        _state,
        (-1, *names),
        x,
        names,
        axes=axes,
        new_axes={-1: 3},
        adjust_chunks=dict.fromkeys(axes, 1),
        meta=np.empty((0,) * (x.ndim + 1)),
    )
    along = tuple(k + 1 for k in axes)
    return da.reduction(of_chunks, _merge, _merge, axis=along, keepdims=True, dtype=np.float64)


def _state(block, axes):
    state = np.stack(fs.LogSumExp(axes).update(block).state)
    return np.expand_dims(state, tuple(k + 1 for k in axes))


def _merge(states, axis, keepdims):
    """Of states side by side along the axes."""
    apart = np.moveaxis(states, axis, range(len(axis))).reshape(-1, *_without(states.shape, axis))
    merged = reduce(fs.LogSumExp.merge, map(_accumulator, apart))
    return np.expand_dims(np.stack(merged.state), axis)


def _accumulator(state):
    accumulator = fs.LogSumExp()
    accumulator.state = tuple(state)
    return accumulator


def _without(shape, axes):
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def _value(state, dtype):
    return np.asarray(_accumulator(state).value).astype(dtype)


def _with_states(function, x, axes, states, *others, **options):
    """Chunks of the shape of those of ``x``, from each and its rows' states."""
    names = tuple(range(x.ndim))
    arguments = [(a, names) for a in others]
    return da.blockwise(
        function,
        names,
        x,
        names,
        states,
        (-1, *names),
        *(part for pair in arguments for part in pair),
        concatenate=True,
        axes=axes,
        **options,
    )


# ---- chunks, from their entries and states -------------------------------------------------------


class _Numbers(NamedTuple):
    """What the formulas take of each row, all NaN where there is no softmax."""

    row_max: np.ndarray
    log_rest: np.ndarray
    reference: np.ndarray
    total: np.ndarray


def _numbers(state):
    with floating_point_mode(), np.errstate(all="ignore"):
        row_max = np.where(np.isfinite(state[0]), state[0], np.nan)
        state = (row_max, *state[1:])
        numbers = row_max, np.log1p(rest_of(state)), *total_of(state)
        return _Numbers(*(np.asarray(a, np.float64) for a in numbers))


def _softmax(block, state, axes):
    numbers = _numbers(state)
    return _of_rows(_softmax_of_rows, block, axes, numbers.reference, numbers.total)


def _log_softmax(block, state, axes):
    numbers = _numbers(state)
    return _of_rows(_log_softmax_of_rows, block, axes, numbers.row_max, numbers.log_rest)


_OF_STATES = {"softmax": _softmax, "log_softmax": _log_softmax}


def _of_rows(kernel, block, axes, *per_row):
    """What ``kernel`` makes of a chunk and of numbers for each of its rows."""
    x = as_float(block, "x")
    rows = rows_of(x.shape, axes)
    result = rows.result(x.shape, x.dtype)
    per_row = [a.reshape(rows.reduced) for a in per_row]
    _threads.run(kernel, rows.canonical, (rows.view(x), *per_row, result.buffer))
    return result.finish()


@sized
def _softmax_of_rows(x, reference, total, out):
    for at, row in parts(x.shape):
        out[at] = sum(shifted_exp(x[at].astype(np.float64), reference[row])) / total[row]


@sized
def _log_softmax_of_rows(x, row_max, log_rest, out):
    for at, row in parts(x.shape):
        out[at] = (x[at].astype(np.float64) - row_max[row]) - log_rest[row]


# ---- cross-entropy -------------------------------------------------------------------------------


def _loss(x, labels, axis, weight, ignore_index, label_smoothing, reduction, reread, with_grad):
    """The loss and, if asked for, its gradient."""
    ignore_index, smoothing = _options.check_loss(ignore_index, label_smoothing, reduction)
    x, axes, dtype = _checked(x, axis)
    again = _again(x, reread)
    n = math.prod(x.shape[k] for k in axes)
    if weight is not None:
        weight = as_weight(weight, n, dtype).astype(np.float64)
    labels = _labels(labels, x, axes, n, ignore_index)
    x, again = (a.astype(computed_in(dtype)) for a in (x, again))
    options = {"weight": weight, "smoothing": smoothing, "with_grad": with_grad}
    meta = np.empty((0,) * x.ndim, x.dtype)
    if _is_whole(x, axes):
        names = tuple(range(x.ndim))
        both = da.blockwise(_whole, names, x, names, labels, names, axes=axes, meta=meta, **options)
    else:
        states = _states(x, axes)
        both = _with_states(
            _losses, again, axes, states, labels, _classes(x, axes), n=n, meta=meta, **options
        )
    losses = both.map_blocks(itemgetter(0), chunks=_reduced_chunks(x, axes), dtype=np.float64, meta=meta)
    losses = losses.sum(axes)
    by = _divisor(labels, weight, ignore_index) if reduction == "mean" else 1
    loss = losses.astype(dtype) if reduction == "none" else _quotient(losses.sum(), by, dtype)
    if not with_grad:
        return loss, None
    return loss, both.map_blocks(_gradient, by, dtype, dtype=dtype, meta=meta.astype(dtype))


def _divisor(labels, weight, ignore_index):
    """What a mean divides by."""
    if weight is None and ignore_index is None:
        return labels.size
    return labels.map_blocks(_weights, weight, dtype=np.float64, meta=np.empty((0,) * labels.ndim)).sum()


def _quotient(total, by, dtype):
    return da.map_blocks(_divided, total, by, dtype, dtype=dtype, meta=np.empty((), dtype))


def _labels(labels, x, axes, n, ignore_index):
    """Checked, -1 for what is ignored, with the dimensions and chunks of ``x``; ``axes`` have length one."""
    kept = _without(x.shape, axes)
    is_lazy = isinstance(labels, da.Array)
    valid = _valid(labels._meta if is_lazy else labels, n, ignore_index)
    labels = labels.map_blocks(_valid, n, ignore_index, dtype=np.intp) if is_lazy else da.from_array(valid)
    if labels.shape != kept:
        raise ValueError(
            f"labels has shape {labels.shape}; expected {kept}, the shape of x {x.shape} without axis"
        )
    labels = labels.rechunk(_without(x.chunks, axes))
    return labels[tuple(np.newaxis if k in axes else slice(None) for k in range(x.ndim))]


def _valid(labels, n, ignore_index):
    rows = rows_of((*np.shape(labels), n), -1)
    return as_labels(labels, rows, ignore_index).reshape(rows.kept)


def _classes(x, axes):
    """The class of each entry along ``axes``, in chunks as theirs."""
    classes, step = 0, 1
    for k in reversed(axes):
        along = da.arange(x.shape[k], chunks=(x.chunks[k],)) * step
        classes = classes + along[tuple(slice(None) if j == k else np.newaxis for j in range(x.ndim))]
        step *= x.shape[k]
    return classes


def _weights(labels, weight):
    taking_part = labels >= 0
    return taking_part.astype(np.float64) if weight is None else np.where(taking_part, weight[labels], 0.0)


def _divided(total, by, dtype):
    with np.errstate(all="ignore"):  # the mean of no rows is NaN
        return np.asarray(total / by).astype(dtype)[()]


def _gradient(both, by, dtype):
    _, dx = both
    return (dx * dx.dtype.type(1 / (by or 1.0))).astype(dtype, copy=False)


def _whole(block, labels, axes, weight, smoothing, with_grad):
    """Each row's loss and gradient, by the op: all of its entries are in the chunk."""
    op = fs.cross_entropy_with_grad if with_grad else fs.cross_entropy
    both = op(
        block,
        labels.squeeze(axes),
        axes,
        weight=weight,
        ignore_index=-1,
        label_smoothing=smoothing,
        reduction="none",
    )
    losses, dx = both if with_grad else (both, None)
    return np.expand_dims(losses, axes).astype(np.float64), dx


def _losses(block, state, labels, classes, axes, n, weight, smoothing, with_grad):
    """What the entries of a chunk add to each row's loss, and their part of its gradient."""
    x = as_float(block, "x")
    rows = rows_of(x.shape, axes)
    everywhere = np.full(n, smoothing / n) if weight is None else smoothing / n * weight
    at_label = (1 - smoothing) * _weights(labels, weight)
    losses = np.zeros(state.shape[1:])
    dx = rows.result(x.shape, x.dtype) if with_grad else None
    per_row = [a.reshape(rows.reduced) for a in (labels, at_label, *_numbers(state), losses)]
    classes = classes.ravel()
    shared = classes, everywhere[classes], float(everywhere.sum())
    outs = (dx.buffer,) if with_grad else ()
    _threads.run(_losses_of_rows, rows.canonical, (rows.view(x), *shared, *per_row, *outs))
    return losses, dx.finish() if with_grad else None


@sized
def _losses_of_rows(
    x,
    classes,
    everywhere,
    all_everywhere,
    labels,
    at_label,
    row_max,
    log_rest,
    reference,
    total,
    losses,
    dx=None,
):
    """Of the loss ``sum_j w_j -log y_j``, ``w`` being ``everywhere``, and ``at_label`` more at the label."""
    for at, row in parts(x.shape):
        part, m, log_sum, ignored = x[at].astype(np.float64), row_max[row], log_rest[row], labels[row] < 0
        everywhere_ = everywhere[at[1], np.newaxis]
        label = np.where(classes[at[1], np.newaxis] == labels[row], at_label[row], 0.0)
        terms = vectors._term(everywhere_ + label, m, part, log_sum)
        losses[row] += np.where(ignored, 0.0, exact_sums(terms))
        if dx is not None:
            y = sum(shifted_exp(part, reference[row])) / total[row]
            # 1 - y of a largest entry is rest / (1 + rest)
            one_minus = np.where(part == m, -np.expm1(-log_sum), 1 - y)
            others = all_everywhere * y - everywhere_
            dx[at] = np.where(
                ignored, 0.0, others + np.where(label != 0, -label * one_minus, at_label[row] * y)
            )
