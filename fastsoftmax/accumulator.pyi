"""Types of `LogSumExp`; `make lint` compares its signatures with accumulator.py."""

from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None
_Values: TypeAlias = NDArray[np.float64]

SPAN: float
MOST_DIMENSIONS: int

class LogSumExp:
    axis: _Axis
    state: tuple[_Values, _Values, _Values] | None

    def __init__(self, axis: _Axis = -1) -> None: ...
    def update(self, x: ArrayLike) -> LogSumExp: ...
    def merge(self, other: LogSumExp) -> LogSumExp: ...
    @property
    def value(self) -> _Values: ...

def merged(a: Any, b: Any) -> Any: ...
def rest_of(state: Any) -> Any: ...
def total_of(state: Any) -> Any: ...
def shifted_exp(x: Any, shift: Any) -> Any: ...
