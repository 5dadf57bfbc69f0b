"""CUDA kernels (`@cuda.jit`), here for NumPy arrays, which are copied to the GPU and back.

Only asked for by name: the copies cost more than the work saves. Arrays that are on a GPU already go to
the same kernels through `fastsoftmax._cuda.operations`, without a copy. The kernels are in
`fastsoftmax/_cuda/kernels`; importing this file raises where none can run.
"""

import math
from functools import partial

import numpy as np

from fastsoftmax._cuda.availability import reason_unavailable

if (reason := reason_unavailable()) is not None:
    raise ImportError(reason)

from fastsoftmax._cuda.driver import get_driver
from fastsoftmax._cuda.launcher import run_on_host
from fastsoftmax._cuda.recipes import cross_entropy_recipe, jacobian_recipe, plan_of, rows_recipe

# A block of rows is what the device's memory holds at once: 2 GB of float64.
BLOCK_ELEMENTS = 1 << 28


def _kernel(function):
    """What the public layer asks of a kernel: one call from one thread, and the regime's name."""
    function.elements_per_thread = math.inf
    function.block_elements = BLOCK_ELEMENTS
    function.regime = partial(_regime, function.__name__)
    return function


def _regime(op, dtype, canonical):
    return plan_of(op, dtype.name, canonical, shared_memory=get_driver().shared_memory()).regime


@_kernel
def softmax(x, out):
    _rows("softmax", out, x=x)


@_kernel
def log_softmax(x, out):
    _rows("log_softmax", out, x=x)


@_kernel
def logsumexp(x, out):
    _rows("logsumexp", out, x=x)


@_kernel
def softmax_vjp(y, g, out):
    _rows("softmax_vjp", out, y=y, g=g)


@_kernel
def log_softmax_vjp(logy, g, out):
    _rows("log_softmax_vjp", out, logy=logy, g=g)


@_kernel
def log_softmax_jvp(logy, t, out):
    _rows("log_softmax_jvp", out, logy=logy, t=t)


@_kernel
def softmax_jacobian(y, out):
    _matrices("softmax_jacobian", out, y=y)


@_kernel
def cross_entropy(x, labels, weight, sample_weight, smoothing, loss):
    _cross_entropy(x, labels, weight, smoothing, 1.0, loss=loss)
    _weigh(sample_weight, loss)


@_kernel
def cross_entropy_with_grad(x, labels, weight, sample_weight, smoothing, scale, loss, out):
    _cross_entropy(x, labels, weight, smoothing, scale, loss=loss, out=out)
    _weigh(sample_weight, loss)
    _weigh(sample_weight, out.swapaxes(0, 1))


@_kernel
def softmax_jacobian_diagonal(y, out):
    # J_ii = y_i * (1 - y_i); of an entry above 1/2 the product with its indicator, which sums up the others.
    dominant = y > 0.5
    product = np.empty_like(y)
    softmax_vjp(y, dominant.astype(y.dtype), product)
    np.copyto(out, np.where(dominant, product, y * (1 - y)))


@_kernel
def log_softmax_jacobian(logy, out):
    _matrices("log_softmax_jacobian", out, logy=logy)


@_kernel
def log_softmax_jacobian_diagonal(logy, out):
    # J_ii = 1 - exp(logy_i), on the CPU: in less time than the copies to the GPU and back.
    np.subtract(0, np.expm1(logy, dtype=np.float64), out=out, casting="same_kind")


def _rows(op, out, **arrays):
    (first, *_) = arrays.values()
    recipe = partial(rows_recipe, op, first.dtype.name, first.shape)
    run_on_host(get_driver(), recipe, arrays, {"out": out})


def _matrices(op, out, **output):
    ((_, y),) = output.items()
    run_on_host(get_driver(), partial(jacobian_recipe, op, y.dtype.name, y.shape), output, {"out": out})


def _weigh(sample_weight, rows_last):
    """On the CPU, in less time than the copies take; rows of weight 0 take no part."""
    if sample_weight is not None:
        rows_last *= sample_weight
        np.copyto(rows_last, 0.0, where=sample_weight == 0)


def _cross_entropy(x, labels, weight, smoothing, scale, **outputs):
    arrays = {"x": x, "labels": labels} | ({} if weight is None else {"weight": weight})
    gradient = "out" in outputs
    recipe = partial(cross_entropy_recipe, x.dtype.name, x.shape, smoothing > 0, weight is not None, gradient)
    unused = {} if weight is not None else {"weight": 0}
    if not gradient:
        unused["out"] = 0
    numbers = {"smoothing": float(smoothing), "ignored": -1, "factor": float(scale), **unused}
    run_on_host(get_driver(), recipe, arrays, outputs, numbers)
