"""The exact values, and how far a build is from them."""

from typing import NamedTuple

import numpy as np

from tests import tolerances
from tests.exhaustive.arguments import LN2


def _wide(dtype):
    """What references are computed in: right to 2**-27 u of float32, or 2**-10 u of float64."""
    return np.float64 if dtype == np.float32 else np.longdouble


def exact_exp(limits, x, maximum):
    wide = _wide(x.dtype)
    k0 = round(float(maximum) / LN2)
    return np.exp(x.astype(wide)) * np.ldexp(wide(1), limits.bias - k0)


def exact_log1p(limits, s, lo):
    wide = _wide(s.dtype)
    return np.log1p(s.astype(wide) + lo.astype(wide))


def exact_quotient(limits, a, hi, lo):
    wide = _wide(a.dtype)
    return a.astype(wide) / (hi.astype(wide) + lo.astype(wide))


FAMILIES = {
    "exp": (exact_exp, {"exp": "exp", "exp of a maximum": "exp_of_max"}),
    "log1p": (exact_log1p, {"log1p": "log1p"}),
    "quotient": (exact_quotient, {"quotient": "quotient"}),
    "subnormal quotient": (exact_quotient, {"subnormal quotient": "quotient"}),
}
"""By kind of argument: the exact value; each function of it that is measured, as a method of `candidates`."""


class Off:
    """How far results in two parts are from exact ones: below and above them in u, and in ULP.

    The relative error of a quotient is at most the sum of those in u, below and above.
    """

    def __init__(self, exact, dtype):
        info = np.finfo(dtype)
        size = np.maximum(np.abs(exact), exact.dtype.type(info.tiny))
        self._scale = np.where(size < 2.0**-900, 2.0**100, 1)  # or `low` would be subnormal
        exact, size = exact * self._scale, (size * self._scale).astype(np.float64)
        self._high = exact.astype(np.float64)
        self._low = (exact - self._high).astype(np.float64)
        power_of_two = (size.view(np.int64) & (0x7FF << 52)).view(np.float64)
        self._u, self._ulp = size * (float(info.eps) / 2), power_of_two * float(info.eps)

    def __call__(self, hi, lo):
        off = hi * self._scale - self._high
        off -= self._low
        off += lo * self._scale
        above = off / self._u
        return {"u below": -above, "u above": above, "ULP": np.abs(off) / self._ulp}


class Key(NamedTuple):
    """Whose error."""

    function: str
    build: str
    unit: str


class Worst(NamedTuple):
    """The largest error, and the arguments that have it."""

    error: float
    arguments: tuple


def of_block(family, arguments, candidates):
    """`Worst` by `Key`."""
    exact, functions = FAMILIES[family]
    worst = {}
    with np.errstate(all="ignore"):
        off = Off(exact(candidates[0].limits, *arguments), arguments[0].dtype)
        for candidate in candidates:
            for function, name in functions.items():
                for unit, errors in off(*getattr(candidate, name)(*arguments)).items():
                    worst[Key(function, candidate.name, unit)] = _largest(errors, arguments)
    return worst


def _largest(errors, arguments):
    at = int(np.argmax(errors))  # NaN before all others
    error = float("inf") if np.isnan(errors[at]) else float(errors[at])
    return Worst(error, tuple(float(a[at] if np.ndim(a) else a) for a in arguments))


def merge(into, worst):
    """Keep the larger of each."""
    for key, found in worst.items():
        if key not in into or found.error > into[key].error:
            into[key] = found


def of_blocks(family, blocks, candidates):
    """The number of arguments, and `Worst` by `Key`."""
    count, worst = 0, {}
    for arguments in blocks:
        count += arguments[0].size
        merge(worst, of_block(family, arguments, candidates))
    return count, worst


def beyond_bounds(worst):
    """A line for each error above its bound in `tolerances`."""
    for (function, build, unit), found in worst.items():
        bound = tolerances.ELEMENTARY[function]
        if unit.startswith(bound.unit) and not found.error <= bound.error:
            at = ", ".join(x.hex() for x in found.arguments)
            yield f"{function}, {build}: {found.error:.4f} {unit} at {at}, more than {bound.error}"
    for build in {key.build for key in worst if key.function == "exp"}:
        both = sum(worst[Key("exp", build, unit)].error for unit in ("u below", "u above"))
        if not both <= tolerances.EXP_BELOW_AND_ABOVE_U:
            yield f"exp, {build}: {both:.4f} u below and above, more than {tolerances.EXP_BELOW_AND_ABOVE_U}"
