"""Types of the three functions: not of scipy-stubs, which for Python 3.10 take no array without an axis.

What goes to SciPy as it came, as complex numbers do, gives ``Any``.
"""

from typing import Any, Literal, overload

from numpy.typing import ArrayLike, NDArray

from fastsoftmax.api import _Axis, _Float, _Floats, _Shape

__all__ = ("log_softmax", "logsumexp", "softmax")

@overload
def softmax(x: _Floats[_Shape, _Float], axis: _Axis = None) -> _Floats[_Shape, _Float]: ...
@overload
def softmax(x: ArrayLike, axis: _Axis = None) -> Any: ...
@overload
def log_softmax(x: _Floats[_Shape, _Float], axis: _Axis = None) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax(x: ArrayLike, axis: _Axis = None) -> Any: ...
@overload
def logsumexp(
    a: NDArray[_Float],
    axis: None = None,
    b: None = None,
    keepdims: Literal[False] = False,
    return_sign: Literal[False] = False,
) -> _Float: ...
@overload
def logsumexp(
    a: NDArray[_Float],
    axis: None = None,
    b: None = None,
    keepdims: Literal[False] = False,
    *,
    return_sign: Literal[True],
) -> tuple[_Float, _Float]: ...
@overload
def logsumexp(
    a: NDArray[_Float],
    axis: _Axis = None,
    b: None = None,
    *,
    keepdims: Literal[True],
    return_sign: Literal[False] = False,
) -> NDArray[_Float]: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    *,
    return_sign: Literal[True],
) -> tuple[Any, Any]: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any: ...
