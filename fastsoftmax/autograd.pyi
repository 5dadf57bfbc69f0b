"""Types of the primitives; as those of the operations (api.pyi), of which they have fewer options."""

from typing import Any, Literal, SupportsIndex, overload

from numpy.typing import ArrayLike, NDArray

from fastsoftmax.api import _Axis, _Float, _Floats, _OneValue, _Shape, _SomeFloats

__all__ = (
    "cross_entropy",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax",
    "segment_softmax_vjp",
    "softmax",
    "softmax_jvp",
    "softmax_solve",
    "softmax_vjp",
)

@overload
def softmax(x: _Floats[_Shape, _Float], /, axis: _Axis = -1) -> _Floats[_Shape, _Float]: ...
@overload
def softmax(x: ArrayLike, /, axis: _Axis = -1) -> _SomeFloats: ...
@overload
def log_softmax(x: _Floats[_Shape, _Float], /, axis: _Axis = -1) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax(x: ArrayLike, /, axis: _Axis = -1) -> _SomeFloats: ...
@overload
def logsumexp(
    x: NDArray[_Float], /, axis: None, keepdims: Literal[False] = False, *, b: ArrayLike | None = None
) -> _Float: ...
@overload
def logsumexp(
    x: NDArray[_Float], /, axis: _Axis = -1, *, keepdims: Literal[True], b: ArrayLike | None = None
) -> NDArray[_Float]: ...
@overload
def logsumexp(
    x: ArrayLike, /, axis: _Axis = -1, keepdims: bool = False, *, b: ArrayLike | None = None
) -> Any: ...
@overload
def softmax_vjp(
    y: _Floats[_Shape, _Float], g: _Floats[_Shape, _Float], /, axis: _Axis = -1
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax_vjp(y: ArrayLike, g: ArrayLike, /, axis: _Axis = -1) -> _SomeFloats: ...
@overload
def softmax_jvp(
    y: _Floats[_Shape, _Float], t: _Floats[_Shape, _Float], /, axis: _Axis = -1
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax_jvp(y: ArrayLike, t: ArrayLike, /, axis: _Axis = -1) -> _SomeFloats: ...
@overload
def softmax_solve(
    y: _Floats[_Shape, _Float], b: _Floats[_Shape, _Float], /, axis: _Axis = -1, *, ridge: float
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax_solve(y: ArrayLike, b: ArrayLike, /, axis: _Axis = -1, *, ridge: float) -> _SomeFloats: ...
@overload
def log_softmax_vjp(
    logy: _Floats[_Shape, _Float], g: _Floats[_Shape, _Float], /, axis: _Axis = -1
) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax_vjp(logy: ArrayLike, g: ArrayLike, /, axis: _Axis = -1) -> _SomeFloats: ...
@overload
def log_softmax_jvp(
    logy: _Floats[_Shape, _Float], t: _Floats[_Shape, _Float], /, axis: _Axis = -1
) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax_jvp(logy: ArrayLike, t: ArrayLike, /, axis: _Axis = -1) -> _SomeFloats: ...
@overload
def cross_entropy(
    x: NDArray[_Float],
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: _OneValue = "mean",
) -> _Float: ...
@overload
def cross_entropy(
    x: NDArray[_Float],
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["none"],
) -> NDArray[_Float]: ...
@overload
def cross_entropy(
    x: ArrayLike,
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Any: ...
@overload
def segment_softmax(x: _Floats[_Shape, _Float], ptr: ArrayLike, /) -> _Floats[_Shape, _Float]: ...
@overload
def segment_softmax(x: ArrayLike, ptr: ArrayLike, /) -> _SomeFloats: ...
@overload
def segment_log_softmax(x: _Floats[_Shape, _Float], ptr: ArrayLike, /) -> _Floats[_Shape, _Float]: ...
@overload
def segment_log_softmax(x: ArrayLike, ptr: ArrayLike, /) -> _SomeFloats: ...
@overload
def segment_logsumexp(x: NDArray[_Float], ptr: ArrayLike, /) -> NDArray[_Float]: ...
@overload
def segment_logsumexp(x: ArrayLike, ptr: ArrayLike, /) -> _SomeFloats: ...
@overload
def segment_softmax_vjp(
    y: _Floats[_Shape, _Float], g: _Floats[_Shape, _Float], ptr: ArrayLike, /
) -> _Floats[_Shape, _Float]: ...
@overload
def segment_softmax_vjp(y: ArrayLike, g: ArrayLike, ptr: ArrayLike, /) -> _SomeFloats: ...
