"""What all kernels share: rows as vectors, exp of a shifted row, and sums that keep their digits.

A *task* is what one pass of a kernel computes. Long contiguous rows are a task each, their entries
side by side in the lanes. Otherwise a task is as many rows as there are lanes, one row a lane.
The two differ in where a task's vectors lie, and in that the first folds its lanes at the end.
"""

from collections import namedtuple

import numpy as np

from fastsoftmax.backends._numba_jit import allocating, inlined
from fastsoftmax.backends._numba_vectors import (
    constant,
    exponent_and_fraction,
    fma,
    fold_largest,
    fold_sum,
    lane,
    lanes,
    larger,
    load,
    load_element,
    load_rows,
    load_some,
    load_strided,
    low_bits_as_exponent,
    piece,
    polynomial,
    prefetch,
    splat,
    store,
    store_element,
    store_some,
    store_strided,
    two_sum,
    where_equal,
    where_greater,
    with_lane,
)

# Rows this short go in lanes: at n = 65 they take three quarters of the time, from about 120 on more.
SHORT = 100

Task = namedtuple("Task", "folds start next step spread vectors live tail")
"""Vector ``j`` starts at element ``start + j * step``, its lanes ``spread`` apart; ``live`` of them hold
data, ``tail`` of them in the last vector. ``folds``: all lanes belong to one
row. The task after this one starts at ``next``."""


@inlined
def contiguous(x):
    """Whether rows are; not so a block of one that was cut from an ``inner`` of several."""
    return x.shape[2] == 1 and (x.shape[1] == 1 or x.strides[1] == x.itemsize)


@inlined
def one_row_a_task(x):
    return contiguous(x) and x.shape[1] > SHORT


@inlined
def share(x, part, parts):
    """The range of tasks of one of ``parts`` equal parts."""
    outer, _, inner = x.shape
    if one_row_a_task(x):
        tasks = outer
    elif contiguous(x):
        tasks = (outer + lanes(x) - 1) // lanes(x)
    else:
        tasks = outer * ((inner + lanes(x) - 1) // lanes(x))
    return range(tasks * part // parts, tasks * (part + 1) // parts)


@inlined
def first_row(x, k):
    """The row in lane 0 of task ``k``, as its place along ``outer`` and ``inner``."""
    inner = x.shape[2]
    if one_row_a_task(x):
        return k, 0
    if contiguous(x):
        return k * lanes(x), 0
    blocks = (inner + lanes(x) - 1) // lanes(x)
    return k // blocks, k % blocks * lanes(x)


@inlined
def task(x, k):
    outer, n, inner = x.shape
    width = lanes(x)
    o, i = first_row(x, k)
    apart = x.strides[0] // x.itemsize
    if one_row_a_task(x):
        return whole_row(x, k)
    if contiguous(x):
        live = min(width, outer - o)
        return Task(False, o * apart, (o + width) * apart, 1, apart, n, live, live)
    live = min(width, inner - i)
    start = o * apart + i
    return Task(False, start, start + width, x.strides[1] // x.itemsize, 1, n, live, live)


@inlined
def whole_row(x, row):
    """Row ``row`` of a contiguous array, alone."""
    n, width = x.shape[1], lanes(x)
    vectors = (n + width - 1) // width
    return Task(True, row * n, (row + 1) * n, width, 1, vectors, width, n - (vectors - 1) * width)


@inlined
def get(a, t, j, fill):
    """Vector ``j`` of a task; lanes without data hold ``fill``'s."""
    i = t.start + j * t.step
    live = t.tail if j == t.vectors - 1 else t.live
    if live == lanes(a):
        return load(a, i) if t.spread == 1 else load_strided(a, i, t.spread)
    if t.spread == 1:
        return load_some(a, i, live, fill)
    for r in range(live):
        fill = with_lane(fill, r, load_element(a, i + r * t.spread))
    return fill


@inlined
def put(a, t, j, v):
    """Write vector ``j`` of a task."""
    i = t.start + j * t.step
    live = t.tail if j == t.vectors - 1 else t.live
    if t.spread == 1:
        store(a, i, v) if live == lanes(a) else store_some(a, i, live, v)
    elif live == lanes(a):
        store_strided(a, i, t.spread, v)
    else:
        for r in range(live):
            store_element(a, i + r * t.spread, lane(v, r))


@inlined
def rows_in(t):
    """How many rows a task has; row ``r`` is in lane ``r``."""
    return 1 if t.folds else t.live


@inlined
def row_at(x, k, r):
    """The row in lane ``r`` of task ``k``, as its place along ``outer`` and ``inner``."""
    o, i = first_row(x, k)
    return (o + r, 0) if contiguous(x) else (o, i + r)


@allocating
def scratch(x):
    """Memory for the vectors of one task."""
    n, width = x.shape[1], lanes(x)
    return aligned(x, n + width if one_row_a_task(x) else n * width)


@allocating
def aligned(x, size):
    """Uninitialised memory of ``x``'s dtype where no vector crosses a cache line."""
    memory = np.empty(size + lanes(x), x.dtype)
    return memory[-memory.ctypes.data // x.itemsize % lanes(x) :]


@inlined
def vector(tile, j):
    return load(tile, j * lanes(tile))


@inlined
def set_vector(tile, j, v):
    store(tile, j * lanes(tile), v)


@inlined
def fetch(tile, x, t, fill):
    """Copy a task into scratch, with ``fill`` beyond its end; returns each row's maximum, NaN left out."""
    m = splat(x, -np.inf)
    if t.spread != 1 and t.live == lanes(x) and t.vectors >= piece(x):
        for j in range(0, t.vectors, piece(x)):
            k = min(j, t.vectors - piece(x))  # the last pieces overlap those before
            load_rows(x, t.start + k, t.spread, tile, k * lanes(x))
        for j in range(t.vectors):
            m = larger(vector(tile, j), m)
        return m
    for j in range(t.vectors):
        v = get(x, t, j, fill)
        set_vector(tile, j, v)
        m = larger(v, m)
    return fold_largest(m) if t.folds else m


@inlined
def look_ahead(x, out, t, j):
    """Ask for what the next task reads and what this one writes, which would else wait for arithmetic
    to end: 1.25 times as fast at (1000, 1000) f32."""
    i = j * (t.step if t.spread == 1 else lanes(x))
    prefetch(x, t.next + i, 0)
    if out is not None:
        prefetch(out, t.start + i, 1)


@inlined
def coarse(m):
    """A shift near ``m`` by which every entry that matters is shifted exactly, or with a known error.

    Near 0 it has so few digits that ``(v - shift) + shift`` gives back all of ``v`` but the rounding
    error; farther away, every entry that matters is within a factor of two of ``m`` (Sterbenz).
    """
    magic = constant(m, "ROUND")
    rounded = (fma(m, splat(m, 64), magic) - magic) * splat(m, 1 / 64)
    return where_greater(larger(m, splat(m, 0) - m), constant(m, "NEAR"), m, rounded)


@inlined
def exp_shifted(v, shift):
    """``2**POWER * exp(v - shift)`` for ``v <= shift + 1/128``, to 1 ULP of the unrounded difference."""
    d = larger(constant(v, "EXP_LOWEST"), v - shift)
    error = v - (d + shift)
    t = fma(d, constant(v, "LOG2E"), constant(v, "EXP_MAGIC"))
    k = constant(v, "EXP_MAGIC") - t
    r = fma(k, constant(v, "LN2_HI"), d) + fma(k, constant(v, "LN2_LO"), error)
    r = larger(splat(v, -0.36), r)  # of an entry far below the shift, whose error means nothing
    p = fma(r * r, polynomial(r, "EXP"), r) + splat(v, 1)
    return p * low_bits_as_exponent(t)


@inlined
def plus(hi, lo, v):
    """Add to a sum in two parts."""
    s, error = two_sum(hi, v)
    return s, lo + error


@inlined
def plus_smaller(hi, lo, v):
    """Add ``v`` where ``abs(v) <= hi``, which takes half the operations (Dekker)."""
    s = hi + v
    return s, lo + ((hi - s) + v)


@inlined
def folded(t, hi, lo):
    """The sums of a task's rows in two parts, from those of its lanes."""
    if t.folds:
        hi, lo = fold_sum(hi, lo)
    return two_sum(hi, lo)


@inlined
def total(t, hi, lo):
    """The sums of a task's rows; of infinities and NaN, what IEEE arithmetic gives."""
    hi, lo = fold_sum(hi, lo) if t.folds else (hi, lo)
    return where_equal(hi - hi, splat(hi, 0), hi + lo, hi)


@inlined
def reciprocal(hi, lo):
    """``1 / (hi + lo)`` in two parts."""
    one = splat(hi, 1)
    inverse = one / hi
    return inverse, inverse * (fma(splat(hi, 0) - inverse, hi, one) - inverse * lo)


Others = namedtuple("Others", "hi lo ties top")
"""Sum of the row's exponentials but those of its maxima, in two parts; how many maxima; exp of one."""


@inlined
def others(tile, x, out, t, m, keep):
    """`Others` of each row; with ``keep``, scratch then holds the exponentials."""
    shift = coarse(m)
    zero, one = splat(tile, 0), splat(tile, 1)
    hi = lo = ties = zero
    for j in range(t.vectors):
        v = vector(tile, j)
        e = exp_shifted(v, shift)
        if keep:
            set_vector(tile, j, e)
        look_ahead(x, out, t, j)
        hi, lo = plus(hi, lo, where_equal(v, m, zero, e))
        ties = ties + where_equal(v, m, one, zero)
    hi, lo = folded(t, hi, lo)
    ties, _ = folded(t, ties, zero)
    return Others(hi, lo, ties, exp_shifted(m, shift))


@inlined
def sums_of_row(s, r):
    """Of the row in lane ``r``: the sum of all exponentials but one maximum's, and of all."""
    hi, lo = np.float64(lane(s.hi, r)), np.float64(lane(s.lo, r))
    ties, top = np.float64(lane(s.ties, r)), np.float64(lane(s.top, r))
    return (hi + lo) + (ties - 1) * top, (hi + lo) + ties * top


@inlined
def log_sums(s):
    """``log1p(rest)``, ``rest`` being the sum of ``exp(x_j - max)`` of a row but for one maximum."""
    zero, one = splat(s.top, 0), splat(s.top, 1)
    total, error = two_sum(s.hi, (s.ties - one) * s.top)
    total, error = two_sum(total, error + s.lo)
    inverse = one / s.top
    rest = total * inverse
    return log1p(rest, (fma(zero - rest, s.top, total) + error) * inverse)


@inlined
def log1p(s, error):
    """``log(1 + s + error)`` for ``s >= 0`` to 1 ULP, after fdlibm's s_log1p.c (Sun Microsystems, 1993)."""
    zero, one = splat(s, 0), splat(s, 1)
    u = one + s
    k, fraction = exponent_and_fraction(u)
    f = where_equal(k, zero, s, fraction - one)
    v = splat(s, 2) + f
    inverse = one / (u * v)
    lost = where_greater(s, one, one - (u - s), s - (u - one))
    lost = (where_equal(k, zero, zero, lost) + error) * (inverse * v)
    half, z = f * f * splat(s, 0.5), f * (inverse * u)
    w = z * z
    r = w * polynomial(w, "LOG")
    small = (z * (half + r) + (k * constant(s, "LOG_LN2_LO") + lost)) - half
    return where_greater(splat(s, np.inf), s, (small + f) + k * constant(s, "LOG_LN2_HI"), s)
