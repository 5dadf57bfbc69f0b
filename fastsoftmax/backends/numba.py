"""Numba: ``@njit`` kernels on explicit vectors, with ``parallel=True`` twins, cached on disk.

Each function computes its share of the rows, ``part`` of ``parts``, or leaves off where the byte at ``stop``
is set; what it is called with otherwise is the arguments of ``python.py``. The parts of a pass: copy a task
into scratch, reduce, write the result.
"""

import numba
import numpy as np
from numba import types

from fastsoftmax.backends._numba_jit import Kernel, RaggedKernel, allocating, inlined
from fastsoftmax.backends._numba_rows import (
    SHORT,
    add,
    add_smaller,
    aligned,
    before,
    exp_shifted,
    fetch,
    folded,
    get,
    groups,
    look_ahead,
    matrix_for,
    matrix_of,
    no_sum,
    no_sum_of_smaller,
    put,
    reciprocal,
    row_at,
    rows_in,
    scratch,
    segment_at,
    set_vector,
    share,
    shift_of,
    stretch,
    stretches,
    summary,
    take_back,
    task,
    total,
    vector,
    whole_row,
)
from fastsoftmax.backends._numba_vectors import (
    Vector,
    constant,
    differ,
    fma,
    fold_largest,
    is_set,
    lane,
    lanes,
    larger,
    polynomial,
    splat,
    where_equal,
    where_greater,
    with_lane,
)
from fastsoftmax.backends.python import HEADROOM


def _in(dtype, ndim=3):
    return types.Array(dtype, ndim, "A", readonly=True)


def _out(dtype, ndim=3):
    return types.Array(dtype, ndim, "A")


def _regime(dtype, canonical):
    """How rows of this shape lie in vectors: along them, or one a lane."""
    _, n, inner = canonical
    return "rows" if n > SHORT and 2 * inner <= Vector(numba.from_dtype(dtype)).lanes else "lanes"


def _kernel(*signature, **attributes):
    """A `Kernel` of the function below, with the types of its arguments for a dtype."""
    return lambda function: Kernel(function, signature, **{"regime": _regime, **attributes})


@_kernel(_in, _out)
def softmax(x, out, part, parts, stop):
    tile = scratch(x)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        shift = shift_of(fetch(tile, x, t, splat(x, -np.inf)))
        s = no_sum_of_smaller(x)
        for start in stretches(t):
            s = before(start, s)
            for j in stretch(t, start):
                e = exp_shifted(vector(tile, j), shift)
                set_vector(tile, j, e)
                s = add_smaller(s, e)
                look_ahead(x, out, t, j)
        inverse, correction = reciprocal(*folded(t, s))
        for start in stretches(t):
            for j in stretch(t, start):
                e = vector(tile, j)
                put(out, t, j, fma(e, inverse, e * correction))


@_kernel(_in, _out)
def log_softmax(x, out, part, parts, stop):
    tile = scratch(x)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        m = fetch(tile, x, t, splat(x, -np.inf))
        # log y_j = (x_j - max) - log(1 + rest)
        log_sum = summary(tile, x, out, t, m, False).log_sum
        for start in stretches(t):
            for j in stretch(t, start):
                put(out, t, j, (vector(tile, j) - m) - log_sum)


@_kernel(_in, lambda dtype: _out(dtype, 2))
def logsumexp(x, out, part, parts, stop):
    tile = scratch(x)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        m = fetch(tile, x, t, splat(x, -np.inf))
        result = m + summary(tile, x, None, t, m, False).log_sum
        if differ(m - m, splat(x, 0)):
            result = where_equal(m - m, splat(x, 0), result, m + _nan_among(tile, t))
        for r in range(rows_in(t)):
            out[row_at(x, k, r)] = lane(result, r)


@_kernel(_in, _in, _out)
def softmax_vjp(y, g, out, part, parts, stop):
    y_tile, g_tile = scratch(y), scratch(y)
    for k in share(y, part, parts):
        t = task(y, k, stop)
        zero = splat(y, 0)
        y_max = fetch(y_tile, y, t, zero)
        fetch(g_tile, g, t, _some_entry(g, t))
        # dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the centre c keeps the digits
        # of a saturated row, and makes a constant cotangent give exactly 0.
        c = _centre(y_tile, y_max, g_tile, t)
        dot = _centred_dot(y_tile, g_tile, t, c, y, g, out)
        far = dot * splat(y, HEADROOM)
        if differ(far - far, zero):  # a difference may have overflowed: of an eighth none does
            scale = where_equal(far - far, zero, splat(y, 1), splat(y, 0.125))
            fetch(g_tile, g, t, _some_entry(g, t))
            _multiply(g_tile, t, scale)
            dot = _centred_dot(y_tile, g_tile, t, c * scale, y, g, out)
            _multiply(y_tile, t, splat(y, 1) / scale)
        for start in stretches(t):
            for j in stretch(t, start):
                put(out, t, j, vector(y_tile, j) * (vector(g_tile, j) - dot))


@_kernel(_in, _in, _out)
def log_softmax_vjp(logy, g, out, part, parts, stop):
    tile, g_tile = scratch(logy), scratch(logy)
    for k in share(logy, part, parts):
        t = task(logy, k, stop)
        fetch(tile, logy, t, splat(logy, -np.inf))
        fetch(g_tile, g, t, splat(g, 0))
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        s = no_sum(g)
        for start in stretches(t):
            s = before(start, s)
            for j in stretch(t, start):
                s = add(s, vector(g_tile, j))
                look_ahead(logy, out, t, j)
                look_ahead(g, None, t, j)
        sum_g = total(t, s)
        for start in stretches(t):
            for j in stretch(t, start):
                e = _exp(vector(tile, j))
                put(out, t, j, vector(g_tile, j) - e * sum_g)


@_kernel(_in, _in, _out)
def log_softmax_jvp(logy, t, out, part, parts, stop):
    tile, t_tile = scratch(logy), scratch(logy)
    for k in share(logy, part, parts):
        these = task(logy, k, stop)
        fetch(tile, logy, these, splat(logy, -np.inf))
        fetch(t_tile, t, these, splat(t, 0))
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        s = no_sum(t)
        for start in stretches(these):
            s = before(start, s)
            for j in stretch(these, start):
                s = add(s, _exp(vector(tile, j)) * vector(t_tile, j))
                look_ahead(logy, out, these, j)
                look_ahead(t, None, these, j)
        dot = total(these, s)
        for start in stretches(these):
            for j in stretch(these, start):
                put(out, these, j, vector(t_tile, j) - dot)


def _matrices(function):
    """The kernel of an op whose result has a matrix for each row."""
    elements = lambda canonical: canonical[0] * canonical[1] ** 2  # noqa: E731
    return _kernel(_in, _out, elements=elements, regime=lambda *_: "rows")(function)


@_matrices
def softmax_jacobian(y, out, part, parts, stop):
    outer, n, _ = y.shape
    tile = aligned(y, n + lanes(y))
    for o in range(outer * part // parts, outer * (part + 1) // parts):
        t = whole_row(y, o * n, stop)
        fetch(tile, y, t, splat(y, 0))
        small = _sum_but_dominant(tile, t)
        # J_ij = y_i * ((i == j) - y_j)
        for i in range(n):
            if is_set(stop):
                break
            block_row, minus = whole_row(y, (o * n + i) * n, stop), splat(y, -tile[i])
            for j in range(t.vectors):
                put(out, block_row, j, minus * vector(tile, j))
            out[o, i, i] = tile[i] * (small if tile[i] > 0.5 else 1 - tile[i])


class _Weighted(Kernel):
    """A kernel whose ``weight`` and ``sample_weight`` may be None."""

    def __call__(self, x, labels, weight, sample_weight, *others):
        super().__call__(x, labels, *_or_ones(x, weight, sample_weight), *others)

    def parallel(self, x, labels, weight, sample_weight, *others, num_threads):
        weights = _or_ones(x, weight, sample_weight)
        super().parallel(x, labels, *weights, *others, num_threads=num_threads)


def _or_ones(x, weight, sample_weight):
    outer, n, inner = x.shape
    if weight is None:
        weight = _ones((n,), x.dtype)
    if sample_weight is None:
        sample_weight = _ones((outer, inner), x.dtype)
    return weight, sample_weight


def _ones(shape, dtype):
    """One that is read again and again; `np.broadcast_to` takes 5 us."""
    return np.ndarray(shape, dtype, _ONE[dtype], strides=(0,) * len(shape))


_ONE = {dtype: np.ones(1, dtype) for dtype in map(np.dtype, (np.float32, np.float64))}


def _weighted_kernel(labels, *results):
    weights = lambda dtype: _in(dtype, 1), lambda dtype: _in(dtype, 2), lambda dtype: types.float64
    return lambda function: _Weighted(function, (_in, labels, *weights, *results), regime=_regime)


def _labels(dtype):
    return _in(types.intp, 2)


@_weighted_kernel(_labels, lambda dtype: _out(dtype, 2))
def cross_entropy(x, labels, weight, sample_weight, smoothing, loss, part, parts, stop):
    tile = scratch(x)
    everywhere, whole = _everywhere(x, weight, smoothing, stop)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        m = fetch(tile, x, t, splat(x, -np.inf))
        log_sum_of = summary(tile, x, None, t, m, False).log_sum
        spread = _spread(x, t, m, everywhere) if smoothing else splat(x, 0)
        for r in range(rows_in(t)):
            row = row_at(x, k, r)
            sample = np.float64(sample_weight[row])
            at_label = sample * ((1 - smoothing) * weight[labels[row]])
            log_sum = np.float64(lane(log_sum_of, r))
            row_loss = _term(at_label, np.float64(lane(m, r)), tile[_entry(t, x, labels[row], r)], log_sum)
            if smoothing:
                row_loss += 2 * (sample * np.float64(lane(spread, r))) + sample * whole * log_sum
            loss[row] = row_loss if labels[row] >= 0 and sample != 0 else 0.0


@_weighted_kernel(_labels, lambda dtype: types.float64, lambda dtype: _out(dtype, 2), _out)
def cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out, part, parts, stop):
    tile = scratch(x)
    at_labels = np.empty(lanes(x), np.float64)
    everywhere, whole = _everywhere(x, weight, smoothing, stop)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        m = fetch(tile, x, t, splat(x, -np.inf))
        for r in range(rows_in(t)):
            at_labels[r] = tile[_entry(t, x, labels[row_at(x, k, r)], r)]
        s = summary(tile, x, out, t, m, True)
        spread = _spread(x, t, m, everywhere) if smoothing else splat(x, 0)
        exps = factor = scales = splat(x, 0)
        for r in range(rows_in(t)):
            exps = with_lane(exps, r, tile[_entry(t, x, labels[row_at(x, k, r)], r)])
        y_labels = fma(exps, s.inverse, exps * s.correction)
        others_share = fma(s.others, s.inverse, fma(s.others, s.correction, s.low * s.inverse))
        for r in range(rows_in(t)):
            row = row_at(x, k, r)
            sample = np.float64(sample_weight[row])
            if labels[row] < 0 or sample == 0:
                loss[row] = 0.0
                continue
            at_label = (1 - smoothing) * weight[labels[row]]
            row_max, at = np.float64(lane(m, r)), at_labels[r]
            log_sum = np.float64(lane(s.log_sum, r))
            row_loss = _term(sample * at_label, row_max, at, log_sum)
            if smoothing:
                row_loss += 2 * (sample * np.float64(lane(spread, r))) + sample * whole * log_sum
            loss[row] = row_loss
            y = np.float64(lane(y_labels, r))
            one_minus = np.float64(lane(others_share, r)) if at == row_max else 1 - y
            # d loss / d x_j = y_j * (at_label + whole) - everywhere_j - (j == label) * at_label
            at_labels[r] = ((whole * y - everywhere[labels[row]]) - at_label * one_minus) * (scale * sample)
            factor = with_lane(factor, r, (at_label + whole) * (scale * sample))
            scales = with_lane(scales, r, -scale * sample)
        if t.folds:
            factor, scales = _of_first(factor), _of_first(scales)
        zero = splat(x, 0)
        ratio, correction, _ = _quotient(tile, t, factor, s)
        for start in stretches(t):
            for j in stretch(t, start):
                e = vector(tile, j)
                y = fma(e, ratio, e * correction)
                put(out, t, j, where_equal(scales, zero, zero, fma(scales, _weights(everywhere, t, j), y)))
        for r in range(rows_in(t)):
            o, i = row_at(x, k, r)
            if labels[o, i] >= 0 and sample_weight[o, i] != 0:
                out[o, labels[o, i], i] = at_labels[r]


@_kernel(_in, _out)
def softmax_jacobian_diagonal(y, out, part, parts, stop):
    tile, half, one = scratch(y), splat(y, 0.5), splat(y, 1)
    for k in share(y, part, parts):
        t = task(y, k, stop)
        fetch(tile, y, t, splat(y, 0))
        others = _sum_of_small(tile, t)
        # J_ii = y_i * (1 - y_i)
        for start in stretches(t):
            for j in stretch(t, start):
                v = vector(tile, j)
                put(out, t, j, v * where_greater(v, half, others, one - v))
                look_ahead(y, None, t, j)


@_matrices
def log_softmax_jacobian(logy, out, part, parts, stop):
    outer, n, _ = logy.shape
    line, diagonal = aligned(logy, n + lanes(logy)), aligned(logy, n + lanes(logy))
    for o in range(outer * part // parts, outer * (part + 1) // parts):
        t = whole_row(logy, o * n, stop)
        fetch(line, logy, t, splat(logy, 0))
        # J_ij = (i == j) - exp(logy_j)
        for j in range(t.vectors):
            v = vector(line, j)
            set_vector(diagonal, j, _one_minus_exp(v))
            set_vector(line, j, splat(logy, 0) - _exp(v))
        for i in range(n):
            if is_set(stop):
                break
            block_row = whole_row(logy, (o * n + i) * n, stop)
            for j in range(t.vectors):
                put(out, block_row, j, vector(line, j))
            out[o, i, i] = diagonal[i]


@_kernel(_in, _out)
def log_softmax_jacobian_diagonal(logy, out, part, parts, stop):
    for k in share(logy, part, parts):
        t = task(logy, k, stop)
        # J_ii = 1 - exp(logy_i)
        for start in stretches(t):
            for j in stretch(t, start):
                put(out, t, j, _one_minus_exp(get(logy, t, j, splat(logy, 0))))
                look_ahead(logy, out, t, j)


@_weighted_kernel(_in, lambda dtype: _out(dtype, 2))
def soft_cross_entropy(x, labels, weight, sample_weight, smoothing, loss, part, parts, stop):
    tile, targets = scratch(x), scratch(x)
    everywhere, _ = _everywhere(x, weight, smoothing, stop)
    at_labels = _at_labels(x, weight, smoothing)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        m = fetch(tile, x, t, splat(x, -np.inf))
        _fetch_targets(targets, labels, t, at_labels, everywhere)
        halves, whole = _half_gaps(tile, targets, t, m), _sum_but(tile, targets, t, splat(x, np.nan))
        log_sum = summary(tile, x, None, t, m, False).log_sum
        for r in range(rows_in(t)):
            row = row_at(x, k, r)
            loss[row] = _soft_loss(sample_weight[row], lane(halves, r), lane(whole, r), lane(log_sum, r))


@_weighted_kernel(_in, lambda dtype: types.float64, lambda dtype: _out(dtype, 2), _out)
def soft_cross_entropy_with_grad(
    x, labels, weight, sample_weight, smoothing, scale, loss, out, part, parts, stop
):
    tile, targets = scratch(x), scratch(x)
    everywhere, _ = _everywhere(x, weight, smoothing, stop)
    at_labels = _at_labels(x, weight, smoothing)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        zero = splat(x, 0)
        m = fetch(tile, x, t, splat(x, -np.inf))
        _fetch_targets(targets, labels, t, at_labels, everywhere)
        halves, whole = _half_gaps(tile, targets, t, m), _sum_but(tile, targets, t, splat(x, np.nan))
        s = summary(tile, x, out, t, m, True)
        scales = zero
        for r in range(rows_in(t)):
            row = row_at(x, k, r)
            sample = sample_weight[row]
            loss[row] = _soft_loss(sample, lane(halves, r), lane(whole, r), lane(s.log_sum, r))
            scales = with_lane(scales, r, scale * np.float64(sample))
        if t.folds:
            scales = _of_first(scales)
        # d loss / d x_j = y_j * whole - t_j; of a largest y above 2/3, neither 1 - y nor whole - t cancels.
        others_share = fma(s.others, s.inverse, fma(s.others, s.correction, s.low * s.inverse))
        largest = exp_shifted(m, shift_of(m))
        largest = where_greater(splat(x, 1 / 3), others_share, largest, splat(x, np.nan))
        at_largest = (_sum_but(tile, targets, t, largest) - whole * others_share) * scales
        factor = whole * scales
        ratio, correction, unbias = _quotient(tile, t, factor, s)
        largest = largest * unbias
        for start in stretches(t):
            for j in stretch(t, start):
                e = vector(tile, j)
                dx = fma(e, ratio, e * correction) - scales * vector(targets, j)
                put(out, t, j, where_equal(scales, zero, zero, where_equal(e, largest, at_largest, dx)))


def _ptr(_):
    return types.Array(types.intp, 1, "A", readonly=True)


def _ragged(op, *signature):
    """The kernel of an op of ragged rows, in whose function ``rows`` is that of ``op``."""
    return lambda function: RaggedKernel(function, op, *signature)


@_ragged(softmax, _in, _ptr, _out)
def segment_softmax(x, ptr, out, part, parts, stop):
    _each_group(rows, x, ptr, out, part, parts, stop)  # noqa: F821


@_ragged(log_softmax, _in, _ptr, _out)
def segment_log_softmax(x, ptr, out, part, parts, stop):
    _each_group(rows, x, ptr, out, part, parts, stop)  # noqa: F821


@_ragged(logsumexp, _in, _ptr, lambda dtype: _out(dtype, 2))
def segment_logsumexp(x, ptr, out, part, parts, stop):
    for k in range(segment_at(ptr, part, parts), segment_at(ptr, part + 1, parts)):
        if ptr[k] == ptr[k + 1]:
            out[0, k] = -np.inf
    _each_group(rows, x, ptr, out, part, parts, stop)  # noqa: F821


@_ragged(softmax_vjp, _in, _in, _ptr, _out)
def segment_softmax_vjp(y, g, ptr, out, part, parts, stop):
    order, edges = groups(ptr, part, parts)
    for i in range(len(edges) - 1):
        if is_set(stop):
            break
        group = order[edges[i] : edges[i + 1]]
        result = matrix_for(out, ptr, group)
        rows(matrix_of(y, ptr, group), matrix_of(g, ptr, group), result, 0, 1, stop)  # noqa: F821
        take_back(result, ptr, group, out)


@allocating
def _each_group(rows, x, ptr, out, part, parts, stop):
    order, edges = groups(ptr, part, parts)
    for i in range(len(edges) - 1):
        if is_set(stop):
            break
        group = order[edges[i] : edges[i + 1]]
        result = matrix_for(out, ptr, group)
        rows(matrix_of(x, ptr, group), result, 0, 1, stop)
        take_back(result, ptr, group, out)


@_kernel(_in, _in, lambda dtype: types.float64, _out)
def softmax_solve(y, b, ridge, out, part, parts, stop):
    y_tile, b_tile = scratch(y), scratch(y)
    zero, r = splat(y, 0), splat(y, ridge)
    for k in share(y, part, parts):
        t = task(y, k, stop)
        fetch(y_tile, y, t, zero)
        fetch(b_tile, b, t, zero)
        # v_i = (b_i + c y_i) / (y_i + ridge), by Sherman and Morrison; 0 where both y and the ridge are.
        c = _coefficient(y_tile, b_tile, t, r)
        for start in stretches(t):
            for j in stretch(t, start):
                v = vector(y_tile, j)
                u = v + r
                v = fma(c, v, vector(b_tile, j)) / u
                put(out, t, j, where_equal(u, zero, c - c, v))
                look_ahead(y, out, t, j)
                look_ahead(b, None, t, j)


@_kernel(_in, _in, lambda dtype: _out(dtype, 2))
def weighted_logsumexp(x, b, out, part, parts, stop):
    tile, weights = scratch(x), scratch(x)
    zero, nothing = splat(x, 0), splat(x, -np.inf)
    for k in share(x, part, parts):
        t = task(x, k, stop)
        fetch(tile, x, t, nothing)
        fetch(weights, b, t, zero)
        m = nothing
        for start in stretches(t):
            for j in stretch(t, start):
                v = where_equal(vector(weights, j), zero, nothing, vector(tile, j))  # takes no part
                set_vector(tile, j, v)
                m = larger(v, m)
        m = fold_largest(m) if t.folds else m
        # log sum_j b_j exp(x_j) = m + log sum_j b_j exp(x_j - m)
        shift, s = shift_of(m), no_sum(x)
        for start in stretches(t):
            s = before(start, s)
            for j in stretch(t, start):
                v = vector(tile, j)
                e = where_equal(v, nothing, zero, exp_shifted(v, shift) * constant(x, "POWER_INVERSE"))
                s = add(s, e * vector(weights, j))
                look_ahead(x, None, t, j)
                look_ahead(b, None, t, j)
        sums, of_largest = total(t, s), exp_shifted(m, shift) * constant(x, "POWER_INVERSE")
        for r in range(rows_in(t)):
            most = np.float64(lane(m, r))
            log = most + np.log(np.float64(lane(sums, r)) / np.float64(lane(of_largest, r)))
            if not np.isfinite(log):
                log = _of_infinities(tile, weights, t, r, most if most == -np.inf else log)
            out[row_at(x, k, r)] = log


@inlined
def _of_infinities(tile, weights, t, r, otherwise):
    """What infinities and NaN in a row make of its weighted logsumexp; without them ``otherwise``."""
    result = otherwise
    for j in range(t.vectors * (lanes(tile) if t.folds else 1)):
        x, b = tile[_entry(t, tile, j, r)], weights[_entry(t, tile, j, r)]
        infinite = x == np.inf or np.isinf(b)
        if b != 0:
            if x != x or b != b or (infinite and (b < 0 or x == -np.inf)):
                return np.nan
            if infinite:
                result = np.inf
    return result


@inlined
def _centre(y_tile, y_max, g_tile, t):
    """The cotangent of a row's dominant entry, or else the value nearest 0 between the extremes of g."""
    zero, one, half = splat(y_tile, 0), splat(y_tile, 1), splat(y_tile, 0.5)
    c = _nearest_zero(g_tile, t, 16)
    if t.vectors > 16 and differ(c, zero):  # seldom, as most cotangents have both signs
        c = _nearest_zero(g_tile, t, t.vectors)
    if not differ(where_greater(y_max, half, one, zero), zero):
        return c
    dominant = zero
    for start in stretches(t):
        for j in stretch(t, start):
            dominant = where_greater(vector(y_tile, j), half, vector(g_tile, j), dominant)
    if t.folds:
        dominant = total(t, add(no_sum(g_tile), dominant))
    return where_greater(y_max, half, dominant, c)


@inlined
def _nearest_zero(g_tile, t, most):
    """What is nearest 0 between the extremes of the first vectors of g, ``most`` of them."""
    zero, smallest, largest = splat(g_tile, 0), vector(g_tile, 0), vector(g_tile, 0)
    for j in range(min(most, t.vectors)):
        g = vector(g_tile, j)
        largest = larger(g, largest)
        smallest = where_greater(smallest, g, g, smallest)
    if t.folds:
        largest = fold_largest(largest)
        smallest = zero - fold_largest(zero - smallest)
    return where_greater(zero, largest, largest, larger(smallest, zero))


@inlined
def _centred_dot(y_tile, g_tile, t, c, y, g, out):
    """``sum_j y_j (g_j - c)``, with the differences in place of ``g``; what comes next is prefetched."""
    s = no_sum(y_tile)
    for start in stretches(t):
        s = before(start, s)
        for j in stretch(t, start):
            h = vector(g_tile, j) - c
            set_vector(g_tile, j, h)
            s = add(s, vector(y_tile, j) * h)
            look_ahead(y, out, t, j)
            look_ahead(g, None, t, j)
    return total(t, s)


@inlined
def _coefficient(y_tile, b_tile, t, ridge):
    """``c = sum_j w_j b_j / (ridge * sum_j w_j)`` of the shares ``w_j = y_j / (y_j + ridge)``.

    Those of entries above the ridge are near 1: ``w_j b_j = b_j - ridge * (b_j / (y_j + ridge))``, where
    the ridge cancels and nothing else. Without a ridge the sum of ``b_j``, which is 0, is left out.
    """
    zero, one = splat(y_tile, 0), splat(y_tile, 1)
    whole = taken = shares = no_sum(y_tile)
    for start in stretches(t):
        whole, taken, shares = before(start, whole), before(start, taken), before(start, shares)
        for j in stretch(t, start):
            y, b = vector(y_tile, j), vector(b_tile, j)
            u = y + ridge
            w = where_equal(u, zero, zero, y / u)
            whole = add(whole, where_greater(y, ridge, b, w * b))
            taken = add(taken, where_greater(y, ridge, b / u, zero))
            shares = add(shares, w)
    s, all_shares = total(t, whole), total(t, shares)
    c = where_greater(ridge, zero, s / ridge, s - s) - total(t, taken)
    # A row of zeros has no shares, and nothing to take.
    c = c / where_equal(all_shares, zero, one, all_shares)
    return c + (c - c)


@inlined
def _quotient(tile, t, factor, s):
    """``factor`` a sum of exponentials, in two parts, to multiply them by.

    Where it is so small that their bias would cost it its digits, they lose that first: the third result.
    """
    one, zero = splat(factor, 1), splat(factor, 0)
    ratio = factor * s.inverse
    size = where_equal(factor, zero, one, larger(ratio, zero - ratio))
    unbias = where_greater(constant(factor, "ALL_DIGITS"), size, constant(factor, "POWER_INVERSE"), one)
    inverse, rest = s.inverse, s.correction
    if differ(unbias, one):
        _multiply(tile, t, unbias)
        inverse, rest = inverse / unbias, rest / unbias
        ratio = factor * inverse
    correction = fma(factor, rest, fma(factor, inverse, zero - ratio))
    return ratio, correction, unbias


@inlined
def _multiply(tile, t, factor):
    for start in stretches(t):
        for j in stretch(t, start):
            set_vector(tile, j, vector(tile, j) * factor)


@inlined
def _some_entry(g, t):
    """A finite value that leaves the extremes of a row as they are."""
    g_first, zero = splat(g, lane(get(g, t, 0, splat(g, 0)), 0)), splat(g, 0)
    return where_equal(g_first - g_first, zero, g_first, zero)


@inlined
def _nan_among(tile, t):
    """NaN for each row that holds one, 0 for the others."""
    found = splat(tile, 0)
    for start in stretches(t):
        for j in stretch(t, start):
            v = vector(tile, j)
            found = where_equal(v, v, found, v)
    return total(t, add(no_sum(tile), found))


@inlined
def _exp(logy):
    """``exp(logy)`` of a log-softmax, which is not positive."""
    return exp_shifted(logy, shift_of(splat(logy, 0))) * constant(logy, "POWER_INVERSE")


@inlined
def _one_minus_exp(logy):
    """``1 - exp(logy)``: near 0 it is ``-h (1 + h / 4)``, ``h`` being ``2 (exp(logy / 2) - 1)``."""
    zero, one, quarter, half = splat(logy, 0), splat(logy, 1), splat(logy, 0.25), logy * splat(logy, 0.5)
    h = fma(logy * half, polynomial(half, "EXP"), logy)
    return where_greater(logy, splat(logy, -0.5), zero - h * (one + h * quarter), one - _exp(logy))


@inlined
def _sum_but_dominant(tile, t):
    if t.vectors == 1 and t.tail <= 8:  # three roundings, for which the bound has room; scratch ends in zeros
        return _four(tile, 0) + _four(tile, 4)
    return lane(_sum_of_small(tile, t), 0)


@inlined
def _sum_of_small(tile, t):
    """The sum of each row's entries up to 1/2."""
    s = no_sum(tile)
    for start in stretches(t):
        s = before(start, s)
        for j in stretch(t, start):
            y = vector(tile, j)
            s = add(s, where_greater(y, splat(tile, 0.5), splat(tile, 0), y))
    return total(t, s)


@inlined
def _four(tile, j):
    return (_small(tile[j]) + _small(tile[j + 1])) + (_small(tile[j + 2]) + _small(tile[j + 3]))


@inlined
def _small(y):
    return y if y <= 0.5 else y - y


@allocating
def _everywhere(x, weight, smoothing, stop):
    """The loss is ``at_label * nll[label] + sum_j everywhere[j] * nll[j]``, as PyTorch defines it."""
    n = x.shape[1]
    everywhere = np.zeros(n + lanes(x), x.dtype)
    whole = error = 0.0
    if smoothing:
        for j in range(n):
            if is_set(stop):
                break
            term = smoothing / n * np.float64(weight[j])
            everywhere[j] = term
            s = whole + term
            error += (whole - s) + term if whole > term else (term - s) + whole
            whole = s
    return everywhere, whole + error


@inlined
def _weights(everywhere, t, j):
    return vector(everywhere, j) if t.folds else splat(everywhere, everywhere[j])


@allocating
def _at_labels(x, weight, smoothing):
    """What the probability of each class is multiplied by."""
    at_labels = np.zeros(x.shape[1] + lanes(x), x.dtype)
    for j in range(x.shape[1]):
        at_labels[j] = (1 - smoothing) * np.float64(weight[j])
    return at_labels


@inlined
def _fetch_targets(targets, labels, t, at_labels, everywhere):
    """The loss is ``sum_j targets[j] * nll[j]``."""
    fetch(targets, labels, t, splat(labels, 0))
    for start in stretches(t):
        for j in stretch(t, start):
            weighted = vector(targets, j) * _weights(at_labels, t, j)
            set_vector(targets, j, weighted + _weights(everywhere, t, j))


@inlined
def _half_gaps(tile, targets, t, m):
    """Half of ``sum_j targets[j] * (max - x_j)`` of each row: a difference of logits may overflow."""
    half, zero = splat(tile, 0.5), splat(tile, 0)
    s = no_sum(tile)
    for start in stretches(t):
        s = before(start, s)
        for j in stretch(t, start):
            w = vector(targets, j)
            s = add(s, where_equal(w, zero, zero, w * (m * half - vector(tile, j) * half)))
    return total(t, s)


@inlined
def _sum_but(tile, targets, t, but):
    """The sum of each row's targets but for entries at ``but``, or of all if that is NaN."""
    zero, s = splat(tile, 0), no_sum(tile)
    for start in stretches(t):
        s = before(start, s)
        for j in stretch(t, start):
            s = add(s, where_equal(vector(tile, j), but, zero, vector(targets, j)))
    return total(t, s)


@inlined
def _soft_loss(sample, half_gaps, whole, log_sum):
    if sample == 0:
        return 0.0
    of_gaps = 2 * (np.float64(sample) * np.float64(half_gaps))
    return of_gaps + np.float64(sample) * np.float64(whole) * np.float64(log_sum)


@inlined
def _of_first(v):
    """Its first lane's in all."""
    return splat(v, lane(v, 0))


@inlined
def _term(weight, row_max, x, log_sum):
    """``weight * -log y``; 0 of a weight of 0, and finite where only the difference of logits is not."""
    if weight == 0:
        return 0 * log_sum  # NaN of a row that holds one
    # -log y_j = (max - x_j) + log(1 + rest)
    nll = (row_max - x) + log_sum
    return weight * nll if nll != np.inf else 2 * (weight * (row_max / 2 - x / 2))


@inlined
def _spread(x, t, m, everywhere):
    """Half of ``sum_j everywhere[j] * (max - x_j)`` of each row: a difference of logits may overflow."""
    half, zero = splat(x, 0.5), splat(x, 0)
    s = no_sum(x)
    for start in stretches(t):
        s = before(start, s)
        for j in stretch(t, start):
            w, gap = _weights(everywhere, t, j), m * half - get(x, t, j, m) * half
            s = add(s, where_equal(w, zero, zero, w * gap))
    return total(t, s)


@inlined
def _entry(t, x, label, r):
    """Where scratch holds entry ``label`` of the row in lane ``r``; an ignored label's place is entry 0's."""
    j = max(label, 0)
    return j if t.folds else j * lanes(x) + r
