"""Promise: a row's bits do not depend on its neighbours, however hostile they are."""

import numpy as np
import pytest

from tests import checks, inputs, oracle

NAN, INF = np.nan, np.inf

# Rows beside each other in lanes share vectors, tiles and whichever way of computing one of them asks for.
HOSTILE_LOGITS = {
    "saturated": lambda x: x + 5000.0 * (np.arange(x.shape[1]) == 1 % x.shape[1]),
    "NaN": lambda x: np.where(np.arange(x.shape[1]) == x.shape[1] // 2, NAN, x),
    "infinite": lambda x: np.where(np.arange(x.shape[1]) == 0, INF, x),
    "far from zero": lambda x: x + 1e30,
    "beside a thousand": lambda x: x - 1000.0,
    "close to zero": lambda x: x * 1e-3,
    "nothing left": lambda x: np.full_like(x, -INF),
    "masked": lambda x: np.where(np.arange(x.shape[1]) % 2, -INF, x),
    "equal": lambda x: np.full_like(x, 0.25),
    "whole range": lambda x: np.sign(x) * float(np.finfo(np.float32).max),
}
HOSTILE_VECTORS = {
    "large": lambda v: v + 1e30,
    "NaN": lambda v: np.where(np.arange(v.shape[1]) == v.shape[1] // 2, NAN, v),
    "infinite": lambda v: np.where(np.arange(v.shape[1]) == 0, INF, v),
    "constant": lambda v: np.full_like(v, 3.0),
    "of one sign": lambda v: np.abs(v) + 1.0,
    "zero": lambda v: np.zeros_like(v),
}
# (rows, n): in panels of lanes, with tiles begun and not filled; long; and along the first axis.
SHORT = [(150, n) for n in (*range(1, 11), 20, 60, 100)]
LONG = [(6, 300), (5, 1025), (3, 9000)]
COLUMNS = [(rows, n) for rows in (2, 5, 8, 16, 40, 200) for n in (3, 5, 40)] + [(5, 300), (200, 300)]


def _rows(kind, op, dtype, rows, n):
    """Logits and the other input: as they come, or mild, so that no row asks for a way of its own."""
    x = inputs.rng(n).normal(size=(rows, n))
    x = (x * 3 if kind == "any" else x / 10).astype(dtype)
    extra = oracle.extra_inputs(op, x)
    if kind == "mild" and op in oracle.PRODUCTS:
        extra = (np.copysign(extra[0], 0.5 - np.arange(n) % 2).astype(dtype),)
    return x, extra


def _cases(kind, op, dtype, rows, n):
    """The arguments of ordinary rows, and by name those of rows to put in between."""
    x, extra = _rows(kind, op, dtype, rows, n)
    ordinary, hostile = oracle.arguments(op, x, extra=extra), {}
    with np.errstate(all="ignore"):
        for name, make in HOSTILE_LOGITS.items():
            hostile[name] = oracle.arguments(op, make(x).astype(dtype), extra=extra)
        for name, make in (HOSTILE_VECTORS if op in oracle.TWO_ARRAYS else {}).items():
            v = make(extra[0]).astype(dtype)
            hostile[f"vector {name}"] = (ordinary[0], v)
            hostile[f"saturated, vector {name}"] = (hostile["saturated"][0], v)
    return ordinary, hostile


def _call(op, arguments, axis, backend):
    """Results with rows first."""
    if axis == 0:
        arguments = [np.ascontiguousarray(a.T) for a in arguments]
    results = checks.call(op, *arguments, axis, backend=backend, **oracle.options(op))
    first = axis == 0 and op not in oracle.JACOBIANS  # whose blocks come after the rows
    return tuple(np.asarray(r).T if first else np.asarray(r) for r in results)


@pytest.mark.parametrize(
    ("shapes", "axis"), [(SHORT, -1), (LONG, -1), (COLUMNS, 0)], ids=["short", "long", "columns"]
)
@pytest.mark.parametrize("kind", ["any", "mild"])
@pytest.mark.parametrize("op", oracle.OPS)
def test_hostile_neighbours(op, kind, shapes, axis, backend, dtype):
    different = {}
    for rows, n in shapes:
        if checks.is_slow(backend) or op in oracle.JACOBIANS:
            rows, n = min(rows, 500 // n + 2), min(n, 100)
        ordinary, hostile = _cases(kind, op, dtype, rows, n)
        expected = _call(op, ordinary, axis, backend)
        for name, others in hostile.items():
            for start in (0, 1):
                actual = _call(op, _mixed(ordinary, others, start), axis, backend)
                if not _same_bits(actual, expected, slice(1 - start, None, 2)):
                    different.setdefault((rows, n), []).append(name)
    assert not different, f"other bits in (rows, n), beside which rows: {different}"


def _mixed(ordinary, others, start):
    """Every second row is another."""
    mixed = [a.copy() for a in ordinary]
    for a, b in zip(mixed, others, strict=True):
        a[start::2] = b[start::2]
    return mixed


def _same_bits(actual, expected, rows):
    try:
        checks.assert_same_bits(tuple(a[rows] for a in actual), tuple(a[rows] for a in expected))
    except AssertionError:
        return False
    return True
