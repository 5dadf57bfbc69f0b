"""What is measured: one table of ops, shapes and dtypes, with inputs and float64 answers.

The tests' inputs serve here too (`tests.inputs`), so that what is timed has been checked.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes "bfloat16" a dtype)
import numpy as np

from bench.side_paths import PATHS, SidePath
from fastsoftmax.registry import OPS
from tests import inputs

SHAPES = ((1, 10), (32, 10), (1000, 5), (100_000, 10), (1000, 100), (1000, 1000), (64, 50257))
JACOBIAN_SHAPES = ((1, 10), (1000, 5), (1000, 64), (100, 1000))
DIAGONAL_SHAPES = ((100_000, 10), (1000, 1000))
SOLVE_SHAPES = ((1000, 10), (100, 100), (10, 1000))
DTYPES = ("float64", "float32")
HALVES = ("float16", "bfloat16")

# Arrays read and written, in units of the first argument: what a kernel must move at least.
STREAMS = {"logsumexp": 1, "cross_entropy": 1, "segment_logsumexp": 1} | dict.fromkeys(
    ("softmax_vjp", "log_softmax_vjp", "log_softmax_jvp", "softmax_solve", "segment_softmax_vjp"), 3
)


@dataclass(frozen=True)
class Case:
    """One cell: an op on one shape and dtype, and its side path by name if the call is not a plain one.

    Without ``out`` the result is allocated within the measured time, as users pay for it.
    """

    op: str
    shape: tuple
    dtype: str
    axis: int | tuple = -1
    out: bool = False
    layout: str = "batched"
    path: str = ""

    def __str__(self):
        options = [f"axis={self.axis}"] if self.axis != -1 else []
        options += ["out="] if self.out else []
        options += [self.layout] if self.layout != "batched" else []
        options += [self.path] if self.path else []
        shape = "x".join(map(str, self.shape))
        return " ".join((self.op, shape, self.dtype.replace("float", "f"), *options))

    @property
    def side_path(self):
        return PATHS[self.path] if self.path else SidePath()

    @property
    def size(self):
        return prod(self.shape)

    @property
    def bytes(self):
        """What must go through memory: each input read once, each result written once."""
        itemsize = np.dtype(self.dtype).itemsize
        if self.op in JACOBIANS and self.layout != "diagonal":
            rows = self.shape[0] if self.layout == "dense" else 1
            return self.size * self.shape[-1] * rows * itemsize
        return STREAMS.get(self.op, 2) * self.size * itemsize

    def plain(self):
        """The call beside which a side path is seen: along rows, and of float32 for halves."""
        dtype = "float32" if self.dtype in HALVES else self.dtype
        rows = self.shape if isinstance(self.axis, int) else (self.shape[0], prod(self.shape[1:]))
        return replace(self, shape=rows, dtype=dtype, axis=-1, path="")

    def small(self):
        """The same with few rows of few entries, for a smoke run."""
        return replace(self, shape=tuple(min(s, 40 if i else 20) for i, s in enumerate(self.shape)))


# Not the registry's: `bench.gate` runs these cases on revisions that have no such names.
JACOBIANS = ("softmax_jacobian", "log_softmax_jacobian")
SEGMENTS = ("segment_softmax", "segment_log_softmax", "segment_logsumexp", "segment_softmax_vjp")
ROW_OPS = tuple(
    op
    for op in OPS
    if "jacobian" not in op and not op.startswith(("soft_", "softmax_solve", "segment_", "weighted_"))
)
CASES = (
    *(Case(op, shape, dtype) for op in ROW_OPS for shape in SHAPES for dtype in DTYPES),
    *(Case("softmax_jacobian", shape, dtype) for shape in JACOBIAN_SHAPES for dtype in DTYPES),
    *(Case("log_softmax_jacobian", (1000, n), dtype) for n in (5, 64) for dtype in DTYPES),
    *(Case("softmax_solve", shape, dtype, path="ridge=") for shape in SOLVE_SHAPES for dtype in DTYPES),
    Case("softmax_jacobian", (1000, 5), "float64", layout="dense"),
    *(Case("softmax_jacobian", s, dtype, layout="diagonal") for s in DIAGONAL_SHAPES for dtype in DTYPES),
    *(Case(op, (100_000,), dtype) for op in SEGMENTS for dtype in DTYPES),
    *(Case(op, (1000, 1000), dtype, axis=0) for op in ("softmax", "softmax_vjp") for dtype in DTYPES),
    *(
        Case("cross_entropy_with_grad", shape, dtype, path=path)
        for path in ("probabilities", "sample_weight=")
        for shape, dtype in (((32, 10), "float32"), ((1000, 5), "float64"), ((1000, 1000), "float32"))
    ),
    *(
        Case("logsumexp", shape, dtype, path="b=")
        for shape, dtype in (((32, 10), "float64"), ((1000, 1000), "float32"))
    ),
    *(Case(op, (4096, 4096), "float32", out=True) for op in ("softmax", "softmax_vjp")),
)


class Call(NamedTuple):
    """A case's arguments, what is said beside them, and what only this library is told."""

    args: tuple
    said: dict[str, Any]
    ours: dict[str, Any]


@lru_cache(1)
def call(case):
    """What candidates are called with."""
    plain, path = _plain_arguments(case), case.side_path
    return Call(path.arrays(*plain), path.said(*plain), path.ours)


def _plain_arguments(case):
    x = _logits(case)
    if case.op in SEGMENTS:
        return _ragged_arguments(case, x)
    if case.op in ("softmax", "log_softmax", "logsumexp"):
        return (x,)
    if case.op.startswith("cross_entropy"):
        return x, inputs.rng(1).integers(0, case.shape[-1], case.shape[0])
    y, logy = (_answer(Case(op, *_cell(case)), x) for op in ("softmax", "log_softmax"))
    if case.op in JACOBIANS:
        return ((y if case.op == "softmax_jacobian" else logy).astype(case.dtype),)
    vector = inputs.rng(2).normal(size=case.shape).astype(case.dtype)
    if case.op == "softmax_solve":
        return y.astype(case.dtype), _softmax_vjp(case, y, vector).astype(case.dtype)
    return (y if case.op == "softmax_vjp" else logy).astype(case.dtype), vector


def _ragged_arguments(case, x):
    """Segments of one to nineteen entries."""
    lengths = inputs.rng(4).integers(1, 20, case.size)
    ptr = np.concatenate([[0], np.minimum(np.cumsum(lengths), case.size)])
    ptr = ptr[: np.searchsorted(ptr, case.size) + 1]
    if case.op != "segment_softmax_vjp":
        return x, ptr
    y = _segment_softmax(case, x.astype(np.float64), ptr).astype(case.dtype)
    return y, inputs.rng(2).normal(size=case.shape).astype(case.dtype), ptr


def _logits(case):
    *m, n = case.shape
    m = prod(m)
    x = inputs.sources(m) if n == 5 else inputs.width(n, np.float64, rows=m)
    return x.reshape(case.shape).astype(case.dtype)


def _cell(case):
    return case.shape, case.dtype, case.axis


@lru_cache(1)
def answer(case):
    """The result in float64, a tuple of arrays; from the same rounded inputs."""
    (first, *others), said, _ = call(case)
    first, *others = (_as_float64(np.asarray(a)) for a in (first, *others))
    said = {name: _as_float64(v) if isinstance(v, np.ndarray) else v for name, v in said.items()}
    if "where" in said:
        first = np.where(said.pop("where"), first, -np.inf)
    result = _answer(case, first, *others, **said)
    return result if isinstance(result, tuple) else (result,)


def _as_float64(a):
    return a if a.dtype.kind in "iub" else a.astype(np.float64)


def _answer(case, *args, **said):
    return _FORMULAS[case.op](case, *args, **said)


def _softmax(case, x):
    return np.exp(_log_softmax(case, x))


def _log_softmax(case, x):
    return x - _logsumexp(case, x, keepdims=True)


def _logsumexp(case, x, keepdims=False, b=1.0):
    m = x.max(case.axis, keepdims=True).astype(np.float64)
    total = m + np.log((b * np.exp(x - m)).sum(case.axis, keepdims=True))
    return total if keepdims else total.squeeze(case.axis)


def _softmax_vjp(case, y, g):
    return y * (g - (y * g).sum(case.axis, keepdims=True))


def _log_softmax_vjp(case, logy, g):
    return g - np.exp(logy) * g.sum(case.axis, keepdims=True)


def _log_softmax_jvp(case, logy, t):
    return t - (np.exp(logy) * t).sum(case.axis, keepdims=True)


def _softmax_solve(case, y, b, ridge=0.0):
    if ridge == 0:
        v = b / y
        return v - v.mean(case.axis, keepdims=True)
    w = y / (y + ridge)
    c = (w * b).sum(case.axis, keepdims=True) / (ridge * w.sum(case.axis, keepdims=True))
    return (b + c * y) / (y + ridge)


def _softmax_jacobian(case, y):
    if case.layout == "diagonal":
        return y * (1 - y)
    m, n = case.shape
    blocks = -y[:, :, None] * y[:, None, :]
    np.einsum("pii->pi", blocks)[...] += y
    if case.layout == "batched":
        return blocks
    dense = np.zeros((m, n, m, n))
    np.einsum("pipj->pij", dense)[...] = blocks
    return dense


def _log_softmax_jacobian(case, logy):
    return np.eye(case.shape[-1]) - np.exp(logy)[:, None, :]


def _cross_entropy(case, x, labels, **said):
    return _cross_entropy_with_grad(case, x, labels, **said)[0]


def _cross_entropy_with_grad(
    case,
    x,
    labels,
    weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
):
    """Of a target that is a distribution over the classes, whatever it comes from."""
    m, n = case.shape
    weight = np.ones(n) if weight is None else weight
    of_rows = np.ones(m) if sample_weight is None else sample_weight
    if labels.ndim == 1:
        of_rows = of_rows * (labels != ignore_index)
        total = (of_rows * weight[labels]).sum() if reduction == "mean" else 1
        labels = np.eye(n)[labels]
    else:
        total = of_rows.sum() if reduction == "mean" else 1
    target = (label_smoothing / n + (1 - label_smoothing) * labels) * weight * of_rows[:, None]
    losses = -(target * _log_softmax(case, x)).sum(-1)
    dx = _softmax(case, x) * target.sum(-1, keepdims=True) - target
    return losses if reduction == "none" else losses.sum() / total, dx / total


def _segment_softmax(case, x, ptr):
    return np.exp(_segment_log_softmax(case, x, ptr))


def _segment_log_softmax(case, x, ptr):
    return x - np.repeat(_segment_logsumexp(case, x, ptr), np.diff(ptr))


def _segment_logsumexp(case, x, ptr):
    m = np.maximum.reduceat(x, ptr[:-1])
    return m + np.log(np.add.reduceat(np.exp(x - np.repeat(m, np.diff(ptr))), ptr[:-1]))


def _segment_softmax_vjp(case, y, g, ptr):
    return y * (g - np.repeat(np.add.reduceat(y * g, ptr[:-1]), np.diff(ptr)))


_FORMULAS = {op: globals()[f"_{op}"] for op in (*ROW_OPS, "softmax_solve", *JACOBIANS, *SEGMENTS)}

# The peers' textbook formulas lose 900 ULP; a wrong row is off by far more.
TOLERANCES = {"float64": 1e-12, "float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


# Errors count relative to the largest entry of their row, with this share of the whole answer's added:
# the textbook VJP of a saturated row keeps no more than that.
SLACK = 0.01


def error(case, result):
    """The largest difference from the answer, relative to the size of the row that it is in."""
    results = result if isinstance(result, tuple) else (result,)
    return max(map(_relative_error, results, answer(case)))


def _relative_error(a, b):
    a = np.asarray(a)
    if a.shape != b.shape:
        return np.inf
    n = b.shape[-1] if b.ndim > 1 else 1
    a, b = a.reshape(-1, n), b.reshape(-1, n)
    largest = max(b.max(), -b.min())
    return max(_worst_of(x, y, largest) for x, y in zip(_parts(a), _parts(b), strict=True))


def _worst_of(a, b, largest):
    error, size = np.abs(a - b).max(axis=1), np.abs(b).max(axis=1) + SLACK * largest
    # The logarithm of a softmax of one entry is 0.
    worst = np.divide(error, size, out=np.zeros_like(size), where=error != 0).max()
    return np.inf if np.isnan(worst) else worst


def _parts(a, elements=2**16):
    """Blocks of rows: whole temporaries of a large Jacobian would take longer than what is timed."""
    step = max(1, elements // a.shape[1])
    return (a[i : i + step] for i in range(0, len(a), step))


class WrongAnswer(AssertionError):
    """A candidate's result is wrong; its time would mean nothing."""


def check(case, candidate, result):
    """Raise `WrongAnswer` unless the result is right."""
    if not (off := error(case, result)) <= TOLERANCES[case.dtype]:
        raise WrongAnswer(f"FAIL {case}, {candidate}: off by {off:.1e}, relatively; not timed")
