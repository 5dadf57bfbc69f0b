"""What type checkers must make of calls of the public API: `make lint` checks this file, nothing runs it.

A line with ``type: ignore[...]`` must be rejected, for the reason in brackets: mypy complains of one that
it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import fastsoftmax as fs
from fastsoftmax import autograd, registry, scipy
from fastsoftmax.backends import python

if TYPE_CHECKING:
    import numpy.typing as npt
    from scipy.sparse import bsr_array
    from scipy.sparse.linalg import LinearOperator
    from typing_extensions import assert_type

    F16 = npt.NDArray[np.float16]
    F32 = npt.NDArray[np.float32]
    F64 = npt.NDArray[np.float64]
    Floats = npt.NDArray[np.floating[Any]]
    Ints = npt.NDArray[np.int64]
    Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Tensor:
    """As torch and CuPy type theirs: on a GPU perhaps, and an array for NumPy perhaps."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise NotImplementedError

    def __array__(self) -> Floats:
        raise NotImplementedError


def forward(x16: F16, x32: F32, x64: F64, matrix: Matrix, integers: Ints, unknown: npt.NDArray[Any]) -> None:
    assert_type(fs.softmax(x64), F64)
    assert_type(fs.softmax(x32, (0, np.int64(1)), backend="numpy", num_threads=2), F32)
    assert_type(fs.softmax(x16, axis=None, out=x16), F16)
    assert_type(fs.softmax(matrix, where=[True, False]), Matrix)
    assert_type(fs.log_softmax(matrix), Matrix)
    assert_type(fs.log_softmax([[1, 2], [3, 4]]), Floats)
    assert_type(fs.softmax(integers), Floats)
    fs.softmax(unknown).sum()

    fs.softmax()  # type: ignore[call-overload]
    fs.softmax(x=x64)  # type: ignore[call-overload]
    fs.softmax(x64, axis=1.0)  # type: ignore[call-overload]
    fs.softmax(x64, axis=[0, 1])  # type: ignore[call-overload]
    fs.softmax(x64, -1, x64)  # type: ignore[call-overload]
    fs.softmax(x64, out=[0.0])  # type: ignore[call-overload]
    fs.softmax(x64, out=integers)  # type: ignore[type-var]
    fs.softmax(x64, num_threads="2")  # type: ignore[call-overload]
    fs.log_softmax(x64, keepdims=True)  # type: ignore[call-overload]


def reductions(x32: F32, x64: F64, keepdims: bool) -> None:
    assert_type(fs.logsumexp(x32, axis=None), np.float32)
    assert_type(fs.logsumexp(x32, axis=(0, 1), keepdims=True), F32)
    assert_type(fs.logsumexp(x32, axis=None, keepdims=True), F32)
    assert_type(fs.logsumexp(x64, out=x64), F64)
    assert_type(fs.logsumexp([[1.0]], axis=None), np.floating[Any])
    assert_type(fs.logsumexp([[1.0]], keepdims=True), Floats)
    # One row or several: not in the types, as with NumPy's own reductions.
    assert_type(fs.logsumexp(x64), Any)
    assert_type(fs.logsumexp(x64, keepdims=keepdims), Any)

    fs.logsumexp(x64, keepdims="yes")  # type: ignore[call-overload]


def products(y32: F32, g32: F32, y64: F64, matrix: Matrix) -> None:
    assert_type(fs.softmax_vjp(y32, g32), F32)
    assert_type(fs.softmax_jvp(y64, y64, 0, out=y64), F64)
    assert_type(fs.log_softmax_vjp(matrix, matrix), Matrix)
    assert_type(fs.log_softmax_jvp(y64, [1.0, 0.0]), Floats)
    fs.softmax_vjp(y32, y64).astype(np.float64)

    assert_type(fs.softmax_solve(y32, g32, ridge=1), F32)
    assert_type(fs.softmax_solve([0.5, 0.5], y64), Floats)

    fs.softmax_solve(y64, y64, 0.1)  # type: ignore[call-overload]
    fs.softmax_vjp(y64)  # type: ignore[call-overload]
    fs.softmax_vjp(y64, g=y64)  # type: ignore[call-overload]
    fs.softmax_jvp(y64, y64, where=True)  # type: ignore[call-overload]


def jacobians(y32: F32, y64: F64, layout: Literal["batched", "sparse"]) -> None:
    assert_type(fs.softmax_jacobian(y32), F32)
    assert_type(fs.softmax_jacobian(y64, layout="dense", out=y64), F64)
    assert_type(fs.softmax_jacobian(y32, layout="diagonal", out=y32), F32)
    assert_type(fs.softmax_jacobian(y32, layout="sparse"), bsr_array[np.float32])
    assert_type(fs.log_softmax_jacobian(y32, layout="diagonal"), F32)
    assert_type(fs.log_softmax_jacobian(y64, 0, layout="operator"), LinearOperator[np.float64])
    operator: LinearOperator[np.float64] = fs.softmax_jacobian(y64, 0, layout="operator")
    assert_type(fs.softmax_jacobian(y64, layout="operator").solve(operator @ y64, ridge=1), Floats)
    assert_type(fs.softmax_jacobian(y64, layout=layout), F64 | bsr_array[np.float64])
    assert_type(fs.softmax_jacobian([0.5, 0.5], layout="sparse"), bsr_array[np.floating[Any]])

    fs.softmax_jacobian(y64, layout="blocks")  # type: ignore[call-overload]
    fs.softmax_jacobian(y64, layout="sparse", out=y64)  # type: ignore[call-overload]


def segments(x32: F32, x64: F64, ptr: Ints) -> None:
    assert_type(fs.segment_softmax(x32, ptr), F32)
    assert_type(fs.segment_softmax(x64, [0, 2], out=x64), F64)
    assert_type(fs.segment_log_softmax([1.0, 2.0], ptr), Floats)
    assert_type(fs.segment_logsumexp(x32, ptr), F32)
    assert_type(fs.segment_softmax_vjp(x64, x64, ptr, num_threads=1), F64)

    fs.segment_softmax(x64)  # type: ignore[call-overload]
    fs.segment_softmax(x64, ptr, axis=0)  # type: ignore[call-overload]


def losses(x32: F32, x64: F64, matrix: Matrix, labels: Ints, reduction: Literal["mean", "none"]) -> None:
    assert_type(fs.cross_entropy(x32, labels), np.float32)
    assert_type(fs.cross_entropy(x64, x64, sample_weight=[1.0, 0.5]), np.float64)
    assert_type(fs.logsumexp(x64, None, b=[1.0, 0.5]), np.float64)
    assert_type(fs.cross_entropy(x32, [0, 1], reduction="sum", ignore_index=-1), np.float32)
    assert_type(fs.cross_entropy(x32, labels, reduction="none", weight=x32, label_smoothing=0), F32)
    assert_type(fs.cross_entropy(x32, labels, reduction=reduction), np.float32 | F32)
    assert_type(fs.cross_entropy(x32, labels, weight=[1.0, 2.0], ignore_index=np.int64(2)), np.float32)
    assert_type(fs.cross_entropy([[0.0, 1.0]], [0]), np.floating[Any])
    assert_type(fs.cross_entropy_with_grad(matrix, labels, out=matrix), tuple[np.float32, Matrix])
    assert_type(fs.cross_entropy_with_grad(matrix, labels, weight=x64, out=matrix), tuple[np.float32, Matrix])
    assert_type(fs.cross_entropy_with_grad(matrix, labels, reduction="none"), tuple[F32, Matrix])
    assert_type(fs.cross_entropy_with_grad([[0.0]], [0], reduction="none"), tuple[Floats, Floats])

    fs.cross_entropy(x32)  # type: ignore[call-overload]
    fs.cross_entropy(x32, labels, reduction="max")  # type: ignore[call-overload]
    fs.cross_entropy(x32, labels, out=x32)  # type: ignore[call-overload]
    fs.cross_entropy(x32, labels, ignore_index="pad")  # type: ignore[call-overload]
    fs.cross_entropy(x32, labels, ignore_index=[0, 2])  # type: ignore[call-overload]


def primitives(x64: F64, matrix: Matrix, labels: Ints) -> None:
    assert_type(autograd.softmax(matrix, 0), Matrix)
    assert_type(autograd.log_softmax([0.0, 1.0]), Floats)
    assert_type(autograd.logsumexp(x64, None), np.float64)
    assert_type(autograd.logsumexp(x64, keepdims=True), F64)
    assert_type(autograd.logsumexp(x64), Any)
    assert_type(autograd.logsumexp(x64, None, b=[1.0, 0.5]), np.float64)
    assert_type(autograd.softmax_jvp(matrix, matrix), Matrix)
    assert_type(autograd.softmax_solve(matrix, matrix, ridge=0.1), Matrix)
    assert_type(autograd.log_softmax_vjp(x64, [1.0, 0.0]), Floats)
    assert_type(autograd.cross_entropy(x64, labels, weight=[1.0, 2.0]), np.float64)
    assert_type(autograd.cross_entropy(x64, [0, 1], 0, reduction="none"), F64)

    autograd.softmax(x=x64)  # type: ignore[call-overload]
    autograd.softmax(x64, out=x64)  # type: ignore[call-overload]
    autograd.cross_entropy(x64, labels, num_threads=2)  # type: ignore[call-overload]


def as_scipy_has_them(x64: F64, matrix: Matrix) -> None:
    assert_type(scipy.softmax(matrix, axis=1), Matrix)
    assert_type(scipy.logsumexp(x64), np.float64)
    assert_type(scipy.log_softmax([1, 2]), Any)
    assert_type(scipy.logsumexp(x64, axis=1, keepdims=True), F64)
    assert_type(scipy.logsumexp(x64, b=[1, -1]), Any)
    assert_type(scipy.logsumexp(x64, return_sign=True), tuple[np.float64, np.float64])
    assert_type(scipy.logsumexp(x64, 1, [1, -1], return_sign=True), tuple[Any, Any])

    scipy.softmax(x64, -1, None)  # type: ignore[call-overload]


def on_a_gpu_or_not(x: Tensor) -> None:
    assert_type(fs.softmax(x, out=x), Any)
    assert_type(fs.logsumexp(x, keepdims=True), Any)
    assert_type(fs.softmax_vjp(x, x), Any)
    assert_type(fs.softmax_jacobian(x), Any)
    assert_type(fs.cross_entropy(x, x, reduction="none"), Any)
    assert_type(fs.cross_entropy_with_grad(x, x), tuple[Any, Any])


def backends(x: F64) -> None:
    assert_type(fs.available_backends(), tuple[str, ...])
    assert_type(fs.backend_status(), dict[str, str])
    assert_type(fs.explain("softmax", x.shape, np.float32, None, 1), registry.Choice)
    assert_type(fs.explain("softmax", [3, 4], "float32", axis=(0, 1)).num_threads, int)
    fs.register_backend("mine", {"softmax": python.softmax}, priority=-1)
    fs.register_backend("mine", python)
    fs.set_backend(None)
    with fs.use_backend("numpy") as nothing:
        assert_type(nothing, None)
    try:
        fs.softmax(x, backend="numba")
    except fs.BackendUnavailable as error:
        assert_type(str(error), str)

    fs.use_backend(None)  # type: ignore[arg-type]
    fs.register_backend("mine", "numpy")  # type: ignore[arg-type]
    fs.explain("softmax")  # type: ignore[call-arg]


def threads() -> None:
    fs.set_num_threads(np.int64(2))
    fs.set_num_threads(None)
    assert_type(fs.get_num_threads(), int)


def accumulators(x: F32) -> None:
    accumulator = fs.LogSumExp((0, 1)).update(x).update([[1]]).merge(fs.LogSumExp(axis=None))
    assert_type(accumulator, fs.LogSumExp)
    assert_type(accumulator.value, F64)
    accumulator.merge(x)  # type: ignore[arg-type]
    with fs.threads(2):
        pass

    fs.set_num_threads(2.0)  # type: ignore[arg-type]
    fs.threads(None)  # type: ignore[arg-type]
