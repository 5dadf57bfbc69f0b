"""Which build of the compiled kernels this CPU runs: one a level of x86-64, one elsewhere."""

import os
import platform
import struct
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import numpy as np

ENVIRONMENT = "FASTSOFTMAX_MAX_CPU_ISA"

# What NumPy calls the features that a level adds to the one before it.
_X86_LEVELS = {
    "x86-64-v2": ("SSE42", "POPCNT"),
    "x86-64-v3": ("AVX2", "FMA3"),
    "x86-64-v4": ("AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL"),
}


def levels():
    """The levels this CPU runs, the best first, no higher than ``FASTSOFTMAX_MAX_CPU_ISA``."""
    highest = os.environ.get(ENVIRONMENT)
    if highest and highest not in _X86_LEVELS:
        raise ValueError(f"{ENVIRONMENT}={highest!r} is unknown; known: {', '.join(_X86_LEVELS)}")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["baseline"]
    names = list(_X86_LEVELS)
    if highest:
        names = names[: names.index(highest) + 1]
    return [name for name in reversed(names) if _supported(name)]


def _supported(level):
    features = np._core._multiarray_umath.__cpu_features__
    return all(features.get(feature, False) for feature in _X86_LEVELS[level])


@cache  # a level is taken once: by the next time calls of other threads may be running on it
def load():
    """The compiled kernels at the best level they have, and its name; ``ImportError`` where there is none."""
    wanted = levels()
    try:
        _check_whole("fastsoftmax._kernels")
        kernels = import_module("fastsoftmax._kernels")
    except (ImportError, OSError) as error:
        raise ImportError(
            "the compiled extension is missing (install a C++ compiler, GCC or Clang, and run "
            f"'pip install --force-reinstall --no-binary fastsoftmax fastsoftmax'): {error}"
        ) from error
    for level in wanted:
        if kernels.use_level(level.removeprefix("x86-64-")):
            return kernels, level
    raise ImportError(
        f"the compiled kernels are for none of this CPU's levels: {', '.join(wanted) or 'x86-64'}"
    )


def _check_whole(name):
    """A library that is cut short, by a full disk for example, would end the process when it is loaded.

    Of ELF files the table of sections stands last (e_shoff, e_shentsize and e_shnum of its 64-bit header).
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return
    with open(spec.origin, "rb") as file:
        header, size = file.read(64), os.fstat(file.fileno()).st_size
    if header.startswith(b"\x7fELF\x02\x01") and len(header) == 64:
        table, entry, entries = struct.unpack_from("<40xQ10xHH", header)
        if size < table + entry * entries:
            raise ImportError(f"{spec.origin} is cut short: {size} bytes of {table + entry * entries}")
