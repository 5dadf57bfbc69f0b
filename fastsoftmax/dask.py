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
from fastsoftmax._arrays import as_float, axes_of, computed_in, rows_of
from fastsoftmax._asarray import asarray
from fastsoftmax._front import floating_point_mode
from fastsoftmax._targets import (
    as_labels,
    as_weight,
    check_probabilities,
    check_sample_weight,
    is_soft,
    near_one,
    row_weights,
    shift_of,
    without_ignored,
)
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
    sample_weight=None,
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
    labels : array_like or dask.array.Array
        The class of each row, of the shape of ``x`` without ``axis``; or probabilities of the shape of ``x``.
    sample_weight : array_like or dask.array.Array, optional
        One factor for each row.
    weight, ignore_index, label_smoothing, reduction
        As for `fastsoftmax.cross_entropy`.

    Returns
    -------
    dask.array.Array
        The loss: of no dimensions, or with ``reduction="none"`` of the shape of ``x`` without ``axis``.

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
    options = weight, sample_weight, ignore_index, label_smoothing, reduction
    return _loss(x, labels, axis, *options, reread, False)[0]


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
    reread=False,
):
    """`fastsoftmax.cross_entropy_with_grad` of a dask array: ``dx = (softmax(x) - onehot(label)) / m``.

    Computed together, the two read ``x`` as often as one of them.

    Parameters
    ----------
    x, labels, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, reread
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
    options = weight, sample_weight, ignore_index, label_smoothing, reduction
    return _loss(x, labels, axis, *options, reread, True)


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
    count = math.prod(states.shape[k] for k in axis)
    apart = np.moveaxis(states, axis, range(len(axis))).reshape(count, *_without(states.shape, axis))
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


def _loss(
    x, labels, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, reread, with_grad
):
    """The loss and, if asked for, its gradient."""
    ignore_index, smoothing = _options.check_loss(ignore_index, label_smoothing, reduction)
    x, axes, dtype = _checked(x, axis)
    if np.isnan(x.shape).any():
        raise ValueError(
            f"x has shape {x.shape}, of which a part is unknown: labels may lie in other rows; call "
            "x.compute_chunk_sizes() before, and that of labels"
        )
    again = _again(x, reread)
    rows = rows_of(x.shape, axes)
    n = rows.canonical[1]
    if weight is not None:
        weight = as_weight(weight, n, dtype).astype(np.float64)
    labels = _targets(labels, x, axes, rows, ignore_index)
    samples = () if sample_weight is None else (_sample_weights(sample_weight, labels, x, axes, rows),)
    if reduction == "mean":  # a factor of all weights is none of their mean
        if weight is not None and not is_soft(labels):
            weight = near_one(weight, weight)
        samples = tuple(
            da.map_blocks(np.ldexp, a, da.map_blocks(shift_of, abs(a).max(), dtype=int)) for a in samples
        )
    x, again = (a.astype(computed_in(dtype)) for a in (x, again))
    options = {"weight": weight, "smoothing": smoothing, "with_grad": with_grad}
    meta = np.empty((0,) * x.ndim, x.dtype)
    if _is_whole(x, axes):
        names = tuple(range(x.ndim))
        arguments = [part for a in (x, labels, *samples) for part in (a, names)]
        both = da.blockwise(_whole, names, *arguments, axes=axes, meta=meta, **options)
    else:
        others = labels, _at_labels(labels, weight, smoothing, axes), _classes(x, axes), *samples
        both = _with_states(_losses, again, axes, _states(x, axes), *others, n=n, meta=meta, **options)
    losses = both.map_blocks(itemgetter(0), chunks=_reduced_chunks(x, axes), dtype=np.float64, meta=meta)
    losses = losses.sum(axes)
    by = _divisor(labels, weight, ignore_index, samples, losses.size) if reduction == "mean" else 1
    loss = losses.astype(dtype) if reduction == "none" else _quotient(losses.sum(), by, dtype)
    if not with_grad:
        return loss, None
    return loss, both.map_blocks(_gradient, by, dtype, dtype=dtype, meta=meta.astype(dtype))


def _divisor(labels, weight, ignore_index, samples, rows):
    """What a mean divides by."""
    if is_soft(labels):
        return samples[0].sum() if samples else rows
    if weight is None and ignore_index is None and not samples:
        return rows
    return _row_weights(labels, weight, *samples).sum()


def _row_weights(labels, weight, samples=None):
    meta = np.empty((0,) * labels.ndim)
    return da.map_blocks(row_weights, labels, weight, samples, dtype=np.float64, meta=meta)


def _at_labels(labels, weight, smoothing, axes):
    """What each row's labels weigh together: 1 without weights."""
    if not is_soft(labels):
        return (1 - smoothing) * _row_weights(labels, weight)
    if weight is not None:
        labels = labels * weight.reshape([n if k in axes else 1 for k, n in enumerate(labels.shape)])
    return (1 - smoothing) * labels.sum(axes, keepdims=True, dtype=np.float64)


def _quotient(total, by, dtype):
    return da.map_blocks(_divided, total, by, dtype, dtype=dtype, meta=np.empty((), dtype))


def _targets(labels, x, axes, rows, ignore_index):
    """Labels with the dimensions and chunks of ``x``, ``axes`` of length one, -1 for what is ignored.

    Or probabilities, with all chunks of ``x``.
    """
    is_lazy = isinstance(labels, da.Array)
    if not is_lazy:
        labels = asarray(labels, "labels")
    if is_soft(labels):
        check_probabilities(labels, rows, ignore_index)
        return da.asarray(labels).rechunk(x.chunks)
    n = rows.canonical[1]
    valid = _valid(labels._meta if is_lazy else labels, n, ignore_index)
    labels = labels.map_blocks(_valid, n, ignore_index, dtype=np.intp) if is_lazy else da.from_array(valid)
    if labels.shape != rows.kept:
        raise ValueError(
            f"labels has shape {labels.shape}; expected {rows.kept}, the shape of x {x.shape} without axis"
        )
    return _one_a_row(labels, x, axes)


def _sample_weights(sample_weight, labels, x, axes, rows):
    is_lazy = isinstance(sample_weight, da.Array)
    sample_weight = sample_weight if is_lazy else da.asarray(as_float(sample_weight, "sample_weight"))
    check_sample_weight(sample_weight, rows)
    as_float(sample_weight._meta, "sample_weight")
    sample_weight = _one_a_row(sample_weight.astype(np.float64), x, axes)
    if is_soft(labels):
        return sample_weight
    return da.map_blocks(without_ignored, labels, sample_weight, dtype=np.float64)


def _one_a_row(a, x, axes):
    """With the dimensions and chunks of ``x``, but ``axes`` of length one."""
    a = a.rechunk(_without(x.chunks, axes))
    return a[tuple(np.newaxis if k in axes else slice(None) for k in range(x.ndim))]


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


def _divided(total, by, dtype):
    with np.errstate(all="ignore"):  # the mean of no rows is NaN
        return np.asarray(total / (by or np.nan)).astype(dtype)[()]


def _gradient(both, by, dtype):
    _, dx = both
    # Where weights cancel it is NaN, but 0 in rows left out.
    dx = dx / dx.dtype.type(by) if by != 0 else np.where(dx == 0, dx, np.nan)
    return dx.astype(dtype, copy=False)


def _whole(block, labels, samples=None, *, axes, weight, smoothing, with_grad):
    """Each row's loss and gradient, by the op: all of its entries are in the chunk."""
    op = fs.cross_entropy_with_grad if with_grad else fs.cross_entropy
    both = op(
        block,
        labels if is_soft(labels) else labels.squeeze(axes),
        axes,
        weight=weight,
        sample_weight=None if samples is None else samples.squeeze(axes),
        ignore_index=None if is_soft(labels) else -1,
        label_smoothing=smoothing,
        reduction="none",
    )
    losses, dx = both if with_grad else (both, None)
    return np.expand_dims(losses, axes).astype(np.float64), dx


def _losses(block, state, labels, at_label, classes, samples=None, *, axes, n, weight, smoothing, with_grad):
    """What the entries of a chunk add to each row's loss, and their part of its gradient."""
    x = as_float(block, "x")
    rows = rows_of(x.shape, axes)
    weight = np.ones(n) if weight is None else weight
    everywhere = smoothing / n * weight
    losses = np.zeros(state.shape[1:])
    samples = np.ones(losses.shape) if samples is None else samples
    if is_soft(labels):
        labels = rows.view(as_float(labels, "labels"))
    else:
        labels, samples = labels.reshape(rows.reduced), without_ignored(labels, samples)
    dx = rows.result(x.shape, x.dtype) if with_grad else None
    per_row = [a.reshape(rows.reduced) for a in (at_label, samples, *_numbers(state), losses)]
    classes = classes.ravel()
    shared = classes, (1 - smoothing) * weight[classes], everywhere[classes], float(everywhere.sum())
    outs = (dx.buffer,) if with_grad else ()
    _threads.run(_losses_of_rows, rows.canonical, (rows.view(x), labels, *shared, *per_row, *outs))
    return losses, dx.finish() if with_grad else None


@sized
def _losses_of_rows(
    x,
    labels,
    classes,
    weight,
    everywhere,
    all_everywhere,
    at_label,
    samples,
    row_max,
    log_rest,
    reference,
    total,
    losses,
    dx=None,
):
    """Of the loss ``sum_j w_j -log y_j``: ``w`` is ``everywhere`` and the label's, ``at_label`` in all."""
    for at, row in parts(x.shape):
        part, m, log_sum, sample = x[at].astype(np.float64), row_max[row], log_rest[row], samples[row]
        everywhere_ = everywhere[at[1], np.newaxis]
        if labels.ndim == 3:
            label = weight[at[1], np.newaxis] * labels[at]
        else:
            label = np.where(classes[at[1], np.newaxis] == labels[row], at_label[row], 0.0)
        terms = vectors._term(everywhere_ + label, m, part, log_sum)
        losses[row] += np.where(sample == 0, 0.0, sample * exact_sums(terms))
        if dx is not None:
            y = sum(shifted_exp(part, reference[row])) / total[row]
            # 1 - y of a largest above 2/3 is rest / (1 + rest), and does not cancel
            largest = (part == m) & (log_sum < np.log(1.5))
            of_labels = at_label[row] * y - label
            np.copyto(of_labels, (at_label[row] - label) + at_label[row] * np.expm1(-log_sum), where=largest)
            gradient = sample * ((all_everywhere * y - everywhere_) + of_labels)
            dx[at] = np.where(sample == 0, 0.0, gradient)
