"""Arrays that are on a GPU already: torch tensors, CuPy arrays, and what can be viewed as one of them.

A *kind* is what the operations need of a library of arrays. The library is there already, since it made
the array; nothing here is imported before such an array is seen. Fresh arrays lie on the current device.
"""

import sys
from functools import cache, lru_cache

import numpy as np

from fastsoftmax._asarray import traced

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
    return _kind_of_class(type(a))


@lru_cache(maxsize=256)
def _kind_of_class(cls):
    packages = [base.__module__.partition(".")[0] for base in cls.__mro__]
    known = next((package for package in packages if package in _KINDS), None)
    return _Viewed(cls) if known is None else _kind(known)


class _Torch:
    """torch.Tensor. Results carry no autograd graph."""

    views = False
    target = "cuda"

    def __init__(self):
        self._torch = torch = sys.modules["torch"]
        self._names = {d: str(d)[6:] for d in vars(torch).values() if isinstance(d, torch.dtype)}

    def own(self, a, name):
        """``a`` as an array of this library."""
        if a.requires_grad and name != "out" and self._torch.is_grad_enabled():
            raise TypeError(traced(a, name))
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

    def place(self, a):
        """The number of the device that ``a`` lies on."""
        return a.get_device()

    def device(self, place):
        """A context in which that device is the current one."""
        return self._torch.cuda.device(place)

    def stream(self):
        return self._torch.cuda.current_stream().cuda_stream

    def empty(self, shape, dtype):
        return self._torch.empty(shape, dtype=getattr(self._torch, dtype), device=self.target)

    def full(self, shape, dtype, value):
        return self._torch.full(shape, value, dtype=getattr(self._torch, dtype), device=self.target)

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

    views = False

    def __init__(self):
        self._cupy = sys.modules["cupy"]

    def own(self, a, name):
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

    def place(self, a):
        return a.device.id

    def device(self, place):
        return self._cupy.cuda.Device(place)

    def stream(self):
        return self._cupy.cuda.get_current_stream().ptr

    def empty(self, shape, dtype):
        return self._cupy.empty(shape, _numpy_dtype(dtype))

    def full(self, shape, dtype, value):
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
    """Any other array, through CuPy or torch, whichever is there.

    Results are handed back as arrays of their own library where it has ``from_dlpack``, as JAX's has, or is
    Numba; otherwise as the viewing library's. A view is all that keeps its array's memory, so calls hold on
    to ``views`` until the GPU is done with them.
    """

    views = True

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

    def own(self, a, name):
        if hasattr(a, "__dlpack__"):
            return self._library.from_dlpack(a)
        where = {"device": "cuda"} if self._library.__name__ == "torch" else {}
        return self._library.asarray(a, **where)

    def back(self, a, like):
        if (namespace := getattr(like, "__array_namespace__", None)) is not None:
            return namespace().from_dlpack(a)
        if type(like).__module__.startswith("numba."):
            return sys.modules["numba.cuda"].as_cuda_array(a, sync=False)
        return a


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
