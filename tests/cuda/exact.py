"""What kernels must give, in longdouble from the stored inputs, and by how much they may be off.

The bounds are those of docs/numerics.md ("The other backends"): 4 ULP where other backends have 3; 16-bit
storage is computed in float32 and rounded once.
"""

import numpy as np

from tests.longdouble import longdouble_forward

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
TINY = {"float64": 5e-324, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
ULPS = {"float64": 4, "float32": 4, "float16": 1, "bfloat16": 1}
JACOBIAN_ULPS = 7
PRODUCT_EPS = 6


def to_stored(values, storage):
    """Rounded to a dtype as it lies in memory; bfloat16 as its bits."""
    if storage != "bfloat16":
        return np.ascontiguousarray(values, storage)
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_stored(stored, storage):
    """The stored values, exactly, in longdouble."""
    if storage == "bfloat16":
        stored = (np.asarray(stored, np.uint32) << 16).view(np.float32)
    return stored.astype(np.longdouble)


def ulp(value, storage):
    """The unit in the last place of exact values of a dtype."""
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.abs(value))
        spacing = np.ldexp(np.longdouble(EPS[storage]), exponent - 1)
    return np.where(np.abs(value) < SMALLEST_NORMAL[storage], np.longdouble(TINY[storage]), spacing)


def excess(actual, desired, allowance):
    """The largest difference as a part of what is allowed; infinite where not both are finite, or equal."""
    with np.errstate(all="ignore"):
        part = np.abs(actual - desired) / allowance
    same = (actual == desired) | (np.isnan(actual) & np.isnan(desired))
    part = np.where(same, 0, np.where(np.isfinite(part) & np.isfinite(desired), part, np.inf))
    return float(part.max(initial=0))


def assert_within(actual, desired, allowance):
    """No further apart than the allowance, and the same where not finite."""
    assert actual.shape == desired.shape
    worst = excess(actual, desired, allowance)
    assert worst <= 1, f"off by {worst:.2f} of what is allowed"


def forward(op, x, storage):
    """The result of a forward op on rows (outer, n, inner), and its allowance."""
    desired = longdouble_forward(op, x, axis=1)
    if op != "logsumexp":
        return desired, ULPS[storage] * ulp(desired, storage)
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(x.max(axis=1)), np.abs(desired))
    return desired, 2 * EPS[storage] * size + TINY[storage]


def product(op, first, vector, storage):
    """A product with a Jacobian, from the op's own output."""
    with np.errstate(all="ignore"):
        if op == "softmax_vjp":
            dot = (first * vector).sum(axis=1, keepdims=True)
            desired = first * (vector - dot)
            size = first * (np.abs(vector) + (first * np.abs(vector)).sum(axis=1, keepdims=True))
        else:
            y = np.exp(first)
            weights = (1, y) if op == "log_softmax_vjp" else (y, 1)
            desired = vector - weights[1] * (weights[0] * vector).sum(axis=1, keepdims=True)
            size = np.abs(vector) + weights[1] * (weights[0] * np.abs(vector)).sum(axis=1, keepdims=True)
    return desired, PRODUCT_EPS * EPS[storage] * size + 2 * TINY[storage]


def jacobian(y, storage):
    """The blocks of rows (outer, n, 1)."""
    y = y[:, :, 0]
    n = y.shape[1]
    desired = -y[:, :, None] * y[:, None, :]
    for i in range(n):
        others = np.delete(y, i, axis=1).sum(axis=1)
        desired[:, i, i] = y[:, i] * np.where(y[:, i] > 0.5, others, 1 - y[:, i])
    return desired, JACOBIAN_ULPS * ulp(desired, storage)


def log_jacobian(logy, storage):
    """The same of log-softmax."""
    logy = logy[:, :, 0]
    desired = np.repeat(-np.exp(logy)[:, None, :], logy.shape[1], axis=1)
    np.einsum("rii->ri", desired)[...] = -np.expm1(logy)
    return desired, JACOBIAN_ULPS * ulp(desired, storage)


def cross_entropy(x, labels, weight, smoothing, factor, storage):
    """Each row's loss and its gradient, with the allowances."""
    n = x.shape[1]
    weight = np.ones(n) if weight is None else weight
    weight = weight.astype(np.longdouble)
    logy, y = (longdouble_forward(op, x, axis=1) for op in ("log_softmax", "softmax"))
    label = np.maximum(labels, 0)
    hot = (np.arange(n)[None, :, None] == label[:, None, :]).astype(np.longdouble)
    at_label = (1 - np.longdouble(smoothing)) * weight[label][:, None, :]
    everywhere = np.longdouble(smoothing) / n * weight[None, :, None]
    one_minus = np.where(hot > 0, np.where(hot > 0, 0, y).sum(axis=1, keepdims=True), 0)
    with np.errstate(all="ignore"):
        terms = np.where(hot > 0, -at_label * logy, 0)
        loss = terms.sum(axis=1) + (np.where(everywhere > 0, -everywhere * logy, 0)).sum(axis=1)
    spread = everywhere.sum() * y - everywhere
    dx = factor * (spread + at_label * np.where(hot > 0, -one_minus, y))
    taken = (labels >= 0)[:, None, :]
    size = np.abs(factor) * (everywhere.sum() * y + everywhere + at_label * np.where(hot > 0, one_minus, y))
    size = np.abs(np.where(taken, dx, 0)) if not smoothing else size
    loss, dx = np.where(labels >= 0, loss, 0), np.where(taken, dx, 0)
    # Smoothing adds a second sum of n terms to the loss.
    allowed = ULPS[storage] * ulp(loss, storage) * (2 if smoothing else 1)
    return (loss, allowed), (dx, ULPS[storage] * ulp(size, storage))
