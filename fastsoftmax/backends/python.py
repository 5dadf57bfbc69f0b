"""Naive loops: the readable specification. Every other backend must agree with this file.

One row at a time, in Python floats (float64, whatever the arrays hold), with the three devices that
keep softmax accurate (Blanchard, Higham & Higham, IMA J. Numer. Anal. 41, 2021):

* the shift ``x - max`` is corrected by its own rounding error;
* the sum leaves the maximum out, ``S = 1 + rest``, so that ``log S = log1p(rest)``;
* ``1 - y`` of the largest entry is the sum of the others.
"""

import math

from fastsoftmax._threads import sized

NAN, INF = math.nan, math.inf
# A number that is finite times this moves no float past the largest, whether of 24 bits or 53.
HEADROOM = 2.0**56

# The interpreter runs one thread at a time, at 1 us an element.
_slow = sized(elements_per_thread=INF, block_elements=16 * 1024)


@_slow
def softmax(x, out):
    for o, i, row in _each_row(x):
        out[o, :, i] = _softmax_row(row)


@_slow
def log_softmax(x, out):
    for o, i, row in _each_row(x):
        out[o, :, i] = _log_softmax_row(row)


@_slow
def logsumexp(x, out):
    for o, i, row in _each_row(x):
        out[o, i] = _logsumexp_row(row)


@_slow
def softmax_vjp(y, g, out):
    for (o, i, y_row), (_, _, g_row) in zip(_each_row(y), _each_row(g), strict=True):
        out[o, :, i] = _vjp_row(y_row, g_row)


@_slow
def log_softmax_vjp(logy, g, out):
    for (o, i, logy_row), (_, _, g_row) in zip(_each_row(logy), _each_row(g), strict=True):
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        total = _sum(g_row)
        out[o, :, i] = [b - _exp(a) * total for a, b in zip(logy_row, g_row, strict=True)]


@_slow
def log_softmax_jvp(logy, t, out):
    for (o, i, logy_row), (_, _, t_row) in zip(_each_row(logy), _each_row(t), strict=True):
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        dot = _sum([_exp(a) * b for a, b in zip(logy_row, t_row, strict=True)])
        out[o, :, i] = [b - dot for b in t_row]


@_slow
def softmax_jacobian(y, out):
    for o, _, row in _each_row(y):
        out[o] = _jacobian_row(row)


@_slow
def cross_entropy(x, labels, weight, sample_weight, smoothing, loss):
    for o, i, row, targets in _each_target(x, labels, weight, sample_weight, smoothing):
        loss[o, i] = _cross_entropy_row(row, targets)


@_slow
def cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    for o, i, row, targets in _each_target(x, labels, weight, sample_weight, smoothing):
        loss[o, i] = _cross_entropy_row(row, targets)
        out[o, :, i] = _cross_entropy_grad_row(row, targets, scale)


@_slow
def softmax_jacobian_diagonal(y, out):
    for o, i, row in _each_row(y):
        # J_ii = y_i * (1 - y_i)
        out[o, :, i] = [a * _one_minus(row, j) for j, a in enumerate(row)]


@_slow
def log_softmax_jacobian(logy, out):
    for o, _, row in _each_row(logy):
        out[o] = _log_jacobian_row(row)


@_slow
def log_softmax_jacobian_diagonal(logy, out):
    for o, i, row in _each_row(logy):
        # J_ii = 1 - exp(logy_i)
        out[o, :, i] = [_one_minus_exp(a) for a in row]


@_slow
def soft_cross_entropy(x, labels, weight, sample_weight, smoothing, loss):
    for o, i, row, targets in _each_target(x, labels, weight, sample_weight, smoothing):
        loss[o, i] = _cross_entropy_row(row, targets)


@_slow
def soft_cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    for o, i, row, targets in _each_target(x, labels, weight, sample_weight, smoothing):
        loss[o, i] = _cross_entropy_row(row, targets)
        out[o, :, i] = _cross_entropy_grad_row(row, targets, scale)


@_slow
def segment_softmax(x, ptr, out):
    for segment in _each_segment(ptr):
        out[0, segment, 0] = _softmax_row(x[0, segment, 0].tolist())


@_slow
def segment_log_softmax(x, ptr, out):
    for segment in _each_segment(ptr):
        out[0, segment, 0] = _log_softmax_row(x[0, segment, 0].tolist())


@_slow
def segment_logsumexp(x, ptr, out):
    for k, segment in enumerate(_each_segment(ptr)):
        out[0, k] = _logsumexp_row(x[0, segment, 0].tolist())


@_slow
def segment_softmax_vjp(y, g, ptr, out):
    for segment in _each_segment(ptr):
        if segment.start < segment.stop:
            out[0, segment, 0] = _vjp_row(y[0, segment, 0].tolist(), g[0, segment, 0].tolist())


def _each_segment(ptr):
    return map(slice, ptr[:-1], ptr[1:])


@_slow
def softmax_solve(y, b, ridge, out):
    for (o, i, y_row), (_, _, b_row) in zip(_each_row(y), _each_row(b), strict=True):
        out[o, :, i] = _solve_row(y_row, b_row, ridge)


@_slow
def weighted_logsumexp(x, b, out):
    for (o, i, row), (_, _, weights) in zip(_each_row(x), _each_row(b), strict=True):
        out[o, i] = _weighted_logsumexp_row(row, weights)


def _each_row(x):
    outer, _, inner = x.shape
    for o in range(outer):
        for i in range(inner):
            yield o, i, x[o, :, i].tolist()


def _largest(row):
    """The index of the largest entry, or None where softmax is NaN: NaN or +inf in it, or all -inf."""
    if not row or any(math.isnan(a) for a in row) or math.isinf(max(row)):
        return None
    return row.index(max(row))


def _exp_shifted(a, m, lift=0.0):
    """``exp(a - m + lift)`` for ``a <= m``: the exp of the rounded difference, and that rounding's error."""
    d = a - m
    if d < -746:  # exp is 0 below, and d may be infinite
        return 0.0, 0.0
    return math.exp(d + lift), math.fsum((a, -m, -d))


def _largest_and_rest(row):
    """``k`` and the sum of ``exp(x_j - x_k)`` over all ``j != k``, which is log1p's argument."""
    k = _largest(row)
    if k is None:
        return None, NAN
    others = row[:k] + row[k + 1 :]
    rest = _sum_of_exps(others, row[k])
    if rest < 1e-200:  # subnormal terms have lost digits; 128 added to such differences is exact
        rest = _sum_of_exps(others, row[k], 128.0) / math.exp(128)
    return k, rest


def _sum_of_exps(row, m, lift=0.0):
    shifted = (_exp_shifted(a, m, lift) for a in row)
    return math.fsum(part for e, error in shifted for part in (e, e * error))


def _softmax_row(row):
    k, rest = _largest_and_rest(row)
    if k is None:
        return [NAN] * len(row)
    return [_share(a, row[k], rest) for a in row]


def _share(a, m, rest):
    """``exp(a - m) / (1 + rest)``, where the errors of both roundings are made up for at once."""
    e, error = _exp_shifted(a, m)
    total = 1 + rest
    lost = math.fsum((1, rest, -total)) / total
    return (e + e * (error - lost)) / total


def _log_softmax_row(row):
    k, rest = _largest_and_rest(row)
    if k is None:
        return [NAN] * len(row)
    # log y_j = (x_j - max) - log(1 + rest)
    return [(a - row[k]) - math.log1p(rest) for a in row]


def _logsumexp_row(row):
    k, rest = _largest_and_rest(row)
    if k is not None:
        return row[k] + math.log1p(rest)
    if any(math.isnan(a) for a in row):
        return NAN
    return INF if INF in row else -INF


def _weighted_logsumexp_row(row, weights):
    taken = [(a, b) for a, b in zip(row, weights, strict=True) if b != 0]
    if any(math.isnan(a) or math.isnan(b) for a, b in taken):
        return NAN
    if infinite := [(a, b) for a, b in taken if a == INF or math.isinf(b)]:
        return INF if all(b > 0 and a > -INF for a, b in infinite) else NAN
    m = max((a for a, _ in taken), default=-INF)
    if m == -INF:
        return m
    # log sum_j b_j exp(x_j) = m + log sum_j b_j exp(x_j - m)
    exps = [_exp_shifted(a, m) for a, _ in taken]
    total = _sum([b * (e + e * error) for (_, b), (e, error) in zip(taken, exps, strict=True)])
    return m + math.log(total) if total > 0 else -INF if total == 0 else NAN


def _vjp_row(y, g, scale=1.0):
    # dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the centre c keeps the digits
    # of a saturated row, and makes a constant cotangent give exactly 0.
    g = [scale * a for a in g]
    c = _centre(y, g)
    h = [a - c for a in g]
    dot = _sum([a * b for a, b in zip(h, y, strict=True)])
    if scale == 1 and not math.isfinite(dot * HEADROOM):  # then a difference may have overflowed
        return _vjp_row(y, g, 0.125)
    return [b * (a - dot) / scale for a, b in zip(h, y, strict=True)]


def _centre(y, g):
    """The cotangent of a row's dominant entry, or else the value nearest 0 between the extremes of g."""
    k = y.index(max(y))
    return g[k] if y[k] > 0.5 else sorted((min(g), 0.0, max(g)))[1]


def _sum(terms):
    """Correctly rounded; of infinities and NaN, what IEEE arithmetic gives."""
    try:
        return math.fsum(terms)
    except OverflowError:  # of a partial sum
        return math.fsum(2.0**-64 * a for a in terms) * 2.0**64
    except ValueError:  # infinities cancel
        return NAN


def _exp(a):
    return math.exp(a) if a < 709 else INF if a > 0 else NAN


def _jacobian_row(y):
    # J_ij = y_i * ((i == j) - y_j)
    n = len(y)
    return [[y[i] * (_one_minus(y, i) if i == j else -y[j]) for j in range(n)] for i in range(n)]


def _one_minus(y, i):
    """``1 - y_i``: of an entry above 1/2 as the sum of the others."""
    return _sum(y[:i] + y[i + 1 :]) if y[i] > 0.5 else 1 - y[i]


def _log_jacobian_row(logy):
    # J_ij = (i == j) - exp(logy_j)
    n = len(logy)
    return [[_one_minus_exp(logy[j]) if i == j else -_exp(logy[j]) for j in range(n)] for i in range(n)]


def _one_minus_exp(a):
    return 0.0 - math.expm1(a) if a < 709 else -_exp(a)


def _solve_row(y, b, ridge):
    # v_i = (b_i + c y_i) / (y_i + ridge), by Sherman and Morrison; 0 where both y and the ridge are.
    c = _coefficient(y, b, ridge)
    return [(v + c * u) / (u + ridge) if u + ridge else c - c for u, v in zip(y, b, strict=True)]


def _coefficient(y, b, ridge):
    """``c = sum_j w_j b_j / (ridge * sum_j w_j)`` of the shares ``w_j = y_j / (y_j + ridge)``.

    Those of entries above the ridge are near 1: ``w_j b_j = b_j - ridge * (b_j / (y_j + ridge))``, where
    the ridge cancels and nothing else. Without a ridge the sum of ``b_j``, which is 0, is left out.
    """
    shares = [u / (u + ridge) if u + ridge else 0.0 for u in y]
    whole = _sum([v if u > ridge else w * v for u, v, w in zip(y, b, shares, strict=True)])
    taken = _sum([v / (u + ridge) for u, v in zip(y, b, strict=True) if u > ridge])
    c = (whole / ridge if ridge else whole - whole) - taken
    c /= _sum(shares) or 1.0  # a row of zeros has no shares, and nothing to take
    return c if math.isfinite(c) else NAN


def _each_target(x, labels, weight, sample_weight, smoothing):
    """Rows, and the `_targets` of their labels: probabilities, or what a class index stands for."""
    for o, i, row in _each_row(x):
        of_row = 1.0 if sample_weight is None else float(sample_weight[o, i])
        if labels.ndim == 3:
            t = labels[o, :, i].tolist()
        else:
            t = [float(j == labels[o, i]) for j in range(len(row))]
            of_row = of_row if labels[o, i] >= 0 else 0.0  # ignored
        yield o, i, row, _targets(t, weight, of_row, smoothing)


def _targets(t, weight, sample_weight, smoothing):
    """The loss is ``sum_j targets[j] * nll[j]``, as PyTorch defines it; None where a row takes no part."""
    n = len(t)
    weight = [1.0] * n if weight is None else weight.tolist()
    if sample_weight == 0:
        return None
    return [
        sample_weight * (w * ((1 - smoothing) * a + smoothing / n)) for a, w in zip(t, weight, strict=True)
    ]


def _cross_entropy_row(row, targets):
    if targets is None:
        return 0.0
    k, rest = _largest_and_rest(row)
    if k is None:
        return NAN
    log_sum = math.log1p(rest)
    return _sum([_term(t, row[k], a, log_sum) for t, a in zip(targets, row, strict=True)])


def _term(weight, m, a, log_sum):
    """``weight * -log y``; 0 of a weight of 0, and finite where only the difference of logits is not."""
    if weight == 0:
        return 0.0
    # -log y_j = (max - x_j) + log(1 + rest)
    nll = (m - a) + log_sum
    return weight * nll if nll < INF else 2 * (weight * (m / 2 - a / 2))


def _cross_entropy_grad_row(row, targets, scale):
    if targets is None:
        return [0.0] * len(row)
    # d loss / d x_j = y_j * total - targets[j]
    total = _sum(targets)
    dx = [y * total - t for y, t in zip(_softmax_row(row), targets, strict=True)]
    k, rest = _largest_and_rest(row)
    if k is not None and rest < 1:  # 1 - y_k is the others' share, and total - targets[k] their sum
        dx[k] = _sum(targets[:k] + targets[k + 1 :]) - total * (rest / (1 + rest))
    return [scale * d for d in dx]
