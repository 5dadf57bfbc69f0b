"""Vectorized NumPy: whole-array operations on blocks of rows that stay in the L2 cache.

Exponentials are taken in float64 for both dtypes: NumPy's float32 exp alone is off by 2.5 ULP. Most rows
are not shifted: float64 has room for their exponentials, and what is not shifted is not rounded.

Along ``axis`` a block holds the entries of a row: 1 where rows are long and contiguous; 0 where they
are short or strided and stand side by side, since NumPy's reductions take 15 ns an element over a short
last axis. That choice and the order of every sum depend on the length and strides of one row, never on
how many there are, and so do its bits.
"""

import math
from functools import partial, reduce

import numpy as np

from fastsoftmax._threads import sized
from fastsoftmax.backends.python import HEADROOM

# Bytes of a block's input: its float64 exponentials, at most twice that, stay in an L2 cache of 1 MB, and the
# 1 us that each of some 15 ufunc calls costs is spread over 64 K elements or more.
BLOCK = 512 * 1024
# Contiguous rows up to this n stand side by side.
SHORT = 64
# Of strided rows so many entries are taken at a time: of fewer columns NumPy's loops would be too short.
PIECE, COLUMNS = 16, 256
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
# A row is not shifted if its sum is from LEAST to MOST: its shares do not underflow before they are divided,
# float32 ones do not overflow, and in float64 `_split` leaves next to nothing to round, as long as the sum is
# also MEAN times n or more: what is left of an exponential is less than 2**-8 of that.
LEAST, MOST, MEAN = 0.5, {SINGLE: 1e30, DOUBLE: 2.0**28}, 2.0**-17
# In a dominated row all other exponentials are together less than n times this part of one maximum. Its shift
# is less by LIFT, so that entries with a subnormal share are normal.
DOMINATED, LIFT = 2.0**-19, 512.0
# So many terms are added one after another, at a rounding each; more, along axis 0, first by halves.
FEW = 16
# Of so many terms `np.einsum` adds up every row alike; longer ones it cuts where its buffers would end.
AT_ONCE = 8192
# From so many exponentials on, what `_split` leaves of shifted ones is split again.
MANY = 2**14

# At up to 20 ns an element a call takes 80 ms; Ctrl-C is answered between calls.
_interruptible = partial(sized, block_elements=4 * 1024 * 1024)


@_interruptible()
def softmax(x, out):
    apart = not np.may_share_memory(x, out)
    blocks = _blocks((x,), out, wide=apart)
    for axis, work, (x,), out in blocks:
        e = out if apart and not _across(out) else work("e", x.shape, out.dtype)
        (total, lost), _ = _sums_in_range(work, x, axis, e)
        if e.dtype == SINGLE:
            e *= (1 / total).astype(SINGLE)
        else:
            e /= total + lost
        _store(e, out)


@_interruptible()
def log_softmax(x, out):
    blocks = _blocks((x,), out, wide=True)
    for axis, work, (x,), out in blocks:
        m, rest, _ = _summary(work, x, axis)
        # log y = (x - max) - log(1 + rest)
        y = np.subtract(x, m.astype(x.dtype), out=work("y", x.shape, x.dtype) if _across(out) else out)
        y -= np.log1p(rest).astype(x.dtype)
        _store(y, out)


@_interruptible()
def logsumexp(x, out):
    blocks = _blocks((x,), out, wide=True)
    for axis, work, (x,), out in blocks:
        m, rest, _ = _summary(work, x, axis, shifted=x.dtype == DOUBLE)
        lse = m + np.log1p(rest)
        if not np.isfinite(lse).all():
            largest = np.maximum.reduce(x, axis=axis, keepdims=True)
            np.copyto(lse, largest, where=np.isinf(largest))
        _store(lse, out)


@_interruptible()
def softmax_vjp(y, g, out):
    apart = not np.may_share_memory(y, out)
    blocks = _blocks((y, g), out)
    for axis, work, (y, g), out in blocks:
        # dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the centre c keeps the digits
        # of a saturated row, and makes a constant cotangent give exactly 0.
        c, scale = _centre(work, y, g, axis), None
        centred, dot = _centred_dot(work, y, g, c, axis)
        inside = np.isfinite(dot * g.dtype.type(HEADROOM))
        if not inside.all():  # a difference may have overflowed: of an eighth none does
            scale = np.where(inside, g.dtype.type(1), g.dtype.type(0.125))
            centred, dot = _centred_dot(work, y, g * scale, None if c is None else c * scale, axis)
        for part in _pieces(work, g, axis):
            h = out[part] if apart and not _across(out) else work("h", g[part].shape, g.dtype)
            np.subtract(centred(part, h), dot, out=h)
            h *= y[part]
            if scale is not None:
                h /= scale
            _store(h, out[part])


@_interruptible()
def log_softmax_vjp(logy, g, out):
    apart = not np.may_share_memory(g, out)
    blocks = _blocks((logy, g), out)
    for axis, work, (logy, g), out in blocks:
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        total = _sum(work, _copy(g), g, axis).astype(g.dtype)
        for part in _pieces(work, g, axis):
            d = out[part] if apart and not _across(out) else work("d", g[part].shape, g.dtype)
            np.exp(logy[part], out=d)
            d *= total
            _store(np.subtract(g[part], d, out=d), out[part])


@_interruptible()
def log_softmax_jvp(logy, t, out):
    blocks = _blocks((logy, t), out)
    for axis, work, (logy, t), out in blocks:
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        exps = _products(work, lambda part, to, logy=logy: np.exp(logy[part], out=to), t)
        dot = _sum(work, exps, t, axis).astype(t.dtype)
        for part in _pieces(work, t, axis):
            np.subtract(t[part], dot, out=out[part])


@_interruptible(elements=lambda canonical: canonical[0] * canonical[1] ** 2)  # those of the result
def softmax_jacobian(y, out):
    work, (outer, n, _) = _Scratch(), y.shape
    rows, step = max(1, BLOCK // (y.itemsize * n * n)), max(1, BLOCK // (y.itemsize * n))
    for start in range(0, outer, rows):
        block, part = y[start : start + rows, :, 0], out[start : start + rows]
        # J_ij = y_i * ((i == j) - y_j); 1 - y_i of an entry above 1/2 is the sum of the others.
        minus = -block[:, :, None]
        for i in range(0, n, step):
            np.multiply(minus[:, i : i + step], block[:, None, :], out=part[:, i : i + step])
        block = np.array(block.T, np.float64, order="C")
        large = np.where(block > 0.5, block, 0.0)
        others = _sum_of_few(work, block - large, y.dtype) + (_add_up(work, large, 0) - large)
        np.einsum("rii->ri", part)[...] = (block * np.where(block > 0.5, others, 1 - block)).T


@_interruptible()
def cross_entropy(x, labels, weight, sample_weight, smoothing, loss):
    blocks = _blocks((x,), labels, _or_ones(sample_weight, loss), loss, wide=True)
    for axis, work, (x,), labels, sample, loss in blocks:
        m, rest, _ = _summary(work, x, axis)
        target = _Target(work, x, labels, axis, weight, sample, smoothing)
        loss[...] = target.losses(work, x, m, rest)


@_interruptible()
def cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    apart = not np.may_share_memory(x, out)
    blocks = _blocks((x,), labels, _or_ones(sample_weight, loss), loss, out, wide=apart)
    for axis, work, (x,), labels, sample, loss, out in blocks:
        e = out if apart and not _across(out) else work("e", x.shape, out.dtype)
        m, rest, total = _summary(work, x, axis, e)
        target = _Target(work, x, labels, axis, weight, sample, smoothing)
        loss[...] = target.losses(work, x, m, rest)
        # d loss / d x_j = y_j * (at_label + total) - everywhere_j - (j == label) * at_label
        _multiply(e, scale * (target.at_label + sample * target.total), total)
        if smoothing:
            e -= (scale * (sample * target.everywhere)).astype(e.dtype)
        e[target.at] = scale * target.gradients_at_label(m, rest)
        np.copyto(e, 0.0, where=target.ignored)
        _store(e, out)


@_interruptible()
def softmax_jacobian_diagonal(y, out):
    blocks = _blocks((y,), out)
    for axis, work, (y,), out in blocks:
        # J_ii = y_i * (1 - y_i); 1 - y_i of an entry above 1/2 is the sum of the others.
        others = _sum(work, _small(y), y, axis).astype(y.dtype)
        for part in _pieces(work, y, axis):
            d = np.subtract(1, y[part], out=work("d", y[part].shape, y.dtype))
            np.copyto(d, others, where=y[part] > 0.5)
            d *= y[part]
            _store(d, out[part])


@_interruptible(elements=lambda canonical: canonical[0] * canonical[1] ** 2)
def log_softmax_jacobian(logy, out):
    outer, n, _ = logy.shape
    rows = max(1, BLOCK // (logy.itemsize * n * n))
    for start in range(0, outer, rows):
        block, part = logy[start : start + rows, :, 0], out[start : start + rows]
        # J_ij = (i == j) - exp(logy_j)
        part[...] = -np.exp(block, dtype=np.float64).astype(logy.dtype)[:, None, :]
        np.einsum("rii->ri", part)[...] = 0 - np.expm1(block, dtype=np.float64)


@_interruptible()
def log_softmax_jacobian_diagonal(logy, out):
    blocks = _blocks((logy,), out)
    for axis, work, (logy,), out in blocks:
        # J_ii = 1 - exp(logy_i)
        for part in _pieces(work, logy, axis):
            d = np.expm1(logy[part], out=work("d", logy[part].shape), dtype=np.float64)
            _store(np.subtract(0, d, out=d), out[part])


@_interruptible()
def soft_cross_entropy(x, labels, weight, sample_weight, smoothing, loss):
    blocks = _blocks((x, labels), _or_ones(sample_weight, loss), loss)
    for axis, work, (x, t), sample, loss in blocks:
        m, rest, _ = _summary(work, x, axis)
        target = _SoftTarget(work, t, axis, weight, sample, smoothing)
        loss[...] = target.losses(work, x, m, rest)


@_interruptible()
def soft_cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    apart = not np.may_share_memory(x, out)
    blocks = _blocks((x, labels), _or_ones(sample_weight, loss), loss, out)
    for axis, work, (x, t), sample, loss, out in blocks:
        e = out if apart and not _across(out) else work("e", x.shape, out.dtype)
        m, rest, total = _summary(work, x, axis, e)
        target = _SoftTarget(work, t, axis, weight, sample, smoothing)
        loss[...] = target.losses(work, x, m, rest)
        # d loss / d x_j = y_j * total - t_j
        _multiply(e, scale * (sample * target.total), total)
        for part in _pieces(work, x, axis):
            t = target.of(part, work("terms", x[part].shape))
            t *= scale * sample
            np.subtract(e[part], t, out=e[part], casting="same_kind")
        if (rest < 1).any():
            largest = scale * target.gradients_at_largest(work, x, m, rest)
            np.copyto(e, largest, where=(x == m) & (rest < 1), casting="same_kind")
        np.copyto(e, 0.0, where=target.ignored)
        _store(e, out)


@_interruptible()
def segment_softmax(x, ptr, out):
    _each_length(softmax, (x,), ptr, out)


@_interruptible()
def segment_log_softmax(x, ptr, out):
    _each_length(log_softmax, (x,), ptr, out)


@_interruptible()
def segment_logsumexp(x, ptr, out):
    out[0, ptr[1:] == ptr[:-1]] = -np.inf
    _each_length(logsumexp, (x,), ptr, out)


@_interruptible()
def segment_softmax_vjp(y, g, ptr, out):
    _each_length(softmax_vjp, (y, g), ptr, out)


def _each_length(op, arrays, ptr, out):
    """An op on the segments of each length as the rows of a matrix, whose bits are those of rows alone."""
    lengths = np.diff(ptr)
    order = np.argsort(lengths, kind="stable")
    ends = np.nonzero(np.diff(lengths[order], append=-1))[0] + 1
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        k, segments = order[start], order[start:end]
        n = lengths[k]
        if n == 0:
            continue
        if len(segments) == 1:  # where it is
            row = slice(ptr[k], ptr[k + 1])
            op(*(a[:, row] for a in arrays), out[:, k : k + 1] if out.ndim == 2 else out[:, row])
            continue
        entries = ptr[segments, None] + np.arange(n)
        at = segments if out.ndim == 2 else entries  # one a segment, or the shape of the arrays
        result = np.empty((*at.shape, 1), out.dtype)
        op(*(a[0, entries] for a in arrays), result)
        out[0, at] = result if out.ndim == 3 else result[:, 0]


@_interruptible()
def softmax_solve(y, b, ridge, out):
    blocks = _blocks((y, b), out)
    for axis, work, (y, b), out in blocks:
        # v_i = (b_i + c y_i) / (y_i + ridge), by Sherman and Morrison; 0 where both y and the ridge are.
        c = _coefficient(work, y, b, ridge, axis)
        for part in _pieces(work, y, axis):
            total = np.add(y[part], ridge, out=work("total", y[part].shape), dtype=DOUBLE)
            v = np.multiply(y[part], c, out=work("v", total.shape))
            v += b[part]
            v /= total
            np.copyto(v, c - c, where=total == 0)
            _store(v, out[part])


@_interruptible()
def weighted_logsumexp(x, b, out):
    blocks = _blocks((x, b), out)
    for axis, work, (x, b), out in blocks:
        x = np.where(b == 0, x.dtype.type(-np.inf), x)  # takes no part
        m = np.maximum.reduce(x, axis=axis, keepdims=True).astype(np.float64)
        shift = np.where(np.isfinite(m), m, 0.0)

        def terms_of(part, terms, x=x, b=b, shift=shift, work=work):
            _exp(work, x[part], shift, terms)
            terms *= b[part]
            np.copyto(terms, 0.0, where=b[part] == 0)

        # log sum_j b_j exp(x_j) = m + log sum_j b_j exp(x_j - m)
        lse = m + np.log(_sum(work, terms_of, x, axis))
        if not np.isfinite(lse).all():
            infinite = (x == np.inf) | np.isinf(b)
            wrong = np.isnan(x) | np.isnan(b) | (infinite & ((b < 0) | (x == -np.inf)))
            infinite, wrong = (np.logical_or.reduce(a, axis=axis, keepdims=True) for a in (infinite, wrong))
            np.copyto(lse, np.where(wrong, np.nan, np.inf), where=infinite)
        _store(lse, out)


class _Scratch:
    """Buffers by name, kept from call to call: a fresh one of 512 KB costs 128 page faults, 0.1 ms."""

    def __init__(self):
        self._buffers, self.piece = {}, 0

    def __call__(self, name, shape, dtype=np.float64):
        size = 8 * math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(max(size, BLOCK), np.uint8)
        return np.ndarray(shape, dtype, buffer)


_idle: list["_Scratch"] = []  # scratch for the next calls, one a thread


def _blocks(inputs, *others, wide=False):
    """``axis``, scratch and the arrays of each block, those of one value a row with that axis kept.

    Wide blocks hold strided rows that `_sums` takes in pieces: no array of their size is needed.
    """
    try:
        work = _idle.pop()
    except IndexError:
        work = _Scratch()
    for axis, work.piece, cut in _cuts(inputs[0], wide):
        block = [cut(a) for a in inputs]
        if _across(block[0]):
            copies = [work(k, a.shape, a.dtype) for k, a in enumerate(block)]
            for copy, a in zip(copies, block, strict=True):
                np.copyto(copy, a)
            block = copies
        yield axis, work, block, *map(cut, others)
    if sum(b.size for b in work._buffers.values()) <= 16 * BLOCK:
        _idle.append(work)


def _cuts(x, wide):
    """The axis, entries a piece and the function that cuts an array, for each block."""
    outer, n, inner = x.shape
    size = BLOCK // x.itemsize
    if inner == 1 and (n == 1 or x.strides[1] == x.itemsize):
        rows = max(1, size // n)
        for part in (slice(o, o + rows) for o in range(0, outer, rows)):
            if n > SHORT:
                yield 1, size, lambda a, part=part: a[part, :, 0] if a.ndim == 3 else a[part]
            else:
                yield 0, n, lambda a, part=part: a[part, :, 0].T if a.ndim == 3 else a[part].T
        return
    piece = n if n <= PIECE else max(PIECE, BLOCK // x.strides[1])
    columns = min(inner, max(COLUMNS, size // (min(n, piece) if wide else n)))
    rows = max(1, size // (n * columns))
    for o in range(0, outer, rows):
        for i in range(0, inner, columns):
            at = slice(o, o + rows), slice(i, i + columns)
            yield 0, piece, lambda a, at=at: a[at[0], :, at[1]].swapaxes(0, 1) if a.ndim == 3 else a[at][None]


def _across(a):
    """Whether rows lie across a block: neither are neighbours in memory, nor are there several slices."""
    return not a.flags.c_contiguous and (a.strides[-1] != a.itemsize or (a.ndim == 3 and a.shape[1] > 1))


def _store(result, out):
    if result is not out:
        np.copyto(out, result, casting="same_kind")


def _finite_max(x, axis):
    """Row maxima in float64, or NaN where softmax is NaN: with NaN or +inf in the row, or all -inf."""
    m = np.maximum.reduce(x, axis=axis, keepdims=True).astype(np.float64, copy=False)
    return m + 0.0 * m


def _exp(work, x, shift, out):
    """``exp(x - shift)`` of the unrounded difference, in float64."""
    if shift is None:
        return np.exp(x, out=out, dtype=np.float64)
    d = np.subtract(x, shift, out=out)
    if x.dtype == SINGLE:
        return np.exp(d, out=d)
    b = np.subtract(d, x, out=work("b", d.shape))
    error = np.subtract(d, b, out=work("part", d.shape))
    np.subtract(x, error, out=error)
    b += shift
    error -= b  # what d lacks, exactly (two-sum)
    np.copyto(error, 0.0, where=d < -800)  # exp vanishes, and d may be infinite
    np.exp(d, out=d)
    error *= d
    d += error
    return d


def _add_up(work, a, axis):
    """Sums along an axis, kept, at a few tens of roundings."""
    while axis == 0 and (n := len(a)) > FEW:
        half = n // 2
        s = np.add(a[:half], a[half : 2 * half], out=work("half", (half, *a.shape[1:]), a.dtype))
        if n % 2:
            s[:1] += a[-1:]
        a = s
    if axis == 0 and a[0].size == 1:  # alone, NumPy would add up a row in another order
        return np.add.accumulate(a)[-1:]
    return np.add.reduce(a, axis=axis, keepdims=True)


def _add_up_coarsely(work, a, axis):
    """The same in 0.8 of the time along the last axis, at n / 4 roundings: enough for a float32."""
    if axis and a.shape[1] <= AT_ONCE:
        return np.einsum("ij->i", a)[:, None]
    return _add_up(work, a, axis)


def _exact(work, a, axis):
    """Sums along an axis, kept, as good as rounded once, of up to 2**18 float64 terms a row.

    Each row's terms are split at one digit: above it they add up exactly in any order, below they are too
    small for roundings to count.
    """
    size = np.maximum.reduce(np.abs(a, out=work("size", a.shape)), axis=axis, keepdims=True)
    digits = np.frexp(size)[1] + a.shape[axis].bit_length()
    if (digits > 1000).any():  # would overflow
        scale = np.where(digits > 1000, 2.0**-64, 1.0)
        return _exact(work, a * scale, axis) / scale
    above = np.ldexp(1.5, digits)
    top = np.add(a, above, out=work("top", a.shape))
    top -= above
    total = _add_up(work, top, axis) + _add_up(work, np.subtract(a, top, out=work("size", a.shape)), axis)
    return total if np.isfinite(total).all() else np.where(np.isfinite(size), total, _add_up(work, a, axis))


def _sum(work, fill, like, axis, exact=False):
    """Sums along an axis, kept, in float64: to two roundings of the terms' size, however many they are.

    Or to half a ULP of the sum, as far as `_exact` goes. ``fill(part, terms)`` writes the terms of one part
    of ``like``, whose dtype is that of their factors.
    """
    total = None
    for part in _pieces(work, like, axis):
        terms = work("terms", like[part].shape)
        fill(part, terms)
        if like.dtype == DOUBLE and not exact:
            terms = _halved(_halved(terms, axis), axis)
        total = _with(total, _total(work, terms, axis, like.dtype))
    s, lost = total
    if _is_one_piece(work, like, axis):  # nothing was
        return s
    return np.where(np.isfinite(s), s + lost, s)


def _pieces(work, a, axis):
    """Parts of rows that stay in the L2 cache, as indices."""
    for start in range(0, a.shape[axis], work.piece):
        piece = slice(start, start + work.piece)
        yield (slice(None), piece) if axis else piece


def _is_one_piece(work, a, axis):
    return a.shape[axis] <= work.piece


def _sum_of_few(work, terms, dtype):
    """Sums along the first axis, of up to eight terms to three roundings: the diagonal's bound has room."""
    if len(terms) > 8:
        return _total(work, terms, 0, dtype)
    for most in (4, 3):
        if len(terms) > most:
            terms = _halved(terms, 0)
    return _add_up(work, terms, 0)


def _total(work, terms, axis, dtype):
    """Sums of one part: to half a ULP, or of two float64 terms to a rounding, which is as much."""
    if dtype == SINGLE:
        return _add_up_coarsely(work, terms, axis)
    few = terms.shape[axis] <= 2
    return (_add_up if few else _exact)(work, terms, axis)


def _copy(a):
    return lambda part, terms: np.copyto(terms, a[part])


def _small(y):
    return lambda part, terms: np.multiply(y[part], y[part] <= 0.5, out=terms)


def _coefficient(work, y, b, ridge, axis):
    """``c = sum_j w_j b_j / (ridge * sum_j w_j)`` of the shares ``w_j = y_j / (y_j + ridge)``.

    Those of entries above the ridge are near 1: ``w_j b_j = b_j - ridge * (b_j / (y_j + ridge))``, where
    the ridge cancels and nothing else. Without a ridge the sum of ``b_j``, which is 0, is left out.
    """

    def shares(part, terms):
        np.add(y[part], ridge, out=terms, dtype=DOUBLE)
        np.divide(y[part], terms, out=terms)
        np.copyto(terms, 0.0, where=y[part] == 0)

    def whole(part, terms):
        shares(part, terms)
        terms *= b[part]
        np.copyto(terms, b[part], where=y[part] > ridge)

    def taken(part, terms):
        np.add(y[part], ridge, out=terms, dtype=DOUBLE)
        np.divide(b[part], terms, out=terms)
        np.copyto(terms, 0.0, where=~(y[part] > ridge))

    c = _sum(work, whole, y, axis, exact=True)
    c = (c / ridge if ridge else c - c) - _sum(work, taken, y, axis)
    total = _sum(work, shares, y, axis, exact=True)
    c /= np.where(total == 0, 1.0, total)  # a row of zeros has no shares, and nothing to take
    return c + (c - c)


def _products(work, factor, b):
    """Of ``b`` and what ``factor(part, out)`` returns, rounded to their dtype: the bounds have room."""

    def fill(part, terms):
        to = terms if b.dtype == DOUBLE else work("product", terms.shape, SINGLE)
        np.multiply(factor(part, to), b[part], out=to)
        if to is not terms:  # multiplied as float64, by NumPy's casts of operands, it takes twice as long
            np.copyto(terms, to)

    return fill


def _halved(a, axis):
    """Half as many terms, one rounding each."""
    half = (a.shape[axis] + 1) // 2
    first, second = (a[:, :half], a[:, half:]) if axis else (a[:half], a[half:])
    first[(slice(None),) * axis + (slice(second.shape[axis]),)] += second
    return first


def _with(total, s, lost=0.0):
    """A sum in two parts with one more term in two parts (two-sum), ``total`` being None at first."""
    if total is None:
        return s, lost
    hi = total[0] + s
    part = hi - total[0]
    return hi, (total[1] + lost) + ((total[0] - (hi - part)) + (s - part))


def _split(e, out):
    """The leading digits: multiples of 2**-24, whose sums up to 2**29 are exact in any order."""
    np.add(e, MOST[DOUBLE], out=out)
    out -= MOST[DOUBLE]
    return out


def _sums(work, x, axis, keep=None, shift=None):
    """Sums of ``exp(x - shift)`` in two parts; ``keep`` takes the terms.

    Long rows are taken in pieces that stay in the L2 cache. float32 ones need no second part.
    """
    total = None
    again = shift is not None and x.shape[axis] > MANY
    for part in _pieces(work, x, axis):
        piece = x[part]
        direct = keep is not None and keep.dtype == DOUBLE
        e = _exp(work, piece, shift, keep[part] if direct else work("exp", piece.shape))
        if x.dtype == DOUBLE:
            top = _split(e, work("part", e.shape))
            leading = _add_up(work, top, axis)
            others = (_exact if again else _add_up)(work, np.subtract(e, top, out=top), axis)
            total = _with(total, leading, others)
        else:
            total = _with(total, _add_up_coarsely(work, e, axis))
        if keep is not None and not direct:
            np.copyto(keep[part], e, casting="same_kind")
    return total


def _sums_in_range(work, x, axis, keep=None):
    """The same and the shift, which is 0 or the maximum of a row whose sum is out of range without."""
    total, lost = _sums(work, x, axis, keep)
    least = max(LEAST, MEAN * x.shape[axis]) if x.dtype == DOUBLE else LEAST
    most = MOST[x.dtype]
    if np.minimum.reduce(total, axis=None) >= least and np.maximum.reduce(total, axis=None) <= most:
        return (total, lost), 0.0
    stays = (total >= least) & (total <= most)
    shift = _finite_max(x, axis)
    shift *= ~stays  # in a third of the time of `np.where`
    shifted = _sums(work, x, axis, keep, shift)
    if x.dtype == SINGLE or x.shape[axis] <= MANY:  # rows that stay have the same sums again
        return shifted, shift
    return tuple(np.where(stays, a, b) for a, b in zip((total, lost), shifted, strict=True)), shift


def _summary(work, x, axis, keep=None, shifted=False):
    """Row maxima; the sum of ``exp(x_j - max)`` but for one maximum; the sum of what ``keep`` takes."""
    m = _finite_max(x, axis)
    if shifted:
        (total, lost), shift = _sums(work, x, axis, keep, m), m
    else:
        (total, lost), shift = _sums_in_range(work, x, axis, keep)
    largest = np.exp(m - shift)
    rest = ((total - largest) + lost) / largest
    dominated = rest < DOMINATED * x.shape[axis]
    if dominated.any():
        _replace_dominated(work, x, m, rest, dominated, axis)
    return m, rest, total + lost


def _replace_dominated(work, x, m, rest, dominated, axis):
    """The rest of rows where one maximum would swallow it, as the sum of the others alone."""
    rows = np.nonzero(dominated.squeeze(axis))
    step = max(1, BLOCK // (8 * min(x.shape[axis], work.piece)))
    for start in range(0, len(rows[0]), step):
        some = tuple(k[start : start + step] for k in rows)
        largest = np.expand_dims(m.squeeze(axis)[some], axis)
        total, ties = None, 0
        for part in _pieces(work, x, axis):
            piece = x[part]
            piece = piece[some] if axis else piece[(slice(None), *some)]
            terms, maxima = _others(work, piece, largest, axis)
            total, ties = _with(total, terms), ties + maxima
        others = (total[0] + total[1]) / _exp(work, largest, largest - LIFT, np.empty_like(largest))
        rest.squeeze(axis)[some] = (others + (ties - 1)).squeeze(axis)


def _others(work, x, m, axis):
    """The sum of ``exp(x - m + LIFT)`` over the entries below the maximum, and how many are at it."""
    e = _exp(work, x.astype(np.float64), m - LIFT, np.empty(x.shape))
    np.copyto(e, 0.0, where=x == m)
    return _total(work, e, axis, x.dtype), np.count_nonzero(x == m, axis=axis, keepdims=True)


def _multiply(e, factor, total):
    """``e *= factor / total``: in two steps where the quotient is too near 0 to have all of its digits."""
    info, quotient = np.finfo(e.dtype), factor / total
    is_small = (np.abs(quotient) < info.tiny / info.eps) & (factor != 0)
    if is_small.any():
        e *= np.where(is_small, 1 / total, 1).astype(e.dtype)
        quotient = np.where(is_small, factor, quotient)
    e *= quotient.astype(e.dtype)


def _or_ones(sample_weight, loss):
    return np.broadcast_to(np.float64(1), loss.shape) if sample_weight is None else sample_weight


class _Target:
    """The loss is ``at_label * nll[label] + sum_j everywhere[j] * nll[j]``, as PyTorch defines it.

    ``at_label`` is that of a row and its ``sample`` weight, by which the sum is to be multiplied.
    """

    def __init__(self, work, x, labels, axis, weight, sample, smoothing):
        n = x.shape[axis]
        label = np.maximum(labels, 0)
        self.axis, self.smoothing, self.ignored = axis, smoothing, (labels < 0) | (sample == 0)
        rows = [np.arange(size).reshape(-1, *[1] * (x.ndim - 1 - i)) for i, size in enumerate(x.shape)]
        self.at = (*rows[:axis], label, *rows[axis + 1 :])
        self.logit = x[self.at]
        self.sample = sample.astype(np.float64)
        if weight is None:
            everywhere = np.full(n, smoothing / n)
            at_label, self.everywhere_at_label = 1 - smoothing, smoothing / n
        else:
            weight = weight.astype(np.float64)
            everywhere = smoothing / n * weight
            at_label, self.everywhere_at_label = (1 - smoothing) * weight[label], everywhere[label]
        self.at_label = self.sample * at_label
        self.everywhere = everywhere.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        self.total = _sum(work, _copy(self.everywhere), self.everywhere, axis) if smoothing else 0.0

    def losses(self, work, x, m, rest):
        log_sum = np.log1p(rest)
        loss = _term(self.at_label, m, self.logit, log_sum)
        if self.smoothing:
            everywhere = lambda part, _: self.everywhere[part]  # noqa: E731
            halves = _sum(work, _halves_of_gaps(x, m, everywhere), x, self.axis)
            loss += 2 * (self.sample * halves) + self.sample * self.total * log_sum
        return np.where(self.ignored, 0.0, loss)

    def gradients_at_label(self, m, rest):
        d = self.logit - m
        y = np.exp(d) / (1 + rest)
        one_minus = np.where(d == 0, rest / (1 + rest), 1 - y)
        return self.sample * (self.total * y - self.everywhere_at_label) - self.at_label * one_minus


class _SoftTarget:
    """The loss is ``sum_j of[j] * nll[j]``, where ``of`` are weighed and smoothed probabilities."""

    def __init__(self, work, t, axis, weight, sample, smoothing):
        n = t.shape[axis]
        self.axis, self.t, self.ignored, self.smoothing = axis, t, sample == 0, smoothing
        self.sample = sample.astype(np.float64)
        weight = np.ones(1) if weight is None else weight.astype(np.float64)
        self.weight = weight.reshape([-1 if i == axis else 1 for i in range(t.ndim)])
        self.spread = smoothing / n
        self.total = _sum(work, self.of, t, axis)

    def of(self, part, out):
        np.multiply(self.t[part], 1 - self.smoothing, out=out, dtype=DOUBLE)
        if self.smoothing:
            out += self.spread
        out *= self.weight[part] if self.weight.size > 1 else self.weight
        return out

    def losses(self, work, x, m, rest):
        halves = _sum(
            work,
            _halves_of_gaps(x, m, lambda part, like: self.of(part, work("targets", like.shape))),
            x,
            self.axis,
        )
        loss = 2 * (self.sample * halves) + self.sample * self.total * np.log1p(rest)
        return np.where(self.ignored, 0.0, loss)

    def gradients_at_largest(self, work, x, m, rest):
        """Of a row's one largest: ``1 - y`` is the others' share, and ``total - t`` their sum."""

        def others(part, terms):
            np.copyto(self.of(part, terms), 0.0, where=x[part] == m)

        one_minus = rest / (1 + rest)
        return self.sample * (_sum(work, others, x, self.axis) - self.total * one_minus)


def _term(weight, m, x, log_sum):
    """``weight * -log y``; 0 of a weight of 0, and finite where only the difference of logits is not."""
    # -log y_j = (max - x_j) + log(1 + rest)
    nll = (m - x) + log_sum
    term = weight * nll
    if (infinite := np.isinf(nll)).any():
        np.copyto(term, 2 * (weight * (0.5 * m - 0.5 * x)), where=infinite)
    np.copyto(term, 0 * log_sum, where=weight == 0)  # NaN of a row that holds one
    return term


def _halves_of_gaps(x, m, targets):
    """``targets * (max - x) / 2``, whose difference does not overflow."""

    def fill(part, terms):
        np.multiply(x[part], -0.5, out=terms, dtype=DOUBLE)
        terms += 0.5 * m
        t = targets(part, terms)
        terms *= t
        np.copyto(terms, 0.0, where=t == 0)

    return fill


def _centre(work, y, g, axis):
    """The cotangent of a row's dominant entry; or else 0, or what is nearest to it if g may be constant.

    None if it is 0 for all.
    """
    dominant = np.maximum.reduce(y, axis=axis, keepdims=True) > 0.5
    level = (g[:, :1] == g[:, -1:]) if axis else (g[:1] == g[-1:])
    level &= ~dominant
    c = None
    if level.any():
        some = _those(level, axis)
        rows = g[some]
        parts = [rows[part] for part in _pieces(work, g, axis)]
        least = reduce(np.minimum, (np.minimum.reduce(a, axis=axis, keepdims=True) for a in parts))
        most = reduce(np.maximum, (np.maximum.reduce(a, axis=axis, keepdims=True) for a in parts))
        c = np.zeros(level.shape, g.dtype)
        c[some] = np.where(level[some], np.minimum(np.maximum(least, 0), most), 0)
    if dominant.any():
        some = _those(dominant, axis)
        y, g, nothing = y[some], g[some], g.dtype.type(-np.inf)
        parts = (np.where(y[part] > 0.5, g[part], nothing) for part in _pieces(work, g, axis))
        picked = reduce(np.maximum, (np.maximum.reduce(a, axis=axis, keepdims=True) for a in parts))
        c = np.zeros(dominant.shape, g.dtype) if c is None else c
        c[some] = np.where(picked > nothing, picked, c[some])
    return c


def _those(rows, axis):
    """An index of those rows, or of all: picking columns takes longer than to do them all."""
    return rows[:, 0] if axis and not rows.all() else slice(None)


def _centred_dot(work, y, g, c, axis):
    """What gives the pieces of ``g - c``, and the sum of their products with ``y``."""
    if c is not None and _is_one_piece(work, g, axis):
        g, c = np.subtract(g, c, out=work("h", g.shape, g.dtype)), None
    centred = partial(_centred, g, c)
    return centred, _sum(work, _products(work, centred, y), g, axis).astype(g.dtype)


def _centred(g, c, part, out):
    return g[part] if c is None else np.subtract(g[part], c, out=out)
