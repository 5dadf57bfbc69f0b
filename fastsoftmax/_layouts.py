"""The layouts of the Jacobian beyond one block a row: dense, sparse and operator."""

import math
import mmap
import os

import numpy as np

from fastsoftmax._arrays import check_out, is_half

LAYOUTS = ("batched", "dense", "sparse", "operator")


def check(layout, out):
    """Raise ``ValueError`` for an unknown layout, or ``out`` with one that takes none."""
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; expected one of {', '.join(map(repr, LAYOUTS))}")
    if out is not None and layout in ("sparse", "operator"):
        raise ValueError(f"out cannot be used with layout={layout!r}, only with 'batched' and 'dense'")


def dense(blocks, rows, y, out):
    """The full array ``(..., n, ..., n)``: the blocks on the diagonal, zeros elsewhere."""
    m, n, _ = rows.canonical
    shape = (*rows.kept, n, *rows.kept, n)
    if out is None:
        _check_fits(shape, y.dtype)
    else:
        check_out(out, shape, y.dtype)
    jacobians = blocks().reshape(m, n, n)  # before `out` is cleared, which may overlap y
    if out is not None and out.flags.c_contiguous:
        full = out
        full[...] = 0
    else:
        full = _zeros(shape, y.dtype)
    np.einsum("pipj->pij", full.reshape(m, n, m, n))[...] = jacobians
    if out is None or full is out:
        return full
    out[...] = full
    return out


def _check_fits(shape, dtype):
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > (memory := _physical_memory()):
        raise MemoryError(
            f"the dense Jacobian of shape {shape} takes {nbytes:,} bytes, and this machine has {memory:,}: "
            "use layout='batched' (one block a row), 'sparse' or 'operator', or softmax_vjp for products"
        )


def _zeros(shape, dtype):
    """Zeros whose pages cost nothing until they are written."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes == 0:
        return np.zeros(shape, dtype)
    # Not np.zeros: NumPy asks for huge pages, and then each block written clears 2 MB: 168 ms in place of
    # 10 ms for (1000, 5) -> (1000, 5, 1000, 5). Private pages: shared ones cost a third more.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return np.frombuffer(mmap.mmap(-1, nbytes, **private), dtype).reshape(shape)


def _physical_memory():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return 2**63 - 1


def sparse(jacobians, rows):
    """The blocks as a block-sparse matrix that shares their memory."""
    sparse = _scipy("scipy.sparse", "sparse")
    if is_half(jacobians.dtype):
        raise TypeError(f"layout='sparse' has no {jacobians.dtype} in SciPy: pass y as float32 or float64")
    m, n, _ = rows.canonical
    blocks = jacobians.reshape(m, n, n)
    return sparse.bsr_array((blocks, np.arange(m), np.arange(m + 1)), shape=(m * n, m * n))


def operator(vjp, rows, y):
    """The Jacobian as products alone: symmetric, so one function serves both sides."""
    linalg = _scipy("scipy.sparse.linalg", "operator")
    m, n, _ = rows.canonical
    y = rows.view(y).reshape(m, n)

    def product(v):
        return vjp(y, v.reshape(m, n)).ravel()

    return linalg.LinearOperator((m * n, m * n), matvec=product, rmatvec=product, dtype=y.dtype)


def _scipy(module, layout):
    try:
        return __import__(module, fromlist=["_"])
    except ImportError as error:
        raise ImportError(f"layout={layout!r} needs SciPy: pip install scipy ({error})") from error
