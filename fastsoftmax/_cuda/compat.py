"""The one place that imports numba-cuda: another compiler of CUDA Python is a change of this file.

numba-cuda is in maintenance since June 2026; its successor, numba-cuda-mlir, has the same kernel language.
"""

import re

import numpy as np

if not hasattr(np, "row_stack"):  # gone in NumPy 2.5; numba-cuda 0.30 asks for it at its first compilation
    np.row_stack = np.vstack  # noqa: NPY201

from llvmlite import ir
from numba import cuda
from numba.cuda import libdevice, types
from numba.cuda.extending import intrinsic

__all__ = ["compile_ptx", "cuda", "device", "intrinsic", "ir", "libdevice", "types"]

# Inlined into the kernel: a function of its own would be compiled for the current device, which need not
# exist, and its arguments' arrays would leave the registers.
device = cuda.jit(device=True, inline="always")


def compile_ptx(kernel, signature, capability, launch_bounds):
    """PTX of a kernel for a compute capability, and the name of its entry.

    ``launch_bounds`` are the most threads of a block and the fewest blocks that an SM has to hold.
    """
    # Not fastmath: it breaks NaN and -inf and deletes the compensation of the shift.
    ptx, _ = cuda.compile_ptx(
        kernel, signature, cc=capability, fastmath=False, opt=True, launch_bounds=launch_bounds
    )
    return ptx, re.search(r"\.visible \.entry (\S+)\(", ptx).group(1)
