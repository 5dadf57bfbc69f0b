"""The short way to the compiled kernels: plain calls skip the Python layer (src_cy/front_door.pxi)."""

import math
from contextlib import nullcontext
from functools import update_wrapper

import numpy as np

from fastsoftmax._isa import load

try:
    _kernels, _ = load()
except (ImportError, ValueError):  # the registry says why when it is asked
    _kernels = None

# ``with floating_point_mode():`` this thread rounds to nearest and flushes nothing; without the compiled
# kernels it goes on as it does.
floating_point_mode = nullcontext if _kernels is None else _kernels.FloatingPointMode


def front_door(function):
    """A public op that tries the compiled kernel first; the op itself where there is none."""
    return function if _kernels is None else update_wrapper(_kernels.FrontDoor(function), function)


def widen(half, single):
    """Copy float16 or bfloat16, contiguous or canonical, into contiguous float32."""
    if _kernels is None:
        single[...] = half
    else:
        _kernels.widen(half, single)


def narrow(single, half):
    """And back, rounded to nearest."""
    if _kernels is None:
        half[...] = single
    else:
        _kernels.narrow(single, half)


def blend(x, mask, fill, out):
    """Put ``x`` where the canonical mask holds and ``fill`` elsewhere into ``out``, which may be ``x``."""
    if _kernels is None or not _kernels.blend(x, mask, fill, out):
        if out is not x:
            np.copyto(out, x)
        np.copyto(out, fill, where=~mask)


def exact_sum(losses):
    """In float64, as good as rounded once."""
    if _kernels is not None:
        return np.float64(_kernels.exact_sum(losses))
    if losses.dtype == np.float64 and np.isfinite(losses.sum()):
        return np.float64(math.fsum(losses.flat))
    return losses.sum(dtype=np.float64)


def fit(context, threads, kernel, run):
    """Say, once, what calls need that run on the compiled kernels, unless ``context`` holds another backend.

    ``threads(n)`` is how many threads a large one may use that asks for ``n``, or None. Of other backends
    ``kernel(op, backend)`` is the kernel, and ``run(kernel, canonical, args, num_threads)`` calls it.
    """
    if _kernels is not None:
        _kernels.fit_front_doors(context, threads, kernel, run)


def set_open(is_open):
    """Let calls that name no backend run on the compiled kernels, or no longer."""
    if _kernels is not None:
        _kernels.set_front_doors(is_open)
