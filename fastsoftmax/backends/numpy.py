"""Vectorized NumPy: whole-array operations on blocks of rows that stay in the L2 cache.

Exponentials are taken in float64 for both dtypes: NumPy's float32 exp alone is off by 2.5 ULP. Most rows
are not shifted: float64 has room for their exponentials, and what is not shifted is not rounded.

Along ``axis`` a block holds the entries of a row: 1 where rows are long and contiguous; 0 where they
are short or strided and stand side by side, since NumPy's reductions take 15 ns an element over a short
last axis. That choice and the order of every sum depend on the length and strides of one row, never on
how many there are, and so do its bits.
"""

import math

import numpy as np

from fastsoftmax._threads import sized

# Bytes of a block's input: its float64 exponentials, at most twice that, stay in an L2 cache of 1 MB, and the
# 1 us that each of some 15 ufunc calls costs is spread over 64 K elements or more.
BLOCK = 512 * 1024
# Contiguous rows up to this n stand side by side.
SHORT = 64
# Of strided rows so many entries are taken at a time: of fewer columns NumPy's loops would be too short.
PIECE, COLUMNS = 16, 256
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
# A row is not shifted if its sum is from LEAST to MOST: its shares do not underflow before they are divided,
# float32 ones do not overflow, and in float64 `_split` leaves next to nothing to round.
LEAST, MOST = 0.5, {SINGLE: 1e30, DOUBLE: 2.0**28}
# In a dominated row all other exponentials are together less than n times this part of one maximum. Its shift
# is less by LIFT, so that entries with a subnormal share are normal.
DOMINATED, LIFT = 2.0**-21, 512.0
# So many terms are added one after another, at a rounding each; more, along axis 0, first by halves.
FEW = 16

# At up to 20 ns an element a call takes 80 ms; Ctrl-C is answered between calls.
_interruptible = sized(block_elements=4 * 1024 * 1024)


@_interruptible
def softmax(x, out):
    apart = not np.may_share_memory(x, out)
    blocks = _blocks((x,), out, wide=apart)
    for axis, work, (x,), out in blocks:
        e = out if apart and not _across(out) else work("e", x.shape, out.dtype)
        leading, others, _ = _sums_in_range(work, x, axis, e)
        if e.dtype == SINGLE:
            e *= (1 / leading).astype(SINGLE)
        else:
            e /= leading + others
        _store(e, out)


@_interruptible
def log_softmax(x, out):
    blocks = _blocks((x,), out, wide=True)
    for axis, work, (x,), out in blocks:
        m, rest, _ = _summary(work, x, axis)
        # log y = (x - max) - log(1 + rest)
        y = np.subtract(x, m.astype(x.dtype), out=work("y", x.shape, x.dtype) if _across(out) else out)
        y -= np.log1p(rest).astype(x.dtype)
        _store(y, out)


@_interruptible
def logsumexp(x, out):
    blocks = _blocks((x,), out, wide=True)
    for axis, work, (x,), out in blocks:
        m, rest, _ = _summary(work, x, axis, shifted=x.dtype == DOUBLE)
        lse = m + np.log1p(rest)
        if not np.isfinite(lse).all():
            largest = np.maximum.reduce(x, axis=axis, keepdims=True)
            np.copyto(lse, largest, where=np.isinf(largest))
        _store(lse, out)


@_interruptible
def softmax_vjp(y, g, out):
    blocks = _blocks((y, g), out)
    for axis, work, (y, g), out in blocks:
        # dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the centre c keeps the digits
        # of a saturated row, and makes a constant cotangent give exactly 0.
        h = np.subtract(g, _centre(y, g, axis), out=work("h", g.shape, g.dtype))
        h -= _sum(work, np.multiply(h, y, out=work("d", g.shape, g.dtype)), axis)
        h *= y
        _store(h, out)


@_interruptible
def log_softmax_vjp(logy, g, out):
    blocks = _blocks((logy, g), out)
    for axis, work, (logy, g), out in blocks:
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        d = np.exp(logy, out=work("d", g.shape, g.dtype))
        d *= _sum(work, g, axis)
        _store(np.subtract(g, d, out=d), out)


@_interruptible
def log_softmax_jvp(logy, t, out):
    blocks = _blocks((logy, t), out)
    for axis, work, (logy, t), out in blocks:
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        d = np.exp(logy, out=work("d", t.shape, t.dtype))
        d *= t
        _store(np.subtract(t, _sum(work, d, axis), out=d), out)


@_interruptible
def softmax_jacobian(y, out):
    work, (outer, n, _) = _Scratch(), y.shape
    rows = max(1, BLOCK // (y.itemsize * n * n))
    for start in range(0, outer, rows):
        block, part = y[start : start + rows, :, 0], out[start : start + rows]
        # J_ij = y_i * ((i == j) - y_j); 1 - y_i of an entry above 1/2 is the sum of the others.
        np.multiply(-block[:, :, None], block[:, None, :], out=part)
        block = np.array(block.T, np.float64, order="C")
        large = np.where(block > 0.5, block, 0.0)
        others = _sum(work, block - large, 0) + (_sum(work, large, 0) - large)
        np.einsum("rii->ri", part)[...] = (block * np.where(block > 0.5, others, 1 - block)).T


@_interruptible
def cross_entropy(x, labels, weight, smoothing, loss):
    blocks = _blocks((x,), labels, loss, wide=not smoothing)
    for axis, work, (x,), labels, loss in blocks:
        m, rest, _ = _summary(work, x, axis)
        loss[...] = _losses(x, m, rest, _Target(labels, x.shape, axis, weight, smoothing))


@_interruptible
def cross_entropy_with_grad(x, labels, weight, smoothing, scale, loss, out):
    blocks = _blocks((x,), labels, loss, out)
    for axis, work, (x,), labels, loss, out in blocks:
        e = work("e", x.shape, out.dtype)
        m, rest, total = _summary(work, x, axis, e)
        target = _Target(labels, x.shape, axis, weight, smoothing)
        loss[...] = _losses(x, m, rest, target)
        # d loss / d x_j = y_j * (at_label + total) - everywhere_j - (j == label) * at_label
        e *= (scale * (target.at_label + target.total) / total).astype(e.dtype)
        if smoothing:
            e -= (scale * target.everywhere).astype(e.dtype)
        e[target.at] = scale * _gradients_at_label(x, m, rest, target)
        np.copyto(e, 0.0, where=target.ignored)
        _store(e, out)


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


def _sum(work, a, axis):
    """Sums along an axis, kept."""
    while axis == 0 and (n := len(a)) > FEW:
        half = n // 2
        s = np.add(a[:half], a[half : 2 * half], out=work("half", (half, *a.shape[1:]), a.dtype))
        if n % 2:
            s[:1] += a[-1:]
        a = s
    if axis == 0 and a[0].size == 1:  # alone, NumPy would add up a row in another order
        return np.add.accumulate(a)[-1:]
    return np.add.reduce(a, axis=axis, keepdims=True)


def _split(e, out):
    """The leading digits: multiples of 2**-24, whose sums up to 2**29 are exact in any order."""
    np.add(e, MOST[DOUBLE], out=out)
    out -= MOST[DOUBLE]
    return out


def _sums(work, x, axis, keep=None, shift=None):
    """Sums of ``exp(x - shift)``, of its leading digits and of the others; ``keep`` takes the terms.

    Long rows are taken in pieces that stay in the L2 cache. float32 ones need no second sum.
    """
    leading, others = 0.0, 0.0
    for start in range(0, x.shape[axis], work.piece):
        part = np.s_[:, start : start + work.piece] if axis else np.s_[start : start + work.piece]
        piece = x[part]
        direct = keep is not None and keep.dtype == DOUBLE
        e = _exp(work, piece, shift, keep[part] if direct else work("exp", piece.shape))
        if x.dtype == DOUBLE:
            top = _split(e, work("part", e.shape))
            leading = leading + _sum(work, top, axis)
            others = others + _sum(work, np.subtract(e, top, out=top), axis)
        else:
            leading = leading + _sum(work, e, axis)
        if keep is not None and not direct:
            np.copyto(keep[part], e, casting="same_kind")
    return leading, others


def _sums_in_range(work, x, axis, keep=None):
    """The same and the shift, which is 0 or the maximum of a row whose sum is out of range without."""
    leading, others = _sums(work, x, axis, keep)
    total, most = leading + others, MOST[x.dtype]
    if np.minimum.reduce(total, axis=None) >= LEAST and np.maximum.reduce(total, axis=None) <= most:
        return leading, others, 0.0
    shift = np.where((total >= LEAST) & (total <= most), 0.0, _finite_max(x, axis))
    return *_sums(work, x, axis, keep, shift), shift


def _summary(work, x, axis, keep=None, shifted=False):
    """Row maxima; the sum of ``exp(x_j - max)`` but for one maximum; the sum of what ``keep`` takes."""
    m = _finite_max(x, axis)
    if shifted:
        (leading, others), shift = _sums(work, x, axis, keep, m), m
    else:
        leading, others, shift = _sums_in_range(work, x, axis, keep)
    largest = np.exp(m - shift)
    top = _split(largest, np.empty_like(m)) if x.dtype == DOUBLE else largest
    rest = ((leading - top) + (others - (largest - top))) / largest
    dominated = rest < DOMINATED * x.shape[axis]
    if dominated.any():
        _replace_dominated(work, x, m, rest, dominated, axis)
    return m, rest, leading + others


def _replace_dominated(work, x, m, rest, dominated, axis):
    """The rest of rows where one maximum would swallow it, as the sum of the others alone."""
    rows = np.nonzero(dominated.squeeze(axis))
    step = max(1, BLOCK // (8 * x.shape[axis]))
    for start in range(0, len(rows[0]), step):
        part = tuple(k[start : start + step] for k in rows)
        block = (x[part] if axis else x[(slice(None), *part)]).astype(np.float64)
        largest = np.expand_dims(m.squeeze(axis)[part], axis)
        rest.squeeze(axis)[part] = _sum_of_others(work, block, largest, axis).squeeze(axis)


def _sum_of_others(work, x, m, axis):
    e = _exp(work, x, m - LIFT, np.empty_like(x))
    np.copyto(e, 0.0, where=x == m)
    _, k = np.frexp(np.maximum.reduce(e, axis=axis, keepdims=True))
    scale = np.ldexp(1.0, -np.maximum(k, -1000))  # brings them into the range of `_split`
    e *= scale
    top = _split(e, np.empty_like(e))
    total = _sum(work, top, axis) + _sum(work, e - top, axis)
    return total / scale / _exp(work, m, m - LIFT, np.empty_like(m))


class _Target:
    """The loss is ``at_label * nll[label] + sum_j everywhere[j] * nll[j]``, as PyTorch defines it."""

    def __init__(self, labels, shape, axis, weight, smoothing):
        n = shape[axis]
        label = np.maximum(labels, 0)
        self.axis, self.smoothing, self.ignored = axis, smoothing, labels < 0
        rows = np.ogrid[tuple(map(slice, (*shape[:axis], 1, *shape[axis + 1 :])))]
        self.at = (*rows[:axis], label, *rows[axis + 1 :])
        weight = np.ones(n) if weight is None else weight.astype(np.float64)
        everywhere = smoothing / n * weight
        self.at_label, self.everywhere_at_label = (1 - smoothing) * weight[label], everywhere[label]
        self.total = everywhere.sum()
        self.everywhere = everywhere.reshape([-1 if i == axis else 1 for i in range(len(shape))])


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


def _centre(y, g, axis):
    """The cotangent of a row's dominant entry; or else 0, or what is nearest to it if g may be constant."""
    ends = (g[:, :1], g[:, -1:]) if axis else (g[:1], g[-1:])
    rows = (np.maximum.reduce(y, axis=axis, keepdims=True) > 0.5) | (ends[0] == ends[1])
    c = np.zeros(rows.shape, g.dtype)
    if rows.any():
        part = rows[:, 0] if axis else slice(None)  # picking columns takes longer than to do them all
        y, g = y[part], g[part]
        least, most = (f.reduce(g, axis=axis, keepdims=True) for f in (np.minimum, np.maximum))
        picked = np.where(y > 0.5, g, g.dtype.type(-np.inf))
        picked = np.maximum.reduce(picked, axis=axis, keepdims=True)
        c[part] = np.where(rows[part], np.where(np.isneginf(picked), np.clip(0, least, most), picked), 0)
    return c
