"""What the right answers are, by three means that share no code with the library.

* autograd, from textbook compositions of `autograd.numpy`: every op, float64;
* mpmath, with hundreds of digits, as a `Exact` value and a remainder: for claims in ULP;
* NumPy's longdouble: for many cases quickly, and without the packages of the others (`tests/longdouble.py`).
"""

from functools import partial
from typing import NamedTuple

import autograd.numpy as anp
import mpmath
import numpy as np
from autograd import jacobian, make_vjp
from autograd.differential_operators import make_jvp
from autograd.tracer import getval

from tests.inputs import rng
from tests.longdouble import longdouble_forward

OPS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "softmax_vjp",
    "softmax_jvp",
    "log_softmax_vjp",
    "log_softmax_jvp",
    "softmax_solve",
    "softmax_jacobian",
    "log_softmax_jacobian",
    "cross_entropy",
    "cross_entropy_with_grad",
)
"""The public operations."""

FORWARD = ("softmax", "log_softmax", "logsumexp")
"""Those of one array of logits."""
ONE_A_ROW = ("logsumexp",)
"""Those with one result a row; `cross_entropy` has one a row or one in all."""
JACOBIANS = {"softmax_jacobian": "softmax", "log_softmax_jacobian": "log_softmax"}
"""Jacobians, and the forward op whose output they take."""
ROWS = tuple(op for op in OPS if op not in JACOBIANS)
NOT_ON_CUDA = (
    "softmax_solve",
    "weighted_logsumexp",
    "soft_cross_entropy",
    "soft_cross_entropy_with_grad",
    "segment_softmax",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax_vjp",
)
"""Kernels that the backend for GPUs does not have."""
TAKE_OUT = tuple(op for op in OPS if op != "cross_entropy")
PRODUCTS = {"softmax_vjp": "softmax", "softmax_jvp": "softmax"} | {
    "log_softmax_vjp": "log_softmax",
    "log_softmax_jvp": "log_softmax",
}
"""Products with a Jacobian, and the forward op whose output they take."""
SOLVES = {"softmax_solve": "softmax"}
"""The same of solutions, which without a ridge not every vector has."""
TWO_ARRAYS = PRODUCTS | SOLVES


# ---- autograd ----------------------------------------------------------------------------------


def softmax(x, axis=-1):
    e = anp.exp(x - _shift(x, axis))
    return e / anp.sum(e, axis=axis, keepdims=True)


def log_softmax(x, axis=-1):
    d = x - _shift(x, axis)
    return d - anp.log(anp.sum(anp.exp(d), axis=axis, keepdims=True))


def logsumexp(x, axis=-1):
    shift = _shift(x, axis)
    total = anp.sum(anp.exp(x - shift), axis=axis, keepdims=True)
    return anp.sum(shift + anp.log(total), axis=axis)


def _shift(x, axis):
    return np.max(getval(x), axis=axis, keepdims=True)


def cross_entropy(x, labels, *, weight=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    """The definition that PyTorch documents, for x (m, n): weights, smoothing, ignored rows, reductions."""
    m, n = x.shape
    weight = np.ones(n) if weight is None else np.asarray(weight, float)
    taking_part = np.ones(m, bool) if ignore_index is None else labels != ignore_index
    label = np.where(taking_part, labels, 0)
    logp = log_softmax(x)
    at_label = -logp[np.arange(m), label] * weight[label]
    everywhere = anp.sum(-logp * weight, axis=1) / n if label_smoothing else 0.0
    loss = ((1 - label_smoothing) * at_label + label_smoothing * everywhere) * taking_part
    if reduction == "none":
        return loss
    total = anp.sum(loss)
    return total / np.sum(weight[label] * taking_part) if reduction == "mean" else total


def autograd_answer(op, x, axis=-1, extra=()):
    """The results of a public op as a tuple of float64 arrays, from logits ``x`` and its other inputs."""
    x = np.asarray(x, np.float64)
    extra = tuple(np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else a for a in extra)
    if op in PRODUCTS:
        product = make_vjp if op.endswith("vjp") else make_jvp
        return (_product(product, partial(_FORWARD[PRODUCTS[op]], axis=axis), x, *extra),)
    if op in JACOBIANS:
        return (_blocks(_FORWARD[JACOBIANS[op]], x, axis),)
    if op.startswith("cross_entropy"):
        loss = partial(cross_entropy, labels=extra[0])
        pull_back, value = make_vjp(loss)(x)
        return (value,) if op == "cross_entropy" else (value, pull_back(1.0))
    return (_FORWARD[op](x, axis),)


_FORWARD = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}


def _product(make, f, x, v):
    if make is make_vjp:
        return make_vjp(f)(x)[0](v)
    return make_jvp(f)(x)(v)[1]


def _blocks(forward, x, axis):
    """Each row's own Jacobian, with ``axis`` last, as the batched layout has it."""
    kept, rows, n = rows_of(x, axis)
    return np.array([jacobian(forward)(row) for row in rows]).reshape(*kept, n, n)


def rows_of(x, axis):
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = sorted(a % x.ndim for a in axes)
    others = [a for a in range(x.ndim) if a not in axes]
    kept = [x.shape[a] for a in others]
    rows = x.transpose(*others, *axes).reshape(int(np.prod(kept)), -1)
    return kept, rows, rows.shape[1]


# ---- arguments ---------------------------------------------------------------------------------


def extra_inputs(op, x, axis=-1, seed=0):
    """What a public op takes beside ``x`` or its forward output: a random vector, or labels."""
    x = np.asarray(x)
    if op in PRODUCTS:
        return (rng(seed).normal(size=x.shape).astype(x.dtype),)
    if op in SOLVES:
        y = _forward_output(SOLVES[op], x, axis)
        return (_solvable(y, rng(seed).normal(size=x.shape), axis),)
    if op.startswith("cross_entropy"):
        kept, _, n = rows_of(x, axis)
        return (rng(seed).integers(0, n, kept),)
    return ()


def arguments(op, x, axis=-1, extra=None):
    """The positional arguments of a public op at logits ``x``: derivatives get the forward output."""
    x = np.asarray(x)
    extra = extra_inputs(op, x, axis) if extra is None else extra
    if forward := (TWO_ARRAYS | JACOBIANS).get(op):
        x = _forward_output(forward, x, axis)
    return (x, *extra)


def options(op):
    """What a call says so that each row has a result of its own, whatever its arguments were rounded to."""
    return {"reduction": "none"} if op.startswith("cross") else {"ridge": 0.25} if op in SOLVES else {}


def _forward_output(op, x, axis):
    with np.errstate(over="ignore"):  # a logarithm beyond the dtype's range is -inf
        return longdouble_forward(op, x, axis).astype(x.dtype)


def _solvable(y, t, axis):
    """The product of the Jacobian and ``t``, whose rows sum to 0 but for one rounding an entry."""
    axes = tuple(range(y.ndim)) if axis is None else axis
    total = partial(np.sum, axis=axes, keepdims=True)
    wide, t = y.astype(np.longdouble), t.astype(np.longdouble)
    h = t - total(t * (y == y.max(axis=axes, keepdims=True)))  # around the dominant entry's: nothing cancels
    return (wide * (h - total(wide * h) / total(wide))).astype(y.dtype)


# ---- mpmath ------------------------------------------------------------------------------------

_forward_digits, _product_digits = mpmath.mp.clone(), mpmath.mp.clone()
_forward_digits.dps = 60  # sums of positive terms: nothing cancels
_product_digits.dps = 850  # in a saturated row 700 digits may cancel; 50 gave wrong references


class Exact(NamedTuple):
    """Exact values as the nearest float64 and what is left."""

    high: np.ndarray
    low: np.ndarray

    def ulps(self, actual):
        """The largest distance of ``actual``, in units in the last place of the exact values."""
        with np.errstate(all="ignore"):
            ulp = np.spacing(np.abs(self.high).astype(actual.dtype)).astype(np.float64)
            distance = np.abs((actual.astype(np.float64) - self.high) - self.low) / ulp
            rounded = self.high.astype(actual.dtype)
        distance = np.where((actual == rounded) & ~np.isfinite(rounded), 0.0, distance)
        return float(np.max(np.where(np.isnan(distance), np.inf, distance), initial=0.0))

    @classmethod
    def of(cls, rows):
        """From a nested list of mpmath numbers."""
        flat, shape = _flatten(rows)
        high = [float(v) for v in flat]
        low = [float(v - h) if np.isfinite(h) else 0.0 for v, h in zip(flat, high, strict=True)]
        return cls(np.array(high).reshape(shape), np.array(low).reshape(shape))


def _flatten(rows):
    shape = []
    level = rows
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0]
    for _ in shape[1:]:
        rows = [v for row in rows for v in row]
    return rows, shape


def exact_forward(op, x):
    """softmax, log_softmax, logsumexp, softmax_jacobian or its diagonal, of logits (rows, n) below inf."""
    return Exact.of([_exact_row(op, row) for row in np.asarray(x, np.float64).tolist()])


def exact_log_softmax_jacobian(logy, mp=_forward_digits):
    """The blocks that these logarithms (rows, n) stand for."""
    rows = [[mp.mpf(a) for a in row] for row in np.asarray(logy, np.float64).tolist()]
    blocks = [[[-mp.exp(a)] * len(row) for a in row] for row in rows]
    for row, block in zip(rows, blocks, strict=True):
        for j, a in enumerate(row):
            block[j][j] = -mp.expm1(a)
    return Exact.of([[list(line) for line in zip(*block, strict=True)] for block in blocks])


def exact_cross_entropy(x, labels):
    """Each row's loss, and its gradient."""
    losses, gradients = [], []
    for row, label in zip(np.asarray(x, np.float64).tolist(), labels, strict=True):
        losses.append(-_exact_row("log_softmax", row)[label])
        y = _exact_row("softmax", row)
        y[label] = -_one_minus(row, label)
        gradients.append(y)
    return Exact.of(losses), Exact.of(gradients)


def exact_soft_cross_entropy(x, t, weight=None, sample_weight=None, smoothing=0.0, mp=_forward_digits):
    """Each row's loss ``sum_j u_j -log y_j``, its gradient, and the size of what that is a difference of."""
    m, n = np.shape(x)
    weight = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    sample_weight = np.ones(m) if sample_weight is None else np.asarray(sample_weight, np.float64)
    losses, gradients, sizes = [], [], []
    rows = zip(*(np.asarray(a, np.float64).tolist() for a in (x, t, sample_weight)), strict=True)
    for row, t_row, of_row in rows:
        at_label, spread = 1 - mp.mpf(smoothing), mp.mpf(smoothing) / n
        u = [
            of_row * mp.mpf(w) * (at_label * a + spread) for a, w in zip(t_row, weight.tolist(), strict=True)
        ]
        logs, y, total = _exact_row("log_softmax", row), _exact_row("softmax", row), mp.fsum(u)
        losses.append(-mp.fsum(a * b for a, b in zip(u, logs, strict=True) if a))
        gradients.append([a * total - b for a, b in zip(y, u, strict=True)])
        size = [abs(a * total) + abs(b) for a, b in zip(y, u, strict=True)]
        k = row.index(max(row))
        if y[k] > mp.mpf(2) / 3:  # 1 - y and what it is of are sums
            others, one_minus = mp.fsum(u[:k] + u[k + 1 :]), _one_minus(row, k)
            gradients[-1][k], size[k] = others - total * one_minus, abs(others) + abs(total * one_minus)
        sizes.append([float(a) for a in size])
    return Exact.of(losses), Exact.of(gradients), np.array(sizes)


def exact_weighted_logsumexp(x, b, mp=_product_digits):
    """Of finite rows, and how much larger the sum of the terms' sizes is than theirs."""
    logs, gaps = [], []
    for row, factors in zip(*(np.asarray(a, np.float64).tolist() for a in (x, b)), strict=True):
        terms = [mp.mpf(w) * mp.exp(mp.mpf(a)) for a, w in zip(row, factors, strict=True)]
        total = mp.fsum(terms)
        logs.append(mp.log(total))
        gaps.append(float(mp.fsum(map(abs, terms)) / total))
    return Exact.of(logs), np.array(gaps)


def _exact_row(op, row, mp=_forward_digits):
    k = row.index(max(row))
    shifted = [mp.mpf(a) - row[k] for a in row]
    e = [mp.exp(d) for d in shifted]
    rest = mp.fsum(e[:k] + e[k + 1 :])
    if op == "softmax":
        return [a / (1 + rest) for a in e]
    if op == "log_softmax":
        return [d - mp.log1p(rest) for d in shifted]
    if op == "logsumexp":
        return row[k] + mp.log1p(rest)
    y = [a / (1 + rest) for a in e]
    if op == "softmax_jacobian_diagonal":
        return [a * _one_minus(row, i) for i, a in enumerate(y)]
    return [[a * _one_minus(row, i) if i == j else -a * b for j, b in enumerate(y)] for i, a in enumerate(y)]


def _one_minus(row, i, mp=_forward_digits):
    """``1 - y_i`` without cancellation: the others' share."""
    e = [mp.exp(mp.mpf(a) - max(row)) for a in row]
    return mp.fsum(e[:i] + e[i + 1 :]) / mp.fsum(e)


def exact_softmax_product(x, v):
    """The VJP and JVP of softmax at logits ``x`` (rows, n), as the textbook has it."""
    rows = []
    for row, v_row in zip(
        np.asarray(x, np.float64).tolist(), np.asarray(v, np.float64).tolist(), strict=True
    ):
        y = _exact_row("softmax", row, _product_digits)
        dot = _product_digits.fsum(a * b for a, b in zip(y, v_row, strict=True))
        rows.append([a * (b - dot) for a, b in zip(y, v_row, strict=True)])
    return Exact.of(rows)


class Solution(NamedTuple):
    """An exact one, and what the error of an entry counts in.

    ``size`` is that of the terms, ``reach`` what it changes with a last bit of each of ``b``'s dominant
    entries, and ``last`` with a smallest number in each term and factor.
    """

    exact: Exact
    size: np.ndarray
    reach: np.ndarray
    last: np.ndarray


def exact_solution(y, b, ridge, counts=None, mp=_product_digits):
    """Of ``(diag(y) - y y^T / sum(y) + ridge I) v = b``, of one row, or the least without a ridge.

    ``counts`` says how many entries of the row each given one stands for.
    """
    y, b = ([mp.mpf(a) for a in np.asarray(row, np.float64).tolist()] for row in (y, b))
    r, counts = mp.mpf(float(ridge)), [1] * len(y) if counts is None else list(counts)

    def total(terms):
        return mp.fsum(k * a for k, a in zip(counts, terms, strict=True))

    d = [a + r or mp.inf for a in y]  # of an entry that has neither, 1 / d is 0
    shares = total(a / e for a, e in zip(y, d, strict=True))
    c = total((a * v / r if r else -v) / e for a, v, e in zip(y, b, d, strict=True)) / shares
    terms = total((min(1, a / r) if r else 1) * abs(v) / e for a, v, e in zip(y, b, d, strict=True)) / shares
    dominant = total(abs(v) * (a > r) for a, v in zip(y, b, strict=True))
    per_bit, per_term = (dominant / (r * shares), 1 + 1 / r) if r else (0, 1)
    per_term *= sum(counts) / shares
    columns = list(zip(y, b, d, strict=True))
    exact = Exact.of([(v + c * a) / e for a, v, e in columns])
    size = [(abs(v) + a * (abs(c) + terms)) / e for a, v, e in columns]
    reach = [per_bit * a / e for a, _, e in columns]
    last = [1 + (1 + a * per_term) / e for a, _, e in columns]
    return Solution(exact, *(np.array([float(u) for u in unit]) for unit in (size, reach, last)))


# ---- the sources' measure ----------------------------------------------------------------------


def mape(actual, desired):
    """Mean absolute percentage error, ``mean(abs(a - b) / abs(b)) * 100``; where b is 0, so must a be.

    Examples
    --------
    >>> round(mape([1.01, 0.0], [1.0, 0.0]), 6)
    0.5
    >>> mape([1.0, 1e-300], [1.0, 0.0])
    inf
    """
    a, b = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(a == b, 0.0, np.abs(a - b) / np.abs(b))
    return float(error.mean() * 100)
