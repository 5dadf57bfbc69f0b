"""float16 and bfloat16: float32 kernels on widened blocks, rounded once at the end."""

import numpy as np

from fastsoftmax._arrays import is_half
from fastsoftmax._front import narrow, widen

# Elements a block: its float32 copy stays within an L2 cache of 1 MB; no line along an inner axis is short.
BLOCK_ELEMENTS = 128 * 1024

_OUTPUTS = {"cross_entropy_with_grad": 2}


class Widened:
    """A kernel for half-precision arrays around one for float32."""

    block_elements = BLOCK_ELEMENTS

    def __init__(self, op, kernel):
        self._kernel = kernel
        self._outputs = _OUTPUTS.get(op, 1)

    def __call__(self, *args):
        inputs, outputs = args[: -self._outputs], args[-self._outputs :]
        wide_inputs = [_widened(a) for a in inputs]
        wide = [_wide_output(a, wide_inputs[0]) for a in outputs]
        self._kernel(*wide_inputs, *wide)
        for half, single in zip(outputs, wide, strict=True):
            if half is not single:
                narrow(single, half)


def _wide_output(a, first):
    """Kernels may write into what they read."""
    if not is_half(a.dtype):
        return a
    return first if a.shape == first.shape else np.empty(a.shape, np.float32)


def _widened(a):
    if not isinstance(a, np.ndarray) or not is_half(a.dtype):
        return a
    wide = np.empty(a.shape, np.float32)
    widen(a, wide)
    return wide
