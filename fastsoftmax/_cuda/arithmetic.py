"""exp of a shifted entry, as accurate as the arithmetic allows.

For float32 and float64 storage: Cody-Waite reduction and a polynomial, within 1 ULP, with the rounding
error of the shift added to the reduced argument. For 16-bit storage the hardware's ex2: its 2^-22 is
far below what the result can show. What a whole row is multiplied by is kept to twice the precision.
"""

from collections import namedtuple

import numpy as np

Exp = namedtuple("Exp", "exp exp_shifted")
Pair = namedtuple("Pair", "reciprocal multiply scale")
Sums = namedtuple("Sums", "plus rounded group")

# exp(r) = 1 + r + r^2 P(r) on |r| <= log(2)/2, the highest power first: fitted at Chebyshev nodes with
# mpmath; the relative error of exp is 8e-10 (float32) and 4e-19 (float64).
_POLYNOMIAL = {
    "float32": (
        1.98910798644647e-4,
        1.3933731243014336e-3,
        8.33331048488617e-3,
        4.1666463017463684e-2,
        0.1666666716337204,
        0.5,
    ),
    "float64": (
        2.0914679376583935e-9,
        2.510520637395701e-8,
        2.7557273661348637e-7,
        2.7557255425746435e-6,
        2.4801587325533363e-5,
        1.9841269874800493e-4,
        1.3888888888883752e-3,
        8.333333333326141e-3,
        4.166666666666667e-2,
        0.1666666666666667,
        0.5,
    ),
}
# log(2) in two parts; the first has trailing zeros, so that its product with any exponent is exact.
_LOG2 = {
    "float32": (0.693359375, -2.1219444005469058e-4),
    "float64": (float.fromhex("0x1.62e42feep-1"), 1.9082149292705878e-10),
}
# Adding this rounds to an integer, which is then in the low bits.
_ROUND = {"float32": 1.5 * 2**23, "float64": 1.5 * 2**52}
# Below this exp rounds to 0.
_LOWEST = {"float32": -104.0, "float64": -745.2}


def make_exp(t, plan):
    """``exp(d)`` and ``exp_shifted(x, m) = exp(x - m)``, for arguments that are not above 0."""
    return _from_hardware(t) if plan.itemsize == 2 else _from_polynomial(t, plan.arithmetic)


def _from_hardware(t):
    ex2, log2_e = t.ex2, np.float32(1.4426950408889634)

    @t.device
    def exp(d):
        return ex2(d * log2_e)

    @t.device
    def exp_shifted(x, m):
        return ex2((x - m) * log2_e)

    return Exp(exp, exp_shifted)


def _from_polynomial(t, dtype):
    number, fma, scale, polynomial = t.number, t.fma, t.scale, make_polynomial(t, dtype)
    log2_e, rounder, lowest = (number(c) for c in (1.4426950408889634, _ROUND[dtype], _LOWEST[dtype]))
    high, low = (number(-c) for c in _LOG2[dtype])
    zero, one = number(0), number(1)

    @t.device
    def exp_of_sum(d, error):
        shifted = fma(d, log2_e, rounder)
        k = shifted - rounder
        r = fma(k, low, fma(k, high, d)) + error
        e = scale(one + fma(r * r, polynomial(r), r), shifted)
        return zero if d < lowest else e

    @t.device
    def exp(d):
        return exp_of_sum(d, zero)

    @t.device
    def exp_shifted(x, m):
        # TwoSum (Knuth): what rounding takes from x - m, up to 1 ULP of the result a unit of distance.
        d = x - m
        minus_m = d - x
        return exp_of_sum(d, (x - (d - minus_m)) - (m + minus_m))

    return Exp(exp, exp_shifted)


def make_polynomial(t, dtype):
    """``(exp(r) - 1 - r) / r**2`` of ``abs(r) <= log(2) / 2``."""
    fma = t.fma
    a, b, c, d, e, f, *rest = (t.number(v) for v in _POLYNOMIAL[dtype])

    @t.device
    def to_fifth(r):
        return fma(fma(fma(fma(fma(a, r, b), r, c), r, d), r, e), r, f)

    if not rest:
        return to_fifth
    g, h, i, j, k = rest

    @t.device
    def to_tenth(r):
        return fma(fma(fma(fma(fma(to_fifth(r), r, g), r, h), r, i), r, j), r, k)

    return to_tenth


def make_pair(t):
    """Numbers as pairs (high, low): 1 / (1 + such a one), times a float64, and a product with one."""
    number, fma = t.number, t.fma
    one, double = number(1), np.float64

    @t.device
    def reciprocal(rest, rest_low):
        total = one + rest
        lost = (rest - (total - one) if rest < one else one - (total - rest)) + rest_low
        high = one / total
        return high, (fma(-high, total, one) - high * lost) * high

    @t.device
    def multiply(e, high, low):
        return fma(e, high, e * low)

    @t.device
    def scale(high, low, factor):
        factor_high = number(factor)
        factor_low = number(factor - double(factor_high))
        product = high * factor_high
        return product, fma(high, factor_high, -product) + (low * factor_high + high * factor_low)

    return Pair(reciprocal, multiply, scale)


def make_two_sum(t):
    """``two_sum(a, b)``: the sum and its rounding error (Knuth)."""

    @t.device
    def two_sum(a, b):
        s = a + b
        part = s - a
        return s, (a - (s - part)) + (b - part)

    return two_sum


def make_sums(t, plan):
    """Sums as pairs (high, low), of a few thousand terms before `teams` joins them.

    ``group`` terms are added up before each `plus`: one rounding at most where it would show.
    """
    two_sum, infinity = make_two_sum(t), t.number(np.inf)

    @t.device
    def plus(high, low, v):
        high, error = two_sum(high, v)
        return high, low + error

    @t.device
    def rounded(high, low):
        return high + low if abs(high) < infinity else high

    return Sums(plus, rounded, 8 if plan.itemsize == 2 else 2)
