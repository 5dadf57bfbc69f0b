"""Cross-entropies, and what they have beside the logits."""

import math

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
    refuse,
    shares_memory,
    without,
    writable,
    written,
)
from fastsoftmax._numba_overloads.symbols import call, sum_of
from fastsoftmax._options import REDUCTIONS
from fastsoftmax.registry import OPS


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
    if shares_memory(labels, out):  # where exps are kept while these are read
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
    total = sum_of(taken)
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
    return losses.dtype.type(np.divide(sum_of(losses), total))


def _check_loss(x, labels, weight, sample_weight, ignore_index, label_smoothing, reduction):
    """Whether the labels are probabilities."""
    soft = isinstance(labels, types.Array) and isinstance(labels.dtype, types.Float)
    if not soft and (not isinstance(labels, types.Array) or not isinstance(labels.dtype, types.Integer)):
        raise error(f"takes arrays of integer labels, or of probabilities: labels is {labels}")
    if soft and (labels.dtype != x.dtype or labels.ndim != x.ndim):
        raise error(f"takes probabilities of the dtype and dimensions of x, {x}: labels is {labels}")
    if not soft and (labels.ndim != x.ndim - 1 or labels.ndim == 0):
        raise error("takes labels with one dimension less than x, and at least one")
    if soft and not is_default(ignore_index):
        raise error("takes ignore_index with integer labels: rows of sample_weight 0 are left out")
    for name, value, ndim in (("weight", weight, 1), ("sample_weight", sample_weight, x.ndim - 1)):
        if not is_default(value):
            check(0, **{name: value})
            if value.ndim != ndim:
                raise error(
                    f"takes one weight for each {'class' if name == 'weight' else 'row'}: {name} is {value}"
                )
    if not is_default(label_smoothing) and not isinstance(label_smoothing, (types.Float, types.Integer)):
        raise error(f"takes a number between 0 and 1: label_smoothing is {label_smoothing}")
    if written(reduction) not in REDUCTIONS:
        raise error('takes reduction="mean", "sum" or "none", written so')
    return soft


def _loss(op):
    """All is said by name but for the first three: so one signature serves both."""
    has_gradient = op == "cross_entropy_with_grad"
    gradient = writable if has_gradient else _none
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
        check(axis, x=x)
        soft = _check_loss(x, labels, weight, sample_weight, ignore_index, label_smoothing, reduction)
        refuse(backend=backend, num_threads=num_threads, **({} if has_gradient else {"out": out}))
        check_out(out, x.dtype, x.ndim)
        code = OPS.index("soft_cross_entropy" if soft else "cross_entropy")
        targets_of = _probabilities if soft else _targets
        by_kind = register_jitable((lambda t: (t, None)) if soft else (lambda t: (None, t)))
        weights = _none if is_default(weight) else _weights
        sample_weights = _none if is_default(sample_weight) else _sample_weights
        smoothing = register_jitable(lambda *_: (0.0, None)) if is_default(label_smoothing) else _smoothing
        mean = register_jitable(lambda *_: (1.0, 1.0))
        if written(reduction) == "mean":
            mean = _mean_of_probabilities if soft else _mean_of_labels
        reduced = register_jitable(lambda losses, _: losses) if written(reduction) == "none" else _quotient

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
            check_apart(a, out)
            outer, n, inner, k = canonical(a.shape, axis)
            losses = np.empty(without(a.shape, k), a.dtype)
            targets, w = targets_of(labels, ignore_index, a.shape, k, out), weights(weight, n, a.dtype)
            samples = sample_weights(sample_weight, losses.shape, a.dtype)
            total, scale = mean(targets, w, samples, losses)
            share, everywhere = smoothing(label_smoothing, w, n, a.dtype)
            dx = gradient(out, a.shape, a.dtype)
            b, of_rows = by_kind(targets)
            call(code, a, b, dx, losses, of_rows, w, samples, everywhere, outer, n, inner, share, scale)
            return finished(reduced(losses, total), dx)

        return run

    overload(getattr(api, op), prefer_literal=True)(function)


for _op in ("cross_entropy", "cross_entropy_with_grad"):
    _loss(_op)
