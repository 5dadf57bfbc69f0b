"""What a cross-entropy has beside the logits: labels or probabilities, and weights of classes and of rows.

The short way has the like in src_cy/losses.pxi.
"""

from typing import NamedTuple

import numpy as np

from fastsoftmax._arrays import as_float, computed_in, is_half
from fastsoftmax._asarray import asarray, how_to_convert
from fastsoftmax._front import exact_sum, floating_point_mode


class Targets(NamedTuple):
    """What kernels get of it: canonical arrays, where ignored labels are -1, and the share of smoothing."""

    labels: np.ndarray
    weight: np.ndarray | None
    sample_weight: np.ndarray | None
    smoothing: float

    def op(self, name):
        """The kernel's name: probabilities have their own."""
        return f"soft_{name}" if is_soft(self.labels) else name

    def arrays(self):
        return [a for a in self[:3] if a is not None]

    def mean(self):
        """The same for a mean, the rows' weight that it divides by, and the factor of its gradient.

        A factor of all weights is none of their mean: they get such a power of two that neither their sum nor
        its inverse leaves the range. Both are NaN where weights cancel.
        """
        labels, weight, sample_weight, smoothing = self
        if weight is not None and not is_soft(labels):
            weight = near_one(weight, of_labels(weight, labels))
        if sample_weight is not None:
            sample_weight = near_one(sample_weight, sample_weight)
        weights = row_weights(labels, weight, sample_weight)
        divisor = float(exact_sum(weights)) or np.nan
        with floating_point_mode():
            scale = 1 / divisor if weights.any() else 1.0  # of rows left out all gradients are 0
        return Targets(labels, weight, sample_weight, smoothing), divisor, scale


def targets_of(rows, dtype, labels, weight, sample_weight, ignore_index, smoothing):
    """Those of the ``rows`` of logits of ``dtype``, or an error that names what is wrong with them."""
    labels = asarray(labels, "labels")
    if is_soft(labels):
        labels = as_probabilities(labels, rows, dtype, ignore_index)
    else:
        labels = as_labels(labels, rows, ignore_index)
    weight = None if weight is None else as_weight(weight, rows.canonical[1], dtype)
    if sample_weight is not None:
        sample_weight = without_ignored(labels, as_sample_weight(sample_weight, rows, dtype))
    return Targets(labels, weight, sample_weight, smoothing)


def is_soft(labels):
    """Whether these are probabilities, not class indices."""
    return labels.dtype.kind == "f" or is_half(labels.dtype)


def as_probabilities(labels, rows, dtype, ignore_index):
    """One for each logit of ``dtype``, in canonical form: of the dtype that kernels compute in, or halves."""
    check_probabilities(labels, rows, ignore_index)
    labels = as_float(labels, "labels")
    if not (is_half(labels.dtype) and is_half(dtype)):
        labels = _computed_with(labels, dtype)
    return rows.view(labels)


def check_probabilities(labels, rows, ignore_index):
    """Raise unless they have the shape of ``x``; a row of them cannot be ignored."""
    if labels.shape == rows.kept != rows.shape:
        raise TypeError(
            f"labels has dtype {labels.dtype}; expected an integer dtype: class indices, or else "
            f"probabilities of x's shape {rows.shape}"
        )
    if labels.shape != rows.shape:
        raise ValueError(
            f"labels has shape {labels.shape}; expected {rows.shape}, a probability for each entry of x, or "
            f"class indices of an integer dtype and shape {rows.kept}"
        )
    if ignore_index is not None:
        raise ValueError(
            "ignore_index is a class index, and labels are probabilities: leave rows out by a sample_weight "
            "of 0"
        )


def as_labels(labels, rows, ignore_index=None):
    """Class labels of shape ``x`` without ``axis``, as canonical ``(outer, inner)`` intp; ignored ones -1."""
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels has dtype {labels.dtype}; expected an integer dtype: {_how_to_label(labels)}"
        )
    if labels.shape != rows.kept:
        raise ValueError(
            f"labels has shape {labels.shape}; expected {rows.kept}, the shape of x {rows.shape} without axis"
            + (", or one-hot rows as floats" if labels.shape == rows.shape else "")
        )
    ignored = labels == ignore_index if ignore_index is not None else None
    _check_range(labels, rows.canonical[1], ignored)
    if labels.dtype != np.intp or not (labels.flags.c_contiguous and labels.flags.aligned):
        labels = np.require(labels, np.intp, "CA")
    if ignored is not None:
        labels = np.where(ignored, -1, labels)
    return labels.reshape(rows.reduced)


def _how_to_label(labels):
    if labels.dtype.kind == "b":
        return "class indices, or one-hot rows as floats"
    return how_to_convert(labels, "labels", "np.int64")


def _check_range(labels, n, ignored):
    if labels.size == 0 or (labels.min() >= 0 and labels.max() < n):
        return
    wrong = (labels < 0) | (labels >= n)
    if ignored is not None:
        wrong &= ~ignored
    if wrong.any():
        position = tuple(int(i) for i in np.unravel_index(np.argmax(wrong), labels.shape))
        raise IndexError(
            f"labels{list(position)} is {labels[position]}, out of range for {n} classes: "
            f"expected 0 to {n - 1}"
        )


def as_weight(weight, n, dtype):
    """One weight for each of ``n`` classes, of the dtype in which kernels compute with ``dtype``."""
    weight = as_float(weight, "weight")
    if weight.shape != (n,):
        raise ValueError(f"weight has shape {weight.shape}; expected ({n},), one for each class")
    return _computed_with(weight, dtype)


def as_sample_weight(sample_weight, rows, dtype):
    """One weight for each row, canonical ``(outer, inner)``, of that dtype."""
    sample_weight = as_float(sample_weight, "sample_weight")
    check_sample_weight(sample_weight, rows)
    return _computed_with(sample_weight, dtype).reshape(rows.reduced)


def check_sample_weight(sample_weight, rows):
    """Raise unless it has the shape of ``x`` without ``axis``."""
    if sample_weight.shape != rows.kept:
        raise ValueError(
            f"sample_weight has shape {sample_weight.shape}; expected {rows.kept}, the shape of x "
            f"{rows.shape} without axis"
        )


def without_ignored(labels, sample_weight):
    """Of weight 0 are rows whose label is ignored: what was given for them may be anything."""
    return sample_weight if is_soft(labels) else np.where(labels < 0, 0, sample_weight)


def _computed_with(a, dtype):
    with np.errstate(all="ignore"):  # what is beyond float32 becomes infinite
        return np.require(a, computed_in(dtype), "CA")


def near_one(weights, of_rows):
    """The weights by a power of two, if the largest that any row has is far from 1."""
    with floating_point_mode(), np.errstate(all="ignore"):
        return np.ldexp(weights, shift_of(np.abs(of_rows).max(initial=0)))


def shift_of(largest):
    """The power of two that brings it near 1, if it is far."""
    is_far = np.isfinite(largest) and largest != 0 and not 2.0**-30 <= largest <= 2.0**30
    return -np.frexp(largest)[1] if is_far else 0


def of_labels(weight, labels):
    """The weight of each label's class in float64, 0 of an ignored one, -1."""
    return np.append(weight.astype(np.float64), 0.0)[labels]


def row_weights(labels, weight, sample_weight):
    """How much each row counts in a mean, in float64: its label's weight times its own, or 0 of one left out.

    Class weights of probabilities do not count, as in PyTorch.
    """
    if is_soft(labels):
        weights = np.ones((labels.shape[0], *labels.shape[2:]))
    elif weight is None:
        weights = (labels >= 0).astype(np.float64)
    else:
        weights = of_labels(weight, labels)
    if sample_weight is None:
        return weights
    with floating_point_mode(), np.errstate(all="ignore"):
        return np.where(sample_weight == 0, 0.0, weights * sample_weight)
