"""How the public operations notice arrays on a CUDA device, and tensors, at 0.2 us for others."""

from functools import wraps
from importlib import import_module

from fastsoftmax import _torch, registry
from fastsoftmax._cuda.interop import on_device

_NOT_ON_DEVICES = (*registry.SEGMENTS, "softmax_solve")


def also_on_device(function):
    """A public operation that leaves device arrays to the one of its name in `operations`; and tensors."""
    name = function.__name__
    needed = name if name in _NOT_ON_DEVICES else "softmax"

    @wraps(function)
    def op(*args, **kwargs):
        if args and on_device(args[0]):
            registry.find(needed, "cuda")  # or the reason why no kernel can run
            return getattr(import_module("fastsoftmax._cuda.operations"), name)(*args, **kwargs)
        if args and _torch.is_tensor(args[0]):
            return _torch.call(function, args, kwargs)
        return function(*args, **kwargs)

    return op
