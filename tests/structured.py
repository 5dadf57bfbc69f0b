"""Structured rows: long, of few distinct numbers, with exact answers that cost no more than those numbers do.

Random rows average the rounding errors out; rows of equal entries add them up. A `Row` says in a line which
numbers, how many of each and in what order. Entries with the same logit, cotangent and label are a *class*:
the exact answers, from mpmath, are one a class, and what an op returned is compared at the least and the
greatest result of each.
"""

from functools import cached_property, lru_cache
from typing import NamedTuple

import mpmath
import numpy as np

import fastsoftmax as fs
from tests import oracle, tolerances

_digits = mpmath.mp.clone()
_digits.dps = 850  # in a saturated row 700 digits may cancel


class Measure(NamedTuple):
    """What is measured: a heading, the bound and its unit."""

    title: str
    bound: float
    unit: str = "ULP"


_ULPS = tolerances.TOLERANCES["float64"].ulps
MEASURES = {
    "softmax": Measure("softmax", _ULPS["softmax"]),
    "log_softmax": Measure("log_softmax", _ULPS["log_softmax"]),
    "cross_entropy": Measure("CE loss", _ULPS["cross_entropy"]),
    "cross_entropy_with_grad": Measure("CE gradient", _ULPS["cross_entropy_with_grad"]),
    "softmax_jacobian": Measure("Jacobian", _ULPS["softmax_jacobian"]),
    "logsumexp": Measure("logsumexp", tolerances.LOGSUMEXP_EPS, "eps max(abs(row max), abs(result))"),
    "products": Measure("VJP, JVP", tolerances.PRODUCT_EPS, "eps y_i (abs(g_i) + sum y_j abs(g_j))"),
    "log_softmax_vjp": Measure("log_softmax VJP", 1, "the tolerance, of the size of the terms"),
    "log_softmax_jvp": Measure("log_softmax JVP", 1, "the tolerance, of the size of the terms"),
    "softmax_solve": Measure("solutions", tolerances.SOLUTION_EPS, "eps of their terms (docs/numerics.md)"),
    "row_sums": Measure("row sums", tolerances.ROW_SUM_EPS, "eps"),
}
MOST_OF_A_JACOBIAN = 64
"""Of longer rows no Jacobian is formed."""

# An order is an index into the row of blocks: this text, evaluated, so that what is printed is what ran.
ORDERS = {
    "blocked": "np.arange({n})",
    "rolled": "np.roll(np.arange({n}), {k})",
    # Each k neighbours come from k even steps through the sorted row: period k, as lanes and lines see it.
    "dealt": "np.r_[np.arange({whole}).reshape({k}, -1).T.ravel(), {whole}:{n}]",
    "mirrored": "np.r_[np.arange(0, {n}, 2), np.arange(1, {n}, 2)[::-1]]",
    "permuted": "np.random.default_rng({k}).permutation({n})",
}


class Pattern(NamedTuple):
    """A row of few distinct values: ``counts`` of all but the last, which fills the row, in an order.

    A count below 1 is that share of the row.
    """

    values: tuple
    counts: tuple = ()
    order: tuple = ("blocked", 1)

    def counts_of(self, n):
        counts, left = [], n
        for count in self.counts:
            counts.append(min(left, int(count if count >= 1 else count * n)))
            left -= counts[-1]
        return [*counts, left]

    def index(self, n):
        """Which value each of ``n`` entries has."""
        each = np.repeat(np.arange(len(self.values), dtype=np.uint16), self.counts_of(n))
        if self.order[0] == "blocked":
            return each
        return each[eval(self._order(n), {"np": np})]

    def _order(self, n):
        order, k = self.order
        return ORDERS[order].format(n=n, k=k, whole=n // k * k).replace(f", {n}:{n}", "")

    def expression(self, n, dtype, values=None):
        """Python that makes the row."""
        counts = self.counts_of(n)
        given = [(v, c) for v, c in zip(self.values if values is None else values, counts, strict=True) if c]
        row = f"np.repeat(np.{dtype}({[_short(v, dtype) for v, _ in given]}), {[c for _, c in given]})"
        if len(given) == 1:
            return f"np.full({n}, {_short(given[0][0], dtype)}, np.{dtype})"
        return row if self.order[0] == "blocked" else f"{row}[{self._order(n)}]"


def _short(value, dtype):
    """A number that prints as briefly as its dtype allows."""
    return float(np.format_float_scientific(dtype.type(value), unique=True))


class Row(NamedTuple):
    """``n`` logits, the vector of products and systems, the value that has the label, ``copies`` of it all.

    The copies stand one below the other, or side by side where ``axis`` is 0.
    """

    n: int
    logits: Pattern
    vector: Pattern = Pattern((0.0, 1.0), (0.5,))
    label: int = 0
    copies: int = 1
    axis: int = -1
    ridge: float = 1e-3

    def expression(self, measure, dtype, backend):
        """The call that shows the error, as a line of Python."""
        line = [f"{name} = {self._spread(made)}" for name, made in self._arrays(measure, dtype)]
        arguments = [made.split(" = ")[0] for made in line]
        if measure.startswith("cross_entropy"):
            arguments += [repr(self.labels(Classes(self, dtype).label_at).tolist()), "reduction='none'"]
        arguments += [f"ridge={self.ridge!r}"] * (measure == "softmax_solve")
        arguments += ["axis=0"] * (self.axis == 0) + [f"backend={backend!r}"]
        return "; ".join([*line, f"fs.{_SHOWN_BY[measure]}({', '.join(arguments)})"])

    def _arrays(self, measure, dtype):
        """The arguments' names and the rows in them: derivatives get the exact output, rounded once."""
        if measure not in _FORWARD:
            return [("x", self.logits.expression(self.n, dtype))]
        name, op = _FORWARD[measure]
        truth = Classes(self, dtype).truth
        of = dict(zip(truth.x.tolist(), getattr(truth, op).high.tolist(), strict=True))
        values = [of.get(float(dtype.type(v)), 0.0) for v in self.logits.values]
        vector = [("v", self.vector.expression(self.n, dtype))] * (measure != "softmax_jacobian")
        return [(name, self.logits.expression(self.n, dtype, values)), *vector]

    def labels(self, at):
        """The label of every copy."""
        return np.full(self.copies, at) if self._many else at

    @property
    def _many(self):
        return self.copies > 1 or self.axis == 0

    def _spread(self, expression):
        if not self._many:
            return expression
        if self.axis == 0:
            return f"np.repeat({expression}, {self.copies}).reshape(-1, {self.copies})"
        return f"np.tile({expression}, ({self.copies}, 1))"

    def spread(self, row):
        """The array that a call takes, of one row."""
        return eval(self._spread("row"), {"np": np, "row": row})

    def ends(self, results):
        """The least and the greatest result of each entry, over the copies."""
        if not self._many:
            return results, results
        over = 0 if self.axis else -1
        return results.min(axis=over), results.max(axis=over)


_FORWARD = {
    "products": ("y", "softmax"),
    "log_softmax_vjp": ("logy", "log_softmax"),
    "log_softmax_jvp": ("logy", "log_softmax"),
    "softmax_jacobian": ("y", "softmax"),
    "softmax_solve": ("y", "softmax"),
}
_SHOWN_BY = {name: name for name in MEASURES} | {"products": "softmax_vjp", "row_sums": "softmax"}


# ---- families ----------------------------------------------------------------------------------

FAMILIES = {}
"""Functions of the dtype and n that make a `Row`."""

COMPANY = ((1, -1), (2, -1), (2, 0))
"""How many copies, and along which axis, a family is tried with."""

_SPIKE, _NEARLY_CONSTANT = Pattern((1e3, 0.0), (1,)), Pattern((3.001, 3.0), (1,))
_ALTERNATING, _ALIGNED = Pattern((1.0, -1.0), (0.5,), ("dealt", 2)), Pattern((-1.0, 1.0), (0.5,))


def family(make):
    """Enter a function into `FAMILIES`."""
    FAMILIES[make.__name__] = make
    return make


def _as_much(n):
    """A logit with as large a share as the ``n`` zeros beside it."""
    return float(round(np.log(n)))


@family
def high_first(dtype, n):
    return Row(n, Pattern((_as_much(n), 0.0), (1,)), _SPIKE)


@family
def high_last(dtype, n):
    return Row(n, Pattern((0.0, _as_much(n)), (n - 1,)), _NEARLY_CONSTANT, label=1)


@family
def high_in_the_middle(dtype, n):
    return Row(n, Pattern((_as_much(n), 0.0), (1,), ("rolled", n // 2)), _ALTERNATING)


@family
def hundred_high(dtype, n):
    return Row(n, Pattern((_as_much(n) - 4, 0.0), (100,)), _ALIGNED)


@family
def high_offset(dtype, n):
    return Row(n, Pattern((1000 + _as_much(n), 1000.0), (1,)), _ALTERNATING)


@family
def high_offset_down(dtype, n):
    return Row(n, Pattern((_as_much(n) - 1000, -1000.0), (1,)), _SPIKE, label=1)


@family
def equal(dtype, n):
    return Row(n, Pattern((0.0,)), _SPIKE)


@family
def two_levels(dtype, n):
    return Row(n, Pattern((0.0, -8.3), (0.5,)), _ALTERNATING, label=1)


@family
def alternating(dtype, n):
    return Row(n, Pattern((0.0, -0.3), (0.5,), ("dealt", 32)), _NEARLY_CONSTANT)


@family
def saturated(dtype, n):
    return Row(n, Pattern((60.0, 0.0), (1,), ("rolled", n // 3)), _NEARLY_CONSTANT)


@family
def ramp(dtype, n):
    """Geometric exponentials, with a period that is that of vectors."""
    return Row(n, Pattern(tuple(np.linspace(0, -15.5, 32).tolist()), (1 / 32,) * 31, ("dealt", 32)), _ALIGNED)


@family
def noise(dtype, n):
    values = np.random.default_rng(7).uniform(-3, 3, 8).tolist()
    return Row(n, Pattern(tuple(values), (1 / 8,) * 7, ("permuted", 1)), _ALTERNATING, label=3)


@family
def rounded_up(dtype, n):
    """One high logit, and others whose exponentials all round the same way."""
    return Row(n, Pattern((0.0, one_sided(dtype, 1)[0]), (1,)), _ALIGNED)


@family
def rounded_down(dtype, n):
    return Row(n, Pattern((0.0, one_sided(dtype, -1)[0]), (1,), ("rolled", n // 2)), _ALIGNED)


@lru_cache
def one_sided(dtype, sign):
    """Negative numbers whose exponentials round up (or down) by nearly as much as any, relative to them."""
    v = np.random.default_rng(11).uniform(-20, 0, 20_000).astype(dtype)
    exact = np.exp(v.astype(np.longdouble))
    worst = np.argsort(sign * (exact - exact.astype(dtype)) / exact)[:16]
    return v[worst].tolist()


# ---- exact answers -----------------------------------------------------------------------------


class Classes:
    """The entries of a row that are alike: of the same logit and vector, and the one that has the label."""

    def __init__(self, row, dtype):
        x, v = row.logits.index(row.n), row.vector.index(row.n)
        self._x, self._v = np.asarray(row.logits.values, dtype), np.asarray(row.vector.values, dtype)
        self.label_at = np.argmax(x == row.label)
        self._codes = 2 * (x * np.uint16(len(self._v)) + v)
        self._codes[self.label_at] += 1
        counts = np.bincount(self._codes)
        self._present = np.flatnonzero(counts)
        counts = counts[self._present]
        self._starts = np.cumsum(counts) - counts
        pair = self._present // 2
        self.truth = Truth(
            self._x[pair // len(self._v)],
            self._v[pair % len(self._v)],
            counts.tolist(),
            self._present % 2 == 1,
        )

    @cached_property
    def _sorted(self):
        """The order that brings the entries of each class together, or None."""
        if (self._codes[:-1] <= self._codes[1:]).all():
            return None
        return np.argsort(self._codes, kind="stable")

    def row(self, values):
        """A row from one value a class."""
        by_code = np.zeros(int(self._present[-1]) + 1, values.dtype)
        by_code[self._present] = values
        return by_code[self._codes]

    def extremes(self, least, greatest):
        """The least and the greatest result of each class."""
        return np.array([self._reduced(np.minimum, least), self._reduced(np.maximum, greatest)])

    def _reduced(self, f, results):
        return f.reduceat(results if self._sorted is None else results[self._sorted], self._starts)


@lru_cache(maxsize=4096)
def _exp(x, shift):
    return _digits.exp(_digits.mpf(x) - shift)


class Truth:
    """The exact answers, one a class, from logits, vector and counts."""

    def __init__(self, x, v, counts, is_label):
        self.x, self.v, self.counts = x.astype(np.float64), v.astype(np.float64), counts
        self._label, self._max = int(np.argmax(is_label)), float(self.x.max())
        self._e = [_exp(a, self._max) for a in self.x.tolist()]
        self._total = self._sum(self._e)
        self._y = [e / self._total for e in self._e]
        self._log_total = _digits.log(self._total)
        self._log_y = [_digits.mpf(a) - self._max - self._log_total for a in self.x.tolist()]

    def _sum(self, terms):
        return _digits.fsum(_digits.mpf(c) * t for c, t in zip(self.counts, terms, strict=True))

    @cached_property
    def softmax(self):
        return oracle.Exact.of(self._y)

    @cached_property
    def log_softmax(self):
        return oracle.Exact.of(self._log_y)

    @cached_property
    def logsumexp(self):
        return oracle.Exact.of([self._max + self._log_total])

    @cached_property
    def cross_entropy(self):
        return oracle.Exact.of([-self._log_y[self._label]])

    @cached_property
    def cross_entropy_with_grad(self):
        return oracle.Exact.of([y - (k == self._label) for k, y in enumerate(self._y)])

    @cached_property
    def softmax_jacobian(self):
        """Its diagonal."""
        return oracle.Exact.of([y * (1 - y) for y in self._y])

    @cached_property
    def products(self):
        """The VJP and the JVP, and the sizes of their terms."""
        dot, size = self._dots(self._y)
        terms = list(zip(self._y, self.v.tolist(), strict=True))
        return _sized([y * (v - dot) for y, v in terms], [y * (abs(v) + size) for y, v in terms])

    def softmax_solve(self, y, ridge):
        """The solution at outputs as rounded."""
        return oracle.exact_solution(y, self.v, ridge, self.counts)

    def log_softmax_vjp(self, log_y):
        """At outputs as rounded, with the sizes of its terms."""
        total, size = self._sum(self.v.tolist()), self._sum(np.abs(self.v).tolist())
        terms = [(_exp(a, 0.0), v) for a, v in zip(log_y.tolist(), self.v.tolist(), strict=True)]
        return _sized([v - y * total for y, v in terms], [abs(v) + y * size for y, v in terms])

    def log_softmax_jvp(self, log_y):
        """The same."""
        dot, size = self._dots([_exp(a, 0.0) for a in log_y.tolist()])
        return _sized([v - dot for v in self.v.tolist()], [abs(v) + size for v in self.v.tolist()])

    def _dots(self, y):
        terms = [a * b for a, b in zip(y, self.v.tolist(), strict=True)]
        return self._sum(terms), self._sum(map(abs, terms))


def _sized(exact, sizes):
    return oracle.Exact.of(exact), np.array([float(s) for s in sizes])


# ---- errors ------------------------------------------------------------------------------------


def ratios(row, dtype, backend, measures=tuple(MEASURES)):
    """Each measure's error over its bound; none of a Jacobian that would be large."""
    if row.n > MOST_OF_A_JACOBIAN:
        measures = [name for name in measures if name != "softmax_jacobian"]
    with np.errstate(all="ignore"):
        errors = Errors(row, np.dtype(dtype), backend)
        return {name: getattr(errors, name)() / MEASURES[name].bound for name in measures}


class Errors:
    """The largest error of each measure, in its unit, by its name."""

    def __init__(self, row, dtype, backend):
        self._row, self._dtype, self._backend = row, dtype, backend
        self._classes = Classes(row, dtype)
        self._truth = self._classes.truth
        self._smallest, self._eps = float(np.finfo(dtype).smallest_subnormal), float(np.finfo(dtype).eps)

    def softmax(self):
        return self._ulps("softmax", self._extremes(self._y))

    def log_softmax(self):
        return self._ulps("log_softmax", self._extremes(self._call("log_softmax", self._x)))

    def cross_entropy(self):
        alone = self._call("cross_entropy", self._x, self._labels, reduction="none")
        return max(
            self._truth.cross_entropy.ulps(np.atleast_1d(a)) for a in (alone, self._loss_and_gradient[0])
        )

    def cross_entropy_with_grad(self):
        return self._ulps("cross_entropy_with_grad", self._extremes(self._loss_and_gradient[1]))

    def softmax_jacobian(self):
        diagonals = np.einsum("...ii->...i", self._call("softmax_jacobian", self._y))
        if self._row.axis == 0:
            diagonals = diagonals.T  # blocks are last, whatever the axis
        return self._ulps("softmax_jacobian", self._extremes(diagonals))

    def logsumexp(self):
        exact = self._truth.logsumexp
        unit = self._eps * max(
            abs(self._truth.x.max()), abs(exact.high[0]), float(np.finfo(self._dtype).tiny)
        )
        actual = np.atleast_1d(self._call("logsumexp", self._x))
        return _in_units(actual, exact, unit, self._smallest * self._row.n)  # each term may round

    def products(self):
        exact, size = self._truth.products
        arguments = self._array(self._truth.softmax.high), self._array(self._truth.v)
        # One smallest subnormal number for each term and factor.
        most = 1 + np.abs(self._truth.v).max()
        spare = self._smallest * most * (2 + self._truth.softmax.high * self._row.n)
        ends = (self._extremes(self._call(op, *arguments)) for op in ("softmax_vjp", "softmax_jvp"))
        return max(_in_units(e, exact, self._eps * size, spare) for e in ends)

    def softmax_solve(self):
        """0 where a sum is beyond the range, and the row no number."""
        y, ridge = self._truth.softmax.high.astype(self._dtype), self._dtype.type(self._row.ridge)
        largest = float(np.abs(self._truth.v).max()) * self._row.n / min(float(ridge), 1.0)
        if not largest < np.finfo(self._dtype).max:
            return 0.0
        exact, size, reach, last = self._truth.softmax_solve(y, ridge)
        actual = self._call(
            "softmax_solve", self._array(y), self._array(self._truth.v), ridge=self._row.ridge
        )
        spare = self._eps * tolerances.SOLUTION_REACH * reach + self._smallest * last
        return _in_units(self._extremes(actual), exact, self._eps * size, spare)

    def log_softmax_vjp(self):
        return self._log_product("log_softmax_vjp")

    def log_softmax_jvp(self):
        return self._log_product("log_softmax_jvp")

    def _log_product(self, op):
        log_y = self._truth.log_softmax.high.astype(self._dtype)
        exact, size = getattr(self._truth, op)(log_y.astype(np.float64))
        ends = self._extremes(self._call(op, self._array(log_y), self._array(self._truth.v)))
        spare = self._smallest * (1 + np.abs(self._truth.v).max()) * (2 + self._row.n)
        return _in_units(ends, exact, tolerances.of(self._dtype).rtol * size, spare)

    def row_sums(self):
        """In pairs of longdouble: one after another would be off by more than the bound at n = 10,000."""
        rows = np.atleast_2d(self._y if self._row.axis else self._y.T).astype(np.longdouble, order="C")
        error = float(np.abs(rows.sum(axis=-1) - 1).max() / self._eps)
        return np.inf if np.isnan(error) else error

    @cached_property
    def _x(self):
        return self._array(self._truth.x)

    @cached_property
    def _y(self):
        return self._call("softmax", self._x)

    @cached_property
    def _labels(self):
        return self._row.labels(self._classes.label_at)

    @cached_property
    def _loss_and_gradient(self):
        return self._call("cross_entropy_with_grad", self._x, self._labels, reduction="none")

    def _array(self, values):
        """What a call takes, from one value a class."""
        return self._row.spread(self._classes.row(values.astype(self._dtype)))

    def _call(self, op, *arrays, **options):
        return getattr(fs, op)(*arrays, self._row.axis, backend=self._backend, **options)

    def _extremes(self, results):
        return self._classes.extremes(*self._row.ends(results))

    def _ulps(self, op, ends):
        exact = getattr(self._truth, op)
        flushed = (ends == 0) & (np.abs(exact.high) >= self._smallest)
        return np.inf if flushed.any() else exact.ulps(ends)


def _in_units(actual, exact, unit, spare):
    off = np.abs((actual.astype(np.float64) - exact.high) - exact.low)
    errors = np.maximum(off - spare, 0) / np.where(unit > 0, unit, 1)
    return float(np.max(np.where(np.isnan(errors), np.inf, errors)))
