"""Awkward inputs with the agreed answers: the one list that tests and benches share.

`FAMILIES` and `WIDTHS` are logits as (rows, n); `SPECIAL_ROWS` holds rows beyond the reals with what
every op answers; `LAYOUTS` gives the same values in other memory; `SHAPES` has axes to reduce over.
"""

from typing import NamedTuple

import numpy as np

NAN, INF = np.nan, np.inf

# Around the powers of two where kernels change vectors and tails, an ImageNet head and GPT-2's vocabulary.
WIDTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 1000, 1023, 1024, 1025, 4097, 50257)

FAMILIES = {}


def family(make):
    """Enter a function of a float dtype, which makes logits (rows, n), into `FAMILIES`."""
    FAMILIES[make.__name__] = make
    return make


def rng(seed=0):
    """Random numbers that are the same in every run and order of the tests."""
    return np.random.default_rng(seed)


def sources(rows):
    """The data of the derivation that this library began with: half-integers from -15 to 15, five a row."""
    return rng(5).integers(-30, 31, (rows, 5)) / 2


@family
def sources_1000x5(dtype):
    return sources(1000).astype(dtype)


@family
def sources_100x5(dtype):
    return sources(100).astype(dtype)


@family
def sources_1x5(dtype):
    return sources(1).astype(dtype)


@family
def sources_times_100(dtype):
    return (sources(1000)[:5] * 100).astype(dtype)


@family
def offset_rows(dtype):
    """Rows around 0, 1000 and -1000 in one batch: a shift by one global maximum loses two thirds."""
    offsets = np.array([0.0, 1000.0, -1000.0]).repeat(4)
    return (rng().normal(size=(12, 10)) + offsets[:, None]).astype(dtype)


@family
def sources_offset(dtype):
    """The sources' 100 x 5 with offsets of 0 and +-1000 in turn."""
    return (sources(100) + np.resize([0.0, 1000.0, -1000.0], 100)[:, None]).astype(dtype)


@family
def far_apart(dtype):
    return (rng().normal(size=(20, 33)) * 100).astype(dtype)


@family
def one_dominant(dtype):
    x = rng().normal(size=(17, 17))
    np.fill_diagonal(x, 50.0)
    return x.astype(dtype)


@family
def near_ties(dtype):
    base = np.array([1.0, 700.1, -1000.3, 1e-3], dtype)[:, None]
    steps = rng().integers(0, 4, (4, 12)).astype(dtype)
    return base + steps * np.spacing(np.abs(base))


@family
def ties(dtype):
    return np.array([[3.5] * 6, [0.0, -0.0] * 3, [1e30] * 6, [1.0, 2.0, 2.0, 2.0, 1.0, -5.0]], dtype)


@family
def saturated(dtype):
    """One entry has all of the row but 1e-9 to 1e-300 of it."""
    gaps = np.array([20.0, 37.5, 60.0, 300.0, 690.0]) * (1 if np.dtype(dtype).itemsize == 8 else 0.12)
    x = rng().normal(size=(5, 6))
    x[:, 2] += gaps
    return x.astype(dtype)


@family
def masked(dtype):
    x = rng().normal(size=(16, 12)) * 3
    gone = rng(1).random(x.shape) < 0.4
    gone[np.arange(16), np.arange(16) % 12] = False
    gone[0] = np.arange(12) != 3
    x[gone] = -INF
    return x.astype(dtype)


@family
def subnormal_results(dtype):
    """Results below the smallest normal number, and below the smallest of all."""
    info = np.finfo(dtype)
    lowest, normal = np.log(float(info.smallest_subnormal)), np.log(float(info.tiny))
    x = np.linspace(normal + 1, lowest - 2, 60).reshape(10, 6)
    x[:, 0] = 0.0
    x[5:] += 40.25
    return x.astype(dtype)


@family
def largest_numbers(dtype):
    top = np.finfo(dtype).max
    return np.array([[top, -top], [-top, top], [top, top], [-top, -top], [top, 0], [-top, 0]], dtype)


@family
def smallest_numbers(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    return np.array([[tiny, -tiny, 0], [tiny * 7, -0.0, tiny]], dtype)


def width(n, dtype, rows=None):
    """Normal logits of ``n`` a row; by default rows enough to cross a tile of 64 lanes, while n is small."""
    rows = rows or (70 if n <= 10 else 35 if n <= 33 else 5 if n <= 100 else 2)
    return (rng(n).normal(size=(rows, n)) * 4).astype(dtype)


class SpecialRow(NamedTuple):
    row: list
    softmax: list
    log_softmax: list
    logsumexp: float


SPECIAL_ROWS = {
    "nan": SpecialRow([1, NAN, 2], [NAN] * 3, [NAN] * 3, NAN),
    "nan first": SpecialRow([NAN, 1, 2], [NAN] * 3, [NAN] * 3, NAN),
    "nan last": SpecialRow([1, 2, NAN], [NAN] * 3, [NAN] * 3, NAN),
    "nan beside -inf": SpecialRow([-INF, NAN, -INF], [NAN] * 3, [NAN] * 3, NAN),
    "+inf": SpecialRow([1, INF, 2], [NAN] * 3, [NAN] * 3, INF),
    "two +inf": SpecialRow([INF, INF, 2], [NAN] * 3, [NAN] * 3, INF),
    "+inf and -inf": SpecialRow([INF, -INF, 2], [NAN] * 3, [NAN] * 3, INF),
    "+inf then nan": SpecialRow([INF, NAN, 2], [NAN] * 3, [NAN] * 3, NAN),
    "nan then +inf": SpecialRow([NAN, INF, 2], [NAN] * 3, [NAN] * 3, NAN),
    "all -inf": SpecialRow([-INF] * 3, [NAN] * 3, [NAN] * 3, -INF),
    "one left": SpecialRow([-INF, 5, -INF], [0, 1, 0], [-INF, 0, -INF], 5),
    "two left": SpecialRow([2, -INF, 2], [0.5, 0, 0.5], [-np.log(2), -INF, -np.log(2)], 2 + np.log(2)),
    "far apart": SpecialRow([0, -2000, -2000], [1, 0, 0], [0, -2000, -2000], 0),
}

SPECIAL_SINGLES = {
    "finite": SpecialRow([-7.25], [1], [0], -7.25),
    "nan": SpecialRow([NAN], [NAN], [NAN], NAN),
    "+inf": SpecialRow([INF], [NAN], [NAN], INF),
    "-inf": SpecialRow([-INF], [NAN], [NAN], -INF),
}

# Shapes and the axes to reduce over, as a caller may name them.
SHAPES = (
    ((7,), -1),
    ((7,), 0),
    ((7,), None),
    ((5, 7), 1),
    ((5, 7), 0),
    ((5, 7), -2),
    ((5, 7), (0, 1)),
    ((40, 3), 0),
    ((3, 40), 0),
    ((3, 4, 5), 1),
    ((3, 4, 5), 0),
    ((3, 4, 5), (0, 1)),
    ((3, 4, 5), (1, 2)),
    ((3, 4, 5), (0, 2)),
    ((3, 4, 5), (2, 0)),
    ((3, 4, 5), None),
    ((2, 3, 4, 5), (1, 3)),
    ((2, 3, 4, 5), (-1, 1)),
    ((2, 3, 4, 5), (0, 2)),  # an order of axes that is not its own inverse
    ((2, 3, 4, 5), -3),
    ((2, 1, 3), 1),
    ((1, 1), 0),
)


class Subclass(np.ndarray):
    """An ndarray subclass with nothing of its own."""


def _misaligned(a):
    raw = np.empty(a.nbytes + 1, np.uint8)
    b = raw[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


def _readonly(a):
    b = a.copy()
    b.flags.writeable = False
    return b


def _reversed(a):
    everywhere = (slice(None, None, -1),) * a.ndim
    return a[everywhere].copy()[everywhere]


def _spread(a):
    b = np.full([2 * s for s in a.shape], 77, a.dtype)
    part = b[(slice(1, None, 2),) * a.ndim]
    part[...] = a
    return part


LAYOUTS = {
    "fortran": np.asfortranarray,
    "read-only": _readonly,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "misaligned": _misaligned,
    "negative strides": _reversed,
    "every second": _spread,
    "axes reversed in memory": lambda a: np.ascontiguousarray(a.T).T,
    "subclass": lambda a: a.view(Subclass),
    "from bytes": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


# Of normal numbers and the largest float, at places of which each seventh is masked out.
COTANGENTS = {
    "both signs at once": lambda v, _: v,
    "one sign": lambda v, _: np.abs(v),
    "one sign until the end": lambda v, _: np.r_[-np.abs(v[:-1]), 1.0],
    "one entry": lambda v, _: np.where(np.arange(len(v)) == len(v) // 2, 5.0, 0.0),
    "huge at masked entries": lambda v, top: np.where(np.arange(len(v)) % 7, v, top * np.sign(v)),
    "subnormal beside huge": lambda v, top: np.where(np.arange(len(v)) % 7, 20 * v / top, top * np.sign(v)),
    "differences overflow": lambda v, top: top * np.sign(v),
    "the sum overflows": lambda v, top: top * np.where(np.abs(v) > 2, -np.sign(v), 1.0),
}
