"""The layouts of the Jacobian that are made of its blocks or products: dense, sparse and operator."""

import math
import mmap
import os

import numpy as np

from fastsoftmax._arrays import check_out, is_half
from fastsoftmax._options import check_choice

LAYOUTS = ("batched", "dense", "sparse", "operator", "diagonal")


def check(layout, out):
    """Raise ``ValueError`` for an unknown layout, or ``out`` with one that takes none."""
    check_choice(layout, "layout", LAYOUTS)
    if out is not None and layout in ("sparse", "operator"):
        raise ValueError(
            f"out cannot be used with layout={layout!r}, only with 'batched', 'dense' and 'diagonal'"
        )


def dense(blocks, rows, y, out):
    """The full array ``(..., n, ..., n)``: the blocks on the diagonal, zeros elsewhere."""
    m, n, _ = rows.canonical
    shape = (*rows.kept, n, *rows.kept, n)
    if out is None:
        _check_fits(shape, y.dtype)
    else:
        check_out(out, shape, y.dtype)
    jacobians = blocks().reshape(m, n, n)  # before `out` is cleared, which may overlap y
    in_place = out is not None and out.flags.c_contiguous
    full = np.asarray(out) if in_place else _zeros(shape, y.dtype)  # without its subclass, as in `Result`
    if in_place:
        full[...] = 0
    np.einsum("pipj->pij", full.reshape(m, n, m, n))[...] = jacobians
    if out is None:
        return full
    if not in_place:
        np.asarray(out)[...] = full
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
    if not jacobians.size:
        return sparse.bsr_array((m * n, m * n), dtype=jacobians.dtype)  # SciPy divides by the size of a block
    blocks = jacobians.reshape(m, n, n)
    return sparse.bsr_array((blocks, np.arange(m), np.arange(m + 1)), shape=(m * n, m * n))


def operator(rows, y, *functions):
    """The Jacobian by functions of the output alone: JVP and VJP, and of softmax the solution."""
    _scipy("scipy.sparse.linalg", "operator")
    from fastsoftmax._operators import Jacobian, SoftmaxJacobian

    m, n, _ = rows.canonical
    kind = Jacobian if len(functions) == 2 else SoftmaxJacobian
    return kind(rows.view(y).reshape(m, n), *functions)


def _scipy(module, layout):
    try:
        return __import__(module, fromlist=["_"])
    except ImportError as error:
        raise ImportError(f"layout={layout!r} needs SciPy: pip install scipy ({error})") from error
