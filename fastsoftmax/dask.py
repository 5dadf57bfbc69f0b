"""The ops on dask arrays, lazily and a chunk at a time, chunked in any way: along the softmax axis as well.

With one chunk along it each chunk is a call of the op. With several, each chunk gives the state of a
`fastsoftmax.LogSumExp`, three numbers a row, which a tree merges; of that and each chunk again its part of
the result is made. Backends and threads are what is set in the process of a chunk. docs/scale.md has what it
costs. Needs dask: ``pip install "fastsoftmax[dask]"``.
"""

import dask.array as da
import numpy as np

import fastsoftmax as fs
from fastsoftmax import _options, _threads
from fastsoftmax._arrays import as_float, rows_of
from fastsoftmax._dask_losses import loss_of
from fastsoftmax._dask_states import (
    again_of,
    as_accumulator,
    checked,
    is_whole,
    numbers_of,
    reduced_chunks,
    states_of,
    with_states,
)
from fastsoftmax.accumulator import parts, shifted_exp, sized

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
    x, axes, dtype = checked(x, axis)
    keepdims = _options.as_bool(keepdims, "keepdims")
    if where is not None:
        x = da.where(_mask(where, x), x, -np.inf)
    meta = np.empty((0,) * x.ndim, dtype)
    if is_whole(x, axes):
        chunks = reduced_chunks(x, axes)
        kept = x.map_blocks(fs.logsumexp, axes, keepdims=True, chunks=chunks, dtype=dtype, meta=meta)
    else:
        kept = states_of(x, axes).map_blocks(_value, dtype, drop_axis=0, dtype=dtype, meta=meta)
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
    return loss_of(x, labels, axis, *options, reread, False)[0]


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
    return loss_of(x, labels, axis, *options, reread, True)


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


def _forward(op, fill, x, axis, where, reread):
    x, axes, dtype = checked(x, axis)
    again = again_of(x, reread)
    if where is not None:
        mask = _mask(where, x)
        x, again = (da.where(mask, a, -np.inf) for a in (x, again))
    meta = np.empty((0,) * x.ndim, dtype)
    if is_whole(x, axes):
        y = x.map_blocks(getattr(fs, op), axes, dtype=dtype, meta=meta)
    else:
        y = with_states(_OF_STATES[op], again, axes, states_of(x, axes), dtype=dtype, meta=meta)
    return y if where is None else da.where(mask, y, np.asarray(fill, dtype))


def _value(state, dtype):
    return np.asarray(as_accumulator(state).value).astype(dtype)


def _softmax(block, state, axes):
    numbers = numbers_of(state)
    return _of_rows(_softmax_of_rows, block, axes, numbers.reference, numbers.total)


def _log_softmax(block, state, axes):
    numbers = numbers_of(state)
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
