"""Which arguments are tried, in blocks of some thousand.

A block of ``exp`` is ``(x, maximum)``, entries of a row and its maximum, which decides the power of two that
is taken off; of ``log1p`` ``(s, lo)``, an argument in two parts; of ``quotient`` ``(a, hi, lo)``, for
``a / (hi + lo)``.
"""

import numpy as np

SIZE = 1 << 13  # of a block: temporary arrays stay in the first caches
LANES = 64  # a block is a multiple of any vector
TASK = 1 << 20
LN2 = float(np.log(2))
LOG1P_MOST = 2.0**40  # a sum of so many terms
LO = 8  # the largest second part of an argument in u of the first: a pair that is not normalised has a few


def pieces(*arrays):
    """Arrays cut to blocks, the last one filled up with what it ends in."""
    for i in range(0, len(arrays[0]), SIZE):
        cut = [a[i : i + SIZE] for a in arrays]
        yield tuple(np.pad(a, (0, -len(a) % LANES), "edge") for a in cut)


def exp_blocks(x, limits):
    """Of any ``x``, sorted, in blocks that are short enough for one maximum.

    Each comes with two, which take off an odd and an even power of two: near a breakpoint, where the rounded
    quotient may be a tie without FMA, that breaks either way.
    """
    x = np.sort(x[(x >= -limits.large - limits.vanishes) & (x <= limits.large)])
    window = np.floor(x / (limits.vanishes / 4))
    for part in np.split(x, np.flatnonzero(np.diff(window)) + 1):
        for (piece,) in pieces(part):
            maxima = (_maximum(piece, limits, above) for above in (0, 1))
            for maximum in dict.fromkeys(maxima):
                if piece[0] >= maximum - x.dtype.type(limits.vanishes):
                    yield piece, maximum


def _maximum(x, limits, above=0):
    """The least with whose power of two sorted ``x`` go, or some powers above."""
    k = np.ceil(float(x[-1]) / LN2) + above
    return x.dtype.type(np.clip(k * LN2, -limits.large, limits.large))


def log1p_blocks(s):
    """With a second part of nothing, and as much as there can be, of either sign."""
    s = s[(s >= 0) & (s <= LOG1P_MOST)]
    most = s * s.dtype.type(LO * np.finfo(s.dtype).eps / 2)
    most[::2] *= -1
    for lo in (most * 0, most):
        yield from pieces(s, lo)


def quotient_blocks(hi, rng, subnormal):
    """With random numerators; biased as exponentials and their sum where results are to be ``subnormal``."""
    dtype = hi.dtype
    a = rng.uniform(1, 2, len(hi)).astype(dtype)
    lo = hi * (np.finfo(dtype).eps / 2 * rng.uniform(-0.5, 0.5, len(hi))).astype(dtype)
    if subnormal:
        bias, least = (512, -1022) if dtype == np.float64 else (64, -126)
        a = np.ldexp(a, least + bias - rng.integers(0, 24, len(hi)))
        hi, lo = np.ldexp(hi, bias), np.ldexp(lo, bias)
    yield from pieces(a, hi, lo)


# ---- every float32 -----------------------------------------------------------------------------


def ordinals(low, high):
    """Ranges that number the floats from ``low`` to ``high`` in order: ..., -tiny, -0, 0, tiny, ..."""
    first, last = (_ordinal(np.float32(x)) for x in (low, high))
    for start in range(first, last + 1, TASK):
        yield range(start, min(start + TASK, last + 1))


def _ordinal(x):
    bits = int(np.abs(x).view(np.int32))
    return ~bits if np.signbit(x) else bits


def floats(ordinals):
    """The floats of those numbers."""
    for start in range(ordinals.start, ordinals.stop, SIZE):
        number = np.arange(start, min(start + SIZE, ordinals.stop), dtype=np.int64)
        bits = np.where(number < 0, ~number | 1 << 31, number)
        yield bits.astype(np.uint32).view(np.float32)


def exp_every(ordinals, limits):
    for x in floats(ordinals):
        for (piece,) in pieces(x):
            yield piece, _maximum(x, limits)


def log1p_every(ordinals):
    for s in floats(ordinals):
        yield from log1p_blocks(s)


# ---- breakpoints -------------------------------------------------------------------------------

_UP = (*range(257), *(1 << p for p in range(9, 22)))
STEPS = np.array(sorted({*_UP, *(-step for step in _UP)}))


def moved(x, steps):
    """Each of ``x`` moved by each of so many places along the floats."""
    integer = np.dtype(f"i{x.itemsize}")
    bits = np.where(x[:, None] == 0, steps, x.view(integer)[:, None] + steps)
    return bits.astype(integer).view(x.dtype).ravel()


def _powers_of_two(dtype, most):
    return 2.0 ** np.arange(np.log2(float(np.finfo(dtype).smallest_subnormal)), np.log2(most) + 1)


def exp_breakpoints(dtype, limits, steps):
    """All around where the reduction may change: 0, the ends, powers of two, and the ends of the remainder r.

    These are multiples of ln(2), off by ln(2)/2 if r is up to that either way, and by ln(3/2) if it is from
    ln(3/4) to ln(3/2).
    """
    most, ln2 = int((limits.large + limits.vanishes) / LN2) + 1, np.log(np.longdouble(2))
    multiples = np.arange(-most, most + 1) * ln2
    ends_of_r = [multiples + end for end in (0, ln2 / 2, np.log(np.longdouble(1.5)))]
    powers = _powers_of_two(dtype, limits.large)
    ends = [-0.0, limits.large, -limits.large, -limits.large - limits.vanishes]
    x = np.concatenate([*ends_of_r, powers, -powers, ends]).astype(dtype)
    yield from exp_blocks(moved(x, steps), limits)


def log1p_breakpoints(dtype, steps):
    """1 + s at powers of two and sqrt(2) times those, and s at powers of two."""
    powers = 2.0 ** np.arange(0, 41)
    roots = np.sqrt(np.longdouble(2)) * powers - 1
    s = np.concatenate([roots, powers - 1, _powers_of_two(dtype, LOG1P_MOST)]).astype(dtype)
    yield from log1p_blocks(moved(s, steps))


# ---- at random ---------------------------------------------------------------------------------


def exp_random(dtype, limits, seed):
    """Over the whole range, and near 0."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-limits.large - limits.vanishes, limits.large, TASK)
    x[::16] = rng.uniform(-1, 1, TASK // 16) * 2.0 ** rng.uniform(-60, 0, TASK // 16)
    yield from exp_blocks(x.astype(dtype), limits)


def log1p_random(dtype, seed):
    """Mostly where the result is about 1, and over the whole range."""
    rng = np.random.default_rng(seed)
    s = 2.0 ** rng.uniform(-3, 2, TASK)
    s[::4] = 2.0 ** rng.uniform(-60, np.log2(LOG1P_MOST), TASK // 4)
    yield from log1p_blocks(s.astype(dtype))


def quotient_random(dtype, seed, subnormal):
    rng = np.random.default_rng(seed)
    yield from quotient_blocks(rng.uniform(1, 2, TASK).astype(dtype), rng, subnormal)


# ---- near the worst so far ---------------------------------------------------------------------


def _steps(rng):
    return np.unique((rng.choice([-1, 1], 512) * 2.0 ** rng.uniform(0, 40, 512)).astype(np.int64))


def exp_near(limits, x, seed):
    """Neighbours, and the same remainder at other multiples of ln(2)."""
    rng = np.random.default_rng(seed)
    others = x[:, None] + rng.integers(-2000, 2001, (len(x), 512)) * np.log(np.longdouble(2))
    yield from exp_blocks(np.concatenate([moved(x, _steps(rng)), others.ravel().astype(x.dtype)]), limits)


def log1p_near(s, seed):
    """Neighbours, and the same fraction of 1 + s at other powers of two."""
    rng = np.random.default_rng(seed)
    others = (1 + s[:, None].astype(np.longdouble)) * 2.0 ** rng.integers(-20, 21, (len(s), 512)) - 1
    yield from log1p_blocks(np.concatenate([moved(s, _steps(rng)), others.ravel().astype(s.dtype)]))
