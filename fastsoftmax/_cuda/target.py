"""What kernels are written in, for numba-cuda.

A target has the namespace ``cuda``, the decorator ``device``, the class ``number`` of the arithmetic,
and functions of numbers (``fma``, ``max``, ``scale``, ``ex2``) and of memory: ``load(p, i)`` and
``store(p, i, v)`` convert one stored entry, ``fetch(p, i, held, slot)`` and ``put(p, i, held, slot)`` move a
vector between memory and a thread's slots.
"""

from types import SimpleNamespace

import numpy as np

from fastsoftmax._cuda import intrinsics
from fastsoftmax._cuda.compat import cuda, device, libdevice, types

_STORED = {
    "float64": types.float64,
    "float32": types.float32,
    "float16": types.uint16,
    "bfloat16": types.uint16,
}


def make_target(plan):
    """The target of a plan."""
    double = plan.arithmetic == "float64"
    pitch = plan.threads if plan.shared else 1
    access = (plan.storage, plan.width, plan.vector, pitch)
    return SimpleNamespace(
        cuda=cuda,
        device=device,
        number=np.float64 if double else np.float32,
        fma=libdevice.fma if double else libdevice.fmaf,
        max=libdevice.fmax if double else libdevice.fmaxf,
        scale=intrinsics.scale,
        ex2=intrinsics.ex2,
        load=intrinsics.make_load(plan.storage),
        store=intrinsics.make_store(plan.storage),
        fetch=intrinsics.make_fetch(*access),
        put=intrinsics.make_put(*access),
    )


def argument_types(plan, signature):
    """numba's types for a kernel's arguments."""
    pointer = types.CPointer
    letters = {
        "x": pointer(_STORED[plan.storage]),
        "f": pointer(types.float64 if plan.arithmetic == "float64" else types.float32),
        "d": pointer(types.float64),
        "l": pointer(types.int64),
        "i": types.int64,
        "s": types.float64,
    }
    return tuple(letters[letter] for letter in signature)
