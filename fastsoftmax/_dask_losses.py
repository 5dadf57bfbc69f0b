"""Cross-entropies of dask arrays, and their gradients."""

from operator import itemgetter

import dask.array as da
import numpy as np

import fastsoftmax as fs
from fastsoftmax import _options, _threads
from fastsoftmax._arrays import as_float, computed_in, rows_of
from fastsoftmax._asarray import asarray
from fastsoftmax._dask_states import (
    again_of,
    checked,
    is_whole,
    numbers_of,
    reduced_chunks,
    states_of,
    with_states,
    without,
)
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
from fastsoftmax.accumulator import exact_sums, parts, shifted_exp, sized
from fastsoftmax.backends import numpy as vectors


def loss_of(
    x, labels, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, reread, with_grad
):
    """The loss and, if asked for, its gradient."""
    ignore_index, smoothing = _options.check_loss(ignore_index, label_smoothing, reduction)
    x, axes, dtype = checked(x, axis)
    if np.isnan(x.shape).any():
        raise ValueError(
            f"x has shape {x.shape}, of which a part is unknown: labels may lie in other rows; call "
            "x.compute_chunk_sizes() before, and that of labels"
        )
    again = again_of(x, reread)
    rows = rows_of(x.shape, axes)
    n, is_mean = rows.canonical[1], reduction == "mean"
    labels = _targets(labels, x, axes, rows, ignore_index)
    if weight is not None:
        weight = as_weight(weight, n, dtype).astype(np.float64)
        weight = near_one(weight, weight) if is_mean and not is_soft(labels) else weight
    samples = () if sample_weight is None else (_sample_weights(sample_weight, labels, x, axes, rows),)
    if is_mean:
        samples = tuple(map(_near_one, samples))
    x, again = (a.astype(computed_in(dtype)) for a in (x, again))
    options = {"weight": weight, "smoothing": smoothing, "with_grad": with_grad}
    meta = np.empty((0,) * x.ndim, x.dtype)
    if is_whole(x, axes):
        names = tuple(range(x.ndim))
        arguments = [part for a in (x, labels, *samples) for part in (a, names)]
        both = da.blockwise(_whole, names, *arguments, axes=axes, meta=meta, **options)
    else:
        others = labels, _at_labels(labels, weight, smoothing, axes), _classes(x, axes), *samples
        both = with_states(_losses, again, axes, states_of(x, axes), *others, n=n, meta=meta, **options)
    losses = both.map_blocks(itemgetter(0), chunks=reduced_chunks(x, axes), dtype=np.float64, meta=meta)
    losses = losses.sum(axes)
    by = _divisor(labels, weight, ignore_index, samples, losses.size) if is_mean else 1
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


def _near_one(samples):
    """By a power of two, which is none of their mean."""
    shift = da.map_blocks(shift_of, abs(samples).max(), dtype=int)
    return da.map_blocks(np.ldexp, samples, shift)


def _one_a_row(a, x, axes):
    """With the dimensions and chunks of ``x``, but ``axes`` of length one."""
    a = a.rechunk(without(x.chunks, axes))
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
    per_row = [a.reshape(rows.reduced) for a in (at_label, samples, *numbers_of(state), losses)]
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
