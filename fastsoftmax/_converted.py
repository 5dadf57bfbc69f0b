"""Kernels on what they do not read themselves, a block at a time: float16, bfloat16 and masks.

Blocks of it are made floats that kernels take, and what they make is rounded once at the end.
"""

import numpy as np

from fastsoftmax._arrays import is_half
from fastsoftmax._front import blend, narrow, widen
from fastsoftmax.registry import JACOBIANS

# Blocks along an inner axis have so many columns or more: fewer without gaps may be added in another order.
LEAST_COLUMNS = 32
# Elements a block: its floats stay within an L2 cache of 1 MB, and no line along an inner axis is short.
BLOCK_ELEMENTS = 128 * 1024

_OUTPUTS = {"cross_entropy_with_grad": 2, "soft_cross_entropy_with_grad": 2}


class Converted:
    """A kernel around one of native arrays.

    With ``fill`` the last input is a mask: where it does not hold, entries take no part, and results of their
    shape are ``fill``.
    """

    block_elements, least_columns = BLOCK_ELEMENTS, LEAST_COLUMNS

    def __init__(self, op, kernel, fill=None):
        self._kernel, self._fill = kernel, fill
        self._outputs = _OUTPUTS.get(op, 1)
        # A Jacobian reads what it has written for; that of one entry has the shape of its input all the same.
        self._over_inputs = op not in JACOBIANS

    def __call__(self, *args):
        inputs, outputs = args[: -self._outputs], args[-self._outputs :]
        mask = None
        if self._fill is not None:
            *inputs, mask = inputs
        native = [_widened(a) for a in inputs]
        if mask is not None:
            native[0] = _masked(native[0], mask, native[0] is not inputs[0])
        results = [self._native_result(a, native[0]) for a in outputs]
        self._kernel(*native, *results)
        for out, result in zip(outputs, results, strict=True):
            if mask is not None and result.shape == mask.shape:
                blend(result, mask, self._fill, result)
            if is_half(out.dtype):
                narrow(result, out)
            elif out is not result:
                np.copyto(out, result)

    def _native_result(self, a, first):
        """Where the kernel writes: over what it reads, or into the result if that is contiguous as well."""
        if not is_half(a.dtype) and a.flags.c_contiguous:
            return a
        return first if self._over_inputs and a.shape == first.shape else np.empty(a.shape, first.dtype)


def _widened(a):
    if not isinstance(a, np.ndarray):
        return a
    if not is_half(a.dtype):
        return np.ascontiguousarray(a)  # a block along inner may have gaps
    wide = np.empty(a.shape, np.float32)
    widen(a, wide)
    return wide


def _masked(x, mask, in_place):
    masked = x if in_place else np.empty(x.shape, x.dtype)
    blend(x, mask, -np.inf, masked)
    return masked
