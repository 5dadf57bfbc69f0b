"""float16 and bfloat16: float32 kernels on widened blocks, rounded once at the end."""

import numpy as np

from fastsoftmax._arrays import is_half

# Elements a block: its float32 copies stay within an L2 cache.
BLOCK_ELEMENTS = 64 * 1024

_OUTPUTS = {"cross_entropy_with_grad": 2}


class Widened:
    """A kernel for half-precision arrays around one for float32."""

    block_elements = BLOCK_ELEMENTS

    def __init__(self, op, kernel):
        self._kernel = kernel
        self._outputs = _OUTPUTS.get(op, 1)

    def __call__(self, *args):
        inputs, outputs = args[: -self._outputs], args[-self._outputs :]
        wide = [np.empty(a.shape, np.float32) for a in outputs]
        self._kernel(*map(_widen, inputs), *wide)
        for narrow, result in zip(outputs, wide, strict=True):
            narrow[...] = result


def _widen(a):
    return a.astype(np.float32) if isinstance(a, np.ndarray) and is_half(a.dtype) else a
