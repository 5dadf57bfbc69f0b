"""`LogSumExp`: the logarithm of a sum of exponentials, of data that come in parts.

A part is known by three numbers a row, its *state*: the maximum, and the sum of all other exponentials as two
floats, at a reference that the maximum has. States merge by addition; docs/derivation.md derives how, and
docs/numerics.md why no number of parts loses digits.

The ops do not give that sum. Their logarithm of 10**6 equal terms is good to 2 eps of 14, which makes 28 eps
of the sum, and beside a higher entry of another part the sum is what counts. So it is taken by the sums of
`fastsoftmax.backends.numpy`.
"""

import numpy as np

from fastsoftmax import _threads
from fastsoftmax._arrays import as_float, axes_of, rows_of
from fastsoftmax._front import floating_point_mode

# References are multiples of it. Exponentials of 10**80 entries so far above one add up to a float.
SPAN = 512.0
MOST_DIMENSIONS = 64  # NumPy's
# Elements of a part, 512 KB of float64, and the most entries of a column among others: how many stand beside
# it has no say, as the bits depend on where a sum is cut.
PART, ENTRIES = 64 * 1024, 64


class LogSumExp:
    """Logarithm of the sum of exponentials of data that come in parts: ``log sum_j exp(x_j)`` a row.

    Whatever the parts are, updated and merged in whichever order, `value` is within
    ``2 eps * max(abs(max x), abs(value))`` of the exact one, eps being that of float64: the sum leaves one
    maximum out (Blanchard, Higham & Higham, IMA J. Numer. Anal. 41, 2021), is compensated, and is not rounded
    again where the maximum rises. (Where longdouble is float64, as on Windows, 3.1 eps were found.) Threads
    and processes each take an accumulator of their own, to be merged.

    Parameters
    ----------
    axis : int, tuple of int or None
        The axis or axes of each part that are summed over, of any lengths; None for all. What is left of the
        shape is the same for all parts.

    Attributes
    ----------
    axis : int, tuple of int or None
        As given.
    state : tuple of three arrays of float64, or None before the first update
        Of the shape of `value`, and not to be written to: ``row_max``, the largest entry, and ``rest`` and
        ``low``, whose sum times ``exp(512 * floor(row_max / 512))`` is the sum of the exponentials of all
        entries but one largest. These two attributes are all that is pickled.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        ``axis`` is no int, tuple of ints or None, or names one twice; of a part, as for `logsumexp`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> morning, evening = fs.LogSumExp(), fs.LogSumExp()
    >>> for x in ([1000.0], [1000.0, 0.0]):
    ...     _ = morning.update(x)
    >>> _ = evening.update([1001.0])
    >>> print(morning.merge(evening).value.round(6), fs.logsumexp([1000.0, 1000.0, 0.0, 1001.0]).round(6))
    1001.551445 1001.551445
    """

    __slots__ = ("axis", "state")

    def __init__(self, axis=-1):
        axes_of(axis, MOST_DIMENSIONS)
        self.axis = axis
        self.state = None

    def update(self, x):
        """Take entries in, and return this accumulator.

        Parameters
        ----------
        x : array_like
            As for `logsumexp`; computed in float64 whatever its dtype. May be empty.

        Returns
        -------
        LogSumExp
            This one.

        Raises
        ------
        TypeError
            A dtype that cannot be converted without loss, or a masked array.
        ValueError
            ``x`` without ``axis`` has another shape than it had before.
        numpy.exceptions.AxisError
            ``axis`` is out of range for ``x``.

        Examples
        --------
        >>> import fastsoftmax as fs
        >>> fs.LogSumExp(axis=0).update([[0.0, 1.0]]).update([[0.0, 1.0], [0.0, 1.0]]).value.round(3)
        array([1.099, 2.099])
        """
        x = as_float(x, "x")
        rows = rows_of(x.shape, self.axis)
        self._check(rows.kept, f"x has shape {x.shape}, {rows.kept} without axis {self.axis}")
        state = np.full(rows.kept, -np.inf), np.zeros(rows.kept), np.zeros(rows.kept)
        _threads.run(_summarise, rows.canonical, (rows.view(x), *(a.reshape(rows.reduced) for a in state)))
        return self._add(state)

    def merge(self, other):
        """Take the entries of another accumulator in, and return this one; the other stays as it is.

        Parameters
        ----------
        other : LogSumExp
            Of values of the same shape, along whichever axis it took them.

        Returns
        -------
        LogSumExp
            This one.

        Raises
        ------
        TypeError
            ``other`` is no accumulator.
        ValueError
            Its values have another shape.

        Examples
        --------
        >>> from functools import reduce
        >>> import fastsoftmax as fs
        >>> parts = [fs.LogSumExp().update(x) for x in ([0.0], [0.0, 0.0], [])]
        >>> print(reduce(fs.LogSumExp.merge, parts).value.round(3))
        1.099
        """
        if not isinstance(other, LogSumExp):
            raise TypeError(f"other must be a LogSumExp; got {type(other).__name__}: update() takes arrays")
        state = other.state
        if state is None:
            return self
        self._check(state[0].shape, f"other holds values of shape {state[0].shape}")
        return self._add(state)

    @property
    def value(self):
        """The logarithm for all entries so far, as `logsumexp` has it: float64, a scalar of one row.

        -inf of no entries, or of -inf alone; +inf where an entry is, and NaN where one is.
        """
        state = self.state  # once: another thread may update it meanwhile
        if state is None:
            return np.float64(-np.inf)
        row_max = state[0]
        with floating_point_mode(), np.errstate(all="ignore"):
            logarithm = (row_max + np.log1p(rest_of(state))).astype(np.float64)
            return np.where(np.isfinite(row_max), logarithm, row_max)[()]

    def _check(self, shape, given):
        if self.state is not None and self.state[0].shape != shape:
            raise ValueError(
                f"{given}; this accumulator holds values of shape {self.state[0].shape}: "
                "take another LogSumExp for other rows"
            )

    def _add(self, state):
        """In one step, at the end: an interrupted call changes nothing."""
        if self.state is not None:
            with floating_point_mode(), np.errstate(all="ignore"):
                state = merged(self.state, state)
        self.state = state
        return self


def merged(a, b):
    """The state of two together: both sums and the exponential of the smaller maximum."""
    row_max = np.maximum(a[0], b[0])
    at = _reference(row_max)
    total = shifted_exp(np.minimum(a[0], b[0]), at)
    for part_max, rest, low in (a, b):
        # 1 but where the reference rises, after which an entry counts for little at the next time. In two
        # steps: exp of -2 SPAN is 0 where its product with a sum at the reference of -SPAN is not, and exp of
        # -SPAN / 2 happens to be a float to 0.02 of a rounding.
        half = np.exp((_reference(part_max) - at) / 2)
        total = _plus(total, rest * half * half, low * half * half)
    return row_max, *total


def rest_of(state):
    """The sum without one maximum in units of the maximum's exponential, in longdouble.

    Where that is wider than float64, `value` rounds once: the largest error found is 1.5 eps in place of 3.1.
    """
    row_max, rest, low = (np.asarray(a, np.longdouble) for a in state)
    return (rest + low) * sum(shifted_exp(np.asarray(_reference(state[0]), np.longdouble), row_max))


def total_of(state):
    """The reference and, in units of its exponential, the sum of all, in longdouble."""
    at = _reference(state[0])
    row_max, rest, low = (np.asarray(a, np.longdouble) for a in state)
    return at, (rest + low) + sum(shifted_exp(row_max, at))


def shifted_exp(x, shift):
    """``exp(x - shift)`` of the unrounded difference, as two floats (two-sum)."""
    d = x - shift
    b = d - x
    lost = (x - (d - b)) - (b + shift)
    e = np.exp(d)
    return e, e * np.where(np.isfinite(lost), lost, 0)


def parts(shape):
    """Indices of parts of a canonical array that stay in the cache: of it, and of what is one value a row."""
    outer, n, inner = shape
    entries = min(n, PART if inner == 1 else ENTRIES)
    columns = min(inner, PART // ENTRIES)
    rows = PART // (entries * columns)
    for o in range(0, outer, rows):
        for i in range(0, inner, columns):
            for j in range(0, n, entries):
                at = slice(o, o + rows), slice(j, j + entries), slice(i, i + columns)
                yield at, (at[0], None, at[2])


# Blocks as in the numpy backend. No column is cut off from others: alone it may be summed in another order.
sized = _threads.sized(block_elements=4 * 1024 * 1024, least_columns=2)


@sized
def _summarise(x, *state):
    """The state of each row of canonical ``x`` into what is that of none."""
    for at, rows in parts(x.shape):
        before = tuple(a[rows] for a in state)
        for a, values in zip(before, merged(before, _of_part(x[at].astype(np.float64))), strict=True):
            a[...] = values


def _of_part(x):
    at = np.argmax(x, axis=1, keepdims=True)
    row_max = np.take_along_axis(x, at, 1)
    np.put_along_axis(x, at, -np.inf, 1)
    e, low = shifted_exp(x, _reference(row_max))
    return row_max, exact_sums(e), low.sum(axis=1, keepdims=True)


def exact_sums(terms):
    """Along the middle axis, kept, as good as rounded once."""
    return _vectors()._exact(_fresh, terms, 1)


def _fresh(name, shape):
    return np.empty(shape)


def _reference(row_max):
    """What exponentials are taken relative to, at the maximum or up to SPAN below.

    Were it the maximum, each part that raises it a little would have the sum multiplied and rounded: after
    10**6 of them it would be off by as many roundings.
    """
    top = np.finfo(np.float64).max
    return SPAN * np.floor(np.minimum(np.maximum(row_max, -top), top) / SPAN)


def _plus(total, s, low=0.0):
    """A sum in two parts and one more, whose low part never grows beyond the other's last place."""
    hi, lo = _vectors()._with(total, s, low)
    rounded = hi + lo
    return rounded, lo - (rounded - hi)


def _vectors():
    from fastsoftmax.backends import numpy as vectors  # a backend is imported when it is needed

    return vectors
