"""Vectorized NumPy: whole-array operations on blocks of rows that stay in the L2 cache.

Exponentials are taken in float64 for both dtypes: NumPy's own float32 exp is off by 2.5 ULP, and in
float64 the shift of a float32 row by its maximum loses nothing that a float32 result can show. Most
rows need no shift at all; where one is made in float64, its rounding error is carried along.

Along ``axis`` a block holds the entries of a row: 1 where rows are long and contiguous; 0 where they
are short or strided and stand side by side, since NumPy's reductions take 15 ns an element over a short
last axis. That choice and the order of every sum depend on the length and strides of one row, never on
how many there are, and so do its bits.
"""

import functools
import math

import numpy as np

# Elements a block: its float64 exponentials, 512 KB, stay in an L2 cache of 1 MB, and the 0.5 us that
# each of some 20 ufunc calls costs is spread over enough of them.
BLOCK = 64 * 1024
# Up to this n rows stand side by side. Sums along the last axis carry up to 16 roundings of one sign
# where entries are equal; float64 has no digits to spare and goes by halves (`_sum`) for longer.
SHORT = {np.dtype(np.float32): 32, np.dtype(np.float64): 256}
# Strided rows come in at least so many columns: slices of 64 take 3 times as long to copy.
COLUMNS = 512
# Unshifted exps serve a float64 row if none is subnormal, so that each share is rounded once, and a
# float32 row if their sum is at least this.
NORMAL, LEAST_SUM, HIGHEST_SUM = np.finfo(np.float64).tiny, 1e-200, 1e300
# What that means for the entries of a row, its least and greatest; sums of float32 rows stay in float32.
PLAIN = {np.dtype(np.float32): (-80.0, 30.0), np.dtype(np.float64): (-700.0, 600.0)}
# How far below the maximum other rows are shifted to, so that entries with a subnormal share are normal.
LIFT = {np.dtype(np.float32): 60.0, np.dtype(np.float64): 512.0}
# Within this distance of 0 a shift is rounded to 1/64, so that it can be undone exactly. Beyond, every
# entry that matters is at least half the maximum, and the shift is exact.
COARSE = 2048.0
# So many last terms of a float64 sum are added with their roundings kept: those make most of its error.
FEW = 16
# From this n on a float64 row is rarely dominated by its maximum, which would swallow small entries that
# are added to it one at a time: such rows are done again without it. Shorter ones leave it out at once.
MANY = 64
# Below this, a float32 row's rest is no longer taken from a float64 sum that holds the maximum.
SMALL = 1e-6
SINGLE = np.dtype(np.float32)


def softmax(x, out):
    blocks = _blocks(x, out)
    for axis, work, x, out in blocks:
        if axis and x.dtype == SINGLE and x.shape[1] > BLOCK:
            _softmax_in_pieces(work, x, out)
        else:
            _softmax_block(work, x, axis, out)


def log_softmax(x, out):
    blocks = _blocks(x, out)
    for axis, work, x, out in blocks:
        x = _beside(work, "x", x, axis, np.float64)
        m = _max(x, axis)
        _log_y(x, m, np.log1p(_rest(work, x, m, axis, out.dtype)), out)


def logsumexp(x, out):
    blocks = _blocks(x, out)
    for axis, work, x, out in blocks:
        x = _beside(work, "x", x, axis, np.float64)
        largest = np.maximum.reduce(x, axis=axis, keepdims=True).astype(np.float64, copy=False)
        m = _nan_unless_finite(largest)
        lse = m + np.log1p(_rest(work, x, m, axis, out.dtype))
        np.copyto(lse, largest, where=np.isinf(largest))
        out[...] = lse


def softmax_vjp(y, g, out):
    blocks = _blocks(y, g, out)
    for axis, work, y, g, out in blocks:
        y, g = _beside(work, "y", y, axis), _beside(work, "g", g, axis)
        # dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the centre c keeps the digits
        # of a saturated row, and makes a constant cotangent give exactly 0.
        c = _centre(work, y, g, axis)
        h = np.subtract(g, c, out=work("h", g.shape, g.dtype)) if c.any() else g
        d = np.multiply(h, y, out=work("d", g.shape, g.dtype))
        np.subtract(h, _total(work, d, axis, few=1), out=d)
        _store(np.multiply(d, y, out=d if axis == 0 else out), out)


def log_softmax_vjp(logy, g, out):
    blocks = _blocks(logy, g, out)
    for axis, work, logy, g, out in blocks:
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        logy, g = _beside(work, "logy", logy, axis), _beside(work, "g", g, axis)
        d = np.exp(logy, out=work("d", g.shape, g.dtype))
        d *= _total(work, g, axis, few=1)
        _store(np.subtract(g, d, out=d if axis == 0 else out), out)


def log_softmax_jvp(logy, t, out):
    blocks = _blocks(logy, t, out)
    for axis, work, logy, t, out in blocks:
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        logy, t = _beside(work, "logy", logy, axis), _beside(work, "t", t, axis)
        d = np.exp(logy, out=work("d", t.shape, t.dtype))
        d *= t
        _store(np.subtract(t, _total(work, d, axis, few=1), out=d if axis == 0 else out), out)


def softmax_jacobian(y, out):
    _, n, _ = y.shape
    rows = max(1, BLOCK // (n * n))
    work = _Scratch()
    for start in range(0, len(y), rows):
        _jacobian_block(work, y[start : start + rows, :, 0], out[start : start + rows])


def cross_entropy(x, labels, weight, smoothing, loss):
    blocks = _blocks(x, labels, loss)
    for axis, work, x, labels, loss in blocks:
        x = _beside(work, "x", x, axis, np.float64)
        m = _max(x, axis)
        rest = _rest(work, x, m, axis, loss.dtype)
        loss[...] = _losses(x, m, rest, _Target(labels, x.shape, axis, weight, smoothing))


def cross_entropy_with_grad(x, labels, weight, smoothing, scale, loss, out):
    blocks = _blocks(x, labels, loss, out)
    for axis, work, x, labels, loss, out in blocks:
        x = _beside(work, "x", x, axis, np.float64)
        m = _max(x, axis)
        e, largest, others = _exp_and_others(work, x, m, axis, out.dtype)
        rest = _relative(work, x, m, axis, out.dtype, largest, others)
        target = _Target(labels, x.shape, axis, weight, smoothing)
        loss[...] = _losses(x, m, rest, target)
        at_label = scale * _gradients_at_label(x, m, rest, target)
        total = largest + others
        if out.dtype != SINGLE and axis == 0:
            total = np.where(largest > 0.5 * total, total, _total(work, e, 0))
        _gradients(e, total, scale, target, out)
        out[target.at] = at_label
        if target.ignored.any():
            np.copyto(out, 0.0, where=target.ignored)


class _Scratch:
    """Buffers by name, kept from block to block: fresh ones of this size cost their page faults."""

    def __init__(self):
        self._buffers = {}

    def __call__(self, name, shape, dtype=np.float64):
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


def _blocks(x, *others):
    """``axis``, scratch and the arrays of each block, those of one value a row with that axis kept."""
    outer, n, inner = x.shape
    work = _Scratch()
    if n > SHORT[x.dtype] and x.strides[1] == x.itemsize:
        rows = max(1, BLOCK // n)
        for o in range(0, outer, rows):
            part = slice(o, o + rows)
            yield 1, work, *(a[part, :, 0] if a.ndim == 3 else a[part] for a in (x, *others))
        return
    columns = min(inner, max(COLUMNS, BLOCK // n))
    rows = min(outer, max(1, BLOCK // (n * columns)))
    for o in range(0, outer, rows):
        for i in range(0, inner, columns):
            # Axes of length 1 are dropped: a strided copy with them takes 3 times as long.
            first = slice(o, o + rows) if rows > 1 else o
            last = slice(i, i + columns) if inner > 1 or rows == 1 else 0
            yield 0, work, *(_entries_first(a, (first, last)) for a in (x, *others))


def _entries_first(a, part):
    if a.ndim == 3:
        first, last = part
        block = a[first, :, last]
        return block.swapaxes(0, 1) if isinstance(first, slice) else block
    return a[part][None]


def _beside(work, name, a, axis, dtype=None):
    """A contiguous copy of strided rows; long ones as they are."""
    if axis:
        return a
    copy = work(name, a.shape, dtype or a.dtype)
    np.copyto(copy, a)
    return copy


def _store(result, out):
    if result is not out:
        np.copyto(out, result, casting="same_kind")


def _softmax_block(work, x, axis, out):
    """Without a shift or a look at the maximum, then again for the rows that need those."""
    e = work("e", x.shape)
    if axis and x.dtype != SINGLE:
        np.exp(x, out=e)
    else:
        np.copyto(e, x)
        np.exp(e, out=e)
    single, again = x.dtype == SINGLE, None
    by_halves = axis == 0 and not FEW < len(e) <= MANY
    total = _total(work, e, axis) if single or by_halves else _largest_last(work, e, axis)
    least, bound = (total, LEAST_SUM) if single else (e, NORMAL)
    plain = np.minimum.reduce(least, axis=None) >= bound
    if not (plain and np.maximum.reduce(total, axis=None) <= HIGHEST_SUM):
        again = ~((np.minimum.reduce(least, axis=axis, keepdims=True) >= bound) & (total <= HIGHEST_SUM))
    if not single and by_halves and len(e) > MANY:
        dominated = np.maximum.reduce(e, axis=0, keepdims=True) > 0.5 * total
        again = dominated if again is None else again | dominated
    if again is None or not again.any():
        _divide(e, total, axis, out)
        return
    part = (again[:, 0],) if axis else (slice(None), again[0])
    y = _softmax_again(x[part].astype(np.float64), axis, x.dtype)  # a copy: out may be x
    _divide(e, total, axis, out)
    out[part] = y


def _softmax_again(x, axis, dtype):
    work = _Scratch()
    e = _exp(x, _shift(x, _max(x, axis), axis, dtype), dtype, x)
    e /= _largest_last(work, e, axis)
    return e


def _softmax_in_pieces(work, x, out):
    """Of long float32 rows, whose exponentials would exceed the cache in float64."""
    m = _max(x, 1)
    e, total = _exp_and_total(work, x, _shift(x, m, 1, SINGLE), keep=True)
    np.multiply(e, (1 / total).astype(SINGLE), out=out)


def _divide(e, total, axis, out):
    """``out = e / total``, in place first unless both are laid out alike."""
    if axis and out.dtype == e.dtype:
        np.divide(e, total, out=out)
    elif out.dtype == SINGLE:
        _store(np.multiply(e, 1 / total, out=e), out)
    else:
        _store(np.divide(e, total, out=e), out)


def _max(x, axis):
    return _nan_unless_finite(np.maximum.reduce(x, axis=axis, keepdims=True).astype(np.float64, copy=False))


def _nan_unless_finite(m):
    """Row maxima, or NaN where softmax is NaN: with NaN or +inf in the row, or all -inf."""
    return m + 0.0 * m


def _lifted(m, dtype):
    return np.where(np.abs(m) < COARSE, np.rint(m * 64) / 64, m) - LIFT[dtype]


def _shift(x, m, axis, dtype):
    """What to subtract from each row before exp: None for nothing."""
    lowest, highest = PLAIN[dtype]
    if np.minimum.reduce(x, axis=None) >= lowest and np.maximum.reduce(m, axis=None) <= highest:
        return None
    plain = (np.minimum.reduce(x, axis=axis, keepdims=True) >= lowest) & (m <= highest)
    return np.where(plain, 0.0, _lifted(m, dtype))


def _exp(x, shift, dtype, out):
    """``exp(x - shift)`` in float64, to 1 ULP of the unrounded difference; for float32 to 2**-45."""
    if shift is None:
        if x.dtype == SINGLE:
            np.copyto(out, x)
            x = out
        return np.exp(x, out=out)
    if dtype == SINGLE:
        np.copyto(out, x)
        out -= shift
        return np.exp(out, out=out)
    # Entries so far below that exp gives 0 are raised, lest inf - inf is formed.
    x = np.maximum(x, np.maximum(shift - (1e3 + 1e-9 * np.abs(shift)), -np.finfo(x.dtype).max))
    d = np.subtract(x, shift, out=out)
    error = d + shift
    np.subtract(x, error, out=error)  # the rounding error of d, exactly
    np.exp(d, out=d)
    error *= d
    d += error
    return d


def _exp_and_others(work, x, m, axis, dtype, keep=True):
    """``e = exp(x - shift)``, its value at the maximum, and the sum of all others."""
    shift = _shift(x, m, axis, dtype)
    largest = _exp(m, shift, dtype, np.empty_like(m))
    if dtype == SINGLE and axis:
        e, total = _exp_and_total(work, x, shift, keep)
        return e, largest, total - largest
    e = _exp(x, shift, dtype, work("e", x.shape))
    if dtype == SINGLE:
        return e, largest, _total(work, e, 0) - largest
    return e, largest, _others(work, e, axis, keep)


def _exp_and_total(work, x, shift, keep):
    """Of long float32 rows, piece by piece: a whole one in float64 may exceed the cache."""
    e = work("e", x.shape, SINGLE) if keep else None
    total = 0.0
    for start in range(0, x.shape[1], BLOCK):
        piece = x[:, start : start + BLOCK]
        wide = _exp(piece, shift, SINGLE, work("wide", piece.shape))
        total = total + np.add.reduce(wide, axis=1, keepdims=True)
        if keep:
            e[:, start : start + BLOCK] = wide
    return e, total


def _rest(work, x, m, axis, dtype):
    """The sum of ``exp(x_j - max)`` over all entries but one maximum: ``rest`` in 1 + rest."""
    _, largest, others = _exp_and_others(work, x, m, axis, dtype, keep=False)
    return _relative(work, x, m, axis, dtype, largest, others)


def _relative(work, x, m, axis, dtype, largest, others):
    rest = others / largest
    if dtype == SINGLE and (small := rest < SMALL).any():
        e = _exp(x, m, SINGLE, np.empty(x.shape))
        rest = np.where(small, _others(work, e, axis), rest)
    return rest


def _others(work, e, axis, keep=True):
    """Sums of all entries but one largest; ``keep`` says whether ``e`` is needed after."""
    if axis == 0:
        return _tournament(work, e, keep)
    at = (np.arange(len(e)), e.argmax(axis=1))
    largest = e[at]
    e[at] = 0.0
    others = _fold(work, e)
    e[at] = largest
    return others


def _total(work, e, axis, few=FEW):
    """Sums along an axis, kept; along axis 0 by halves: in float64 the last few of exps are compensated."""
    if axis:
        return np.add.reduce(e, axis=1, keepdims=True)
    s = e
    while (n := len(s)) > 1 and (n > few or e.dtype == SINGLE):
        half = n // 2
        target = work("half", (half, *e.shape[1:]), e.dtype) if s is e else s[:half]
        np.add(s[:half], s[half : 2 * half], out=target)
        if n % 2:
            target[:1] += s[-1:]
        s = target
    return _compensated(s) if len(s) > 1 else s


def _compensated(s):
    """Sums along axis 0, by halves, with the roundings of each addition added at the end."""
    errors = [np.zeros_like(s[:1])]
    while (n := len(s)) > 1:
        a, b = s[: n // 2], s[n // 2 : n - n % 2]
        high, low = np.maximum(a, b), np.minimum(a, b)
        paired = high + low
        high -= paired
        high += low
        errors.append(high)
        s = np.concatenate((paired, s[-1:])) if n % 2 else paired
    return s + functools.reduce(np.add, (row for rows in errors for row in rows))


def _largest_last(work, e, axis):
    """Sums along an axis, kept, to which the largest entry is added last."""
    return np.maximum.reduce(e, axis=axis, keepdims=True) + _others(work, e, axis)


def _fold(work, e):
    """Sums along axis 1, kept: by halves, whose lengths are multiples of 8, as NumPy adds 8 at a time."""
    n = e.shape[1]
    half = 8 * -(-n // 16)
    s = work("half", (len(e), half))
    np.add(e[:, : n - half], e[:, half:], out=s[:, : n - half])
    s[:, n - half :] = e[:, n - half : half]
    while (n := half) > 8:
        half = 8 * -(-n // 16)
        s[:, : n - half] += s[:, half:n]
    return _compensated(s[:, :n].T.copy()).reshape(-1, 1)


def _tournament(work, e, keep):
    """Sums along axis 0 of all entries but one largest: in rounds by halves, whose losers add up."""
    if len(e) == 1:
        return np.zeros_like(e)
    winners, losers, spare, terms = e, None, ("losers", "spare"), []
    while (n := len(winners)) > 1:
        half = n // 2
        a, b, last = winners[:half], winners[half : 2 * half], winners[2 * half :]
        few = n <= FEW
        lost = np.minimum(a, b, out=None if few else work(spare[0], a.shape))
        won = np.maximum(a, b, out=work("winners", a.shape) if keep and winners is e else a)
        if n % 2:
            last_lost = np.minimum(won[:1], last)
            np.maximum(won[:1], last, out=won[:1])
        if few:
            terms += [lost, last_lost] if n % 2 else [lost]
        else:
            if losers is not None:
                losers[:half] += losers[half : 2 * half]
                lost += losers[:half]
            if n % 2:
                lost[:1] += last_lost if losers is None else last_lost + losers[-1:]
            losers, spare = lost, spare[::-1]
        winners = won
    return _compensated(np.concatenate(terms if losers is None else [losers, *terms]))


def _log_y(x, m, log_sum, out):
    # log y = (x - max) - log(1 + rest)
    if x.dtype == SINGLE:
        # One subtraction where the sum is at most twice the second, the least that any |log y| can be.
        lse = m + log_sum
        once = np.abs(lse) <= 2 * log_sum
        m, log_sum = np.where(once, lse, m).astype(SINGLE), np.where(once, 0.0, log_sum).astype(SINGLE)
    d = np.subtract(x, m, out=out if x.dtype == out.dtype and out.flags.c_contiguous else x)
    if log_sum.any():
        d -= log_sum
    _store(d, out)


class _Target:
    """The loss is ``at_label * nll[label] + sum_j everywhere[j] * nll[j]``, as PyTorch defines it."""

    def __init__(self, labels, shape, axis, weight, smoothing):
        n = shape[axis]
        label = np.maximum(labels, 0)
        self.axis, self.smoothing = axis, smoothing
        self.ignored = labels < 0
        rows = np.ogrid[tuple(map(slice, (*shape[:axis], 1, *shape[axis + 1 :])))]
        self.at = (*rows[:axis], label, *rows[axis + 1 :])
        weight = np.ones(n) if weight is None else weight.astype(np.float64)
        everywhere = smoothing / n * weight
        self.at_label, self.everywhere_at_label = (1 - smoothing) * weight[label], everywhere[label]
        self.total = everywhere.sum()
        self.everywhere = everywhere.reshape([n if i == axis else 1 for i in range(len(shape))])


def _losses(x, m, rest, target):
    # -log y_j = (max - x_j) + log(1 + rest)
    log_sum = np.log1p(rest)
    loss = target.at_label * ((m - x[target.at]) + log_sum)
    if target.smoothing:
        loss += np.sum(target.everywhere * ((m - x) + log_sum), axis=target.axis, keepdims=True)
    return np.where(target.ignored, 0.0, loss)


def _gradients_at_label(x, m, rest, target):
    d = x[target.at] - m
    y = np.exp(d) / (1 + rest)
    one_minus = np.where(d == 0, rest / (1 + rest), 1 - y)
    return target.total * y - target.everywhere_at_label - target.at_label * one_minus


def _gradients(e, total, scale, target, out):
    # d loss / d x_j = y_j * (at_label + total) - everywhere_j - (j == label) * at_label
    factor = scale * (target.at_label + target.total)
    if target.smoothing:
        np.copyto(out, e * (factor / total) - scale * target.everywhere, casting="same_kind")
    elif e.dtype == SINGLE:
        np.multiply(e, (factor / total).astype(SINGLE), out=out)
    else:
        _divide(e, total / factor, target.axis, out)


def _centre(work, y, g, axis):
    """The cotangent of a row's dominant entry; or else 0, or what is nearest to it if g may be constant."""
    first, last = (g[:, :1], g[:, -1:]) if axis else (g[:1], g[-1:])
    c = np.zeros_like(first)
    constant = (first == last) & (first != 0)
    if constant.any():
        nearest = np.clip(0.0, g.min(axis=axis, keepdims=True), g.max(axis=axis, keepdims=True))
        np.copyto(c, nearest, where=constant)
    if axis:
        at = (np.arange(len(y))[:, None], y.argmax(axis=1, keepdims=True))
        return np.where(y[at] > 0.5, g[at], c)
    dominant = y > 0.5
    picked = work("h", g.shape, g.dtype)
    picked.fill(0.0)
    np.copyto(picked, g, where=dominant)
    found = np.logical_or.reduce(dominant, axis=0, keepdims=True)
    return np.where(found, np.add.reduce(picked, axis=0, keepdims=True), c)


def _jacobian_block(work, y, out):
    # J_ij = y_i * ((i == j) - y_j)
    np.multiply(-y[:, :, None], y[:, None, :], out=out)
    y = np.array(y.T, np.float64, order="C")
    np.einsum("rii->ri", out)[...] = (y * _one_minus(work, y)).T


def _one_minus(work, y):
    """``1 - y``: of an entry above 1/2 as the sum of the others."""
    dominant = y > 0.5
    others = _total(work, np.where(dominant, 0.0, y), 0)
    return np.where(dominant, others, 1 - y)
