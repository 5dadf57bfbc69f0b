"""Arrays that are on a GPU already: torch tensors, CuPy arrays, and what can be viewed as one of them.

A *kind* is what the operations need of a library of arrays. The library is there already, since it made
the array; nothing here is imported before such an array is seen.
"""

import sys
from functools import cache

import numpy as np

_ON_HOST = frozenset((np.ndarray, list, tuple, float, int))
_CUDA_DEVICES = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


def on_device(a):
    """Whether ``a`` lies on a CUDA device. Cheap, and imports nothing."""
    if type(a) in _ON_HOST:
        return False
    if getattr(a, "is_cuda", False) is True:  # torch, in a tenth of the time of the rest
        return True
    device = getattr(a, "__dlpack_device__", None)
    if device is not None:
        return device()[0] in _CUDA_DEVICES
    return hasattr(a, "__cuda_array_interface__")


def kind_of(a):
    """The kind that computes with ``a``."""
    module = type(a).__module__.partition(".")[0]
    if module in _KINDS:
        return _kind(module)
    return _Viewed(type(a))


class _Torch:
    """torch.Tensor. Results carry no autograd graph."""

    def __init__(self):
        self._torch = torch = sys.modules["torch"]
        self._names = {d: str(d)[6:] for d in vars(torch).values() if isinstance(d, torch.dtype)}

    def own(self, a):
        """``a`` as an array of this library."""
        return a.detach()

    def back(self, a, like):
        """A result as the caller's kind of array."""
        return a

    def dtype(self, a):
        return self._names[a.dtype]

    def address(self, a):
        return a.data_ptr()

    def contiguous(self, a):
        return a.is_contiguous()

    def nbytes(self, a):
        return a.numel() * a.element_size()

    def device(self, a):
        return self._torch.cuda.device(a.device)

    def stream(self, a):
        return self._torch.cuda.current_stream(a.device).cuda_stream

    def empty(self, a, shape, dtype):
        return self._torch.empty(shape, dtype=getattr(self._torch, dtype), device=a.device)

    def full(self, a, shape, dtype, value):
        return self._torch.full(shape, value, dtype=getattr(self._torch, dtype), device=a.device)

    def cast(self, a, dtype):
        return a.to(getattr(self._torch, dtype))

    def transposed(self, a, order):
        return a.permute(order)

    def packed(self, a):
        return a.contiguous()

    def masked(self, a, where, fill):
        return self._torch.where(where, a, fill)

    def assign(self, out, a):
        out.copy_(a)


class _CuPy:
    """cupy.ndarray."""

    def __init__(self):
        self._cupy = sys.modules["cupy"]

    def own(self, a):
        return a

    def back(self, a, like):
        return a

    def dtype(self, a):
        return a.dtype.name

    def address(self, a):
        return a.data.ptr

    def contiguous(self, a):
        return a.flags.c_contiguous

    def nbytes(self, a):
        return a.nbytes

    def device(self, a):
        return a.device

    def stream(self, a):
        return self._cupy.cuda.get_current_stream().ptr

    def empty(self, a, shape, dtype):
        return self._cupy.empty(shape, _numpy_dtype(dtype))

    def full(self, a, shape, dtype, value):
        return self._cupy.full(shape, value, _numpy_dtype(dtype))

    def cast(self, a, dtype):
        return a.astype(_numpy_dtype(dtype), copy=False)

    def transposed(self, a, order):
        return a.transpose(order)

    def packed(self, a):
        return self._cupy.ascontiguousarray(a)

    def masked(self, a, where, fill):
        return self._cupy.where(where, a, a.dtype.type(fill))

    def assign(self, out, a):
        out[...] = a


_KINDS = {"torch": _Torch, "cupy": _CuPy}


@cache
def _kind(module):
    return _KINDS[module]()


class _Viewed:
    """Any other array, through CuPy or torch, whichever is there; results as that library's arrays.

    Where the array's own library has ``from_dlpack``, as JAX's has, results are handed back as its own.
    """

    def __init__(self, cls):
        name = next((m for m in ("cupy", "torch") if _importable(m)), None)
        if name is None:
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} on a CUDA device needs CuPy or torch to be viewed "
                "through: pip install cupy-cuda13x"
            )
        self._library, self._kind = sys.modules[name], _kind(name)

    def __getattr__(self, name):
        return getattr(self._kind, name)

    def own(self, a):
        if hasattr(a, "__dlpack__"):
            return self._library.from_dlpack(a)
        where = {"device": "cuda"} if self._library.__name__ == "torch" else {}
        return self._library.asarray(a, **where)

    def back(self, a, like):
        namespace = getattr(like, "__array_namespace__", None)
        return namespace().from_dlpack(a) if namespace is not None else a


def _importable(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def _numpy_dtype(name):
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
