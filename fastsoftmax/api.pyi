"""Types of the public operations; `make lint` compares their signatures with api.py.

A file of its own, since overloads would bury the docstrings and bodies there. For all operations:

* an ndarray of a float dtype keeps that dtype, and its shape where the result has it;
* whatever else NumPy makes an array of gives some float dtype;
* what may lie on a GPU gives ``Any``: a tensor's type does not say where it lies.

One row is taken for several: what is a scalar for that one is declared as the array of the general case.
"""

from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import bsr_array
from scipy.sparse.linalg import LinearOperator

class _MaybeOnDevice(Protocol):
    @property
    def __cuda_array_interface__(self) -> Any: ...

_Shape = TypeVar("_Shape", bound=tuple[int, ...])
_Float = TypeVar("_Float", bound=np.floating[Any])
_Floats: TypeAlias = np.ndarray[_Shape, np.dtype[_Float]]
_SomeFloats: TypeAlias = NDArray[np.floating[Any]]
_Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None
_OneValue: TypeAlias = Literal["mean", "sum"]
_Reduction: TypeAlias = Literal["mean", "sum", "none"]

class _SoftmaxJacobian(LinearOperator[_Float]):
    def solve(self, b: ArrayLike, ridge: float = 0.0) -> _SomeFloats: ...

@overload
def softmax(
    x: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    out: NDArray[_Float] | None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax(
    x: _MaybeOnDevice,
    /,
    axis: _Axis = -1,
    *,
    out: Any = None,
    where: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def softmax(
    x: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    out: _SomeFloats | None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def log_softmax(
    x: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    out: NDArray[_Float] | None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax(
    x: _MaybeOnDevice,
    /,
    axis: _Axis = -1,
    *,
    out: Any = None,
    where: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def log_softmax(
    x: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    out: _SomeFloats | None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def logsumexp(
    x: NDArray[_Float],
    /,
    axis: None,
    *,
    b: ArrayLike | None = None,
    keepdims: Literal[False] = False,
    out: None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Float: ...
@overload
def logsumexp(
    x: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: Literal[True],
    out: None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[_Float]: ...
@overload
def logsumexp(
    x: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    out: NDArray[_Float],
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[_Float]: ...
@overload
def logsumexp(
    x: _MaybeOnDevice,
    /,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    out: Any = None,
    where: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def logsumexp(
    x: ArrayLike,
    /,
    axis: None,
    *,
    b: ArrayLike | None = None,
    keepdims: Literal[False] = False,
    out: None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> np.floating[Any]: ...
@overload
def logsumexp(
    x: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: Literal[True],
    out: None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def logsumexp(
    x: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    out: _SomeFloats,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def logsumexp(
    x: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    out: None = None,
    where: ArrayLike | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def softmax_vjp(
    y: _Floats[_Shape, _Float],
    g: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax_vjp(
    y: _MaybeOnDevice,
    g: Any,
    /,
    axis: _Axis = -1,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def softmax_vjp(
    y: ArrayLike,
    g: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def softmax_jvp(
    y: _Floats[_Shape, _Float],
    t: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax_jvp(
    y: _MaybeOnDevice,
    t: Any,
    /,
    axis: _Axis = -1,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def softmax_jvp(
    y: ArrayLike,
    t: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def log_softmax_vjp(
    logy: _Floats[_Shape, _Float],
    g: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax_vjp(
    logy: _MaybeOnDevice,
    g: Any,
    /,
    axis: _Axis = -1,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def log_softmax_vjp(
    logy: ArrayLike,
    g: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def log_softmax_jvp(
    logy: _Floats[_Shape, _Float],
    t: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def log_softmax_jvp(
    logy: _MaybeOnDevice,
    t: Any,
    /,
    axis: _Axis = -1,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def log_softmax_jvp(
    logy: ArrayLike,
    t: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def softmax_solve(
    y: _Floats[_Shape, _Float],
    b: _Floats[_Shape, _Float],
    /,
    axis: _Axis = -1,
    *,
    ridge: float = 0.0,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def softmax_solve(
    y: _MaybeOnDevice,
    b: Any,
    /,
    axis: _Axis = -1,
    *,
    ridge: float = 0.0,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def softmax_solve(
    y: ArrayLike,
    b: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    ridge: float = 0.0,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def softmax_jacobian(
    y: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["batched", "dense", "diagonal"] = "batched",
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[_Float]: ...
@overload
def softmax_jacobian(
    y: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["sparse"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> bsr_array[_Float]: ...
@overload
def softmax_jacobian(
    y: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["operator"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SoftmaxJacobian[_Float]: ...
@overload
def softmax_jacobian(
    y: _MaybeOnDevice,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["batched"] = "batched",
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def softmax_jacobian(
    y: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["batched", "dense", "diagonal"] = "batched",
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def softmax_jacobian(
    y: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["sparse"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> bsr_array[np.floating[Any]]: ...
@overload
def softmax_jacobian(
    y: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["operator"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SoftmaxJacobian[np.floating[Any]]: ...
@overload
def log_softmax_jacobian(
    logy: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["batched", "dense", "diagonal"] = "batched",
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax_jacobian(
    logy: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["sparse"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> bsr_array[_Float]: ...
@overload
def log_softmax_jacobian(
    logy: NDArray[_Float],
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["operator"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> LinearOperator[_Float]: ...
@overload
def log_softmax_jacobian(
    logy: _MaybeOnDevice,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["batched"] = "batched",
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def log_softmax_jacobian(
    logy: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["batched", "dense", "diagonal"] = "batched",
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def log_softmax_jacobian(
    logy: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["sparse"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> bsr_array[np.floating[Any]]: ...
@overload
def log_softmax_jacobian(
    logy: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    layout: Literal["operator"],
    out: None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> LinearOperator[np.floating[Any]]: ...
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
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
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
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[_Float]: ...
@overload
def cross_entropy(
    x: _MaybeOnDevice,
    labels: Any,
    /,
    axis: _Axis = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: _Reduction = "mean",
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
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
    reduction: _OneValue = "mean",
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> np.floating[Any]: ...
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
    reduction: Literal["none"],
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def cross_entropy_with_grad(
    x: _Floats[_Shape, _Float],
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: _OneValue = "mean",
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> tuple[_Float, _Floats[_Shape, _Float]]: ...
@overload
def cross_entropy_with_grad(
    x: _Floats[_Shape, _Float],
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["none"],
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> tuple[NDArray[_Float], _Floats[_Shape, _Float]]: ...
@overload
def cross_entropy_with_grad(
    x: _MaybeOnDevice,
    labels: Any,
    /,
    axis: _Axis = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: _Reduction = "mean",
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> tuple[Any, Any]: ...
@overload
def cross_entropy_with_grad(
    x: ArrayLike,
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: _OneValue = "mean",
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> tuple[np.floating[Any], _SomeFloats]: ...
@overload
def cross_entropy_with_grad(
    x: ArrayLike,
    labels: ArrayLike,
    /,
    axis: _Axis = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["none"],
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> tuple[_SomeFloats, _SomeFloats]: ...
@overload
def segment_softmax(
    x: _Floats[_Shape, _Float],
    ptr: ArrayLike,
    /,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def segment_softmax(
    x: _MaybeOnDevice,
    ptr: ArrayLike,
    /,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def segment_softmax(
    x: ArrayLike,
    ptr: ArrayLike,
    /,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def segment_log_softmax(
    x: _Floats[_Shape, _Float],
    ptr: ArrayLike,
    /,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def segment_log_softmax(
    x: _MaybeOnDevice,
    ptr: ArrayLike,
    /,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def segment_log_softmax(
    x: ArrayLike,
    ptr: ArrayLike,
    /,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def segment_logsumexp(
    x: NDArray[_Float],
    ptr: ArrayLike,
    /,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[_Float]: ...
@overload
def segment_logsumexp(
    x: _MaybeOnDevice,
    ptr: ArrayLike,
    /,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def segment_logsumexp(
    x: ArrayLike,
    ptr: ArrayLike,
    /,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
@overload
def segment_softmax_vjp(
    y: _Floats[_Shape, _Float],
    g: _Floats[_Shape, _Float],
    ptr: ArrayLike,
    /,
    *,
    out: NDArray[_Float] | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _Floats[_Shape, _Float]: ...
@overload
def segment_softmax_vjp(
    y: _MaybeOnDevice,
    g: _MaybeOnDevice,
    ptr: ArrayLike,
    /,
    *,
    out: Any = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any: ...
@overload
def segment_softmax_vjp(
    y: ArrayLike,
    g: ArrayLike,
    ptr: ArrayLike,
    /,
    *,
    out: _SomeFloats | None = None,
    backend: str | None = None,
    num_threads: SupportsIndex | None = None,
) -> _SomeFloats: ...
