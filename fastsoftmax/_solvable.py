"""What a system without a ridge asks of its right-hand side, looked at before anything is written.

Its matrix is singular: products with it sum to 0, and are 0 where ``y`` is. So do gradients, but for their
roundings: the library's, of integer labels, are within 4 ULP an entry (docs/numerics.md), 16 leave room for
what is made of them.
"""

import numpy as np

from fastsoftmax import _threads

ULPS = 16


def check_solvable(y, b, rows, dtype, num_threads=None):
    """Raise ``ValueError`` for the first row of canonical ``b``, once of that dtype, that has no solution.

    A row that holds NaN or an infinity has one: NaN.
    """
    totals, wrong = np.empty(rows.reduced), np.zeros(rows.reduced, np.bool_)
    _threads.run(_look_at, rows.canonical, (y, b, *_ulp_of(dtype), totals, wrong), num_threads)
    if not wrong.any():
        return
    at = np.argmax(wrong)
    outer, inner = np.unravel_index(at, rows.reduced)
    row = f" in row {[int(i) for i in np.unravel_index(at, rows.kept)]}" if rows.kept else ""
    stray = np.flatnonzero(_is_stray(y[outer, :, inner], b[outer, :, inner]))
    if stray.size:
        what = f"is {b[outer, stray[0], inner]} at entry {stray[0]}{row}, where y is 0", "be 0 there"
    else:
        what = f"sums to {totals[outer, inner]}{row}", f"sum to 0 (to {ULPS} ULP an entry)"
    raise ValueError(
        "b {}, but with ridge=0 the matrix is singular, and b must {}: pass ridge > 0".format(*what)
    )


def _ulp_of(dtype):
    """The distances of floats at 1, and at 0."""
    one = np.ones((), dtype)
    return float(np.spacing(one)), float(np.spacing(one - one))


@_threads.sized(block_elements=64 * 1024)  # temporaries stay in the L2 cache
def _look_at(y, b, eps, smallest, totals, wrong):
    n, wide = b.shape[1], b.astype(np.float64, copy=False)
    unit = np.where(np.abs(wide).max(axis=1, initial=0) > 2.0**900, 2.0**-64, 1.0)  # or sums are infinite
    wide = wide * unit[:, np.newaxis] if (unit != 1).any() else wide
    size = np.abs(wide).sum(axis=1)
    allowed = ULPS * (eps * size + n * smallest * unit)
    totals[...] = wide.sum(axis=1)
    if not (np.abs(totals) <= allowed - n * 2.0**-53 * size).all():  # it may be the roundings of the sum
        totals[...] = _sums(wide)
    wrong[...] = np.abs(totals) > allowed
    totals /= unit
    if (y == 0).any():
        wrong |= _is_stray(y, b).any(axis=1)
    if wrong.any():
        wrong &= np.isfinite(y).all(axis=1) & np.isfinite(wide).all(axis=1)


def _is_stray(y, b):
    return (y == 0) & (b != 0)


def _sums(a):
    """Along axis 1, by halves, with what each addition rounds off (two-sum)."""
    lost = 0.0
    while (half := a.shape[1] // 2) > 0:
        first, second, odd = a[:, :half], a[:, half : 2 * half], a[:, 2 * half :]
        s = first + second
        part = s - first
        lost = lost + ((first - (s - part)) + (second - part)).sum(axis=1)
        a = np.concatenate([s, odd], axis=1)
    return a[:, 0] + lost
