"""What all kernels share: rows as vectors, exp of a shifted row, and sums that keep their digits.

A *task* is what one pass of a kernel computes. Long rows are a task each, their entries side by side in
the lanes: contiguous ones, and strided ones that would fill at most half of the lanes if each had one (and
scratch would be several times their size). Otherwise a task is as many rows as there are lanes, one row
a lane. The two differ in where a task's vectors lie, and in that the first folds its lanes at the end.
"""

from collections import namedtuple

import numpy as np

from fastsoftmax.backends._numba_jit import allocating, inlined
from fastsoftmax.backends._numba_vectors import (
    BYTES,
    constant,
    exponent_and_fraction,
    fma,
    fold_largest,
    fold_sum,
    is_set,
    lane,
    lanes,
    larger,
    load,
    load_element,
    load_rows,
    load_some,
    load_strided,
    low_bits_as_exponent,
    narrowed,
    piece,
    plus,
    plus_smaller,
    polynomial,
    prefetch,
    rounded,
    splat,
    store,
    store_element,
    store_some,
    store_strided,
    two_sum,
    where_equal,
    where_greater,
    widened,
    with_lane,
)

# Rows this short go in lanes: at n = 65 they take three quarters of the time, from about 120 on more.
SHORT = 100

Task = namedtuple("Task", "folds start next step spread vectors live tail stop")
"""Vector ``j`` starts at element ``start + j * step``, its lanes ``spread`` apart; ``live`` of them hold
data, ``tail`` of them in the last vector. ``folds``: all lanes belong to one row. The task after this one
starts at ``next``. The byte at ``stop`` tells that it is no longer wanted."""


@inlined
def apart(x, axis):
    """How many entries lie between two along an axis: not by `itemsize`, of which LLVM knows no value."""
    return x.strides[axis] * lanes(x) // BYTES


@inlined
def contiguous(x):
    """Whether rows are; not so a block of one that was cut from an ``inner`` of several."""
    return x.shape[2] == 1 and (x.shape[1] == 1 or apart(x, 1) == 1)


@inlined
def one_row_a_task(x):
    # Strides, not `inner`: a block may have been cut from more rows.
    return x.shape[1] > SHORT and 2 * x.strides[1] <= BYTES


@inlined
def share(x, part, parts):
    """The range of tasks of one of ``parts`` equal parts."""
    outer, _, inner = x.shape
    if one_row_a_task(x):
        tasks = outer * inner
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
        return k // inner, k % inner
    if contiguous(x):
        return k * lanes(x), 0
    blocks = (inner + lanes(x) - 1) // lanes(x)
    return k // blocks, k % blocks * lanes(x)


@inlined
def task(x, k, stop):
    outer, n, inner = x.shape
    width = lanes(x)
    o, i = first_row(x, k)
    outer_step = apart(x, 0)
    if one_row_a_task(x):
        return whole_row(x, o * outer_step + i, stop)
    if contiguous(x):
        live = min(width, outer - o)
        return Task(False, o * outer_step, (o + width) * outer_step, 1, outer_step, n, live, live, stop)
    live = min(width, inner - i)
    start = o * outer_step + i
    return Task(False, start, start + width, apart(x, 1), 1, n, live, live, stop)


@inlined
def whole_row(x, start, stop):
    """The row that begins at element ``start``, alone."""
    n, width, step = x.shape[1], lanes(x), apart(x, 1)
    vectors = (n + width - 1) // width
    next_row = start + (n if step == 1 else 1)
    return Task(True, start, next_row, width * step, step, vectors, width, n - (vectors - 1) * width, stop)


# Float64 sums hand over after so many vectors (`Sum`), a call that is given up ends: 2 to 4 ms.
STRETCH = 65536


@inlined
def stretches(t):
    """Where each `stretch` begins."""
    return range(0, t.vectors, STRETCH)


@inlined
def stretch(t, start):
    """The next vectors of a task, or none once it is no longer wanted."""
    end = min(start + STRETCH, t.vectors)
    return range(start, start if start > 0 and is_set(t.stop) else end)


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
    return memory[-memory.ctypes.data * lanes(x) // BYTES % lanes(x) :]


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
    if not t.folds and t.spread != 1 and t.live == lanes(x) and t.vectors >= piece(x):
        for j in range(0, t.vectors, piece(x)):
            k = min(j, t.vectors - piece(x))  # the last pieces overlap those before
            load_rows(x, t.start + k, t.spread, tile, k * lanes(x))
        for j in range(t.vectors):
            m = larger(vector(tile, j), m)
        return m
    for start in stretches(t):
        for j in stretch(t, start):
            v = get(x, t, j, fill)
            set_vector(tile, j, v)
            m = larger(v, m)
    return fold_largest(m) if t.folds else m


@inlined
def look_ahead(x, out, t, j):
    """Ask for what the next task reads and what this one writes, which would else wait for arithmetic
    to end: 1.25 times as fast at (1000, 1000) f32."""
    i = j * (t.step if t.folds or t.spread == 1 else lanes(x))
    prefetch(x, t.next + i, 0)
    if out is not None:
        prefetch(out, t.start + i, 1)


Shift = namedtuple("Shift", "base magic lowest")
"""What `exp_shifted` subtracts, the constant that takes the rest away, and the least that it looks at."""


@inlined
def shift_of(m):
    """The `Shift` of rows whose maximum is ``m``.

    Near 0 nothing is subtracted, so nothing is rounded: powers of two alone bring the maximum's exponential
    close to 1. Farther away every entry that matters is within a factor of two of ``m``, and the difference
    exact (Sterbenz).
    """
    zero = splat(m, 0)
    base = where_greater(larger(m, zero - m), constant(m, "NEAR"), m, zero)
    near, magic = m - base, constant(m, "ROUND")
    powers = fma(near, constant(m, "LOG2E"), magic) - magic
    return Shift(base, constant(m, "EXP_MAGIC") - powers, near + constant(m, "EXP_LOWEST"))


@inlined
def exp_shifted(v, shift):
    """``2**POWER * c * exp(v - m)`` to 0.7 ULP, with a factor ``c`` of the row, from 2/3 to 3/2."""
    f, scale = _exp_parts(v, shift)
    return fma(f, scale, scale)


@inlined
def _exp_of_max(m, shift):
    """The same of the maximum, and what that rounded off."""
    f, scale = _exp_parts(m, shift)
    one = splat(m, 1)
    p = one + f
    return p * scale, (f - (p - one)) * scale


@inlined
def _exp_parts(v, shift):
    """The same as ``(1 + f) * scale``."""
    d = larger(shift.lowest, v - shift.base)
    t = fma(d - constant(v, "OFFSET"), constant(v, "LOG2E"), shift.magic)
    k = shift.magic - t
    d = fma(k, constant(v, "LN2_HI"), d)
    low = k * constant(v, "LN2_LO")
    r = d + low
    return d + fma(r * r, polynomial(r, "EXP"), low), low_bits_as_exponent(t)


Sum = namedtuple("Sum", "start first second far_first far_second")
"""A sum in each lane: the parts of its last terms (`widened`), from ``start`` on, and those of all before.

Of float64 terms ``second`` holds the rounding errors; it is a float too, and in the end loses its own where
all of them have one sign. So it never takes more than those of one `stretch`. The same keeps float32 terms,
added up in float64, right to 2**-36.
"""


@inlined
def no_sum(like):
    return _sum_from(like, splat(like, 0))


@inlined
def no_sum_of_smaller(like):
    """A sum for `add_smaller`."""
    return _sum_from(like, constant(like, "ABOVE"))


@inlined
def _sum_from(like, start):
    first, second = widened(start)
    far_first, far_second = widened(splat(like, 0))
    return Sum(start, first, second, far_first, far_second)


@inlined
def add(s, v):
    first, second = plus(s.start, s.first, s.second, *widened(v))
    return Sum(s.start, first, second, s.far_first, s.far_second)


@inlined
def add_smaller(s, v):
    """`add` where ``abs(v)`` is below ABOVE, which takes half the operations."""
    first, second = plus_smaller(s.start, s.first, s.second, *widened(v))
    return Sum(s.start, first, second, s.far_first, s.far_second)


@inlined
def before(start, s):
    """The sum with which a stretch begins: what it has of the one before is handed over."""
    return s if start == 0 else _handed_over(s)


@inlined
def _handed_over(s):
    near, _ = widened(s.start)
    far_first, far_second = plus(s.start, s.far_first, s.far_second, s.first - near, s.second)
    return Sum(s.start, *widened(s.start), far_first, far_second)


@inlined
def folded(t, s):
    """The sums of a task's rows in two parts, from those of its lanes."""
    return narrowed(s.start, *_of_rows(t, s))


@inlined
def total(t, s):
    """The same in one number; of infinities and NaN, what IEEE arithmetic gives."""
    return rounded(s.start, *_of_rows(t, s))


@inlined
def _of_rows(t, s):
    near, _ = widened(s.start)
    first, second = s.first - near, s.second
    if t.vectors > STRETCH:
        first, second = plus(s.start, s.far_first, s.far_second, first, second)
    if t.folds:
        first, second = fold_sum(s.start, first, second)
    return first, second


@inlined
def reciprocal(hi, lo):
    """``1 / (hi + lo)`` in two parts."""
    one = splat(hi, 1)
    inverse = one / hi
    return inverse, inverse * (fma(splat(hi, 0) - inverse, hi, one) - inverse * lo)


Summary = namedtuple("Summary", "others low inverse correction log_sum")
"""Of each row: the sum of its exponentials but one maximum's, in two parts; the inverse of the sum of all, in
two parts; ``log1p(rest)``, ``rest`` being the sum of ``exp(x_j - max)`` but for one maximum."""


@inlined
def summary(tile, x, out, t, m, keep):
    """The `Summary` of each row; with ``keep``, scratch then holds the exponentials.

    What is left out is the first maximum in each lane: no count that grows with the row.
    """
    shift, zero, one = shift_of(m), splat(tile, 0), splat(tile, 1)
    s, left_out = no_sum(tile), zero
    for start in stretches(t):
        s = before(start, s)
        for j in stretch(t, start):
            v = vector(tile, j)
            e = exp_shifted(v, shift)
            if keep:
                set_vector(tile, j, e)
            look_ahead(x, out, t, j)
            largest = where_equal(v, m, one, zero)
            s = add(s, where_greater(largest, left_out, zero, e))
            left_out = larger(largest, left_out)
    hi, lo = folded(t, s)
    left_out = total(t, add(no_sum(tile), left_out)) if t.folds else one
    return _summary_of(hi, lo, left_out, *_exp_of_max(m, shift))


@inlined
def _summary_of(hi, lo, left_out, top, top_low):
    """From the sum of what is not left out, how many are, and the exponential of a maximum."""
    zero, one = splat(top, 0), splat(top, 1)
    ties = left_out - one
    more = ties * top
    others, error = two_sum(hi, more)
    others, low = two_sum(others, lo + (error + (fma(ties, top, zero - more) + ties * top_low)))
    whole, error = two_sum(others, top)
    inverse, correction = reciprocal(whole, error + (low + top_low))
    part = one / top
    rest = others * part
    lost = (fma(zero - rest, top, others) + (low - rest * top_low)) * part
    return Summary(others, low, inverse, correction, log1p(rest, lost))


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


# So many segments are a matrix: of 100 entries each they are in an L2 cache, beside their results.
GROUP = 64


@inlined
def segment_at(ptr, part, parts):
    """The first segment of one of ``parts`` shares of equally many entries, an empty one counting as one."""
    segments = len(ptr) - 1
    place = (ptr[segments] + segments) * part // parts
    low, high = 0, segments
    while low < high:
        middle = (low + high) // 2
        if ptr[middle] + middle < place:
            low = middle + 1
        else:
            high = middle
    return low


@allocating
def groups(ptr, part, parts):
    """The segments of a share by length, and where each group begins and the last ends.

    A group is of short ones of one length, or a single long one; empty ones are in none.
    """
    first, last = segment_at(ptr, part, parts), segment_at(ptr, part + 1, parts)
    begin, order = np.zeros(SHORT + 4, np.intp), np.empty(last - first, np.intp)
    for k in range(first, last):
        begin[min(ptr[k + 1] - ptr[k], SHORT + 1) + 2] += 1
    for n in range(SHORT + 2):
        begin[n + 1] += begin[n]
    for k in range(first, last):
        n = min(ptr[k + 1] - ptr[k], SHORT + 1)
        order[begin[n + 1]] = k
        begin[n + 1] += 1
    edges, count = np.empty(last - first + 1, np.intp), 0
    for n in range(1, SHORT + 2):
        for start in range(begin[n], begin[n + 1], GROUP if n <= SHORT else 1):
            edges[count] = start
            count += 1
    edges[count] = last - first
    return order, edges[: count + 1]


@allocating
def matrix_of(a, ptr, group):
    """Segments as rows of a canonical array: a copy, or the only one where it is."""
    start, stop = ptr[group[0]], ptr[group[0] + 1]
    if len(group) == 1:
        return a[:, start:stop]
    matrix = np.empty((len(group), stop - start, 1), a.dtype)
    for r in range(len(group)):
        for j in range(stop - start):
            matrix[r, j, 0] = a[0, ptr[group[r]] + j, 0]
    return matrix


@allocating
def matrix_for(out, ptr, group):
    """Where their results go before `take_back`: room for them, or the place of an only one."""
    k, start, stop = group[0], ptr[group[0]], ptr[group[0] + 1]
    if out.ndim == 2:
        return out[:, k : k + 1] if len(group) == 1 else np.empty((len(group), 1), out.dtype)
    return out[:, start:stop] if len(group) == 1 else np.empty((len(group), stop - start, 1), out.dtype)


@inlined
def take_back(matrix, ptr, group, out):
    if len(group) == 1:
        return
    for r in range(len(group)):
        if out.ndim == 2:
            out[0, group[r]] = matrix[r, 0]
        else:
            for j in range(matrix.shape[1]):
                out[0, ptr[group[r]] + j, 0] = matrix[r, j, 0]
