"""PyTorch's tensors on the CPU: where the first argument is one, so are the results, without a copy.

One that requires grad stays what it is: the ops refuse it, and say what to do.
"""

import sys

import numpy as np


def is_tensor(a):
    """Cheap, and imports nothing."""
    if type(a).__module__.partition(".")[0] != "torch":
        return False
    return isinstance(a, getattr(sys.modules.get("torch"), "Tensor", ()))


def call(function, args, kwargs):
    """An op of arrays, called with tensors."""
    out = kwargs.get("out")
    result = function(*map(_as_array, args), **{name: _as_array(value) for name, value in kwargs.items()})
    if isinstance(result, tuple):  # a loss, and its gradient, which went to `out`
        loss, dx = result
        return _as_tensor(loss), _as_tensor(dx) if out is None else out
    return _as_tensor(result) if out is None else out


def _as_array(a):
    if not is_tensor(a) or a.requires_grad:
        return a
    torch = sys.modules["torch"]
    if a.dtype != torch.bfloat16:
        return a.numpy()
    import ml_dtypes  # which has NumPy's bfloat16

    return a.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _as_tensor(result):
    torch = sys.modules["torch"]
    if not isinstance(result, (np.ndarray, np.generic)):  # a sparse or an implicit matrix
        return result
    array = np.asarray(result)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
