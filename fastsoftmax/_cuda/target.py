"""What kernels are written in, for numba-cuda.

A target has the namespace ``cuda``, the decorator ``device``, the class ``number`` of the arithmetic,
and functions of numbers (``fma``, ``max``, ``scale``, ``ex2``) and of memory: ``load(p, i)`` and
``store(p, i, v)`` convert one stored entry, ``fetch(p, i, numbers, k)`` and ``put(p, i, numbers, k)`` a
vector of them. In shared memory a ``word`` is an entry as it is stored, as ``stored(v)`` makes it of a
number: ``copy(p, i, words, k)`` brings a vector into a thread's own words as it is, ``blank(word, words, k)``
fills it, ``move(words, k, shared, i)`` takes it there; ``pull(shared, i, numbers, k)`` and ``push(shared, i,
numbers, k)`` convert it.
``hidden(k)`` is k, which the compiler does not see; a loop with it in is not unrolled.
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
_BITS = {
    "float16": lambda v: np.float16(v).view(np.uint16),
    "bfloat16": lambda v: np.uint16(np.float32(v).view(np.uint32) >> 16),
}


def make_target(plan):
    """The target of a plan."""
    double = plan.arithmetic == "float64"
    number = np.float64 if double else np.float32
    in_memory, in_block = ((plan.storage, plan.width, vector) for vector in (plan.vector, plan.width > 1))
    return SimpleNamespace(
        cuda=cuda,
        device=device,
        number=number,
        word=np.uint16 if plan.itemsize == 2 else number,
        fma=libdevice.fma if double else libdevice.fmaf,
        max=libdevice.fmax if double else libdevice.fmaxf,
        scale=intrinsics.scale,
        ex2=intrinsics.ex2,
        load=intrinsics.make_load(plan.storage),
        store=intrinsics.make_store(plan.storage),
        fetch=intrinsics.make_fetch(*in_memory),
        put=intrinsics.make_put(*in_memory),
        copy=intrinsics.make_copy(*in_memory),
        blank=intrinsics.make_blank(plan.storage, plan.width),
        move=intrinsics.make_move(plan.storage, plan.width),
        pull=intrinsics.make_fetch(*in_block),
        push=intrinsics.make_put(*in_block),
        stored=_BITS.get(plan.storage, number),
        hidden=intrinsics.hidden,
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
