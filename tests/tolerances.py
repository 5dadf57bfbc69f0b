"""What every comparison may be off by: one entry a dtype. The bounds are those of docs/numerics.md."""

from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """Relative to each value; ``atol`` is absolute, for values of size 1, and a few eps at most."""

    rtol: float
    atol: float
    ulps: dict[str, int]


_ULPS = {
    "softmax": 3,
    "log_softmax": 4,
    "softmax_jacobian": 7,
    "log_softmax_jacobian": 3,
    "cross_entropy": 4,
    "cross_entropy_with_grad": 4,
}
_HALF_ULPS = dict.fromkeys(_ULPS, 1)  # computed in float32, rounded once

TOLERANCES = {
    "float64": Tolerance(rtol=1e-12, atol=8 * 2.0**-52, ulps=_ULPS),
    "float32": Tolerance(rtol=2e-6, atol=8 * 2.0**-23, ulps=_ULPS),
    "float16": Tolerance(rtol=2 * 2.0**-10, atol=2 * 2.0**-10, ulps=_HALF_ULPS),
    "bfloat16": Tolerance(rtol=2 * 2.0**-7, atol=2 * 2.0**-7, ulps=_HALF_ULPS),
}

# Multiples of eps, in docs/numerics.md's units.
LOGSUMEXP_EPS = 2
PRODUCT_EPS = 6
ROW_SUM_EPS = 2
SOFT_EPS = 7
WEIGHTED_SUM_EPS = 4
SOLUTION_EPS = 6
SOLUTION_REACH = 2.0**-11  # of eps of each of b's dominant entries


class Bound(NamedTuple):
    """An error in its unit: u (half an eps, relative, either way) or ULP."""

    error: float
    unit: str


# What the bounds above rest on (docs/numerics.md), as `make exhaustive` found it.
ELEMENTARY = {
    "exp": Bound(1.26, "u"),
    "exp of a maximum": Bound(0.67, "u"),
    "log1p": Bound(0.91, "ULP"),
    "quotient": Bound(0.51, "ULP"),
    "subnormal quotient": Bound(1.5, "ULP"),
}
EXP_BELOW_AND_ABOVE_U = 2.49  # together: the relative error of a quotient of exps


def of(dtype) -> Tolerance:
    """The tolerances of a dtype."""
    return TOLERANCES[np.dtype(dtype).name]
