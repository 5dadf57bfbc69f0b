"""Softmax and its derivatives for NumPy arrays: fast, accurate, on interchangeable backends."""

from contextlib import suppress

from fastsoftmax._threads import get_num_threads, set_num_threads, threads
from fastsoftmax.accumulator import LogSumExp
from fastsoftmax.api import (
    cross_entropy,
    cross_entropy_with_grad,
    log_softmax,
    log_softmax_jacobian,
    log_softmax_jvp,
    log_softmax_vjp,
    logsumexp,
    segment_log_softmax,
    segment_logsumexp,
    segment_softmax,
    segment_softmax_vjp,
    softmax,
    softmax_jacobian,
    softmax_jvp,
    softmax_solve,
    softmax_vjp,
)
from fastsoftmax.registry import (
    BackendUnavailable,
    available_backends,
    backend_status,
    explain,
    register_backend,
    set_backend,
    use_backend,
)

__version__ = "0.1.0"

with suppress(ImportError, ValueError):  # no threadpoolctl of 3.5 or newer, or no compiled kernels
    from fastsoftmax import _threadpoolctl  # noqa: F401
del suppress

__all__ = [
    "BackendUnavailable",
    "LogSumExp",
    "available_backends",
    "backend_status",
    "cross_entropy",
    "cross_entropy_with_grad",
    "explain",
    "get_num_threads",
    "log_softmax",
    "log_softmax_jacobian",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "register_backend",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax",
    "segment_softmax_vjp",
    "set_backend",
    "set_num_threads",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_solve",
    "softmax_vjp",
    "threads",
    "use_backend",
]
